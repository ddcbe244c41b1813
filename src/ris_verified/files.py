"""Writing files so that a failure loses nothing: beside, flushed, then renamed."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import tempfile
from pathlib import Path

from ris_verified.errors import InputError, StorageError


def require_folder(folder: Path) -> None:
    """Make a folder and try that it can be written into, before the work whose results it will hold.

    Args:
        folder: may be missing, and so may those above it.

    Raises:
        InputError: a file lies there.
        StorageError: it cannot be made, or nothing can be written into it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError("is not a folder", where=str(folder), expected="a folder, or the name of a new one") from error
    except OSError as error:
        raise StorageError(
            f"cannot be written into: {error.strerror or error}",
            where=str(folder),
            expected="a folder that can be written into",
            remedy="name another, or change who may write there",
        ) from error


def atomic_write(path: Path, content: bytes) -> None:
    """Replace a file by new content in one step; a device or pipe is written into.

    Args:
        path: the file; its folder is made where it is missing.
        content: what it will hold.

    Raises:
        InputError: a folder lies there.
        StorageError: the disk is full or not writable; an older file is intact, no part is left.
    """
    if path.is_symlink():
        # What it points to is meant, not the pointer.
        path = path.resolve()
    if path.is_dir():
        raise InputError("is a folder", where=str(path), expected="the name of a file")
    if path.exists() and not path.is_file():
        _write_into(path, content)
        return
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        raise _unwritable(path, len(content), error) from error
    finally:
        # After the rename there is nothing to remove; after a failure or Ctrl-C there is.
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


def _write_into(path: Path, content: bytes) -> None:
    try:
        with path.open("wb") as file:
            file.write(content)
    except OSError as error:
        raise _unwritable(path, len(content), error) from error


def append(path: Path, text: str) -> None:
    """Add text to the end of a file.

    Args:
        path: the file, in an existing folder.
        text: whole lines.

    Raises:
        StorageError: the disk is full or not writable; what was there before is intact.
    """
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise _unwritable(path, len(text.encode()), error) from error


def _unwritable(path: Path, size: int, error: OSError) -> StorageError:
    return StorageError(
        f"cannot write {size:,} bytes: {error.strerror or error}",
        where=str(path),
        expected=f"a writable folder with room; {_free(path)}",
        remedy="what was there before is intact; make room and run the same command again",
    )


def clear_stale(path: Path) -> None:
    """Remove what killed writers of a file left beside it; parts of running writers stay.

    Args:
        path: the file that they were going to replace.
    """
    _clear(path.parent, f".{glob.escape(path.name)}.*.part")


def clear_folder(folder: Path) -> None:
    """Remove what killed writers of any file left in a folder that no other machine writes to.

    Args:
        folder: may be missing.
    """
    _clear(folder, ".*.part")


def _clear(folder: Path, pattern: str) -> None:
    for part in folder.glob(pattern):
        owner = part.name.removesuffix(".part").rpartition(".")[2]
        if owner.isdigit() and not _alive(int(owner)):
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    if os.name != "posix":
        # Elsewhere signal 0 is a real signal.
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    try:
        state = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return True
    # A killed process that nobody has waited for still takes signals; a container's first process may never wait.
    return state[:1] not in (["Z"], ["X"])


def _free(path: Path) -> str:
    try:
        return f"{shutil.disk_usage(path.parent).free:,} bytes are free"
    except OSError:
        return "its free space cannot be read"
