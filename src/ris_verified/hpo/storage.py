"""Where a study lives: a journal that survives a killed writer, SQLite, or a database server."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path
from typing import IO, Any

from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from ris_verified.errors import InputError, StorageError
from ris_verified.files import atomic_write, require_folder
from ris_verified.hpo.server import ServerStorage
from ris_verified.hpo.workers import has_locks, lock, lock_path

logger = logging.getLogger(__name__)
SQLITE = "sqlite:///"
JOURNAL, DATABASE = Path("journal.log"), Path("study.db")
TIMEOUT = 300


class KernelLock(JournalFileOpenLock):
    """A lock that the system frees when its holder dies; Optuna's link is waited for half a minute after a kill.

    Args:
        path: a file beside the journal.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path
        self._file: IO[str] | None = None

    def acquire(self) -> bool:
        """Wait for the lock."""
        file = self._path.open("w")
        lock(file)
        self._file = file
        return True

    def release(self) -> None:
        """Free it."""
        if self._file:
            self._file.close()


class Journal(JournalFileBackend):
    """A journal file whose torn last line, left by a killed writer, is cut off before the next write.

    Args:
        path: the file; made where it is missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self._guard = KernelLock(self.path.with_name(f"{self.path.name}.guard"))
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
    """Return a journal in the folder, or SQLite where the file system has no locks of the kind that it needs.

    Raises:
        StorageError: the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"cannot be made: {error.strerror or error}", where=str(folder), expected="a folder that can be written"
        ) from error
    if has_locks(folder):
        return str(folder / JOURNAL)
    logger.warning("%s has no file locks: the study is kept in SQLite, for workers of this machine", folder)
    return f"{SQLITE}{folder / DATABASE}"


def existing_storage(given: str | None, folder: Path) -> str:
    """Return the storage that was named, or the one that lies in a folder; nothing is made.

    Raises:
        InputError: there is no such file.
    """
    usual = [str(folder / JOURNAL), f"{SQLITE}{folder / DATABASE}"]
    for where in [given] if given else usual:
        file = file_of(where)
        if file is None or file.is_file():
            return where
    raise InputError(
        "no study is there",
        where=given or str(folder),
        expected=f"a file that `ris-verified hpo` has written; without --storage {JOURNAL} or {DATABASE} in --out",
    )


def file_of(where: str) -> Path | None:
    """Return the file of a journal or SQLite storage, None for a database server."""
    if where.startswith(SQLITE):
        return Path(where.removeprefix(SQLITE))
    return None if "://" in where else Path(where)


def require_storage(where: str) -> None:
    """Raise what opening a storage would raise; no file is made.

    Raises:
        InputError: no such kind of database, no driver for it, or a file lies where its folder should be.
        StorageError: it cannot be opened or read, or its folder cannot be written into.
    """
    file = file_of(where)
    if file is not None and file.is_dir():
        raise InputError("is a folder", where=where, expected="the name of a file in it, or a database URL")
    if file is None or file.exists():
        open_storage(where)
    else:
        require_folder(file.parent)


def open_storage(where: str) -> BaseStorage:
    """Open a journal file, an SQLite file (`sqlite:///…`, WAL, 300 s timeout) or another database.

    Args:
        where: a path or a database URL.

    Returns:
        The storage, whose records have been read once.

    Raises:
        InputError: no such kind of database, or no driver for it.
        StorageError: it cannot be opened or read; nothing is overwritten.
    """
    try:
        file = file_of(where)
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
        storage = _opened(where, file)
        storage.get_all_studies()
        return storage
    except (ArgumentError, ImportError) as error:
        raise InputError(
            f"cannot be opened: {error}",
            where=where,
            expected="a journal file, sqlite:///FILE or a database URL whose driver is installed",
        ) from error
    except (OSError, sqlite3.Error, SQLAlchemyError, StorageInternalError, ValueError, KeyError) as error:
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
    # Of several first workers only one may make the tables.
    guard = KernelLock(lock_path(file, ".guard"))
    guard.acquire()
    try:
        return _sqlite(where, file)
    finally:
        guard.release()


def _sqlite(where: str, file: Path) -> BaseStorage:
    with sqlite3.connect(file, timeout=TIMEOUT) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        damage = connection.execute("PRAGMA quick_check").fetchone()[0]
    connection.close()
    if damage != "ok":
        raise sqlite3.DatabaseError(damage)
    options = {"connect_args": {"timeout": TIMEOUT}, "pool_pre_ping": True}
    return RDBStorage(where, engine_kwargs=options)
