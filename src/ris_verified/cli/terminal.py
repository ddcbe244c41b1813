"""The one console of a command: progress on a terminal, plain lines elsewhere, the log above either."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

Update = Callable[[int, int, str], None]
# Rendering takes milliseconds of a core that has work to do; a log file is read by people, too.
RENDERS_PER_SECOND, SECONDS_PER_LINE = 4.0, 30.0


@functools.cache
def console() -> Console:
    """Return the console on standard error; a second one would write into the bar of the first."""
    from rich.console import Console

    return Console(stderr=True)


def log_to_terminal() -> None:
    """Show what the library logs, on standard error, above progress bars; lines of a log file are never broken."""
    from rich.logging import RichHandler

    handler: logging.Handler = RichHandler(console=console(), show_path=False, show_level=False, markup=False)
    if not console().is_terminal:
        handler = logging.StreamHandler(console().file)
        handler.setFormatter(logging.Formatter("[%(asctime)s] %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("ris_verified")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)


@contextmanager
def progress(title: str) -> Iterator[Update]:
    """Show how far work is, with rate and time left; yields a function (done, total, note).

    On a terminal there is a bar with the note below it; elsewhere a plain line every half minute, so
    that the log of a batch job tells as much.
    """
    if not console().is_terminal:
        yield PlainLines(title, lambda line: console().print(line, soft_wrap=True, markup=False, highlight=False))
        return
    with bar(console()) as shown:
        task = shown.add_task(title, total=None, note="")
        yield lambda done, total, note: shown.update(task, completed=done, total=total, note=note)


class PlainLines:
    """Progress as lines such as `steps 50/282, 2.6/s, 1:29 left, epoch 1/2`.

    Args:
        title: what is counted.
        write: takes a line.
    """

    def __init__(self, title: str, write: Callable[[str], None]) -> None:
        self._title, self._write = title, write
        self._first: tuple[float, int] | None = None
        self._written = 0.0

    def __call__(self, done: int, total: int, note: str) -> None:
        """Write a line where the last one is half a minute old; what was done before the first call has no rate."""
        now = time.monotonic()
        if self._first is None:
            self._first, self._written = (now, done), now
        if now - self._written < SECONDS_PER_LINE:
            return
        self._written = now
        rate = (done - self._first[1]) / (now - self._first[0])
        pieces = [f"{self._title} {done}/{total}", f"{rate:.3g}/s"]
        pieces += [f"{_clock((total - done) / rate)} left"] if rate else []
        self._write(", ".join([*pieces, note] if note else pieces))


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def bar(on: Console) -> Progress:
    """Return a bar with rate and time left whose notes stand below it, or a narrow terminal would cut them.

    Args:
        on: where it is shown.
    """
    from rich.console import RenderableType
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(TextColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{speed:.3g}/s" if speed else "", style="progress.data.speed")

    class Noted(Progress):
        def get_renderables(self) -> Iterator[RenderableType]:
            yield self.make_tasks_table(self.tasks)
            yield from (Text(note) for task in self.tasks if (note := task.fields["note"]))

    return Noted(
        TextColumn("{task.description}"), BarColumn(20), MofNCompleteColumn(), Rate(""), TimeElapsedColumn(),
        TimeRemainingColumn(), TextColumn("left"), console=on,
        refresh_per_second=RENDERS_PER_SECOND,
    )  # fmt: skip
