"""The line beside a progress bar: epoch, scenes a second, loss, rate and skipped steps."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

# Steps over which the speed is measured: long enough to be steady, short enough to follow.
WINDOW = 50


class Pace:
    """Speed of the last steps, and the loss of the last record that was written.

    Args:
        epochs: of the run.
        scenes: in a whole step.
    """

    def __init__(self, epochs: int, scenes: int) -> None:
        self._epochs, self._scenes = epochs, scenes
        self._moments: deque[float] = deque(maxlen=WINDOW + 1)
        self._epoch, self._loss = 0, ""

    def epoch(self, epoch: int) -> None:
        """Begin an epoch, 0-based: the time of a validation is not that of a step."""
        self._epoch = epoch
        self._moments.clear()
        self._moments.append(time.perf_counter())

    def hear(self, records: list[dict[str, Any]]) -> None:
        """Take the loss from what the log writes; it has been read from the device by then."""
        losses = [float(record["loss"]) for record in records if "step" in record and not record["skipped"]]
        if losses:
            self._loss = f", loss {losses[-1]:.4g}"

    def note(self, rate: float, skipped: int) -> str:
        """Count a step and return the line; the loss is missing until the log has written one.

        Args:
            rate: of the backbone.
            skipped: steps so far.
        """
        self._moments.append(time.perf_counter())
        seconds = self._moments[-1] - self._moments[0]
        speed = self._scenes * (len(self._moments) - 1) / max(seconds, 1e-9)
        place = f"epoch {self._epoch + 1}/{self._epochs}"
        return f"{place}, {speed:.0f} scenes/s{self._loss}, lr {rate:.1e}, skipped {skipped}"
