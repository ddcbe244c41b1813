"""RV0903 and RV0904: what a trial leaves behind, and trials that have no score."""

from __future__ import annotations

import dataclasses
import math
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ris_verified._config_load import read
from ris_verified.audit.context import Context
from ris_verified.audit.drills import VERDICT, tiny_folder, tiny_trials, trained_config
from ris_verified.audit.laws.trial_ends import study_prunes
from ris_verified.audit.laws.trial_laws import sample
from ris_verified.audit.laws.trial_scores import best_is_found, study_prefers
from ris_verified.audit.rule import Measurement, at_least, at_most, equal, mended, rule
from ris_verified.errors import RisVerifiedError, StorageError, TrainingError

if TYPE_CHECKING:
    from ris_verified.config import Config
    from ris_verified.pipeline import Pipeline

Score = Callable[[dict[str, Any], int], float]

STUDIED = "minimise the first score over the configured space, with a sampler seeded by configuration and trial"
PRUNED = "hand trials a report where hpo.pruning is on, and end those that are worse than the others at their epoch"


@rule(
    "RV0903",
    "Memory returns to its level between trials",
    law="bytes of live tensors and open files after the last trial = after the first",
    why="A network that stays alive after its trial ends a night of trials at the first hour.",
    how="Equal trials on four scenes, three of them, ten in profile full: every tensor that Python reaches is counted "
    "after each, bound 0 bytes more; open files likewise, and from the second trial what the accelerator has allocated,"
    " where there is one. Profile full: resident memory after the tenth over that after the second, bound 5 %.",
    remedy="keep no result of a trial; close what it opened",
    apart=True,
)
def memory_returns(context: Context) -> Sequence[Measurement]:
    """Bytes are counted: no tolerance. 5 % of the process is the growth that allocators show without a leak."""
    runs = context.trials
    first, last = runs[0], runs[-1]
    grown = max(0, last.tensor_bytes - first.tensor_bytes)
    found = [
        at_most(float(grown), 0.0, f"tensors kept by {len(runs) - 1} trials", "bytes", "objective"),
        at_most(float(max(0, last.files - first.files)), 0.0, "files left open", "files", "objective"),
    ]
    # The first trial makes workspaces that libraries keep.
    grown = max(0, last.accelerator - runs[1].accelerator)
    found.append(at_most(float(grown), 0.0, "growth on the accelerator from trial 2", "bytes", "objective"))
    if len(runs) >= 10:
        share = last.resident / runs[1].resident - 1
        found.append(at_most(share, 0.05, "growth of the process from trial 2 to trial 10", where="objective"))
    return found


def objective_declares(context: Context) -> list[Measurement]:
    """Equal values give equal scores, whatever the trial's number; each sampled value reaches the training."""
    scores = [run.score for run in context.trials]
    spread = max(scores) - min(scores)
    found = [at_most(spread, 0.0, f"spread of the scores of {len(scores)} equal trials", "m", "objective")]
    for name, space in context.pipeline.spaces.items():
        values = sample(space, "high")
        config = trained_config(context, values)
        lost = sorted(n for n, v in values.items() if config is None or read(config, n) != v)
        message = f"sampled values that do not reach the training ({name})"
        found.append(at_most(float(len(lost)), 0.0, message, "values", ", ".join(lost[:3])))
    return found


def sized(config: Config, trials: int, space: str) -> Config:
    """Return the configuration with a study of `trials` trials of a space, which need not be one of ours."""
    # The drills ask for one objective, whatever the study has.
    hpo: dict[str, Any] = {"trials": trials, "space": space, "timed": False}
    return dataclasses.replace(config, hpo=dataclasses.replace(config.hpo, **hpo))


def drill_study(context: Context, objective: Callable[[dict[str, Any], int], float], storage: str, trials: int) -> Any:
    """Run the pipeline's study until it holds `trials` trials of the narrow space, or of its only one."""
    spaces = context.pipeline.spaces
    name = "narrow" if "narrow" in spaces else next(iter(spaces))
    config = context.config
    return context.pipeline.run_study(sized(config, trials, name), objective, storage, VERDICT, spaces)


def _awkward(values: dict[str, Any], number: int) -> float:
    if number == 2:
        raise RuntimeError("a trial of the drill that raises")
    return {0: float("nan"), 1: float("-inf"), 3: float("inf")}.get(number, 0.5 + number)


def sound_study(context: Context, objective: Score, storage: str, trials: int) -> Any:
    """Run `drill_study` where it must succeed.

    Raises:
        StorageError: the study raised anything of its own.
    """
    try:
        return drill_study(context, objective, storage, trials)
    except RisVerifiedError:
        raise
    except Exception as error:
        raise StorageError(
            f"the study raised {type(error).__name__}: {error}", where="run_study", expected="a study that goes on"
        ) from error


def _ended_well(number: int, state: str, value: float | None) -> bool:
    # Numbers 0 to 3 have no score, the others score half more than their number.
    return state in ("FAIL", "PRUNED") if number < 4 else state == "COMPLETE" and value == 0.5 + number


