"""When memory runs out: what counts as that, and the same work again in smaller pieces."""

from __future__ import annotations

import errno
import logging
import re
from collections.abc import Callable
from typing import TypeVar

import torch

from ris_verified.errors import RisVerifiedError, TrainingError

logger = logging.getLogger(__name__)
T = TypeVar("T")

# Allocators, oneDNN and the accelerator's libraries raise plain RuntimeErrors. A primitive's descriptor is another
# matter: oneDNN lacks it for what it does not implement.
TEXTS = re.compile(
    r"out of memory|not enough memory|(can't|cannot|could not|failed to|unable to) allocate|bad_alloc"
    r"|ALLOC(ATION)?_FAILED|could not (create|initialize) a (primitive(?! desc)|memory)",
    re.IGNORECASE,
)


def out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out, on the processor or on an accelerator."""
    if isinstance(error, RisVerifiedError):
        # It has been told already.
        return False
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and TEXTS.search(str(error)) is not None


def release() -> None:
    """Give back what an accelerator's allocator keeps, before the next try."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def fitting(act: Callable[[int], T], size: int, what: str) -> tuple[T, int]:
    """Do something in pieces of at most `size` scenes, of half as many whenever memory runs out.

    Args:
        act: given the size of the pieces; does all of it.
        size: to begin with.
        what: is done, for the log.

    Returns:
        What `act` returned, and the size that fitted.

    Raises:
        TrainingError: memory ran out with single scenes.
    """
    while True:
        try:
            return act(size), size
        except (RuntimeError, OSError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            if size == 1:
                raise no_room(str(error), what, "one scene") from error
        # Not in the handler, where the error's frames hold what has to be freed.
        size = -(-size // 2)
        logger.warning("out of memory: %s in pieces of %d scenes from here on", what, size)
        release()


def no_room(text: str, where: str, least: str) -> TrainingError:
    """Return the error of a run that memory cannot hold.

    Args:
        text: of what was raised.
        where: in the run.
        least: for what there must be memory.
    """
    return TrainingError(
        f"out of memory: {text.splitlines()[0] if text else 'no details'}",
        where=where,
        expected=f"memory for the model and {least}",
        remedy="`ris-verified audit --select RV1402` prints what is needed and what is free; raise train.accumulation "
        "or use a smaller model",
    )
