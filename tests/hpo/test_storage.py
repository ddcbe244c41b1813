"""Storage: a torn journal, a stale lock's path, WAL, and files that are not ours."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import threading
import time
from pathlib import Path

import optuna
import pytest
from sqlalchemy.exc import OperationalError

from ris_verified.errors import InputError, StorageError
from ris_verified.hpo import server
from ris_verified.hpo.storage import (
    Journal,
    cut_torn_line,
    default_storage,
    existing_storage,
    file_of,
    open_storage,
)


def filled(where: str, values: list[float]) -> optuna.Study:
    study = optuna.create_study(storage=open_storage(where), study_name="s", load_if_exists=True)
    for value in values:
        study.tell(study.ask(), value)
    return study


def test_every_truncation_of_the_last_record_keeps_what_was_complete(tmp_path: Path) -> None:
    whole = tmp_path / "whole.log"
    filled(str(whole), [0.5, 0.4])
    content = whole.read_bytes()
    last = content[:-1].rfind(b"\n") + 1
    for size in range(last + 1, len(content), 9):
        torn = tmp_path / f"{size}.log"
        torn.write_bytes(content[:size])
        study = filled(str(torn), [0.3])
        done = [t.value for t in study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))]
        assert done == [0.5, 0.3]
        assert len(optuna.load_study(storage=open_storage(str(torn)), study_name="s").trials) == 3


def _lock_and_die(path: Path) -> None:
    Journal(path)._guard.acquire()
    os.kill(os.getpid(), signal.SIGKILL)


def test_the_lock_of_a_killed_writer_is_free_at_once(tmp_path: Path) -> None:
    path = tmp_path / "study.log"
    writer = multiprocessing.get_context("spawn").Process(target=_lock_and_die, args=(path,))
    writer.start()
    writer.join(60)
    assert writer.exitcode == -signal.SIGKILL
    began = time.monotonic()
    filled(str(path), [0.5])
    # Optuna's own lock would be taken over after thirty seconds.
    assert time.monotonic() - began < 15


def test_two_holders_of_a_journal_exclude_each_other(tmp_path: Path) -> None:
    first, second = Journal(tmp_path / "study.log"), Journal(tmp_path / "study.log")
    first._guard.acquire()
    waiting = threading.Thread(target=second._guard.acquire, daemon=True)
    waiting.start()
    waiting.join(0.2)
    assert waiting.is_alive()
    first._guard.release()
    waiting.join(10)
    assert not waiting.is_alive()


def test_damage_inside_a_journal_is_an_error_and_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "study.log"
    filled(str(path), [0.5])
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1][:5] + b"\n"
    path.write_bytes(b"".join(lines))
    before = path.read_bytes()
    with pytest.raises(StorageError, match=r"study\.log"):
        open_storage(str(path))
    assert path.read_bytes() == before


def test_sqlite_runs_in_wal_mode(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "study.db"
    study = filled(f"sqlite:///{path}", [0.5])
    assert study.best_value == 0.5
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


@pytest.mark.parametrize("where", ["sqlite:///{}", "{}"])
def test_a_foreign_file_is_an_error_and_changes_nothing(tmp_path: Path, where: str) -> None:
    path = tmp_path / "foreign"
    path.write_bytes(b"not a study\n" * 200)
    with pytest.raises(StorageError, match="foreign"):
        open_storage(where.format(path))
    assert path.read_bytes() == b"not a study\n" * 200


def test_an_unknown_kind_of_database_is_an_error() -> None:
    with pytest.raises(InputError, match="nosuch"):
        open_storage("nosuch://host/name")


@pytest.mark.parametrize(
    ("content", "lost", "left"), [(b"", 0, b""), (b"a\n", 0, b"a\n"), (b"a\nbc", 2, b"a\n"), (b"bc", 2, b"")]
)
def test_cutting_a_torn_line(tmp_path: Path, content: bytes, lost: int, left: bytes) -> None:
    path = tmp_path / "f"
    path.write_bytes(content)
    assert cut_torn_line(path) == lost
    assert path.read_bytes() == left


def test_a_study_that_is_not_there_is_told_and_nothing_is_made(tmp_path: Path) -> None:
    for given in (None, str(tmp_path / "slip" / "journal.log"), f"sqlite:///{tmp_path / 'slip' / 'study.db'}"):
        with pytest.raises(InputError, match="slip"):
            existing_storage(given, tmp_path / "slip")
    assert list(tmp_path.iterdir()) == []
    filled(str(tmp_path / "journal.log"), [1.0])
    assert existing_storage(None, tmp_path) == str(tmp_path / "journal.log")
    assert existing_storage("postgresql://server/db", tmp_path) == "postgresql://server/db"


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    with pytest.raises(StorageError, match="taken"):
        default_storage(tmp_path / "taken" / "hpo")


def test_the_file_of_a_storage() -> None:
    assert file_of("a/b.log") == Path("a/b.log")
    assert file_of("sqlite:////tmp/x.db") == Path("/tmp/x.db")
    assert file_of("postgresql://host/name") is None


@pytest.mark.parametrize("lost", [True, False])
def test_a_server_lost_while_it_is_opened_is_waited_for_and_one_never_seen_is_soon_told(
    lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    def opened(self, url, **options):
        tries.append(url)
        if len(tries) <= 2 * server.FIRST_TRIES:
            raise OperationalError("SELECT 1", {}, Exception("gone"), connection_invalidated=lost and len(tries) == 2)

    monkeypatch.setattr(server.RDBStorage, "__init__", opened)
    monkeypatch.setattr(server.time, "sleep", lambda seconds: None)
    if lost:
        server.ServerStorage("postgresql+psycopg://a/b")
        assert len(tries) == 2 * server.FIRST_TRIES + 1
    else:
        with pytest.raises(OperationalError):
            server.ServerStorage("postgresql+psycopg://a/b")
        assert len(tries) == server.FIRST_TRIES
