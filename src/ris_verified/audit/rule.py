"""What a rule is, and what its check returns."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from ris_verified.audit.context import Context

Severity = Literal["blocker", "warning", "info"]
Profile = Literal["quick", "full"]
Needs = Literal["pipeline", "source"]


class NotApplicable(Exception):
    """Raised by a check that has nothing to measure here; the text says why."""


@dataclass(frozen=True)
class Measurement:
    """One measured value beside its bound.

    Args:
        measured: what was measured.
        bound: what it was compared with.
        passed: whether the law holds.
        message: the fact in words.
        unit: of both values.
        where: tensor, field, or file and line.
        margin: room to the bound in the same unit, negative beyond it; None for texts.
        remedy: what to do about this failure, where the rule's own does not fit.
    """

    measured: float | str
    bound: float | str
    passed: bool
    message: str
    unit: str = ""
    where: str = ""
    margin: float | None = None
    remedy: str = ""

    def __post_init__(self) -> None:
        """Take the margin of two numbers from the outcome where no comparison has stated it."""
        if self.margin is None and not isinstance(self.measured, str) and not isinstance(self.bound, str):
            apart = abs(self.measured - self.bound)
            object.__setattr__(self, "margin", apart if self.passed else -apart)


Check = Callable[["Context"], "Measurement | Iterable[Measurement]"]


@dataclass(frozen=True)
class Rule:
    """One line of the checklist as a check that can fail.

    Args:
        id: `RV` and four digits, section and line.
        title: a few words.
        law: what must hold, as a formula where there is one.
        why: what goes wrong without it.
        how: what is measured, and where the bound comes from.
        source: the checklist line.
        remedy: what to do about a failure.
        severity: only a blocker forbids a launch.
        profile: the smallest profile that runs it.
        needs: `pipeline`, or `source` for rules that read syntax trees only.
        check: returns measurements, all at once or as they are asked for, or raises NotApplicable.
        apart: whether it looks at files or mostly at the small pipeline, so that it may run in a copy of the process.
    """

    id: str
    title: str
    law: str
    why: str
    how: str
    source: str
    remedy: str
    severity: Severity
    profile: Profile
    needs: Needs
    check: Check
    apart: bool = False

    @property
    def section(self) -> str:
        """The first four characters of the id."""
        return self.id[:4]


def rule(
    id: str,
    title: str,
    *,
    law: str,
    why: str,
    how: str,
    remedy: str,
    severity: Severity = "blocker",
    profile: Profile = "quick",
    needs: Needs = "pipeline",
    apart: bool = False,
) -> Callable[[Check], Rule]:
    """Turn a check into a `Rule`; the module that holds it is its registration.

    Args:
        id: checklist number; the other arguments are fields of `Rule`.

    Returns:
        A decorator that replaces the function by the rule.
    """

    def build(check: Check) -> Rule:
        place = apart or needs == "source"
        return Rule(id, title, law, why, how, f"checklist {id}", remedy, severity, profile, needs, check, place)

    return build


def at_most(measured: float, bound: float, message: str, unit: str = "", where: str = "") -> Measurement:
    """Compare measured ≤ bound; NaN fails."""
    return Measurement(measured, bound, measured <= bound, message, unit, where, bound - measured)


def at_least(measured: float, bound: float, message: str, unit: str = "", where: str = "") -> Measurement:
    """Compare measured ≥ bound; NaN fails."""
    return Measurement(measured, bound, measured >= bound, message, unit, where, measured - bound)


def close(
    measured: float, expected: float, tolerance: float, message: str, unit: str = "", where: str = ""
) -> Measurement:
    """Compare |measured − expected| ≤ tolerance; NaN fails."""
    apart = abs(measured - expected)
    bound = f"{expected:g} ± {tolerance:.2g}"
    return Measurement(measured, bound, apart <= tolerance, message, unit, where, tolerance - apart)


def equal(measured: object, expected: object, message: str, unit: str = "", where: str = "") -> Measurement:
    """Compare two values, shown as text."""
    return Measurement(str(measured), str(expected), measured == expected, message, unit, where)


def mended(found: Iterable[Measurement], remedy: str) -> Iterator[Measurement]:
    """Yield measurements with a remedy of their own, where they have none yet."""
    for measurement in found:
        yield measurement if measurement.remedy else replace(measurement, remedy=remedy)


def tightness(measurement: Measurement) -> float:
    """Return how near a measurement is to its bound, 1 at the bound, for choosing the one to show."""
    bound, margin = measurement.bound, measurement.margin
    if isinstance(bound, str) or not bound or margin is None or not math.isfinite(margin):
        return 0.0
    return 1 - margin / abs(bound)
