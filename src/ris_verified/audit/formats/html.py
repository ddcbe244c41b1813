"""One HTML page without scripts or other files: verdict first, failures first, with small plots."""

from __future__ import annotations

from ris_verified.audit.checklist import SECTIONS
from ris_verified.audit.formats.plots import KINDS, bars, kind, plot, slowest
from ris_verified.audit.result import RANK, Report, one_line
from ris_verified.audit.rules import rules
from ris_verified.page import templates


def render(report: Report) -> str:
    """Return the page.

    Args:
        report: what an audit found, with its kill table where the audit was proved.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=templates("ris_verified.audit.formats"), autoescape=True, trim_blocks=True, finalize=_shown,
    )  # fmt: skip
    results = report.results
    page: str = environment.get_template("report.html.j2").render(
        report=report,
        rules=rules(),
        derivation=derivation,
        plot=plot,
        kind=kind,
        kinds=KINDS,
        names=SECTIONS,
        sections=bars(results, lambda r: r.id[:4], sorted({r.id[:4] for r in results})),
        severities=bars(results, lambda r: r.severity, RANK),
        slowest=slowest(results),
        kills=sorted(report.kills, key=lambda kill: kill.killed),
        killed=sum(kill.killed for kill in report.kills),
    )
    return page + "\n"


def _shown(value: object) -> object:
    # Exactly str: what a macro returns is markup, and clean already.
    return one_line(value) if type(value) is str else value


def derivation(id: str) -> str:
    """Return where a rule's bound comes from; empty for an id that is no rule."""
    return " ".join((rules()[id].check.__doc__ or "").split()) if id in rules() else ""
