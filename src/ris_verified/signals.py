"""Signals: held back while a process is made, and taken as a request while a run must end between two steps."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

# What batch systems, launchers and people send to a run that should end.
STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
# A launcher passes on what its group has got as well: within this time a second one is the same request.
SAME_SECONDS = 2.0


@contextlib.contextmanager
def stop_requests(heard: Callable[[int], None] | None = None) -> Iterator[Callable[[], int]]:
    """Take signals as requests in a block, from the first question on; a later Ctrl-C interrupts as ever.

    Before that question there is nothing to bring to an end, and a process that waits for others must not outlive them.

    Args:
        heard: called with the first signal when it comes, between any two operations: it must take no lock.

    Yields:
        A function that returns the number of the first signal that came, 0 before. Outside the main thread, which
        alone can take signals, it stays 0.
    """
    came: list[tuple[int, float]] = []
    before: dict[signal.Signals, Any] = {}

    def note(number: int, frame: FrameType | None) -> None:
        came.append((number, time.monotonic()))
        if heard and len(came) == 1:
            heard(number)
        if number == signal.SIGINT and came[-1][1] - came[0][1] > SAME_SECONDS:
            raise KeyboardInterrupt

    def stop() -> int:
        if not before and threading.current_thread() is threading.main_thread():
            before.update({number: signal.signal(number, note) for number in STOPPING})
        return came[0][0] if came else 0

    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def held_back(number: signal.Signals) -> Iterator[None]:
    """Deliver a signal to this thread after the block only; a program that is started within never gets it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
