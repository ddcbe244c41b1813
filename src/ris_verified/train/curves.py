"""Training curves as pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ris_verified.files import atomic_write
from ris_verified.page import as_png
from ris_verified.train.log import read_log

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WHOLE_DPI, SINGLE_DPI = 110, 200
Record = dict[str, Any]


@dataclass(frozen=True)
class Course:
    """What a log says, as curves are drawn from it.

    Args:
        steps: step records.
        epochs: epoch records.
    """

    steps: list[Record]
    epochs: list[Record]

    @classmethod
    def read(cls, log: Path) -> Course:
        """Return the course that a `log.jsonl` describes."""
        return cls(*read_log(log))

    @property
    def good(self) -> list[Record]:
        """Steps whose figures are numbers."""
        return [record for record in self.steps if not record["skipped"]]


def _smooth(axis: Axes, good: list[Record], values: list[float], label: str) -> None:
    width = max(1, len(values) // 40)
    kernel = np.ones(width) / width
    at = [record["step"] for record in good][width - 1 :]
    axis.plot(at, np.convolve(values, kernel, "valid") if values else [], label=label)


def _faint(axis: Axes, good: list[Record], values: list[float], label: str) -> None:
    axis.plot([record["step"] for record in good], values, lw=0.6, alpha=0.4, color="C0")
    _smooth(axis, good, values, label)


def _validated(course: Course, name: str) -> tuple[list[int], list[float]]:
    return [e["step"] for e in course.epochs], [float(e["validation"][name]) for e in course.epochs]


def _loss(axis: Axes, course: Course) -> None:
    _faint(axis, course.good, [r["loss"] for r in course.good], "training")
    axis.plot(*_validated(course, "loss"), "ko", label="validation")


def _terms(axis: Axes, course: Course) -> None:
    for name in course.good[0]["terms"] if course.good else ():
        _smooth(axis, course.good, [r["terms"][name] for r in course.good], name)


def _gradient(axis: Axes, course: Course) -> None:
    _faint(axis, course.good, [r["gradient_norm"] for r in course.good], "before clipping")
    axis.set_yscale("log")


def _rates(axis: Axes, course: Course) -> None:
    for name in course.steps[0]["learning_rates"] if course.steps else ():
        axis.plot([r["step"] for r in course.steps], [r["learning_rates"][name] for r in course.steps], label=name)
    axis.set_yscale("log")


def _quality(axis: Axes, course: Course) -> None:
    for name in ("capture", "order", "nmse"):
        axis.plot(*_validated(course, name), "o-", label=name)


def _skipped(axis: Axes, course: Course) -> None:
    count = np.cumsum([record["skipped"] for record in course.steps])
    axis.plot([record["step"] for record in course.steps], count, color="C3", label="so far")
    axis.set_ylim(bottom=-0.05, top=max([1, *count[-1:]]) * 1.05)


PANELS: dict[str, Callable[[Axes, Course], None]] = {
    "Loss": _loss,
    "Terms": _terms,
    "Gradient norm": _gradient,
    "Learning rates": _rates,
    "Validation": _quality,
    "Skipped steps": _skipped,
}


def _figure(width: float, height: float) -> Figure:
    # Half a second that only a finished run needs.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _draw(axis: Axes, name: str, course: Course) -> None:
    PANELS[name](axis, course)
    axis.set(title=name, xlabel="step")
    axis.grid(alpha=0.3)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=8)


def draw_curves(log: Path, picture: Path) -> None:
    """Draw loss, terms, gradient norm, learning rates, validation figures and skipped steps against the step.

    Args:
        log: `log.jsonl` of a run.
        picture: the PNG to write.
    """
    course, figure = Course.read(log), _figure(14, 7)
    for axis, name in zip(figure.subplots(2, 3).flat, PANELS, strict=True):
        _draw(axis, name, course)
    atomic_write(picture, as_png(figure, WHOLE_DPI))


def curve_pictures(log: Path) -> dict[str, bytes]:
    """Return each curve as a PNG of its own by its title, small enough to be read on a telephone.

    Args:
        log: `log.jsonl` of a run.
    """
    course, pictures = Course.read(log), {}
    for name in PANELS:
        figure = _figure(4.8, 3.0)
        _draw(figure.subplots(), name, course)
        pictures[name] = as_png(figure, SINGLE_DPI)
    return pictures
