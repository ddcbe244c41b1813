"""One run at a time in a folder, by a lock that the system frees when its holder dies, however that happens."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Literal

from ris_verified.errors import InputError, StorageError
from ris_verified.files import require_folder
from ris_verified.train.ranks import Ranks

NAME = ".lock"
logger = logging.getLogger(__name__)


@contextlib.contextmanager
def occupied(out: Path, ranks: Ranks) -> Iterator[None]:
    """Hold a run's folder; the first process does so for all.

    Args:
        out: made where it is missing.
        ranks: the processes of the run.

    Raises:
        InputError: another run holds it.
        StorageError: nothing can be written into it.
        TrainingError: in the other processes, where the first one could not.
    """
    with contextlib.ExitStack() as held:

        def take() -> bytes:
            held.enter_context(_locked(out))
            return b""

        ranks.from_first(take)
        yield


def require_free(out: Path) -> None:
    """Raise where a run is under way in a folder.

    Raises:
        InputError: one is.
        StorageError: its lock cannot be opened.
    """
    # What else may be wrong with the folder, who makes it says.
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), _open(out / NAME, "rb") as file:
        _hold(file, out)


@contextlib.contextmanager
def _locked(out: Path) -> Iterator[None]:
    require_folder(out)
    path = out / NAME
    file = _opened(path)
    try:
        yield
    finally:
        # Before the lock is freed: afterwards it may be another run's.
        path.unlink(missing_ok=True)
        file.close()


def _opened(path: Path) -> IO[bytes]:
    while True:
        file = _open(path, "ab")
        try:
            _hold(file, path.parent)
            # A run that has just ended may have removed what was opened.
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except FileNotFoundError:
            pass
        except BaseException:
            file.close()
            raise
        file.close()


def _open(path: Path, mode: Literal["rb", "ab"]) -> IO[bytes]:
    try:
        return path.open(mode)
    except PermissionError as error:
        raise StorageError(
            "cannot be opened: it belongs to someone else",
            where=str(path),
            expected="a folder that this user's runs write",
            remedy="name another folder, or remove the file if no run is under way",
        ) from error


def _hold(file: IO[bytes], out: Path) -> None:
    try:
        # Not on every system; what has no locks must not keep a run from training.
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise InputError(
            "another run is under way in this folder",
            where=str(out),
            expected="one run at a time in a folder",
            remedy="wait for it or end it, or name another folder for this one",
        ) from error
    except (ImportError, OSError) as error:
        logger.warning("%s cannot be locked (%s): a second run in it would not be noticed", out, error)
