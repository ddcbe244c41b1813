"""Writes the evidence: `python -m ris_verified.audit.evidence [FOLDER]` traces every line and proves every fault."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ris_verified.audit.checklist import SECTIONS, checklist_lines
from ris_verified.audit.faults import faults
from ris_verified.audit.prove import Kill, prove
from ris_verified.audit.result import Report
from ris_verified.audit.rules import rules
from ris_verified.audit.runner import audit, environment
from ris_verified.config import Config
from ris_verified.files import atomic_write
from ris_verified.pipeline import Pipeline


def traceability() -> str:
    """Return checklist line → rule → faults as Markdown; a line without a rule says so."""
    known, planted = rules(), faults()
    lines = checklist_lines()
    covered = [line for line in lines if line in known]
    rows = [
        "# Traceability",
        "",
        f"{len(covered)} of {len(lines)} checklist lines have a rule; {len(planted)} faults are planted.",
        "",
    ]
    rows += ["| line | rule | severity | profile | planted faults |", "|---|---|---|---|---|"]
    for line in lines:
        names = ", ".join(f"`{fault.name}`" for fault in planted if fault.rule == line) or "none yet"
        if line in known:
            item = known[line]
            rows.append(f"| {line} | {item.title} | {item.severity} | {item.profile} | {names} |")
        else:
            rows.append(f"| {line} ({SECTIONS[line[:4]]}) | **not yet** | | | |")
    return "\n".join(rows) + "\n"


def kill_markdown(kills: Sequence[Kill]) -> str:
    """Return the kill table as Markdown."""
    killed = sum(kill.killed for kill in kills)
    rows = [
        "# Kill table",
        "",
        f"{killed} of {len(kills)} planted faults are killed by the predicted rule, which passes without the fault.",
        "",
    ]
    rows += [
        "| fault | story | predicted | outcome | failing rules of the section | what the rule measured |",
        "|---|---|---|---|---|---|",
    ]
    for kill in kills:
        outcome = "killed" if kill.killed else f"**survived** ({kill.clean} clean, {kill.status} planted)"
        evidence = kill.evidence.replace("|", "\\|").replace("\n", " ")
        rows.append(
            f"| `{kill.fault}` | {kill.story} | {kill.rule} | {outcome} | {' '.join(kill.killed_by)} | {evidence} |"
        )
    return "\n".join(rows) + "\n"


def report_markdown(report: Report) -> str:
    """Return the reference report as Markdown."""
    machine = ", ".join(f"{name} {value}" for name, value in environment().items())
    head = f"# Reference report\n\nConfiguration `{report.config_hash}`, {machine}.\n\n"
    return f"{head}```\n{report.to_text()}```\n"


def write_evidence(folder: Path, pipeline: Pipeline) -> int:
    """Write `traceability.md`, `kill_table.md` and `reference_report.md`.

    Args:
        folder: where to.
        pipeline: sound; faults are planted in it.

    Returns:
        The number of surviving faults.
    """
    kills = list(prove(pipeline))
    atomic_write(folder / "traceability.md", traceability().encode())
    atomic_write(folder / "kill_table.md", kill_markdown(kills).encode())
    atomic_write(folder / "reference_report.md", report_markdown(audit(pipeline)).encode())
    return sum(not kill.killed for kill in kills)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; returns 1 while a fault survives."""
    parser = argparse.ArgumentParser(prog="python -m ris_verified.audit.evidence", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("audits"))
    parser.add_argument("--preset", default=None, help="configuration file or preset")
    args = parser.parse_args(arguments)
    survivors = write_evidence(args.folder, Pipeline.default(Config.load(args.preset)))
    sys.stdout.write(f"evidence in {args.folder}, {survivors} surviving faults\n")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
