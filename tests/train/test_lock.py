"""One run at a time in a folder; whoever dies leaves it free."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from ris_verified.errors import InputError, StorageError, TrainingError
from ris_verified.train.lock import NAME, occupied, require_free
from ris_verified.train.ranks import Ranks

HOLD = """
    import sys, time
    from pathlib import Path
    from ris_verified.train.lock import occupied
    from ris_verified.train.ranks import Ranks
    with occupied(Path(sys.argv[1]), Ranks()):
        sys.stdout.write("held\\n")
        sys.stdout.flush()
        time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    command = [sys.executable, "-c", textwrap.dedent(HOLD), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_run_is_one_error_until_the_first_is_killed(holder, tmp_path):
    for asked in (lambda: occupied(tmp_path, Ranks()).__enter__(), lambda: require_free(tmp_path)):
        with pytest.raises(InputError, match="another run is under way in this folder") as caught:
            asked()
        assert caught.value.where == str(tmp_path)
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert (tmp_path / NAME).exists()
    require_free(tmp_path)
    with occupied(tmp_path, Ranks()):
        pass


def test_nothing_is_left(tmp_path):
    out = tmp_path / "new"
    require_free(out)
    with contextlib.suppress(KeyError), occupied(out, Ranks()):
        assert [path.name for path in out.iterdir()] == [NAME]
        raise KeyError
    assert not list(out.iterdir())


def test_a_lock_that_its_holder_removes_while_it_is_opened_is_taken_anew(tmp_path, monkeypatch):
    import fcntl

    first, flock = [True], fcntl.flock

    def ended(file, how):
        if first.pop() if first else False:
            (tmp_path / NAME).unlink()
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", ended)
    with occupied(tmp_path, Ranks()):
        with pytest.raises(InputError, match="under way"):
            require_free(tmp_path)
        assert (tmp_path / NAME).exists()


def test_a_folder_without_locks_is_told_and_used(tmp_path, monkeypatch, caplog):
    def none(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", none)
    with caplog.at_level(logging.WARNING, "ris_verified"), occupied(tmp_path, Ranks()):
        pass
    assert "would not be noticed" in caplog.text
    assert not list(tmp_path.iterdir())


def test_a_file_in_the_way_is_told(tmp_path):
    (tmp_path / "out").write_text("")
    require_free(tmp_path / "out")
    with pytest.raises(InputError, match="is not a folder"), occupied(tmp_path / "out", Ranks()):
        raise TrainingError("a run began in a file")


def test_a_lock_of_someone_else_is_told(tmp_path, monkeypatch):
    (tmp_path / NAME).write_text("")

    def refuse(path, mode):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("pathlib.Path.open", refuse)
    for asked in (lambda: occupied(tmp_path, Ranks()).__enter__(), lambda: require_free(tmp_path)):
        with pytest.raises(StorageError, match="belongs to someone else"):
            asked()
