"""Configuration of a trial: what is sampled arrives, what a study forbids is off."""

from __future__ import annotations

import pytest

from ris_verified._config_load import read
from ris_verified.config import Config
from ris_verified.errors import ConfigError
from ris_verified.hpo.trial import PROTECTED, trial_config


def test_restrictions_of_a_study() -> None:
    base = Config.load(overrides=["train.swa_share=0.2", "train.curriculum_share=0.3", "train.accumulation=2"])
    made = trial_config(base, {"train.batch_size": 72})
    assert (made.train.curriculum_share, made.train.ema_decay, made.train.swa_share) == (0.0, 0.0, 0.0)
    assert (made.train.accumulation, made.train.batch_size, made.train.epochs) == (1, 72, 12)
    assert (made.data.train_scenes, made.data.validation_scenes) == (8_000, 1_600)
    assert made.estimate.newton_nearfield


def test_newton_is_switched_on_even_where_the_base_has_it_off() -> None:
    base = Config.load(overrides=["estimate.newton_nearfield=false"])
    assert trial_config(base, {}).estimate.newton_nearfield


def test_the_base_stays_as_it_was() -> None:
    base = Config()
    before = base.digest()
    trial_config(base, {"loss.angle": 0.9})
    assert base.digest() == before


@pytest.mark.parametrize("name", PROTECTED)
def test_protected_fields_are_refused_even_with_their_own_value(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        trial_config(Config(), {name: read(Config(), name)})


@pytest.mark.parametrize("name", ["train.epochs", "train.ema_decay", "data.train_scenes"])
def test_fields_that_the_study_sets_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        trial_config(Config(), {name: 1})


def test_an_unknown_field_is_named_with_its_neighbour() -> None:
    with pytest.raises(ConfigError, match=r"learning_rat.*train\.learning_rate"):
        trial_config(Config(), {"train.learning_rat": 1e-4})


def test_values_that_only_fit_each_other_are_accepted_together() -> None:
    made = trial_config(Config(), {"model.width": 450, "model.heads": 9})
    assert made.model.width == 450


def test_a_value_out_of_range_is_named() -> None:
    with pytest.raises(ConfigError, match=r"estimate\.newton_step: 3\.0"):
        trial_config(Config(), {"estimate.newton_step": 3.0})
