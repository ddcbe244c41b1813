"""What the page draws, as numbers: a value beside its bound, counts as a bar, seconds as a bar."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ris_verified.audit.result import Result

DECADES = 3.0
# What went wrong first: on a narrow screen the last columns are scrolled to.
KINDS = ("error", "fail", "waived", "skip", "pass")


@dataclass(frozen=True)
class Plot:
    """A measured value beside its bound.

    Args:
        x: where the value lies; 50 is the bound, 0 and 100 the ends of the axis.
        below: whether the law allows the side below the bound.
        scale: `log`, three decades to each side of the bound, or `linear`.
    """

    x: float
    below: bool
    scale: str


@dataclass(frozen=True)
class Bar:
    """One row of an overview.

    Args:
        name: of the row.
        counts: results by kind.
        pieces: kind, start and width of each piece that is not empty, of 100.
    """

    name: str
    counts: dict[str, int]
    pieces: tuple[tuple[str, float, float], ...]


def plot(result: Result) -> Plot | None:
    """Return where a measured value lies beside its bound; None where one of them is no finite number."""
    measured, bound, margin = result.measured, result.bound, result.margin
    if isinstance(measured, str) or isinstance(bound, str) or margin is None or not math.isfinite(measured + bound):
        return None
    below = measured == bound or (measured < bound) == (margin >= 0)
    if bound > 0 and measured >= 0:
        decades = -DECADES if measured == 0 else math.log10(measured) - math.log10(bound)
        return Plot(50 + 50 * max(-DECADES, min(DECADES, decades)) / DECADES, below, "log")
    span = max(abs(bound), abs(measured - bound)) or 1.0
    return Plot(50 + 50 * max(-1.0, min(1.0, (measured - bound) / span)), below, "linear")


def kind(result: Result) -> str:
    """Return the status, or `waived`, which is more than a skip."""
    return "waived" if result.waiver else result.status


def bars(results: Sequence[Result], name: Callable[[Result], str], names: Iterable[str]) -> list[Bar]:
    """Return a bar of results by kind for each name that has any.

    Args:
        results: of an audit.
        name: of the bar that a result belongs to.
        names: of the bars, in order.
    """
    found = []
    for label in names:
        own = [kind(result) for result in results if name(result) == label]
        if own:
            counts = {each: own.count(each) for each in KINDS}
            found.append(Bar(label, counts, tuple(_pieces(counts, len(own)))))
    return found


def _pieces(counts: dict[str, int], total: int) -> Iterable[tuple[str, float, float]]:
    start = 0.0
    for each, count in counts.items():
        width = 100 * count / total
        if count:
            yield each, start, width
        start += width


def slowest(results: Sequence[Result], count: int = 10) -> list[tuple[Result, float]]:
    """Return the rules that took longest, each once, with their share of the longest time."""
    # Every result of a rule carries the time of its one check.
    rules = sorted({r.id: r for r in results}.values(), key=lambda r: -r.seconds)[:count]
    longest = max((r.seconds for r in rules), default=0.0) or 1.0
    return [(r, 100 * r.seconds / longest) for r in rules]
