"""Writes the evidence: `python -m ris_verified.audit.evidence [FOLDER]` traces every line and proves every fault."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from ris_verified.audit.alarms import Alarm, alarms, drawn_config
from ris_verified.audit.checklist import SECTIONS, checklist_lines
from ris_verified.audit.faults import faults
from ris_verified.audit.formats import render
from ris_verified.audit.formats.markdown import cell, kill_rows
from ris_verified.audit.prove import Kill, prove
from ris_verified.audit.rules import rules
from ris_verified.audit.runner import audit
from ris_verified.config import Config
from ris_verified.files import atomic_write
from ris_verified.pipeline import Pipeline


def traceability(kills: Sequence[Kill] = (), day: str = "") -> str:
    """Return checklist line → rule → faults → last kill as Markdown; a line without a rule says so.

    Args:
        kills: outcome of the planted faults.
        day: when they were planted.
    """
    known, planted, lines = rules(), faults(), checklist_lines()
    covered = sum(line in known for line in lines)
    rows = [
        "# Traceability",
        "",
        f"{covered} of {len(lines)} checklist lines have a rule; {len(planted)} faults are planted.",
    ]
    rows += [""]
    rows += ["| line | rule | severity | profile | planted faults | last kill |", "|---|---|---|---|---|---|"]
    for line in lines:
        names = ", ".join(f"`{fault.name}`" for fault in planted if fault.rule == line) or "none yet"
        if line in known:
            item, last = known[line], _last_kill([kill for kill in kills if kill.rule == line], day)
            rows.append(f"| {line} | {cell(item.title)} | {item.severity} | {item.profile} | {names} | {last} |")
        else:
            rows.append(f"| {line} ({SECTIONS[line[:4]]}) | **not yet** | | | | |")
    return "\n".join(rows) + "\n"


def _last_kill(kills: Sequence[Kill], day: str) -> str:
    done = [kill for kill in kills if kill.killed]
    return f"{day}: {len(done)} of {len(kills)}, `{done[-1].fault}`" if done else "none"


def kill_markdown(kills: Sequence[Kill]) -> str:
    """Return the kill table as Markdown."""
    killed = sum(kill.killed for kill in kills)
    head = f"{killed} of {len(kills)} planted faults are killed by the predicted rule, which passes without the fault."
    return "\n".join(["# Kill table", "", head, "", *kill_rows(kills)]) + "\n"


def alarm_markdown(seeds: int, drawn: int, raised: Sequence[Alarm], preset: str) -> str:
    """Return what was audited without a fault, and what was raised all the same, as Markdown."""
    rows = [
        "# False alarms",
        "",
        f"The sound pipeline, profile quick: {seeds} seeds of the configuration `{preset}` and {drawn}",
    ]
    rows[-1] += " configurations drawn from the family in `src/ris_verified/audit/alarms.py`. "
    rows[-1] += f"Rules that did not pass: {len(raised)}."
    if raised:
        rows += ["", "| configuration | rule | status | what |", "|---|---|---|---|"]
        rows += ["| " + " | ".join(cell(text) for text in vars(alarm).values()) + " |" for alarm in raised]
    return "\n".join(rows) + "\n"


def write_proof(folder: Path, pipeline: Pipeline) -> int:
    """Plant every fault and write `traceability.md`, `kill_table.md` and `reference_report.md` and `.html`.

    Args:
        folder: where to.
        pipeline: sound; faults are planted in it.

    Returns:
        The number of surviving faults.
    """
    kills = tuple(prove(pipeline))
    report = dataclasses.replace(audit(pipeline), kills=kills)
    day = datetime.date.today().isoformat()
    texts = {
        "traceability.md": traceability(kills, day),
        "kill_table.md": kill_markdown(kills),
        "reference_report.md": render(dataclasses.replace(report, kills=()), "markdown"),
        "reference_report.html": render(report, "html"),
    }
    for name, text in texts.items():
        atomic_write(folder / name, text.encode())
    return sum(not kill.killed for kill in kills)


def write_alarms(folder: Path, config: Config, label: str, seeds: Iterable[int], drawn: Iterable[int]) -> int:
    """Audit the sound pipeline over seeds and drawn configurations and write `false_alarms.md`.

    Args:
        folder: where to.
        config: with which the seeds are run.
        label: its name.
        seeds: of `config`.
        drawn: seeds of the drawn configurations.

    Returns:
        The number of rules that did not pass.
    """
    plain, family = list(seeds), list(drawn)
    raised = [a for s in plain for a in alarms(config.replaced({"seed": s}), f"seed {s}")]
    raised += [a for s in family for a in alarms(drawn_config(s), f"drawn {s}")]
    atomic_write(folder / "false_alarms.md", alarm_markdown(len(plain), len(family), raised, label).encode())
    return len(raised)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; returns 1 while a fault survives or a sound pipeline raises an alarm."""
    parser = argparse.ArgumentParser(prog="python -m ris_verified.audit.evidence", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("audits"))
    parser.add_argument("--preset", default=None, help="configuration file or preset")
    parser.add_argument("--seeds", type=int, default=0, metavar="N", help="also audit N seeds, for false alarms")
    parser.add_argument("--drawn", type=int, default=0, metavar="N", help="also audit N drawn configurations")
    args = parser.parse_args(arguments)
    config = Config.load(args.preset)
    wrong = write_proof(args.folder, Pipeline.default(config))
    sys.stdout.write(f"evidence in {args.folder}, {wrong} surviving faults\n")
    if args.seeds or args.drawn:
        label = args.preset or "reference"
        raised = write_alarms(args.folder, config, label, range(args.seeds), range(args.drawn))
        sys.stdout.write(f"{raised} false alarms over {args.seeds} seeds and {args.drawn} configurations\n")
        wrong += raised
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
