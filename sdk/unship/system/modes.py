"""Find out who else may change a file: through its mode, or by replacing it, a folder or a link on the way to it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

LINKS_MAX: Final = 40
"""Links on the way to a file, as many as Linux follows."""

OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


def changed_by_others(path: Path) -> str | None:
    """Return why others than its owner may change what is read from a file, and the fix; None if they cannot.

    Looked at are the mode of the file, and each folder that its name, and every link that leads to it, passes through.
    A folder with the sticky bit, such as those that secrets are mounted in, lets nobody replace what belongs to
    another. A group may write the folders further above if it is the private one of their owner, as many systems make
    them; the file and the folder that holds it belong to nobody else.

    Raises:
        OSError: It is not there, or cannot be looked at.
    """
    if os.name != "posix":
        return None
    for folder, name, is_last in _way(path):
        found = _of_folder(folder, name, is_last)
        if found is not None:
            return found
    return _of_mode(path, os.stat(path))


def changed_by_all(path: Path) -> str | None:
    """Return why everybody may change a folder or a file, and the fix; None if they cannot, or it is absent.

    For what several users may share through a group, unlike the keys.

    Raises:
        OSError: It cannot be looked at.
    """
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return _of_mode(path, found) if os.name == "posix" and found.st_mode & stat.S_IWOTH else None


def _way(path: Path) -> Iterator[tuple[Path, str, bool]]:
    """Yield each folder on the way to a file, the name that is looked up in it, and whether it is the last one."""
    at = Path("/")
    names = list(reversed((Path.cwd() / path).parts[1:]))
    links = 0
    while names:
        name = names.pop()
        if name == "..":
            at = at.parent
            continue
        yield at, name, not names
        if not stat.S_ISLNK(os.lstat(at / name).st_mode):
            at /= name
            continue
        links += 1
        if links > LINKS_MAX:
            raise OSError(f"{path}: more than {LINKS_MAX} links")
        target = Path(os.readlink(at / name))
        at = Path("/") if target.is_absolute() else at
        names += reversed(target.parts[1:] if target.is_absolute() else target.parts)


def _of_folder(folder: Path, name: str, is_last: bool) -> str | None:
    found = os.stat(folder)
    if not found.st_mode & OTHERS_WRITE:
        return None
    if found.st_mode & stat.S_ISVTX:
        owner = os.lstat(folder / name).st_uid
        if owner in (0, found.st_uid, os.geteuid()):
            return None
        return f"{folder / name}: another user, {owner}, made it in a folder that others may write; move it elsewhere"
    if not is_last and not found.st_mode & stat.S_IWOTH and _is_private(found):
        return None
    return _of_mode(folder, found)


def _of_mode(path: Path, found: os.stat_result) -> str | None:
    mode = stat.S_IMODE(found.st_mode)
    if not mode & OTHERS_WRITE:
        return None
    who = "everybody" if mode & stat.S_IWOTH else f"group {found.st_gid}"
    classes = ("g" if mode & stat.S_IWGRP else "") + ("o" if mode & stat.S_IWOTH else "")
    return (
        f"{path}: mode {mode:04o} lets {who} change it, expected {mode & ~OTHERS_WRITE:04o} or less; "
        f"run: chmod {classes}-w {path}"
    )


def _is_private(found: os.stat_result) -> bool:
    """Return whether the group of a folder is that of its owner alone; that of root never is, since others share it."""
    import grp
    import pwd

    try:
        owner, group = pwd.getpwuid(found.st_uid), grp.getgrgid(found.st_gid)
    except KeyError:
        return False
    named = owner.pw_gid == group.gr_gid and owner.pw_name == group.gr_name
    return found.st_uid != 0 and named and set(group.gr_mem) <= {owner.pw_name}
