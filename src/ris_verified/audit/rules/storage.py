"""RV0905 and RV1404: a study's storage, killed, torn and broken on purpose."""

from __future__ import annotations

import os
import signal
import sqlite3
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ris_verified.audit.context import Context
from ris_verified.audit.laws.told_verdict import study_heeds
from ris_verified.audit.rule import Measurement, at_least, at_most, equal, mended, rule
from ris_verified.audit.rules.trials import drill_study, sound_study
from ris_verified.errors import RisVerifiedError

if TYPE_CHECKING:
    from sqlalchemy import Engine

TIMEOUT_SECONDS = 300
TOLD = "raise before the first trial where the verdict is NO-GO and its waiver is empty, and only there"
SQLITE_DEFAULT_SECONDS = 5.0


def _score(values: dict[str, Any], number: int) -> float:
    return 1.0 + number


def _later(values: dict[str, Any], number: int) -> float:
    # Told apart from the first run's scores, a trial that was run again shows.
    return 101.0 + number


def _killed(values: dict[str, Any], number: int) -> float:
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return _score(values, number)


def _kept(study: Any, wanted: int, what: str) -> list[Measurement]:
    """Trial 0 has its value, no trial is left running, and the study was finished."""
    values = [t.value for t in study.trials if t.state.name == "COMPLETE"]
    running = sum(t.state.name == "RUNNING" for t in study.trials)
    return [
        equal(values[:1], [1.0], f"finished trials kept: {what}", where="run_study"),
        at_least(float(len(values)), float(wanted), f"complete trials in the end: {what}", "trials", "run_study"),
        at_most(float(running), 0.0, f"trials left running: {what}", "trials", "run_study"),
    ]


