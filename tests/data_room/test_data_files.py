"""Atomic writing: an older file survives every failure and no part is left."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading

import pytest

from ris_verified.errors import InputError, StorageError
from ris_verified.files import append, atomic_write, clear_folder, clear_stale, require_folder


def test_a_new_file_in_a_new_folder(tmp_path):
    atomic_write(tmp_path / "a" / "b" / "file", b"content")
    assert (tmp_path / "a" / "b" / "file").read_bytes() == b"content"
    assert os.listdir(tmp_path / "a" / "b") == ["file"]


def test_a_full_disk_keeps_the_older_file_and_names_needed_and_free(tmp_path, monkeypatch):
    path = tmp_path / "file"
    atomic_write(path, b"old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"file: cannot write 12,345 bytes: No space left.*bytes are free.*intact"):
        atomic_write(path, bytes(12_345))
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_an_interrupt_leaves_no_part(tmp_path, monkeypatch):
    def interrupted(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        atomic_write(tmp_path / "file", b"new")
    assert os.listdir(tmp_path) == []


def test_a_file_where_the_folder_should_be_is_one_error(tmp_path):
    (tmp_path / "taken").write_bytes(b"mine")
    with pytest.raises(StorageError, match="taken"):
        atomic_write(tmp_path / "taken" / "file", b"new")
    assert (tmp_path / "taken").read_bytes() == b"mine"


def test_only_parts_of_dead_writers_are_cleared(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    dead, alive, other = (
        tmp_path / name for name in (f".file.{ended.pid}.part", f".file.{os.getpid()}.part", f".else.{ended.pid}.part")
    )
    for part in (dead, alive, other):
        part.write_bytes(b"half")
    clear_stale(tmp_path / "file")
    assert not dead.exists()
    assert alive.exists()
    assert other.exists()
    clear_folder(tmp_path)
    assert not other.exists()
    assert alive.exists()


def test_what_cannot_be_added_is_one_error(tmp_path):
    append(tmp_path / "log", "a\n")
    append(tmp_path / "log", "b\n")
    assert (tmp_path / "log").read_text() == "a\nb\n"
    with pytest.raises(StorageError, match=r"log: cannot write 3 bytes: Not a directory.*make room"):
        append(tmp_path / "log" / "log", "ä\n")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the process table of Linux")
def test_a_dead_writer_that_nobody_has_waited_for_is_dead(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    # Waits for the end without taking the exit status, so that a zombie stays.
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    part = tmp_path / f".file.{ended.pid}.part"
    part.write_bytes(b"half")
    clear_stale(tmp_path / "file")
    assert not part.exists()
    assert ended.wait() == 0


@pytest.mark.skipif(os.name != "posix", reason="makes a named pipe")
def test_a_pipe_is_written_into_and_not_replaced(tmp_path):
    path, got = tmp_path / "pipe", []
    os.mkfifo(path)
    reader = threading.Thread(target=lambda: got.append(path.read_bytes()))
    reader.start()
    atomic_write(path, b"content")
    reader.join(10)
    assert got == [b"content"]
    assert path.is_fifo()


def test_a_link_is_followed_and_not_replaced(tmp_path):
    (tmp_path / "target").write_bytes(b"old")
    (tmp_path / "link").symlink_to("target")
    atomic_write(tmp_path / "link", b"new")
    assert (tmp_path / "target").read_bytes() == b"new"
    assert (tmp_path / "link").is_symlink()


def test_a_folder_in_place_of_the_file_is_wrong_input(tmp_path):
    with pytest.raises(InputError, match="is a folder"):
        atomic_write(tmp_path, b"content")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_takes_no_file_is_told_before_the_work(tmp_path, monkeypatch):
    def full(**options):
        raise OSError(errno.ENOSPC, "No space left on device")

    require_folder(tmp_path / "new" / "folder")
    assert list((tmp_path / "new" / "folder").iterdir()) == []
    monkeypatch.setattr("tempfile.TemporaryFile", full)
    with pytest.raises(StorageError, match="No space left"):
        require_folder(tmp_path)
