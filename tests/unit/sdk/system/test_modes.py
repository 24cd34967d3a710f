"""Files that others may change are not trusted, and files with events are closed to others."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from unship import ConfigurationError
from unship.keys import load_private_key, load_trust, new_keys
from unship.log.embedded.file import EmbeddedLogError
from unship.log.embedded.log import EmbeddedLog
from unship.log.link import Message
from unship.system.files import open_private
from unship.system.modes import changed_by_all, changed_by_others

pytestmark = pytest.mark.skipif(os.name != "posix", reason="modes of files are POSIX's")


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def trust(tmp_path: Path) -> Path:
    """Make keys in a folder below two others, and give the file of the trusted ones."""
    (tmp_path / "above" / "keys").mkdir(mode=0o700, parents=True)
    new_keys(tmp_path / "above" / "keys")
    for folder in (tmp_path / "above", tmp_path / "above" / "keys"):
        folder.chmod(0o755)
    return tmp_path / "above" / "keys" / "trust.json"


@pytest.mark.parametrize("mode", [0o664, 0o660, 0o646, 0o666])
def test_trust_that_others_may_write_is_refused(trust, mode):
    trust.chmod(mode)
    with pytest.raises(ConfigurationError, match=rf"{trust}: mode {mode:04o} .*run: chmod [go]+-w {trust}$"):
        load_trust(trust)


@pytest.mark.parametrize("mode", [0o770, 0o775, 0o777, 0o707])
def test_trust_in_a_folder_that_others_may_write_is_refused_and_so_is_a_private_key(trust, mode):
    trust.parent.chmod(mode)
    for load, name in ((load_trust, "trust.json"), (load_private_key, "controller.key")):
        with pytest.raises(ConfigurationError, match=rf"{trust.parent}: mode {mode:04o} "):
            load(trust.parent / name)


@pytest.mark.parametrize("mode", [0o777, 0o707])
def test_trust_below_a_folder_that_everybody_may_write_is_refused(trust, mode):
    trust.parents[1].chmod(mode)
    with pytest.raises(ConfigurationError, match=rf"{trust.parents[1]}: mode {mode:04o} "):
        load_trust(trust)


@pytest.mark.skipif(os.name == "posix" and os.geteuid() != 0, reason="the group of a user may be a private one")
def test_trust_below_a_folder_that_a_shared_group_may_write_is_refused(trust):
    trust.parents[1].chmod(0o775)
    with pytest.raises(ConfigurationError, match=rf"{trust.parents[1]}: mode 0775 lets group 0 "):
        load_trust(trust)


def test_link_is_refused_for_the_folder_it_lies_in_and_for_the_one_it_leads_to(trust, tmp_path):
    closed, opened = tmp_path / "closed", tmp_path / "opened"
    for folder, mode in ((closed, 0o755), (opened, 0o777)):
        folder.mkdir()
        folder.chmod(mode)
    (closed / "good.json").symlink_to(trust)
    assert load_trust(closed / "good.json") == load_trust(trust)
    (opened / "planted.json").symlink_to(trust)
    (opened / "copy.json").write_bytes(trust.read_bytes())
    (opened / "copy.json").chmod(0o644)
    (closed / "leads-out.json").symlink_to(opened / "copy.json")
    (closed / "relative.json").symlink_to("../opened/copy.json")
    (closed / "folder").symlink_to("../opened")
    (closed / "twice.json").symlink_to("leads-out.json")
    for path in (
        opened / "planted.json",
        closed / "leads-out.json",
        closed / "relative.json",
        closed / "folder" / "copy.json",
        closed / "twice.json",
        closed / ".." / "opened" / "copy.json",
    ):
        with pytest.raises(ConfigurationError, match=rf"{opened}: mode 0777 "):
            load_trust(path)


def test_secret_that_is_mounted_through_links_in_a_sticky_folder_is_used(trust, tmp_path):
    mounted = tmp_path / "mounted"
    (mounted / "..2026").mkdir(parents=True)
    mounted.chmod(0o1777)
    (mounted / "..2026").chmod(0o755)
    (mounted / "..2026" / "trust.json").write_bytes(trust.read_bytes())
    (mounted / "..2026" / "trust.json").chmod(0o644)
    (mounted / "..data").symlink_to("..2026")
    (mounted / "trust.json").symlink_to("..data/trust.json")
    assert load_trust(mounted / "trust.json") == load_trust(trust)


@pytest.mark.skipif(os.name == "posix" and os.geteuid() != 0, reason="only root can give a file away")
def test_file_of_another_user_in_a_sticky_folder_is_refused(trust, tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    (shared / "trust.json").write_bytes(trust.read_bytes())
    (shared / "trust.json").chmod(0o644)
    os.chown(shared / "trust.json", 12_345, 12_345)
    with pytest.raises(ConfigurationError, match="another user, 12345, made it"):
        load_trust(shared / "trust.json")


def test_links_in_a_circle_are_an_error_of_the_system(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="links"):
        changed_by_others(tmp_path / "a")


def test_files_of_a_log_are_closed_to_others_whatever_the_folder(tmp_path):
    folder = tmp_path / "log"
    folder.mkdir()
    folder.chmod(0o755)
    before = os.umask(0o000)
    try:
        with EmbeddedLog(folder) as log:
            log.append("predictions", [Message(b"{}", b"p-1")])
            found = {path.name: mode_of(path) for path in folder.iterdir()}
    finally:
        os.umask(before)
    assert len(found) == 3
    assert set(found.values()) == {0o600}


def test_log_that_exists_keeps_its_mode(tmp_path):
    EmbeddedLog(tmp_path / "log").close()
    path = tmp_path / "log" / "log.sqlite3"
    path.chmod(0o660)
    EmbeddedLog(tmp_path / "log").close()
    assert mode_of(path) == 0o660


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o707])
def test_log_in_a_folder_that_everybody_may_write_is_refused_with_the_fix(tmp_path, mode):
    folder = tmp_path / "log"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(EmbeddedLogError, match=rf"{folder}: mode {mode:04o} lets everybody .*chmod g?o-w {folder}"):
        EmbeddedLog(folder)
    folder.chmod(0o755)
    EmbeddedLog(folder).close()
    (folder / "log.sqlite3").chmod(0o666)
    with pytest.raises(EmbeddedLogError, match=r"log\.sqlite3: mode 0666"):
        EmbeddedLog(folder)


def test_what_is_absent_is_changed_by_nobody(tmp_path):
    assert changed_by_all(tmp_path / "absent") is None


def test_file_that_is_opened_to_be_written_is_closed_to_others_and_one_that_exists_keeps_its_mode(tmp_path):
    before = os.umask(0o000)
    try:
        for text in (b"first", b"second"):
            with open_private(tmp_path / "recording") as file:
                file.write(text)
            assert mode_of(tmp_path / "recording") == (0o600 if text == b"first" else 0o640)
            (tmp_path / "recording").chmod(0o640)
    finally:
        os.umask(before)
    assert (tmp_path / "recording").read_bytes() == b"second"
