"""Objectives and studies written another way than ours meet the laws where they keep the contract."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch

from ris_verified.audit.context import Context, small_config
from ris_verified.audit.laws.trial_ends import objective_stops, study_prunes
from ris_verified.audit.laws.trial_scores import best_is_found, objective_keeps, study_prefers
from ris_verified.audit.rule import Measurement
from ris_verified.audit.runner import PACKAGE
from ris_verified.config import Config
from ris_verified.data.dataset import SceneDataset
from ris_verified.hpo import study
from ris_verified.pipeline import Pipeline
from ris_verified.train.weights import load_model


def context(config: Config | None = None, **stages: Any) -> Context:
    pipeline = Pipeline.default(small_config(config or Config()))
    return Context(dataclasses.replace(pipeline, **stages), "quick", PACKAGE)


def failed(found: list[Measurement]) -> list[str]:
    return [m.message for m in found if not m.passed]


def afterwards(pipe: Pipeline, data: Path, out: Path, values: dict[str, Any], number: int, report: Any = None) -> float:
    """Score what the training has returned, read back from its file."""
    trial = dataclasses.replace(pipe, config=pipe.trial_config(pipe.config, values))
    result = trial.train(trial, data, out / str(number), curves=False)
    batch = trial.unpack(SceneDataset(data, "validation").batch(torch.arange(1)), "cpu")
    return trial.score(trial, load_model(result.weights, trial), [batch])


def drawn_at_random(cfg: Config, objective: Any, storage: str, verdict: Any, spaces: Any) -> optuna.Study:
    """Run a study in memory whose values are drawn uniformly, by one generator for all trials."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=cfg.seed))
    for _ in range(cfg.hpo.trials):
        trial = study.ask(dict(spaces[cfg.hpo.space]))
        study.tell(trial, objective(trial.params, trial.number))
    return study


def test_an_objective_may_score_what_its_training_returned() -> None:
    assert failed(objective_keeps(context(objective=afterwards)) + objective_stops(context(objective=afterwards))) == []


def test_a_study_may_draw_in_another_way() -> None:
    assert failed(study_prefers(context(run_study=drawn_at_random))) == []
    # What is handed no report can prune nothing.
    assert study_prunes(context(run_study=drawn_at_random)) == []


def test_a_best_configuration_of_one_objective_may_be_optunas_best_trial() -> None:
    def best(study: optuna.Study, cfg: Config) -> Config:
        return cfg.replaced(study.best_params)

    assert failed(best_is_found(context(best_config=best))) == []


@pytest.mark.parametrize("hpo", [{"timed": True}, {"patience": 0}, {"patience": 1}, {"pruning": False}])
def test_every_kind_of_trial_returns_its_best_epoch(hpo: dict[str, Any]) -> None:
    config = dataclasses.replace(Config(), hpo=dataclasses.replace(Config().hpo, **hpo))
    assert failed(objective_keeps(context(config)) + study_prefers(context(config))) == []
    ends = [*objective_stops(context(config)), *study_prunes(context(config))]
    assert failed(ends) == []
    assert len(ends) == 4


@pytest.mark.parametrize("pruner", [optuna.pruners.MedianPruner(), optuna.pruners.HyperbandPruner(min_resource=1)])
def test_a_study_may_prune_in_another_way(monkeypatch: pytest.MonkeyPatch, pruner: optuna.pruners.BasePruner) -> None:
    monkeypatch.setattr(study, "_pruner", lambda cfg: pruner if cfg.hpo.pruning else optuna.pruners.NopPruner())
    assert failed(study_prunes(context())) == []


def test_a_trial_that_stops_after_two_epochs_is_not_told_of_a_third_score() -> None:
    def first_only(pipe: Pipeline, *given: Any) -> Any:
        def train(*inner: Any, judge: Any, **named: Any) -> Any:
            return pipe.train(*inner, judge=lambda model, epoch: judge(model, epoch) or epoch == 2, **named)

        return Pipeline.default(pipe.config).objective(dataclasses.replace(pipe, train=train), *given)

    messages = failed(objective_keeps(context(objective=first_only)))
    assert messages == [
        "epochs of the weights that a trial scored (0: of none)",
        "epochs and scores that a trial reports",
    ]
