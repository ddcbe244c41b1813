"""Slips in trials, studies and their storage."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import FloatDistribution

from ris_verified.audit.faults.fault import Fault
from ris_verified.errors import RisVerifiedError, StorageError
from ris_verified.pipeline import Pipeline


def _models_kept(pipeline: Pipeline) -> Pipeline:
    kept: list[Any] = []

    def train(*given: Any, **options: Any) -> Any:
        result = pipeline.train(*given, **options)
        kept.append(result.model)
        return result

    return dataclasses.replace(pipeline, train=train)


def _files_left_open(pipeline: Pipeline) -> Pipeline:
    def objective(pipe: Pipeline, data: Path, out: Path, values: dict[str, Any], number: int, *more: Any) -> float:
        os.open(data, os.O_RDONLY)
        return pipeline.objective(pipe, data, out, values, number, *more)

    return dataclasses.replace(pipeline, objective=objective)


def _scoring(change: Callable[[float], float]) -> Callable[[Pipeline], Pipeline]:
    """Return a plant that changes what an objective returns."""

    def plant(pipeline: Pipeline) -> Pipeline:
        def objective(pipe: Pipeline, *given: Any, **options: Any) -> float:
            return change(pipeline.objective(pipe, *given, **options))

        return dataclasses.replace(pipeline, objective=objective)

    return plant


def _swallowing(pipeline: Pipeline) -> Pipeline:
    def objective(pipe: Pipeline, *given: Any, **options: Any) -> float:
        with suppress(RisVerifiedError):
            return pipeline.objective(pipe, *given, **options)
        return 1.0

    return dataclasses.replace(pipeline, objective=objective)


def _by_number(pipeline: Pipeline) -> Pipeline:
    def objective(pipe: Pipeline, data: Path, out: Path, values: dict[str, Any], number: int, *more: Any) -> float:
        return pipeline.objective(pipe, data, out, values, number, *more) * (1 - 0.01 * number)

    return dataclasses.replace(pipeline, objective=objective)


def _deaf(pipeline: Pipeline) -> Pipeline:
    def objective(pipe: Pipeline, data: Path, out: Path, values: dict[str, Any], number: int, *more: Any) -> float:
        return pipeline.objective(pipe, data, out, {}, number, *more)

    return dataclasses.replace(pipeline, objective=objective)


def _studying(change: Callable[..., Any]) -> Callable[[Pipeline], Pipeline]:
    """Return a plant that puts a function (sound study, cfg, objective, storage, …) in place of the study."""

    def plant(pipeline: Pipeline) -> Pipeline:
        def study(cfg: Any, objective: Any, storage: str, *rest: Any) -> Any:
            return change(pipeline.run_study, cfg, objective, storage, *rest)

        return dataclasses.replace(pipeline, run_study=study)

    return plant


def _zero_for_nan(run: Any, cfg: Any, objective: Any, *rest: Any) -> Any:
    def finite(values: dict[str, Any], number: int) -> float:
        score = float(objective(values, number))
        return score if math.isfinite(score) else 0.0

    return run(cfg, finite, *rest)


def _fresh(run: Any, cfg: Any, objective: Any, storage: str, *rest: Any) -> Any:
    if "://" not in storage:
        Path(storage).unlink(missing_ok=True)
    return run(cfg, objective, storage, *rest)


def _anew_when_broken(run: Any, cfg: Any, objective: Any, storage: str, *rest: Any) -> Any:
    try:
        return run(cfg, objective, storage, *rest)
    except StorageError:
        Path(storage.removeprefix("sqlite:///")).unlink()
        return run(cfg, objective, storage, *rest)


def _plain(cfg: Any, objective: Any, storage: Any, spaces: Any) -> Any:
    study = optuna.create_study(storage=storage, study_name="study", load_if_exists=True)
    while len(study.trials) < cfg.hpo.trials:
        trial = study.ask(dict(spaces[cfg.hpo.space]))
        try:
            score = objective(trial.params, trial.number)
        except RuntimeError:
            score = math.nan
        good = math.isfinite(score)
        study.tell(trial, score if good else None, state=None if good else optuna.trial.TrialState.FAIL)
    return study


def _journal_unrepaired(run: Any, cfg: Any, objective: Any, storage: str, verdict: Any, spaces: Any) -> Any:
    if "://" in storage:
        return run(cfg, objective, storage, verdict, spaces)
    backend = optuna.storages.journal.JournalFileBackend(storage)
    return _plain(cfg, objective, optuna.storages.JournalStorage(backend), spaces)


def _sqlite_default(run: Any, cfg: Any, objective: Any, storage: str, verdict: Any, spaces: Any) -> Any:
    if not storage.startswith("sqlite"):
        return run(cfg, objective, storage, verdict, spaces)
    return _plain(cfg, objective, storage, spaces)


def _first_error_ends(run: Any, cfg: Any, objective: Any, *rest: Any) -> Any:
    ended: list[Exception] = []

    def watched(values: dict[str, Any], number: int) -> float:
        try:
            return float(objective(values, number))
        except Exception as error:
            ended.append(error)
            raise

    study = run(cfg, watched, *rest)
    if ended:
        raise ended[0]
    return study


def _spaced(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[Pipeline], Pipeline]:
    def plant(pipeline: Pipeline) -> Pipeline:
        return dataclasses.replace(pipeline, spaces={k: change(dict(v)) for k, v in pipeline.spaces.items()})

    return plant


def _best(change: Callable[[Pipeline, Any, Any], Any]) -> Callable[[Pipeline], Pipeline]:
    def plant(pipeline: Pipeline) -> Pipeline:
        return dataclasses.replace(pipeline, best_config=lambda study, cfg: change(pipeline, study, cfg))

    return plant


def _configured(**hpo: Any) -> Callable[[Pipeline], Pipeline]:
    """Return a plant whose studies and trials have a value of their own."""
    values = {f"hpo.{name}": value for name, value in hpo.items()}

    def plant(pipeline: Pipeline) -> Pipeline:
        def objective(pipe: Pipeline, *given: Any, **options: Any) -> Any:
            return pipeline.objective(dataclasses.replace(pipe, config=pipe.config.replaced(values)), *given, **options)

        def study(cfg: Any, *given: Any, **options: Any) -> Any:
            return pipeline.run_study(cfg.replaced(values), *given, **options)

        return dataclasses.replace(pipeline, objective=objective, run_study=study)

    return plant


def _after_the_worst(pipeline: Pipeline) -> Pipeline:
    def objective(pipe: Pipeline, *given: Any, **options: Any) -> Any:
        patience, scores = pipe.config.hpo.patience, list[float]()

        def score(*judged: Any) -> float:
            scores.append(pipe.score(*judged))
            return scores[-1]

        def train(*trained: Any, judge: Any = None, **rest: Any) -> Any:
            def stop(model: Any, epoch: int) -> bool:
                return judge(model, epoch) or 0 < patience <= epoch - 1 - scores.index(max(scores))

            return pipe.train(*trained, judge=stop, **rest)

        config = pipe.config.replaced({"hpo.patience": 0})
        return pipeline.objective(dataclasses.replace(pipe, config=config, score=score, train=train), *given, **options)

    return dataclasses.replace(pipeline, objective=objective)


FAULTS = (
    Fault("tuned_loading", "RV0103", "C_EPS is put into the space",
          _spaced(lambda s: {**s, "covariance.loading": FloatDistribution(1e-4, 1.0, log=True)})),
    Fault("tuned_tikhonov", "RV0103", "a space that calls NF-MLE's weight its ridge",
          _spaced(lambda s: {**s, "estimate.mle_ridge": FloatDistribution(0.0, 1.0)})),
    Fault("tuned_old_name", "RV0103", "the space keeps a name of last year",
          _spaced(lambda s: {**s, "train.lr": FloatDistribution(1e-4, 4e-4)})),
    Fault("mle_not_tuned", "RV0901", "the space was written before NF-MLE",
          _spaced(lambda s: {k: v for k, v in s.items() if not k.startswith("estimate.mle")})),
    Fault("models_kept_between_trials", "RV0903", "every trial's network stays for later comparison", _models_kept),
    Fault("files_left_open", "RV0903", "each trial opens the data and never closes it", _files_left_open),
    Fault("nan_scored_zero", "RV0904", "nan_to_num in the objective",
          _scoring(lambda v: v if math.isfinite(v) else 0.0)),
    Fault("failed_trial_scored", "RV0904", "a failed training counts as a bad one", _swallowing),
    Fault("study_takes_nan_for_zero", "RV0904", "the study cleans what it is told", _studying(_zero_for_nan)),
    Fault("one_error_ends_the_study", "RV0904", "an exception goes through the loop", _studying(_first_error_ends)),
    Fault("journal_without_repair", "RV0905", "a torn last line stays in the file", _studying(_journal_unrepaired)),
    Fault("sqlite_without_wal", "RV0905", "SQLite with its defaults", _studying(_sqlite_default)),
    Fault("study_starts_anew", "RV0905", "a restart throws the finished trials away", _studying(_fresh)),
    Fault("best_params_dropped", "RV0906", "the best trial's values never leave the study",
          _best(lambda p, study, cfg: cfg)),
    Fault("best_keeps_the_trial_restrictions", "RV0906", "the final run trains on a tenth of the data",
          _best(lambda p, study, cfg: p.trial_config(cfg, study.best_params))),
    Fault("broken_study_overwritten", "RV1404", "a study that cannot be read is begun anew",
          _studying(_anew_when_broken)),
    Fault("score_by_trial_number", "RV1604", "later trials look better", _by_number),
    Fault("pruned_though_off", "RV0906", "the pruner is always on", _configured(pruning=True)),
    Fault("never_pruned", "RV0906", "a study for which pruning was switched off once", _configured(pruning=False)),
    Fault("patience_is_a_constant", "RV1604", "three epochs, whatever is configured", _configured(patience=3)),
    Fault("patience_after_the_worst", "RV1604", "max for min: a trial that improves is given up", _after_the_worst),
    Fault("objective_ignores_values", "RV1604", "every trial trains the base configuration", _deaf),
)  # fmt: skip
