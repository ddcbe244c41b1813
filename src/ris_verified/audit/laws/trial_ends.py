"""When a trial ends: by its patience, by the study's pruner, and not otherwise; for RV1604 and RV0906."""

from __future__ import annotations

import dataclasses
import inspect
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ris_verified.audit.drills import VERDICT
from ris_verified.audit.laws.trial_scores import scored_epochs
from ris_verified.audit.rule import Measurement, equal

if TYPE_CHECKING:
    from ris_verified.audit.context import Context

# After the first epoch comes a worse one, then the best of all.
SCORES = (0.1, 0.2, 0.05)
# More trials than any usual pruner waits for before it begins; each is worse than those before at every epoch.
TRIALS, EPOCHS = 12, 8


def objective_stops(context: Context) -> list[Measurement]:
    """Train a trial of epochs that score 0.1, 0.2 and 0.05, with a patience of one epoch and without any."""
    found = []
    for patience, wanted in ((0, [1, 2, 3]), (1, [1, 2])):
        epochs = scored_epochs(context, SCORES, {"hpo.patience": patience})
        if epochs is not None:
            text = f"epochs of a trial that score 0.1, 0.2, 0.05 with hpo.patience = {patience}"
            found.append(equal(epochs, wanted, text, where="objective: hpo.patience"))
    return found


def study_prunes(context: Context) -> list[Measurement]:
    """Run a study of trials of which each is worse than the last from its first epoch on, with and without pruning."""
    run = context.pipeline.run_study
    try:
        promised = "judged" in inspect.signature(run).bind(None, None, "", {}, {}, True).arguments
    except (TypeError, ValueError):
        # Such a study takes no trials that report.
        return []
    found = []
    for pruning in (True, False):
        pruned = _pruned(context, pruning)
        if pruned is None and promised and pruning:
            found.append(
                equal("nobody", "the study", "who is told how an epoch of a judged trial went", where="run_study")
            )
        if pruned is not None:
            text = f"a trial was pruned with hpo.pruning = {pruning}"
            found.append(equal(bool(pruned), pruning, text, where="run_study: hpo.pruning"))
    return found


def _pruned(context: Context, pruning: bool) -> int | None:
    """Return how many trials were pruned, None where no trial was handed a report."""
    hpo: dict[str, Any] = {"trials": TRIALS, "epochs_per_trial": EPOCHS, "pruning": pruning, "timed": False}
    config = dataclasses.replace(context.config, hpo=dataclasses.replace(context.config.hpo, **hpo))

    reported: list[int] = []

    def worse(values: dict[str, Any], number: int, report: Callable[[int, float], None] | None = None) -> float:
        for epoch in range(1, EPOCHS + 1) if report else ():
            reported.append(epoch)
            report(epoch, 1.0 + number)  # type: ignore[misc]
        return 1.0 + number

    with tempfile.TemporaryDirectory() as folder:
        journal, spaces = str(Path(folder) / "journal.log"), context.pipeline.spaces
        study = context.pipeline.run_study(config, worse, journal, VERDICT, spaces, True)
        pruned = sum(trial.state.name == "PRUNED" for trial in study.get_trials())
    return pruned if reported else None
