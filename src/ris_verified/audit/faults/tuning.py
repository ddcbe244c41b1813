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


FAULTS = (
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
)  # fmt: skip
