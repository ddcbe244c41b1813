"""Slips in what a study searches, keeps apart and calls its best."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution

from ris_verified.audit.faults.fault import Fault, staged
from ris_verified.pipeline import Pipeline


def _base_scores(pipeline: Pipeline) -> Pipeline:
    def objective(pipe: Pipeline, *given: Any, **options: Any) -> Any:
        def score(_: Pipeline, model: Any, batches: Any) -> float:
            return pipe.score(pipe, model, batches)

        return pipeline.objective(dataclasses.replace(pipe, score=score), *given, **options)

    return dataclasses.replace(pipeline, objective=objective)


def _one_name(pipeline: Pipeline) -> Pipeline:
    def study(cfg: Any, objective: Any, storage: str, *rest: Any) -> Any:
        # Named by its space alone: whatever else is configured, it is the same study.
        named = pipeline.config.replaced({"hpo.trials": cfg.hpo.trials, "hpo.space": cfg.hpo.space})
        return pipeline.run_study(named, objective, storage, *rest)

    return dataclasses.replace(pipeline, run_study=study)


def _pruned_best(sound: Any, study: optuna.Study, cfg: Any) -> Any:
    finished = optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED
    trials = [trial for trial in study.get_trials(deepcopy=False) if trial.state in finished]
    best = min(trials, key=lambda trial: min([*trial.intermediate_values.values(), *(trial.values or [])]))
    return cfg.replaced(best.params)


def _fastest(sound: Any, study: optuna.Study, cfg: Any) -> Any:
    return cfg.replaced(min(study.best_trials, key=lambda trial: trial.values[::-1]).params)


def _impossible_heads(pipeline: Pipeline) -> Pipeline:
    more = {"model.heads": CategoricalDistribution((4, 5, 8))}
    spaces = {name: {**space, **more} if name == "wide" else space for name, space in pipeline.spaces.items()}
    return dataclasses.replace(pipeline, spaces=spaces)


def _stepping(change: Callable[[Pipeline, Any, Any, Pipeline], Any]) -> Callable[[Pipeline], Pipeline]:
    def plant(pipeline: Pipeline) -> Pipeline:
        def step(state: Any, batch: Any, given: Pipeline) -> Any:
            return change(pipeline, state, batch, given)

        return dataclasses.replace(pipeline, train_step=step)

    return plant


def _gradients_left(pipeline: Pipeline, state: Any, batch: Any, given: Pipeline) -> Any:
    """Gradients are cleared before the first try only: what a failed one left is added to the next."""
    sound, tries = state.optimizer.zero_grad, itertools.count()

    def clear(*how: Any, **named: Any) -> None:
        if next(tries) == 0:
            sound(*how, **named)

    state.optimizer.zero_grad = clear
    report = pipeline.train_step(state, batch, given)
    state.optimizer.zero_grad = sound
    return report


def _unjudged(pipeline: Pipeline) -> Pipeline:
    def run(cfg: Any, objective: Any, storage: str, verdict: Any, spaces: Any, judged: bool = False) -> Any:
        return pipeline.run_study(cfg, objective, storage, verdict, spaces)

    return dataclasses.replace(pipeline, run_study=run)


FAULTS = (
    Fault("study_never_prunes", "RV0906", "no trial is asked how its epochs go", _unjudged),
    Fault("scored_by_the_base", "RV1604", "the score is given the pipeline of the study", _base_scores),
    Fault("one_name_for_all_studies", "RV0905", "another configuration is handed old trials", _one_name),
    Fault("pruned_trial_is_best", "RV0906", "intermediate values count", staged("best_config", _pruned_best)),
    Fault("fastest_trial_is_best", "RV0906", "the last objective decides", staged("best_config", _fastest)),
    Fault("space_of_impossible_networks", "RV0103", "heads that no width of the space can be split into",
          _impossible_heads),
    Fault("gradients_left_by_a_failed_try", "RV1402", "cleared once, before the first try", _stepping(_gradients_left)),
)  # fmt: skip
