"""Plain text, for a terminal: what went wrong first, the verdict last."""

from __future__ import annotations

from ris_verified.audit.result import Report, Result, one_line


def render(report: Report) -> str:
    """Return each failing rule with its places and remedy, a line for every other rule, and the verdict.

    Args:
        report: what an audit found.
    """
    lines = [line for results in report.failures.values() for line in _failed(results)]
    lines += [_other(result) for result in report.rest]
    lines += [f"WARN  {warning}" for warning in report.warnings]
    wrong = ": " + " ".join(report.failures) if report.failures else ""
    lines += ["", f"{report.verdict}: {report.counts} in {report.seconds:.1f} s (profile {report.profile}){wrong}"]
    return "\n".join(one_line(line) for line in lines) + "\n"


def _failed(results: list[Result]) -> list[str]:
    worst = results[0]
    lines = [f"{worst.status.upper():5} {worst.id} {worst.title} ({worst.severity})"]
    lines += [f"      {f'{r.where}: ' if r.where else ''}{r.message}{_figures(r)}" for r in results]
    remedies = dict.fromkeys(r.remedy for r in results if r.remedy)
    return [*lines, *(f"      → {remedy}" for remedy in remedies)]


def _other(result: Result) -> str:
    figures = _figures(result) if result.status == "pass" else ""
    return f"{result.status.upper():5} {result.id} {result.title}: {result.message}{figures}"


def _figures(result: Result) -> str:
    return f" [{result.figures}]" if result.figures else ""
