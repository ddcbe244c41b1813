"""Which workers of a study are alive: each holds a lock that the system frees when it dies."""

from __future__ import annotations

import fcntl
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def presence(folder: Path) -> Iterator[str]:
    """Hold a lock file of a fresh name while the block runs; yields the name.

    Args:
        folder: shared by the workers of one storage; made where it is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{uuid.uuid4().hex}.alive"
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
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
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    path.unlink(missing_ok=True)
    return True
