"""What a trial keeps, changes and refuses, from a base where every restriction bites; for RV0103, RV0901, RV0902."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

from ris_verified._config_load import read
from ris_verified.audit.context import Context
from ris_verified.audit.rule import Measurement, close, equal

WHERE = "trial_config"
RESTRICTED = (
    "train.curriculum_share", "train.ema_decay", "train.swa_share", "train.accumulation", "train.epochs",
    "train.batch_size", "train.checkpoint_steps", "estimate.newton_nearfield", "data.train_scenes",
    "data.validation_scenes",
)  # fmt: skip
UNUSUAL: dict[str, Any] = {
    "seed": 11, "train.curriculum_share": 0.3, "train.ema_decay": 0.99, "train.swa_share": 0.25,
    "train.accumulation": 2, "train.epochs": 7, "train.clip_norm": 0.7, "train.weight_decay": 3e-4,
    "train.head_multiplier": 4.0, "train.precision": "float32", "estimate.newton_nearfield": False,
    "hpo.data_share": 0.2, "hpo.epochs_per_trial": 5, "covariance.beta": 0.2, "covariance.ridge": 0.03,
    "covariance.loading": 2e-3, "estimate.mle_ridge": 0.01, "data.train_scenes": 5_000,
    "data.validation_scenes": 700, "data.test_scenes": 300,
}  # fmt: skip


def sample(space: Mapping[str, Any], end: str) -> dict[str, Any]:
    """Return one value of every distribution: the lowest, the highest, or the first or last choice.

    Args:
        space: field name → Optuna distribution.
        end: `low` or `high`.
    """
    values = {}
    for name, distribution in space.items():
        held = vars(distribution)
        if "choices" in held:
            values[name] = held["choices"][0 if end == "low" else -1]
        else:
            values[name] = held["low"] if end == "low" else held["high"]
    return values


def between(space: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Return one value inside every distribution, with all the digits that it may have."""
    draw, values = random.Random(seed), dict[str, Any]()
    for name, distribution in space.items():
        held = vars(distribution)
        if "choices" in held:
            values[name] = draw.choice(held["choices"])
            continue
        low, high, step = held["low"], held["high"], held.get("step")
        if isinstance(low, int):
            values[name] = low + (step or 1) * draw.randint(0, (high - low) // (step or 1))
        elif held.get("log"):
            values[name] = math.exp(draw.uniform(math.log(low), math.log(high)))
        else:
            values[name] = (
                draw.uniform(low, high) if step is None else low + step * draw.randint(0, int((high - low) / step))
            )
    return values


def _every(config: Any) -> dict[str, Any]:
    from ris_verified._config_load import names

    return {name: read(config, name) for name in names(type(config))}


def kept(context: Context, spaces: Mapping[str, Mapping[str, Any]]) -> list[Measurement]:
    """Measure that a trial has the sampled values to the last digit, the study's restrictions, and else the base."""
    base = context.config.replaced(UNUSUAL)
    before, found = base.digest(), []
    for label, space in spaces.items():
        for number in range(2):
            values = between(space, context.seed + number)
            given = copy.deepcopy(values)
            trial = context.pipeline.trial_config(base, values)
            found.append(equal(values, given, f"sampled values after the call ({label})", where=WHERE))
            wrong = [n for n, v in given.items() if read(trial, n) != v]
            found.append(
                equal(wrong, [], f"sampled values inside their range not read back ({label})", where=", ".join(wrong))
            )
            now = _every(trial)
            other = [n for n, v in _every(base).items() if now[n] != v and n not in given and n not in RESTRICTED]
            message = f"fields that a trial changes and that were not sampled ({label})"
            found.append(equal(other, [], message, where=", ".join(other)))
    return [*found, equal(base.digest(), before, "digest of the base configuration after its trials", where=WHERE)]


def restricted(context: Context, spaces: Mapping[str, Mapping[str, Any]]) -> list[Measurement]:
    """Measure the restrictions on bases with curriculum, averages, accumulation, other sizes, more and fewer epochs."""
    bases = [context.config.replaced({**UNUSUAL, "train.epochs": epochs}) for epochs in (UNUSUAL["train.epochs"], 2)]
    return [m for base in bases for label, space in spaces.items() for m in _restricted(context, base, label, space)]


def _restricted(context: Context, base: Any, label: str, space: Mapping[str, Any]) -> list[Measurement]:
    trial = context.pipeline.trial_config(base, between(space, context.seed))
    wanted: dict[str, Any] = {
        "train.curriculum_share": 0.0, "train.ema_decay": 0.0, "train.swa_share": 0.0, "train.accumulation": 1,
        "train.epochs": UNUSUAL["hpo.epochs_per_trial"], "data.test_scenes": UNUSUAL["data.test_scenes"],
        "estimate.newton_nearfield": True,
    }  # fmt: skip
    found = [
        equal(read(trial, name), value, f"in a trial of a base that has {read(base, name)} ({label})", where=name)
        for name, value in wanted.items()
    ]
    for name in ("data.train_scenes", "data.validation_scenes"):
        share = base.hpo.data_share * UNUSUAL[name]
        found.append(close(read(trial, name), share, 1.0, f"in a trial ({label})", "scenes", name))
    return found


def refused(context: Context, fixed: Sequence[str]) -> list[Measurement]:
    """Measure that an unknown name is an error, and that a sampled β, ridge or C_EPS never arrives."""
    from ris_verified.errors import RisVerifiedError

    outcome, found = "accepted", []
    try:
        context.pipeline.trial_config(context.config, {"loss.angel": 0.7})
    except RisVerifiedError:
        outcome = "refused"
    found.append(equal(outcome, "refused", "a sampled name that does not exist, loss.angel", where=WHERE))
    base = context.config.replaced(UNUSUAL)
    for name in fixed:
        plain = context.pipeline.trial_config(base, {})
        found.append(
            close(read(plain, name), read(base, name), 0.0, "in a trial of a base with this value", where=name)
        )
        present = read(context.config, name)
        try:
            now = read(context.pipeline.trial_config(context.config, {name: present / 2 or 1.0}), name)
        except RisVerifiedError:
            now = present
        found.append(close(now, present, 0.0, "in a trial that samples it", where=name))
    return found
