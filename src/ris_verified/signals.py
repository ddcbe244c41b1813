"""Signals held back while a process is made, so that neither it nor its maker is interrupted half-way."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator


@contextlib.contextmanager
def held_back(number: signal.Signals) -> Iterator[None]:
    """Deliver a signal to this thread after the block only; a program that is started within never gets it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
