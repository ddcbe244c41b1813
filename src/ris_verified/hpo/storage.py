"""Where a study lives: a journal that survives a killed writer, SQLite, or a database server."""

from __future__ import annotations

import logging
import os
import sqlite3
from pathlib import Path
from typing import Any

from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from sqlalchemy.exc import SQLAlchemyError

from ris_verified.errors import StorageError
from ris_verified.files import atomic_write
from ris_verified.hpo.server import ServerStorage

logger = logging.getLogger(__name__)
SQLITE = "sqlite:///"
TIMEOUT = 300


class Journal(JournalFileBackend):
    """A journal file whose torn last line, left by a killed writer, is cut off before the next write.

    Args:
        path: the file; made where it is missing.
    """

    def __init__(self, path: Path) -> None:
        # Optuna's lock is a link to this path: a relative one would lead nowhere and be waited for without end.
        self.path = path.resolve()
        self._guard = JournalFileSymlinkLock(str(self.path))
        super().__init__(str(self.path), lock_obj=self._guard)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append records after a whole last line."""
        self._guard.acquire()
        try:
            lost = cut_torn_line(self.path)
        finally:
            self._guard.release()
        if lost:
            logger.warning("%s: cut off %d bytes of a record that a killed writer left", self.path.name, lost)
        super().append_logs(logs)


def cut_torn_line(path: Path) -> int:
    """Shorten a file to its last line break and return the number of bytes cut, which are kept in a file beside it."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        atomic_write(path.with_name(f"{path.name}.torn-{whole}"), content[whole:])
        with path.open("r+b") as file:
            file.truncate(whole)
    return len(content) - whole


def default_storage(folder: Path) -> str:
    """Return a journal in the folder, or SQLite where the file system has no links for the journal's lock."""
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / f".link-{os.getpid()}"
    try:
        probe.symlink_to(folder)
        probe.unlink()
    except OSError as error:
        logger.warning("%s has no symbolic links (%s): the study is kept in SQLite", folder, error)
        return f"{SQLITE}{folder / 'study.db'}"
    return str(folder / "journal.log")


def file_of(where: str) -> Path | None:
    """Return the file of a journal or SQLite storage, None for a database server."""
    if where.startswith(SQLITE):
        return Path(where.removeprefix(SQLITE))
    return None if "://" in where else Path(where)


def open_storage(where: str) -> BaseStorage:
    """Open a journal file, an SQLite file (`sqlite:///…`, WAL, 300 s timeout) or another database.

    Args:
        where: a path or a database URL.

    Returns:
        The storage, whose records have been read once.

    Raises:
        StorageError: it cannot be opened or read; nothing is overwritten.
    """
    try:
        file = file_of(where)
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
        storage = _opened(where, file)
        storage.get_all_studies()
        return storage
    except (OSError, sqlite3.Error, SQLAlchemyError, StorageInternalError, ValueError, KeyError, ImportError) as error:
        raise StorageError(
            f"cannot be opened: {error}",
            where=where,
            expected="a journal file, sqlite:///FILE or a database URL",
            remedy="what is there was left as it is; repair it or name another",
        ) from error


def _opened(where: str, file: Path | None) -> BaseStorage:
    if file is None:
        return ServerStorage(where)
    if not where.startswith(SQLITE):
        return JournalStorage(Journal(file))
    with sqlite3.connect(file, timeout=TIMEOUT) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        damage = connection.execute("PRAGMA quick_check").fetchone()[0]
    connection.close()
    if damage != "ok":
        raise sqlite3.DatabaseError(damage)
    options = {"connect_args": {"timeout": TIMEOUT}, "pool_pre_ping": True}
    return RDBStorage(where, engine_kwargs=options)
