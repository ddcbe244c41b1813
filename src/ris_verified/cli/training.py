"""A training at a terminal: whoever asks it to end is told that it does, after its step."""

from __future__ import annotations

import contextlib
import os
import signal

STDERR = 2


def tell_signal(number: int) -> None:
    """Write one line past all buffers and locks, which the signal may have interrupted."""
    again = ", a second one at once" if number == signal.SIGINT else ""
    # Nobody may be listening any more.
    with contextlib.suppress(OSError):
        os.write(STDERR, f"\n{signal.Signals(number).name}: the training ends after this step{again}\n".encode())
