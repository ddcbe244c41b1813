"""One HTML page without scripts or other files: verdict first, failures first, with small plots."""

from __future__ import annotations

import math
from collections import defaultdict

from ris_verified.audit.checklist import SECTIONS
from ris_verified.audit.result import Report, Result
from ris_verified.audit.rules import rules

DECADES = 3.0


def render(report: Report) -> str:
    """Return the page.

    Args:
        report: what an audit found, with its kill table where the audit was proved.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ris_verified.audit.formats", "."), autoescape=True, trim_blocks=True
    )
    page: str = environment.get_template("report.html.j2").render(
        report=report,
        wrong=failures(report),
        rest=[r for r in report.worst_first if r.status not in ("fail", "error")],
        rules=rules(),
        derivation=derivation,
        position=position,
        sections=sections(report),
        killed=sum(kill.killed for kill in report.kills),
    )
    return page + "\n"


def failures(report: Report) -> list[tuple[str, list[Result]]]:
    """Return id and failing results of each rule, the worst rule first."""
    found: dict[str, list[Result]] = defaultdict(list)
    for result in report.worst_first:
        if result.status in ("fail", "error"):
            found[result.id].append(result)
    return list(found.items())


def derivation(id: str) -> str:
    """Return where a rule's bound comes from; empty for an id that is no rule."""
    return " ".join((rules()[id].check.__doc__ or "").split()) if id in rules() else ""


def position(result: Result) -> float | None:
    """Return where a measured value lies beside its bound: 50 at the bound, 0 and 100 three decades off.

    None where there is no ratio of positive numbers to show; zero lies at 0.
    """
    measured, bound = result.measured, result.bound
    if isinstance(measured, str) or isinstance(bound, str) or bound <= 0 or not math.isfinite(measured + bound):
        return None
    if measured < 0:
        return None
    decades = -DECADES if measured == 0 else math.log10(measured / bound)
    return 50 + 50 * max(-DECADES, min(DECADES, decades)) / DECADES


def sections(report: Report) -> list[tuple[str, str, dict[str, int], float, float]]:
    """Return id, name, results by status, seconds and share of the longest time of each section."""
    counts: dict[str, dict[str, int]] = defaultdict(lambda: {"pass": 0, "skip": 0, "fail": 0, "error": 0})
    seconds: dict[str, dict[str, float]] = defaultdict(dict)
    for result in report.results:
        counts[result.id[:4]][result.status] += 1
        # Every result of a rule carries the time of its one check.
        seconds[result.id[:4]][result.id] = result.seconds
    totals = {name: sum(times.values()) for name, times in seconds.items()}
    longest = max(totals.values(), default=0.0) or 1.0
    return [
        (name, SECTIONS.get(name, "Audit"), counts[name], total, 100 * total / longest)
        for name, total in sorted(totals.items())
    ]
