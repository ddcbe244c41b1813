"""Plants every fault, runs the rules of its section and shows which rule kills it."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ris_verified.audit.context import Context
from ris_verified.audit.faults import faults
from ris_verified.audit.faults.fault import AnyFault, Fault, SourceFault
from ris_verified.audit.faults.sources import SOUND
from ris_verified.audit.result import Result
from ris_verified.audit.rule import Rule
from ris_verified.audit.rules import rules
from ris_verified.audit.runner import PACKAGE, run_rule, undisturbed
from ris_verified.audit.state.fingerprint import as_found
from ris_verified.errors import AuditError

if TYPE_CHECKING:
    from ris_verified.pipeline import Pipeline


@dataclass(frozen=True)
class Kill:
    """What became of one fault.

    Args:
        fault: its name.
        rule: the rule predicted to fail on it.
        story: how the fault comes about.
        clean: status of the predicted rule on the sound pipeline.
        status: status of the predicted rule on the fault.
        killed_by: rules of the section that fail on it.
        evidence: message and figures of the predicted rule.
        seconds: of both runs.
    """

    fault: str
    rule: str
    story: str
    clean: str
    status: str
    killed_by: tuple[str, ...]
    evidence: str
    seconds: float

    @property
    def killed(self) -> bool:
        """The predicted rule passes without the fault and fails, without a crash, on it."""
        return self.clean == "pass" and self.status == "fail"


def _data_config(pipeline: Pipeline) -> Pipeline:
    from ris_verified.audit.context import small_config

    small = small_config(pipeline.config)
    sizes = dataclasses.replace(
        small.data, train_scenes=4, validation_scenes=2, test_scenes=2, shard_scenes=2, workers=1
    )
    return dataclasses.replace(pipeline, config=dataclasses.replace(small, data=sizes))


def _contexts(fault: AnyFault, pipeline: Pipeline, clean: Context, folder: Path) -> tuple[Context, Context]:
    """Return the sound and the faulty context."""
    if isinstance(fault, Fault):
        return clean, Context(fault.plant(pipeline), "quick", PACKAGE)
    if isinstance(fault, SourceFault):
        fault.write(folder)
        empty = folder.parent / "sound"
        empty.mkdir()
        SourceFault("sound", fault.rule, "", SOUND).write(empty)
        return Context(None, "quick", empty), Context(None, "quick", folder)
    from ris_verified.data.generate import generate

    small = _data_config(pipeline)
    sound = folder.parent / "sound"
    generate(small.config, sound)
    folder.rmdir()
    shutil.copytree(sound, folder)
    fault.damage(folder)
    return Context(small, "quick", PACKAGE, sound), Context(small, "quick", PACKAGE, folder)


def _status(results: Sequence[Result]) -> str:
    order = ("error", "fail", "skip", "pass")
    return next(status for status in order if any(r.status == status for r in results))


def prove_one(
    fault: AnyFault, pipeline: Pipeline, clean: Context, known: dict[str, str], *, section: bool = True
) -> Kill:
    """Plant one fault and run the predicted rule and its section.

    Args:
        fault: what to plant.
        pipeline: the sound pipeline.
        clean: its context, shared by all faults.
        known: statuses of rules on `clean`, filled in as they are found.
        section: whether to run the other rules of the section, too.

    Returns:
        A `Kill`.
    """
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as name, undisturbed():
        folder = Path(name) / "faulty"
        folder.mkdir()
        sound, faulty = _contexts(fault, pipeline, clean, folder)
        predicted = rules()[fault.rule]
        if sound is not clean or fault.rule not in known:
            known[fault.rule if sound is clean else ""] = _status(run_rule(predicted, sound))
        before = known[fault.rule] if sound is clean else known[""]
        results = run_rule(predicted, faulty)
        around = _neighbours(predicted, fault) if section else []
        others = [item for item in around if _status(run_rule(item, faulty)) == "fail"]
    status = _status(results)
    by = ((predicted.id,) if status == "fail" else ()) + tuple(item.id for item in others)
    worst = next((r for r in results if r.status == status), results[0])
    # Where the faulty data lay differs from run to run and says nothing.
    evidence = f"{worst.message} [{worst.measured}, bound {worst.bound}]".replace(f"{name}/", "")
    return Kill(fault.name, fault.rule, fault.story, before, status, by, evidence, time.perf_counter() - began)


def _neighbours(predicted: Rule, fault: AnyFault) -> list[Rule]:
    wanted = "source" if isinstance(fault, SourceFault) else "pipeline"
    return [
        item
        for item in rules().values()
        if item.section == predicted.section
        and item is not predicted
        and item.needs == wanted
        and item.profile == "quick"
    ]


def prove(pipeline: Pipeline, select: Sequence[str] = ()) -> Iterator[Kill]:
    """Plant every fault in turn.

    Args:
        pipeline: sound; its configuration decides the sizes.
        select: ids or beginnings of ids of the predicted rules; none means all.

    Yields:
        A `Kill` for each fault.

    Raises:
        AuditError: a fault's run left the pipeline changed for good.
    """
    clean, known = Context(pipeline, "quick", PACKAGE), dict[str, str]()
    for fault in faults():
        if not select or any(fault.rule.startswith(text) for text in select):
            with as_found(pipeline) as found:
                kill = prove_one(fault, pipeline, clean, known)
            if found.changed:
                raise AuditError("changed what it could not put back", where=f"fault {fault.name}: {found.changed[0]}")
            yield kill


def kill_table(kills: Sequence[Kill]) -> str:
    """Return faults, predicted rules and what killed them as text."""
    rows = [("fault", "predicted", "outcome", "killed by")]
    for kill in kills:
        outcome = "killed" if kill.killed else f"SURVIVED ({kill.clean} clean, {kill.status} planted)"
        rows.append((kill.fault, kill.rule, outcome, " ".join(kill.killed_by) or "–"))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    lines = ["  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[3]]) for row in rows]
    killed = sum(kill.killed for kill in kills)
    return "\n".join([*lines, "", f"{killed} of {len(kills)} faults killed by the predicted rule"]) + "\n"
