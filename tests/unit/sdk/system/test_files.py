"""A file is replaced as a whole, with the permissions asked for, or keeps its old content."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from unship.system.files import create_file, replace_file, replacing_file


def test_content_and_permissions_are_replaced(tmp_path: Path):
    path = tmp_path / "state"
    path.write_bytes(b"old")
    replace_file(path, b"new", 0o600)
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["state"]


def test_permissions_are_exact_whatever_the_umask(tmp_path: Path):
    before = os.umask(0o077)
    try:
        replace_file(tmp_path / "version", b"v41", 0o644)
        replace_file(tmp_path / "recording", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "version").stat().st_mode) == 0o644
    assert stat.S_IMODE((tmp_path / "recording").stat().st_mode) == 0o600


def test_block_that_raises_leaves_the_old_content_alone(tmp_path: Path):
    path = tmp_path / "recording"
    path.write_bytes(b"old")

    def fail() -> None:
        with replacing_file(path) as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["recording"]


def test_leftover_of_a_killed_writer_is_replaced_and_its_link_not_followed(tmp_path: Path):
    other = tmp_path / "other"
    other.write_bytes(b"untouched")
    (tmp_path / "state.part").symlink_to(other)
    replace_file(tmp_path / "state", b"new")
    assert (other.read_bytes(), (tmp_path / "state").read_bytes()) == (b"untouched", b"new")


def test_file_that_exists_is_never_created_again(tmp_path: Path):
    create_file(tmp_path / "key", b"first", 0o600)
    with pytest.raises(FileExistsError):
        create_file(tmp_path / "key", b"second", 0o600)
    assert (tmp_path / "key").read_bytes() == b"first"
