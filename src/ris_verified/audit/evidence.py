"""Writes the evidence: `python -m ris_verified.audit.evidence [FOLDER]` traces every line and proves every fault."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import multiprocessing
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TypeVar

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

Task = TypeVar("Task")
Done = TypeVar("Done")


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


def write_proof(folder: Path, config: Config, workers: int) -> int:
    """Plant every fault and write `traceability.md`, `kill_table.md` and `reference_report.md` and `.html`.

    Args:
        folder: where to.
        config: of the sound pipeline in which the faults are planted.
        workers: processes, each of which takes one rule's faults after another's.

    Returns:
        The number of surviving faults.
    """
    planted = faults()
    # The rule with the most faults first, or one process would be left alone with it.
    most = Counter(fault.rule for fault in planted).most_common()
    proved = _map(_proved, [(config, rule) for rule, _ in most], workers, "rules proved")
    found = {kill.fault: kill for kills in proved for kill in kills}
    kills = tuple(found[fault.name] for fault in planted)
    report = dataclasses.replace(audit(Pipeline.default(config)), kills=kills)
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


def write_alarms(folder: Path, config: Config, label: str, seeds: int, drawn: int, workers: int) -> int:
    """Audit the sound pipeline over seeds and drawn configurations and write `false_alarms.md`.

    Args:
        folder: where to.
        config: with which the seeds are run.
        label: its name.
        seeds: how many of `config`.
        drawn: how many drawn configurations.
        workers: processes.

    Returns:
        The number of rules that did not pass.
    """
    tasks = [(config.replaced({"seed": s}), f"seed {s}") for s in range(seeds)]
    tasks += [(drawn_config(s), f"drawn {s}") for s in range(drawn)]
    raised = [alarm for found in _map(_sound, tasks, workers, "sound pipelines audited") for alarm in found]
    atomic_write(folder / "false_alarms.md", alarm_markdown(seeds, drawn, raised, label).encode())
    return len(raised)


def _proved(task: tuple[Config, str]) -> list[Kill]:
    config, rule = task
    return list(prove(Pipeline.default(config), [rule]))


def _sound(task: tuple[Config, str]) -> list[Alarm]:
    return list(alarms(*task))


def _map(work: Callable[[Task], list[Done]], tasks: Sequence[Task], workers: int, what: str) -> Iterator[list[Done]]:
    """Yield what `work` makes of each task, in order; a new process for each worker, with one thread of torch."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=one_thread) as pool:
        for done, found in enumerate(pool.map(work, tasks), start=1):
            if sys.stderr.isatty():
                sys.stderr.write(f"\r{done} of {len(tasks)} {what}")
            yield found
    if sys.stderr.isatty():
        sys.stderr.write("\n")


def one_thread() -> None:
    """Keep torch to one thread: the workers share the cores."""
    import torch

    torch.set_num_threads(1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; returns 1 while a fault survives or a sound pipeline raises an alarm."""
    parser = argparse.ArgumentParser(prog="python -m ris_verified.audit.evidence", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("audits"))
    parser.add_argument("--preset", default=None, help="configuration file or preset")
    parser.add_argument("--seeds", type=int, default=0, metavar="N", help="also audit N seeds, for false alarms")
    parser.add_argument("--drawn", type=int, default=0, metavar="N", help="also audit N drawn configurations")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="processes")
    args = parser.parse_args(arguments)
    config = Config.load(args.preset)
    wrong = write_proof(args.folder, config, args.workers)
    sys.stdout.write(f"evidence in {args.folder}, {wrong} surviving faults\n")
    if args.seeds or args.drawn:
        raised = write_alarms(args.folder, config, args.preset or "reference", args.seeds, args.drawn, args.workers)
        sys.stdout.write(f"{raised} false alarms over {args.seeds} seeds and {args.drawn} configurations\n")
        wrong += raised
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
