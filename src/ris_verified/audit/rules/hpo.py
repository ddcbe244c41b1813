"""Section 09 and RV0103: what a trial of the hyper-parameter search runs with."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from ris_verified._config_load import read
from ris_verified.audit.context import Context
from ris_verified.audit.laws.trial_laws import kept, refused, restricted, sample
from ris_verified.audit.rule import Measurement, at_most, close, equal, mended, rule
from ris_verified.errors import AuditError, ConfigError

# Combinations of choices that are tried.
MOST = 200
FIXED = ("covariance.beta", "covariance.ridge", "covariance.loading", "estimate.mle_ridge")


def trials(context: Context) -> list[tuple[str, dict[str, Any], Any]]:
    """Return label, sampled values and configuration of the extreme trials of each space."""
    made = []
    for name, space in context.pipeline.spaces.items():
        for end in ("low", "high"):
            values = sample(space, end)
            try:
                made.append((f"{name}, {end} end", values, context.pipeline.trial_config(context.config, values)))
            except ConfigError as error:
                raise AuditError(
                    f"its {end} end is no configuration: {error}",
                    where=f"space {name}: {error.where}",
                    remedy="take values that the configuration refuses out of the space",
                ) from error
    return made


@rule(
    "RV0103",
    "HPO overrides existing names only, and never β, the ridge or C_EPS",
    law="{names of the space} ⊆ {configuration fields} ∖ {β, both ridges, C_EPS}; a trial keeps those four",
    why="A study that tunes β compares trials that solve different problems.",
    how="Names of every space against the fields; the four values of the configuration of each extreme trial, and of "
    "trials of a base with other values. A name that does not exist is refused; a sampled one of the four never "
    "arrives. Each combination of choices makes a configuration. Bound: none unknown, none changed, none impossible.",
    remedy="take the field out of the space, or use its present name",
)
def overrides(context: Context) -> Sequence[Measurement]:
    """Names and exact values: no tolerance."""
    from ris_verified._config_load import names

    known = set(names(type(context.config)))
    found = []
    for label, space in context.pipeline.spaces.items():
        unknown = sorted(set(space) - known)
        tuned = sorted(set(space) & set(FIXED))
        found.append(at_most(float(len(unknown)), 0.0, f"unknown names in space {label}", where=", ".join(unknown)))
        found.append(at_most(float(len(tuned)), 0.0, f"fixed names in space {label}", where=", ".join(tuned)))
    for label, _, config in trials(context):
        for name in FIXED:
            value, default = read(config, name), read(context.config, name)
            found.append(close(value, default, 0.0, f"{name} in a trial ({label})", where=name))
    impossible = "choices that no configuration can have leave trials that fail: take them out of the space"
    return [*found, *refused(context, FIXED), *mended(_every_choice(context), impossible)]


def _every_choice(context: Context) -> list[Measurement]:
    """Make a configuration of each combination of choices, the rest at the low end."""
    found = []
    for label, space in context.pipeline.spaces.items():
        choices = {name: vars(d)["choices"] for name, d in space.items() if "choices" in vars(d)}
        low, impossible = sample(space, "low"), list[str]()
        for combined in itertools.islice(itertools.product(*choices.values()), MOST):
            try:
                context.pipeline.trial_config(context.config, {**low, **dict(zip(choices, combined, strict=True))})
            except ConfigError as error:
                impossible.append(f"{combined}: {error.where}")
        text = f"combinations of choices that space {label} may draw and no configuration allows"
        found.append(at_most(float(len(impossible)), 0.0, text, "trials", "; ".join(impossible[:2])))
    return found


@rule(
    "RV0901",
    "Newton is on, the MLE is tuned, loss weights reach the loss",
    law="trial: newton_nearfield = true; space ∩ estimate.mle_* ≠ ∅; loss(trial).total = Σ sampled weight · term",
    why="A weight that never reaches the loss is sampled, logged and ranked by luck.",
    how="Extreme trials of each space and trials inside it: every sampled value is read back from the configuration "
    "to its last digit, and nothing else than the study's restrictions differs from the base; the loss is evaluated "
    "with it and its total compared with the sampled weights times its terms, bound 8 eps of float32 a term.",
    remedy="write every sampled value into the trial's configuration",
)
def trial_reaches(context: Context) -> Sequence[Measurement]:
    """One product and one sum of float32 numbers a term."""
    import torch

    found = []
    for label, space in context.pipeline.spaces.items():
        tuned = sorted(name for name in space if name.startswith("estimate.mle"))
        found.append(equal(bool(tuned), True, f"NF-MLE parameters in space {label}: {', '.join(tuned)}", where="space"))
    b = context.blend
    for label, values, config in trials(context):
        wrong = sorted(n for n, v in values.items() if read(config, n) != v)
        found.append(at_most(float(len(wrong)), 0.0, f"sampled values not read back ({label})", where=", ".join(wrong)))
        found.append(equal(config.estimate.newton_nearfield, True, f"near-field Newton ({label})", where="estimate"))
        result = context.pipeline.loss(context.outputs, b.R_pred, context.batch, config, R_blend=b.R, training=False)
        weights = {n.removeprefix("loss."): v for n, v in values.items() if n.startswith("loss.")}
        weights = {**vars(context.config.loss), **weights}
        total = sum(weights[n] * float(v) for n, v in result.terms.items())
        bound = 8 * torch.finfo(torch.float32).eps * len(weights) * max(1.0, abs(total))
        found.append(close(float(result.total), total, bound, f"loss of a trial ({label})", where="loss"))
    return [*found, *kept(context, context.pipeline.spaces)]


@rule(
    "RV0902",
    "A trial is plain and small",
    law="curriculum, EMA, SWA off; accumulation 1; batch 64–80; 10 % of the data",
    why="An average or a curriculum hides what a learning rate does in few epochs.",
    how="Configuration of each extreme trial; scenes rounded from hpo.data_share = 0.1, 8,000 and 1,600 at reference "
    "size. The same on a base with curriculum, averages, accumulation, other epochs and another share.",
    remedy="set these fields in trial_config",
)
def trial_plain(context: Context) -> Sequence[Measurement]:
    """Exact values; scenes to one."""
    found = []
    for label, _, config in trials(context):
        train = config.train
        off = {n: vars(train)[n] for n in ("curriculum_share", "ema_decay", "swa_share")}
        found += [close(v, 0.0, 0.0, f"in a trial ({label})", where=f"train.{n}") for n, v in off.items()]
        found.append(equal(train.accumulation, 1, f"in a trial ({label})", where="train.accumulation"))
        text = f"batch of {train.batch_size} ({label})"
        batch = equal(64 <= train.batch_size <= 80, True, text, where="train.batch_size")
        found += mended([batch], "keep train.batch_size, in the space or in the configuration, within 64 to 80")
        share = context.config.hpo.data_share
        for name in ("train_scenes", "validation_scenes"):
            whole = vars(context.config.data)[name]
            found.append(
                close(vars(config.data)[name], share * whole, 1.0, f"in a trial ({label})", "scenes", f"data.{name}")
            )
        found.append(close(share, 0.1, 0.0, "share of the data", where="hpo.data_share"))
    return [*found, *restricted(context, context.pipeline.spaces)]
