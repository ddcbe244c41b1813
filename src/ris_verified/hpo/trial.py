"""From sampled values to the configuration of one trial."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ris_verified._config_load import read
from ris_verified.config import Config
from ris_verified.errors import ConfigError

# NF_MLE_TIKHONOV_LAMBDA is the ridge of the samples by the design and the Tikhonov weight of NF-MLE by its name: both.
PROTECTED = ("covariance.beta", "covariance.loading", "covariance.ridge", "estimate.mle_ridge")


def trial_config(cfg: Config, values: Mapping[str, Any]) -> Config:
    """Return what one trial runs with: the sampled values and the restrictions of a study.

    A trial has no curriculum, no averaged weights and no accumulation, for each of them hides what a
    sampled value does; it sees `hpo.data_share` of the scenes for `hpo.epochs_per_trial` epochs, with
    near-field Newton on.

    Args:
        cfg: the configuration that the study tunes.
        values: dotted field name → sampled value.

    Returns:
        A validated configuration.

    Raises:
        ConfigError: a name is unknown, protected or set by the study, or its value did not arrive.
    """
    for name in sorted(set(values) & set(PROTECTED)):
        raise ConfigError(
            f"{values[name]!r} sampled",
            where=name,
            expected="the configuration's own value in every trial",
            remedy="take it out of the space: trials with different values solve different problems",
        )
    fixed = _restrictions(cfg)
    for name in sorted(set(values) & set(fixed)):
        raise ConfigError(f"{values[name]!r} sampled", where=name, expected=f"{fixed[name]!r}, which every trial uses")
    made = cfg.replaced({**fixed, **values})
    for name, value in values.items():
        if read(made, name) != value:
            raise ConfigError(f"reads {read(made, name)!r}", where=name, expected=f"the sampled {value!r}")
    return made


def _restrictions(cfg: Config) -> dict[str, Any]:
    def share(scenes: int) -> int:
        return max(1, round(scenes * cfg.hpo.data_share))

    return {
        "train.curriculum_share": 0.0,
        "train.ema_decay": 0.0,
        "train.swa_share": 0.0,
        "train.accumulation": 1,
        # A trial is lost or done; it does not go on.
        "train.checkpoint_steps": 0,
        "train.epochs": cfg.hpo.epochs_per_trial,
        "estimate.newton_nearfield": True,
        "data.train_scenes": share(cfg.data.train_scenes),
        "data.validation_scenes": share(cfg.data.validation_scenes),
    }
