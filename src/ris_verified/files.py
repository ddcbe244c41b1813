"""Writing files so that a failure loses nothing: beside, flushed, then renamed."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from ris_verified.errors import StorageError


def atomic_write(path: Path, content: bytes) -> None:
    """Replace a file by new content in one step.

    Args:
        path: the file; its folder is made where it is missing.
        content: what it will hold.

    Raises:
        StorageError: the disk is full or not writable; an older file is intact, no part is left.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise StorageError(
            f"cannot write {len(content):,} bytes: {error.strerror or error}",
            where=str(path),
            expected=f"a writable folder with room; {_free(path)}",
            remedy="what was there before is intact; make room and run the same command again",
        ) from error


def _free(path: Path) -> str:
    try:
        return f"{shutil.disk_usage(path.parent).free:,} bytes are free"
    except OSError:
        return "its free space cannot be read"
