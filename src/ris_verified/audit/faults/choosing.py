"""Slips in what a trial returns and reports, and in what a study draws and prefers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.study import StudyDirection
from torch import nn

from ris_verified.audit.faults.fault import Fault, staged
from ris_verified.pipeline import Pipeline


def _collected(pipe: Pipeline, change: Callable[[list[float]], float], f: Any, *given: Any, **named: Any) -> Any:
    """Run an objective and return what `change` makes of all its epochs' scores."""
    scores: list[float] = []

    def score(*inner: Any) -> float:
        scores.append(pipe.score(*inner))
        return scores[-1]

    f(dataclasses.replace(pipe, score=score), *given, **named)
    return change(scores)


def _epoch(change: Callable[[list[float]], float]) -> Callable[[Pipeline], Pipeline]:
    return staged("objective", lambda f, pipe, *given, **named: _collected(pipe, change, f, *given, **named))


def _on_training(f: Any, pipe: Pipeline, data: Path, *given: Any, **named: Any) -> Any:
    from ris_verified.data.dataset import SceneDataset

    def score(inner: Pipeline, model: nn.Module, batches: Any) -> float:
        training = SceneDataset(data, "train")
        return pipe.score(inner, model, [inner.unpack(training.batch(torch.arange(1)), "cpu")])

    return f(dataclasses.replace(pipe, score=score), data, *given, **named)


def _fresh_network(f: Any, pipe: Pipeline, *given: Any, **named: Any) -> Any:
    def score(inner: Pipeline, model: nn.Module, batches: Any) -> float:
        return pipe.score(inner, inner.build_model(inner.config), batches)

    return f(dataclasses.replace(pipe, score=score), *given, **named)


def _one_folder(f: Any, pipe: Pipeline, data: Path, out: Path, values: Any, number: int, *more: Any) -> Any:
    return f(pipe, data, out, values, 0, *more)


def _turned_reports(f: Any, pipe: Pipeline, data: Path, out: Path, values: Any, number: int, report: Any = None) -> Any:
    return f(pipe, data, out, values, number, report and (lambda epoch, score: report(epoch, -score)))


def _late_reports(f: Any, pipe: Pipeline, data: Path, out: Path, values: Any, number: int, report: Any = None) -> Any:
    return f(pipe, data, out, values, number, report and (lambda epoch, score: report(epoch - 1, score)))


def _study(direction: StudyDirection, seed: Callable[[Any, int], int | None]) -> Callable[[Pipeline], Pipeline]:
    """Return a plant of a plain study with a direction and a sampler's seed of (cfg, trial number)."""

    def run(f: Any, cfg: Any, objective: Any, storage: str, verdict: Any, spaces: Any, *more: Any) -> Any:
        study = optuna.create_study(direction=direction)
        for number in range(cfg.hpo.trials):
            study.sampler = optuna.samplers.TPESampler(seed=seed(cfg, number))
            trial = study.ask(dict(spaces[cfg.hpo.space]))
            study.tell(trial, objective(trial.params, number))
        return study

    return staged("run_study", run)


def _first_space(f: Any, cfg: Any, objective: Any, storage: str, verdict: Any, spaces: Any, *more: Any) -> Any:
    return f(cfg, objective, storage, verdict, dict.fromkeys(spaces, next(iter(spaces.values()))), *more)


FAULTS = (
    Fault("objective_of_the_last_epoch", "RV1604", "what was scored last is returned", _epoch(lambda s: s[-1])),
    Fault("objective_of_the_first_epoch", "RV1604", "what was scored first is returned", _epoch(lambda s: s[0])),
    Fault("objective_of_the_worst_epoch", "RV1604", "max for min", _epoch(max)),
    Fault("objective_on_training_scenes", "RV1604", "the wrong split is opened", staged("objective", _on_training)),
    Fault("objective_of_a_fresh_network", "RV1604", "a model is built where the trained one is meant",
          staged("objective", _fresh_network)),
    Fault("one_folder_for_all_trials", "RV1604", "trials of two workers write over each other",
          staged("objective", _one_folder)),
    Fault("reports_upside_down", "RV1604", "the pruner is told −score", staged("objective", _turned_reports)),
    Fault("reports_from_zero", "RV1604", "the pruner is told 0-based epochs", staged("objective", _late_reports)),
    Fault("space_ignored", "RV0906", "the first space, whatever is configured",
          staged("run_study", _first_space)),
    Fault("study_maximises", "RV0906", "higher is better somewhere else",
          _study(StudyDirection.MAXIMIZE, lambda cfg, number: cfg.seed + number)),
    Fault("trials_repeat_one_draw", "RV0906", "a sampler of the same seed for every trial",
          _study(StudyDirection.MINIMIZE, lambda cfg, number: cfg.seed)),
    Fault("study_without_seed", "RV0906", "the sampler is seeded by the clock",
          _study(StudyDirection.MINIMIZE, lambda cfg, number: None)),
)  # fmt: skip
