"""Slips in the command that starts the study: it asks the audit, and starts all the same."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from typing import TYPE_CHECKING

from ris_verified.audit.faults.fault import Fault, SourceFault, staged

if TYPE_CHECKING:
    from ris_verified.pipeline import Pipeline

_HEAD = """
import argparse
import logging
import sys
from audit import audit

log = logging.getLogger(__name__)

def options():
    parser = argparse.ArgumentParser()
    parser.add_argument("--n_trials", type=int)
    parser.add_argument("--epochs_per_trial", type=int)
    parser.add_argument("--space")
    parser.add_argument("--strict", action="store_true")
    return parser.parse_args()
"""

_GATE = """
def gate(pipeline):
    report = audit(pipeline)
    if report.verdict != "GO":
        raise RuntimeError("NO-GO")
"""


def command(body: str, *helpers: str) -> dict[str, str]:
    """Return a source tree whose command has this body; it knows `pipeline`, `study` and `args`.

    Args:
        body: lines after the options are read.
        helpers: functions before it.
    """
    lines = textwrap.indent(textwrap.dedent(body).strip("\n"), "    ")
    text = "\n".join([_HEAD, *helpers, "def main(pipeline, study):", "    args = options()", lines, ""])
    return {"hpo/__main__.py": text}


_UNGATED = """
def resume(study, args):
    study.optimize(args.n_trials)
"""

_ALLOWED = """
def allowed(pipeline):
    return audit(pipeline).verdict == "GO"
"""


def _told(other: dict[str, str]) -> Callable[[Pipeline], Pipeline]:
    """Return a plant whose study hears something else of the audit."""
    return staged(
        "run_study",
        lambda f, cfg, objective, storage, verdict, *more: f(cfg, objective, storage, {**verdict, **other}, *more),
    )


FAULTS = (
    Fault("study_hears_no_no_go", "RV0905", "the verdict is a column of the report", _told({"verdict": "GO"})),
    Fault("study_hears_no_waiver", "RV0905", "it refuses whoever said why", _told({"waiver": ""})),
    SourceFault("verdict_only_logged", "RV1501", "read and logged", command("""
        report = audit(pipeline)
        log.info("verdict %s", report.verdict)
        study.optimize(args.n_trials)
    """)),
    SourceFault("verdict_or_true", "RV1501", "a switch from a debugging session", command("""
        if audit(pipeline).verdict == "GO" or True:
            study.optimize(args.n_trials)
    """)),
    SourceFault("verdict_as_truth", "RV1501", "NO-GO is a text like any other", command("""
        if not audit(pipeline).verdict:
            sys.exit(1)
        study.optimize(args.n_trials)
    """)),
    SourceFault("verdict_inverted", "RV1501", "the study starts on a NO-GO only", command("""
        verdict = audit(pipeline).verdict
        if verdict == "GO":
            return
        study.optimize(args.n_trials)
    """)),
    SourceFault("verdict_misspelt", "RV1501", "no verdict is written like that", command("""
        if audit(pipeline).verdict == "NO_GO":
            raise SystemExit("NO-GO")
        study.optimize(args.n_trials)
    """)),
    SourceFault("study_before_audit", "RV1501", "the refusal comes after the study", command("""
        study.optimize(args.n_trials)
        gate(pipeline)
    """, _GATE)),
    SourceFault("refusal_only_warns", "RV1501", "a warning in the place of an error", command("""
        report = audit(pipeline)
        if report.verdict != "GO":
            log.warning("NO-GO: %s", report.failures)
        study.optimize(args.n_trials)
    """)),
    SourceFault("refusal_caught", "RV1501", "the error of the gate is logged", command("""
        try:
            gate(pipeline)
        except Exception as error:
            log.error("audit: %s", error)
        study.optimize(args.n_trials)
    """, _GATE)),
    SourceFault("refusal_on_request", "RV1501", "nobody asks to be refused", command("""
        report = audit(pipeline)
        if args.strict and report.verdict != "GO":
            sys.exit(1)
        study.optimize(args.n_trials)
    """)),
    SourceFault("audit_on_request", "RV1501", "nobody asks for the audit", command("""
        if args.strict:
            gate(pipeline)
        study.optimize(args.n_trials)
    """, _GATE)),
    SourceFault("answer_of_the_gate_dropped", "RV1501", "the helper returns a bool that nobody reads", command("""
        allowed(pipeline)
        study.optimize(args.n_trials)
    """, _ALLOWED)),
    SourceFault("second_way_in", "RV1501", "one command asks the audit, the other does not", command("""
        gate(pipeline)
        study.optimize(args.n_trials)
    """, _GATE, _UNGATED)),
    SourceFault("branch_without_gate", "RV1501", "a study that goes on is not asked for again", command("""
        if args.space == "wide":
            gate(pipeline)
            study.optimize(args.n_trials)
        else:
            resume(study, args)
    """, _GATE, _UNGATED)),
)  # fmt: skip