@rule(
    "RV0904",
    "A score that is not finite never enters the study",
    law="NaN, ±∞ and an exception end a trial as failed or pruned; the study goes on; no objective invents a number",
    why="`nan_to_num` makes the trial that diverged the best one, and its parameters are trained for a week.",
    how="A study of six trials that return NaN, −∞, raise, return ∞ and then 4.5 and 5.5: states and values are read "
    "back. Then the pipeline's objective with a score of NaN, and with a training that raises. Bound: none finite.",
    remedy="fail or prune the trial; never replace the value",
    apart=True,
)
def nothing_invented(context: Context) -> Sequence[Measurement]:
    """States and exact values: no tolerance."""
    with tempfile.TemporaryDirectory() as folder:
        study = sound_study(context, _awkward, str(Path(folder) / "journal.log"), 6)
        ends = [(t.state.name, t.value) for t in study.trials]
    wrong = [f"trial {n}: {state} {value}" for n, (state, value) in enumerate(ends) if not _ended_well(n, state, value)]
    whole = sum(state == "COMPLETE" for state, _ in ends)
    found = [
        at_most(float(len(wrong)), 0.0, "trials that ended as they must not", "trials", "; ".join(wrong)),
        at_least(float(whole), 1.0, "complete trials after four without a score", "trials", "run_study"),
    ]
    return [*found, _unscored(context), _untrained(context)]


def _unscored(context: Context) -> Measurement:
    pipeline = dataclasses.replace(tiny_trials(context), score=lambda *_: float("nan"))
    return _no_number(pipeline, context, "a score of NaN")


def _untrained(context: Context) -> Measurement:
    def train(*_: Any, **__: Any) -> Any:
        raise TrainingError("a training of the drill that diverged", where="drill")

    return _no_number(dataclasses.replace(tiny_trials(context), train=train), context, "a training that raised")


def _no_number(pipeline: Pipeline, context: Context, what: str) -> Measurement:
    with tiny_folder(context) as folder:
        try:
            value = pipeline.objective(pipeline, folder / "data", folder / "out", {}, 0)
        except TrainingError:
            value = math.nan
    return equal(math.isfinite(value), False, f"a finite score from {what}", where="objective")


@rule(
    "RV0906",
    "The best trial's parameters build a configuration that trains",
    law="best configuration = base + best parameters, nothing else; one step of it is finite",
    why="Values that stay in the study's database never reach the run that they were sought for.",
    how="A study of three trials of every space whose score prefers the highest learning rate: each parameter of the "
    "best trial is read back from the configuration, every other field compared with the base, and one step of the "
    "small model taken with it. Two studies of one seed whose trials score 0.3, 0.1, 0.2: the best has 0.1, no two "
    "trials have the same values, both studies draw the same. Of twelve trials, each worse than the last, one at "
    "least is pruned with hpo.pruning and none without. Of two objectives a trial of 0.1 m comes before one of 100 m. "
    "Bound: 0 differences. Every trial's parameters have the distributions of its space.",
    remedy="write the best parameters as they are over the base configuration, without the restrictions of a trial",
    apart=True,
)
def best_trains(context: Context) -> Sequence[Measurement]:
    """Exact values; a step is finite or it is not."""
    found: list[Measurement] = []
    for name, space in context.pipeline.spaces.items():
        found += _best_of(context.small, name, set(space))
    found += mended(study_prefers(context), STUDIED)
    return [*found, *best_is_found(context), *mended(study_prunes(context), PRUNED)]


def _best_of(small: Context, name: str, space: set[str]) -> list[Measurement]:
    config = sized(small.config, 3, name)
    pipeline = small.pipeline
    with tempfile.TemporaryDirectory() as folder:
        study = pipeline.run_study(
            config, lambda values, _: -values["train.learning_rate"] if "train.learning_rate" in values else 1.0,
            str(Path(folder) / "journal.log"), VERDICT, pipeline.spaces,
        )  # fmt: skip
        best, parameters = pipeline.best_config(study, config), dict(study.best_params)
    lost = sorted(k for k in space if k not in parameters or read(best, k) != parameters[k])
    base = config.replaced(parameters)
    other = sorted(n for n in vars(base) if vars(base)[n] != vars(best)[n])
    trained = dataclasses.replace(pipeline, config=best)
    state = dataclasses.replace(small, stages=trained).state()
    report = pipeline.train_step(state, small.batch, trained)
    return [
        at_most(float(len(lost)), 0.0, f"best values not read back ({name})", "values", ", ".join(lost[:3])),
        at_most(float(len(other)), 0.0, f"sections that differ besides ({name})", "sections", ", ".join(other)),
        equal(report.skipped, False, f"a step with the best configuration ({name})", where="train_step"),
        equal(math.isfinite(float(report.loss)), True, f"its loss is finite ({name})", where="train_step"),
    ]
