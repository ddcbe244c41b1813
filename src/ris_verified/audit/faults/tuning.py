"""Slips in the hyper-parameter search."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from ris_verified.audit.faults.fault import Fault
from ris_verified.pipeline import Pipeline


def _trialling(change: Callable[[Any, Any], Any]) -> Callable[[Pipeline], Pipeline]:
    def plant(pipeline: Pipeline) -> Pipeline:
        def trial(cfg: Any, values: dict[str, Any]) -> Any:
            return change(pipeline.trial_config(cfg, values), cfg)

        return dataclasses.replace(pipeline, trial_config=trial)

    return plant


def _section(config: Any, name: str, **changes: Any) -> Any:
    return dataclasses.replace(config, **{name: dataclasses.replace(vars(config)[name], **changes)})


def _first_kept(pipeline: Pipeline) -> Pipeline:
    made: list[Any] = []

    def trial(cfg: Any, values: dict[str, Any]) -> Any:
        made.append(pipeline.trial_config(cfg, values))
        return made[0]

    return dataclasses.replace(pipeline, trial_config=trial)


def _lenient(pipeline: Pipeline) -> Pipeline:
    def trial(cfg: Any, values: dict[str, Any]) -> Any:
        known = {n: v for n, v in values.items() if n.split(".")[-1] in vars(vars(cfg)[n.split(".")[0]])}
        return pipeline.trial_config(cfg, known)

    return dataclasses.replace(pipeline, trial_config=trial)


def _accepts(beginning: str) -> Callable[[Pipeline], Pipeline]:
    def plant(pipeline: Pipeline) -> Pipeline:
        def trial(cfg: Any, values: dict[str, Any]) -> Any:
            fixed = {n: v for n, v in values.items() if n.startswith(beginning)}
            made = pipeline.trial_config(cfg, {n: v for n, v in values.items() if n not in fixed})
            return made.replaced(fixed)

        return dataclasses.replace(pipeline, trial_config=trial)

    return plant


def _empties_values(pipeline: Pipeline) -> Pipeline:
    def trial(cfg: Any, values: dict[str, Any]) -> Any:
        made = pipeline.trial_config(cfg, values)
        values.clear()
        return made

    return dataclasses.replace(pipeline, trial_config=trial)


FAULTS = (
    Fault("trial_never_longer", "RV0902", "a base of three epochs makes trials of three",
          _trialling(lambda c, base: _section(c, "train", epochs=min(c.train.epochs, base.train.epochs)))),
    Fault("trial_tunes_beta", "RV0103", "β is set beside the sampled values",
          _trialling(lambda c, base: _section(c, "covariance", beta=0.5))),
    Fault("trial_with_other_c_eps", "RV0103", "the old 1.0 survives in the search",
          _trialling(lambda c, base: _section(c, "covariance", loading=1.0))),
    Fault("weights_not_passed", "RV0901", "sampled loss weights stay in the trial",
          _trialling(lambda c, base: dataclasses.replace(c, loss=base.loss))),
    Fault("newton_off", "RV0901", "Newton is off for speed",
          _trialling(lambda c, base: _section(c, "estimate", newton_nearfield=False))),
    Fault("average_in_trials", "RV0902", "EMA stays on",
          _trialling(lambda c, base: _section(c, "train", ema_decay=0.999))),
    Fault("all_data_in_trials", "RV0902", "trials use the whole set",
          _trialling(lambda c, base: dataclasses.replace(c, data=base.data))),
    Fault("accumulation_in_trials", "RV0902", "a batch of 64 from two of 32",
          _trialling(lambda c, base: _section(c, "train", accumulation=2))),
    Fault("trial_drops_unknown_names", "RV0103", "a typing slip is never noticed", _lenient),
    Fault("trial_accepts_beta", "RV0103", "a sampled β arrives", _accepts("covariance.")),
    Fault("trial_accepts_tikhonov", "RV0103", "a sampled ridge of NF-MLE arrives", _accepts("estimate.mle_ridge")),
    Fault("trial_with_default_ridge", "RV0103", "the default, not the base's value",
          _trialling(lambda c, base: _section(c, "covariance", ridge=0.01))),
    Fault("first_trial_for_all", "RV0901", "a cached configuration", _first_kept),
    Fault("sampled_rate_rounded", "RV0901", "five decimals",
          _trialling(lambda c, base: _section(c, "train", learning_rate=round(c.train.learning_rate, 5)))),
    Fault("weights_exchanged", "RV0901", "two fields are crossed",
          _trialling(lambda c, base: _section(c, "loss", angle=c.loss.range, range=c.loss.angle))),
    Fault("trial_empties_values", "RV0901", "values are popped", _empties_values),
    Fault("seed_of_the_trial", "RV0901", "the seed is dropped",
          _trialling(lambda c, base: dataclasses.replace(c, seed=0))),
    Fault("easier_scenes_in_trials", "RV0901", "trials see the best SNR only",
          _trialling(lambda c, base: _section(c, "scene", snr_db_min=c.scene.snr_db_max))),
    Fault("epochs_of_the_base", "RV0902", "epochs_per_trial is not used",
          _trialling(lambda c, base: _section(c, "train", epochs=base.train.epochs))),
    Fault("curriculum_of_the_base", "RV0902", "zero by default, and kept where it is not",
          _trialling(lambda c, base: _section(c, "train", curriculum_share=base.train.curriculum_share))),
    Fault("swa_of_the_base", "RV0902", "zero by default, and kept where it is not",
          _trialling(lambda c, base: _section(c, "train", swa_share=base.train.swa_share))),
    Fault("share_of_training_only", "RV0902", "validation is whole",
          _trialling(lambda c, base: _section(c, "data", validation_scenes=base.data.validation_scenes))),
    Fault("newton_of_the_base", "RV0902", "on by default, and off where the base has it off",
          _trialling(lambda c, base: _section(c, "estimate", newton_nearfield=base.estimate.newton_nearfield))),
)  # fmt: skip