@rule(
    "RV0905",
    "A study survives kills, torn files and restarts",
    law="restart loads the study; a torn journal or a killed writer loses at most the running trial; SQLite: WAL, "
    "300 s, pre-ping; told NO-GO without a waiver, a study begins no trial",
    why="A night of forty trials that cannot be opened in the morning.",
    how="Studies with a trivial objective: a restart with one trial more; another configuration in the same file; the "
    "journal cut within its last record and continued, twice; a worker killed by SIGKILL in its second trial; SQLite's "
    "journal mode, busy timeout and pre-ping read from file and engine. Profile full: a lock held for a second longer "
    "than SQLite's default timeout. A study of one trial that is told NO-GO, without a waiver and with one. Bounds: "
    "exact.",
    remedy="cut a torn line, reap the trials of dead workers, load_if_exists, SQLite in WAL mode with timeout=300",
    apart=True,
)
def storage_survives(context: Context) -> Sequence[Measurement]:
    """Trials are counted: no tolerance."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = _restarted(context, folder) + _torn(context, folder) + _writer_killed(context, folder)
        found += [*_sqlite(context, folder), *mended(study_heeds(context), TOLD)]
        return found + (_locked(context, folder) if context.profile == "full" else [])


def _restarted(context: Context, folder: Path) -> list[Measurement]:
    found = []
    for storage in (str(folder / "again.log"), f"sqlite:///{folder / 'again.db'}"):
        first = sound_study(context, _score, storage, 2)
        before = [(t.number, t.value) for t in first.trials]
        after = [(t.number, t.value) for t in sound_study(context, _later, storage, 3).trials]
        kind = "SQLite" if "://" in storage else "journal"
        found.append(equal(after, [*before, (2, 103.0)], f"trials after a restart, {kind}", where="run_study"))
    # Another configuration in the same file is another study.
    beta = context.config.covariance.beta
    other = context.with_config(context.config.replaced({"covariance.beta": 0.5 * beta + 0.2}))
    own = [t.value for t in sound_study(other, _later, str(folder / "again.log"), 2).trials]
    text = "scores of a study of another configuration in the same storage"
    apart = equal(own, [_later({}, 0), _later({}, 1)], text, where="run_study: name of the study")
    return [*found, *mended([apart], "name the study by a digest of the whole configuration, not by its space alone")]


def _torn(context: Context, folder: Path) -> list[Measurement]:
    whole = folder / "whole.log"
    sound_study(context, _score, str(whole), 2)
    content = whole.read_bytes() if whole.is_file() else b""
    last = content[:-1].rfind(b"\n") + 1
    if last <= 0:
        return [equal("no file", "a journal", "the storage that was asked for", where="run_study")]
    every = 1 if context.profile == "full" else max(1, (len(content) - last) // 2)
    found = []
    for size in list(range(last + 1, len(content), every))[:: max(1, (len(content) - last) // (8 * every))]:
        torn = folder / f"{size}.log"
        torn.write_bytes(content[:size])
        what = f"journal cut {len(content) - size} bytes short"
        sound_study(context, _later, str(torn), 3)
        # The next worker must still be able to read it.
        found += _kept(sound_study(context, _later, str(torn), 3), 2, what)
    return found


def _writer_killed(context: Context, folder: Path) -> list[Measurement]:
    storage = str(folder / "killed.log")
    child = os.fork()
    if child == 0:
        try:
            sound_study(context, _killed, storage, 3)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status):
        return [equal("it ended", "it was killed", "a worker in its second trial", where="run_study")]
    return _kept(sound_study(context, _later, storage, 3), 2, "writer killed")


def _engine(study: Any) -> Engine | None:
    """Return the database engine of a study, wherever wrappers of its storage hold it."""
    held = vars(study).get("_storage")
    while held is not None and "engine" not in vars(held):
        held = vars(held).get("_backend")
    return None if held is None else held.engine


def _sqlite(context: Context, folder: Path) -> list[Measurement]:
    file = folder / "wal.db"
    study = sound_study(context, _score, f"sqlite:///{file}", 1)
    engine = _engine(study)
    if engine is None or not file.is_file():
        return [equal("no engine", "an SQLite database", "the storage that was asked for", where="run_study")]
    with sqlite3.connect(file) as connection:
        mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
    connection.close()
    with engine.connect() as opened:
        timeout = opened.exec_driver_sql("PRAGMA busy_timeout").scalar_one() / 1000
    return [
        equal(mode, "wal", "SQLite's journal mode", where="run_study"),
        at_least(float(timeout), float(TIMEOUT_SECONDS), "SQLite's busy timeout", "s", "run_study"),
        equal(vars(engine.pool).get("_pre_ping"), True, "connections are pinged before use", where="run_study"),
    ]


def _locked(context: Context, folder: Path) -> list[Measurement]:
    file = folder / "locked.db"
    sound_study(context, _score, f"sqlite:///{file}", 1)
    other = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")

    def release() -> None:
        time.sleep(SQLITE_DEFAULT_SECONDS + 1)
        other.execute("ROLLBACK")

    holder = threading.Thread(target=release)
    holder.start()
    try:
        study = sound_study(context, _score, f"sqlite:///{file}", 2)
    finally:
        holder.join()
        other.close()
    return [equal(len(study.trials), 2, "trials of a study whose file was locked for six seconds", where="run_study")]


@rule(
    "RV1404",
    "A broken study is one clear error and stays as it is",
    law="a storage that cannot be read raises one error with file and remedy; its bytes do not change",
    why="A tool that starts anew over a file it cannot read has deleted the week.",
    how="A journal whose second record is cut in the middle and an SQLite file with a foreign header; the study is "
    "asked to continue each. Bound: one RisVerifiedError that names the file; 0 bytes changed.",
    remedy="raise a StorageError that names the file; write nothing",
    apart=True,
)
def broken_study(context: Context) -> Sequence[Measurement]:
    """Bytes are compared: no tolerance."""
    with tempfile.TemporaryDirectory() as name:
        journal, database = Path(name) / "broken.log", Path(name) / "broken.db"
        sound_study(context, _score, str(journal), 2)
        sound_study(context, _score, f"sqlite:///{database}", 1)
        for file in (journal, database):
            if not file.is_file():
                return [equal("no file", file.suffix, "the storage that was asked for", where="run_study")]
        lines = journal.read_bytes().splitlines(keepends=True)
        journal.write_bytes(b"".join([lines[0], lines[1][: len(lines[1]) // 2] + b"\n", *lines[2:]]))
        database.write_bytes(b"not a database, " + database.read_bytes()[16:])
        for rest in (*Path(name).glob("broken.db-*"), *Path(name).glob("*.lock")):
            rest.unlink()
        return [
            *_refused(context, journal, str(journal)),
            *_refused(context, database, f"sqlite:///{database}"),
        ]


def _refused(context: Context, file: Path, storage: str) -> list[Measurement]:
    before, outcome = file.read_bytes(), "went on"
    try:
        drill_study(context, _score, storage, 3)
    except RisVerifiedError as error:
        outcome = "named" if file.name in str(error) and error.remedy else f"unclear: {error}"
    except Exception as error:  # noqa: BLE001 - whatever a study raises instead of a clear error is the finding
        outcome = f"{type(error).__name__}: {error}"
    changed = before != (file.read_bytes() if file.is_file() else b"")
    return [
        equal(outcome, "named", f"a {file.suffix[1:]} that cannot be read", where="run_study"),
        equal(changed, False, f"the {file.suffix[1:]} was changed", where="run_study"),
    ]
