"""A study that is told what the audit said; measured for RV0905."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ris_verified.audit.drills import VERDICT
from ris_verified.audit.rule import Measurement, equal

if TYPE_CHECKING:
    from ris_verified.audit.context import Context


def study_heeds(context: Context) -> list[Measurement]:
    """Ask for one trial on a NO-GO, without a waiver and with one."""
    found = []
    for waiver, wanted in (("", 0), ("a drill", 1)):
        begun, raised = _trials(context, waiver)
        text = f"trials of a study that is told NO-GO, waiver {waiver!r}{raised}"
        found.append(equal(begun, wanted, text, "trials", "run_study: verdict"))
    return found


def _trials(context: Context, waiver: str) -> tuple[int, str]:
    """Return how many trials were begun, and what the study raised: however it refuses, none must be."""
    run: list[int] = []

    def counted(values: dict[str, Any], number: int) -> float:
        run.append(number)
        return 1.0

    pipeline, told, raised = context.pipeline, {**VERDICT, "verdict": "NO-GO", "waiver": waiver}, ""
    config = context.config.replaced({"hpo.trials": 1, "hpo.timed": False})
    with tempfile.TemporaryDirectory() as folder:
        try:
            pipeline.run_study(config, counted, str(Path(folder) / "told.log"), told, pipeline.spaces)
        except Exception as error:  # noqa: BLE001 - what a study refuses with is its own affair
            raised = f", which raised {type(error).__name__}"
    return len(run), raised
