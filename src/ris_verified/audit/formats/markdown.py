"""Markdown, for a pull request or a job's summary."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ris_verified.audit.result import Report, Result, one_line

if TYPE_CHECKING:
    from ris_verified.audit.prove import Kill

# A comment on GitHub holds 65,536 characters.
LIMIT = 60_000
MARKS = {"error": "ERROR", "fail": "FAIL", "skip": "skip", "pass": "pass"}


def render(report: Report) -> str:
    """Return the verdict, then what went wrong, then everything that was measured.

    Args:
        report: what an audit found.
    """
    rows = [f"# Audit: {report.verdict}", "", f"{report.counts} in {report.seconds:.1f} s, profile {report.profile}."]
    rows += [f"- Warning: {cell(text)}" for text in report.warnings]
    if report.failures:
        rows += ["", "## What failed", ""]
        for results in report.failures.values():
            rows += _failed(results)
    if report.rest:
        rows += ["", "## What was measured", "", "| rule | status | what | figures |", "|---|---|---|---|"]
        rows += [
            f"| {r.id} {cell(r.title)} | {MARKS[r.status]} | {cell(r.message)} | {cell(r.figures)} |"
            for r in report.rest
        ]
    if report.kills:
        rows += ["", "## Planted faults", "", *kill_rows(report.kills)]
    machine = ", ".join(f"{name} {value}" for name, value in report.environment.items())
    rows += ["", f"Configuration `{report.config_hash or 'none'}`, {cell(machine)}."]
    return "\n".join(_fitted(rows)) + "\n"


def _fitted(rows: list[str]) -> list[str]:
    """Return the rows that a comment can hold, the last one included, and a word on how many are left out."""
    total, kept = len(rows[-1]), list[str]()
    for row in rows[:-1]:
        total += len(row) + 1
        if total > LIMIT:
            return [*kept, "", f"{len(rows) - 1 - len(kept)} lines more: see the formats html or json.", "", rows[-1]]
        kept.append(row)
    return rows


def _failed(results: list[Result]) -> list[str]:
    worst = results[0]
    rows = [f"- **{MARKS[worst.status]} {worst.id} {cell(worst.title)}** ({worst.severity})"]
    for result in results:
        place = f"`{_code(result.where)}`: " if result.where else ""
        figures = f" [{cell(result.figures)}]" if result.figures else ""
        rows.append(f"  - {place}{cell(result.message)}{figures}")
    remedies = dict.fromkeys(r.remedy for r in results if r.remedy)
    return [*rows, *(f"  - Remedy: {cell(remedy)}" for remedy in remedies)]


def kill_rows(kills: Sequence[Kill]) -> Sequence[str]:
    """Return the kill table's rows."""
    rows = ["| fault | story | predicted | outcome | failing rules of the section | what the rule measured |"]
    rows.append("|---|---|---|---|---|---|")
    for kill in kills:
        outcome = "killed" if kill.killed else f"**survived** ({kill.clean} clean, {kill.status} planted)"
        by, evidence = " ".join(kill.killed_by), cell(kill.evidence)
        rows.append(f"| `{kill.fault}` | {cell(kill.story)} | {kill.rule} | {outcome} | {by} | {evidence} |")
    return rows


def cell(text: str) -> str:
    """Return a text that stays within a table's cell and is shown as it is written."""
    return re.sub(r"([\\`*_\[\]<>|#&~])", r"\\\1", " ".join(one_line(text).split()))


def _code(text: str) -> str:
    return " ".join(one_line(text).replace("`", "'").split())
