"""The loop over trials: failures stay single, a kill costs one trial, nothing is sampled twice."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import optuna
import pytest

from ris_verified.config import Config
from ris_verified.errors import NoGoError
from ris_verified.hpo.claims import Reaper, claimed
from ris_verified.hpo.space import SPACES
from ris_verified.hpo.study import best_config, run_study
from ris_verified.hpo.trial import trial_config
from ris_verified.hpo.workers import is_gone, presence

VERDICT = {"verdict": "GO", "waiver": ""}
State = optuna.trial.TrialState


def config(trials: int, space: str = "narrow") -> Config:
    return Config.load(overrides=[f"hpo.trials={trials}", f"hpo.space={space}"])


def rate(values: dict[str, Any], number: int) -> float:
    return float(values["train.learning_rate"]) + number * 1e-9


@pytest.mark.parametrize("space", ["wide", "narrow"])
def test_every_sampled_trial_is_a_valid_configuration(tmp_path: Path, space: str) -> None:
    cfg, seen = config(8, space), []

    def objective(values: dict[str, Any], number: int) -> float:
        made = trial_config(cfg, values)
        seen.append((set(values), made.model.width % made.model.heads, 64 <= made.train.batch_size <= 80))
        return rate(values, number)

    run_study(cfg, objective, str(tmp_path / "s.log"), VERDICT)
    assert seen == [(set(SPACES[space]), 0, True)] * 8


def test_failures_and_non_finite_scores_cost_one_trial_each(tmp_path: Path) -> None:
    def objective(values: dict[str, Any], number: int) -> float:
        if number == 1:
            raise TypeError("one bad trial")
        return {2: float("nan"), 3: float("inf"), 4: -float("inf")}.get(number, rate(values, number))

    study = run_study(config(7), objective, str(tmp_path / "s.log"), VERDICT)
    states = [trial.state for trial in study.trials]
    assert states == [State.COMPLETE, *[State.FAIL] * 4, State.COMPLETE, State.COMPLETE]
    assert study.trials[1].user_attrs["error"] == "TypeError: one bad trial"
    assert study.best_value > 0


@pytest.mark.parametrize("timed", [False, True])
def test_a_wrong_number_of_values_costs_one_trial_each(tmp_path: Path, timed: bool) -> None:
    def objective(values: dict[str, Any], number: int) -> Any:
        return 0.5 if timed else (0.5, 0.1)

    study = run_study(config(3).replaced({"hpo.timed": timed}), objective, str(tmp_path / "study.log"), VERDICT)
    assert [t.state.name for t in study.trials] == ["FAIL"] * 3
    assert f"{1 if timed else 2} values for {2 if timed else 1} objectives" in study.trials[0].user_attrs["error"]


def test_a_study_is_resumed_up_to_its_size_with_fresh_draws(tmp_path: Path) -> None:
    where = str(tmp_path / "s.log")
    run_study(config(3), rate, where, VERDICT)
    study = run_study(config(6), rate, where, {"verdict": "NO-GO", "waiver": "a reason"})
    assert [trial.state for trial in study.trials] == [State.COMPLETE] * 6
    assert len({trial.params["train.learning_rate"] for trial in study.trials}) == 6
    assert study.user_attrs["audit"] == {"verdict": "NO-GO", "waiver": "a reason"}
    assert len(run_study(config(6), rate, where, VERDICT).trials) == 6


def test_a_study_that_is_told_no_go_and_no_reason_is_not_begun(tmp_path: Path) -> None:
    with pytest.raises(NoGoError, match="NO-GO"):
        run_study(config(1), rate, str(tmp_path / "s.log"), {"verdict": "NO-GO", "waiver": ""})
    assert list(tmp_path.iterdir()) == []


def test_the_same_seed_draws_the_same_study(tmp_path: Path) -> None:
    first, second = (run_study(config(4), rate, str(tmp_path / name), VERDICT) for name in ("a.log", "b.log"))
    assert [trial.params for trial in first.trials] == [trial.params for trial in second.trials]


def test_another_configuration_is_another_study(tmp_path: Path) -> None:
    where = str(tmp_path / "s.log")
    run_study(config(2), rate, where, VERDICT)
    other = Config.load(overrides=["hpo.trials=2", "hpo.space=narrow", "seed=1"])
    assert len(run_study(other, rate, where, VERDICT).trials) == 2


def test_an_interruption_ends_the_study_and_its_trial_is_replaced(tmp_path: Path) -> None:
    where = str(tmp_path / "s.log")

    def interrupted(values: dict[str, Any], number: int) -> float:
        if number == 1:
            raise KeyboardInterrupt
        return rate(values, number)

    with pytest.raises(KeyboardInterrupt):
        run_study(config(3), interrupted, where, VERDICT)
    study = run_study(config(3), rate, where, VERDICT)
    assert [trial.state for trial in study.trials] == [State.COMPLETE, State.FAIL, State.COMPLETE, State.COMPLETE]


def _die(values: dict[str, Any], number: int) -> float:
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return rate(values, number)


@pytest.mark.parametrize("kind", ["{}/s.log", "sqlite:///{}/s.db"])
def test_a_killed_worker_loses_its_running_trial_only(tmp_path: Path, kind: str) -> None:
    where = kind.format(tmp_path)
    worker = multiprocessing.get_context("spawn").Process(target=run_study, args=(config(3), _die, where, VERDICT))
    worker.start()
    worker.join(60)
    assert worker.exitcode == -signal.SIGKILL
    study = run_study(config(3), rate, where, VERDICT)
    assert [trial.state for trial in study.trials] == [State.COMPLETE, State.FAIL, State.COMPLETE, State.COMPLETE]


def test_a_live_worker_keeps_its_trial(tmp_path: Path) -> None:
    study = optuna.create_study()
    trial = study.ask()
    with presence(tmp_path) as name:
        trial.set_user_attr("worker", name)
        assert not is_gone(tmp_path, name)
        assert Reaper(study, tmp_path).reap() == 0
        assert claimed(study) == 1
    assert is_gone(tmp_path, name)
    assert Reaper(study, tmp_path).reap() == 1
    assert claimed(study) == 0


def test_the_best_trial_makes_a_configuration_for_a_whole_run(tmp_path: Path) -> None:
    cfg = config(5)
    study = run_study(cfg, rate, str(tmp_path / "s.log"), VERDICT)
    best = best_config(study, cfg)
    assert best.train.learning_rate == min(trial.params["train.learning_rate"] for trial in study.trials)
    assert (best.data, best.train.epochs, best.train.ema_decay) == (cfg.data, cfg.train.epochs, cfg.train.ema_decay)
