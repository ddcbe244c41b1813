"""Which workers of a study are alive: each holds a lock that the system frees when it dies; and where locks lie."""

from __future__ import annotations

import hashlib
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


def lock(file: IO[str], *, wait: bool = True) -> None:
    """Hold the system's lock on a file, until it is closed or its holder dies.

    Raises:
        OSError: another holds it and this one does not wait, or the file system has no locks.
    """
    # Not on every system; whoever only localises needs none.
    import fcntl

    fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


def lock_path(file: Path, suffix: str) -> Path:
    """Return where locks of a storage's file lie: beside it, or with this machine's temporary files where it has none.

    Args:
        file: of the storage; its folder exists.
        suffix: of the lock's name.
    """
    file = file.resolve()
    if has_locks(file.parent):
        return file.with_name(f"{file.name}{suffix}")
    name = hashlib.sha256(str(file).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"ris-verified-{name}{suffix}"


def has_locks(folder: Path) -> bool:
    """Return whether files in a folder can be locked."""
    try:
        with presence(folder):
            return True
    except OSError:
        return False


@contextmanager
def presence(folder: Path) -> Iterator[str]:
    """Hold a lock file of a fresh name while the block runs; yields the name.

    Args:
        folder: shared by the workers of one storage; made where it is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{uuid.uuid4().hex}.alive"
    with path.open("w") as file:
        try:
            lock(file, wait=False)
            yield path.stem
        finally:
            path.unlink(missing_ok=True)


def is_gone(folder: Path, name: str) -> bool:
    """Return whether the worker of this name has ended; one that cannot be judged is taken for alive.

    Args:
        folder: see `presence`.
        name: what `presence` yielded.
    """
    path = folder / f"{name}.alive"
    try:
        with path.open("r+") as file:
            lock(file, wait=False)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    path.unlink(missing_ok=True)
    return True
