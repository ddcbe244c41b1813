"""What RV1608 measures of the validation on batches of unequal size: each scene counts once, in evaluation mode."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from ris_verified.audit.laws.scored_batches import mode_laws, parts, told, wrong_counts
from ris_verified.audit.laws.watched import modes_of
from ris_verified.audit.rule import Measurement, close, equal

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from ris_verified.audit.context import Context
    from ris_verified.data.batch import Batch
    from ris_verified.loss.total import LossResult
    from ris_verified.pipeline import Pipeline

# More than a stage may keep or stop at unseen.
MANY = 40


def _costs(batch: Batch) -> tuple[Tensor, Tensor]:
    """Return two numbers of every scene that differ from scene to scene, and of which none is its own root."""
    return batch.ptr[:, 0, 2].double(), batch.y.double().square().mean((1, 2, 3))


def _mean_cost(outputs: Any, R_hat: Any, batch: Batch, *_: Any, **__: Any) -> LossResult:
    from ris_verified.loss.total import LossResult

    total, nmse = (values.mean() for values in _costs(batch))
    return LossResult(total, {}, nmse)


def validation_counts(small: Context, capture: Callable[[Pipeline, nn.Module, Batch], float]) -> list[Measurement]:
    """Validate eight scenes in batches of five and three, with a loss that is the mean of known numbers.

    Then with a loss that is NaN in one batch, forty times over, with other truths, and with one source in each scene: a
    head that sees more is wrong there.

    Args:
        small: the small context.
        capture: mean share of the true steering vectors in R_blend, of pipeline, model and batch.
    """
    import torch

    batch, modes = small.batch, list[bool]()
    model = told(small, modes)
    before = modes_of(model)
    stages = dataclasses.replace(small.pipeline, loss=_mean_cost)
    figures = stages.validate(stages, model, parts(batch))
    laws = mode_laws(before, model, modes, "validate")
    counts = wrong_counts(batch, small.config.scene.sources_max)
    total, nmse = (float(values.mean()) for values in _costs(batch))
    eps = 64 * torch.finfo(torch.float32).eps
    wanted = {
        "loss": (total, eps * total),
        "nmse": (nmse, eps * nmse),
        "capture": (capture(small.pipeline, told(small, []), batch), 1e-4),
        "order": (float((counts == batch.K).double().mean()), eps),
    }
    text = "of batches of 5 and 3 scenes against the mean over all"
    laws += [
        close(figures[name], value, bound, f"validated {name} {text}", where="validate")
        for name, (value, bound) in wanted.items()
    ]
    # The same numbers of sources: with more the subspace would take in directions that are all alike.
    other = dataclasses.replace(batch, ptr=batch.ptr * torch.tensor([0.5, 1.0, 1.0]))
    moved = stages.validate(stages, model, parts(other))["capture"]
    told_so = capture(small.pipeline, told(small, []), other)
    laws.append(close(moved, told_so, 1e-4, "validated capture of the scenes with other truths", where="validate"))
    return [*laws, *_elsewhere(small, stages, model, wanted["loss"])]


def _elsewhere(small: Context, stages: Pipeline, model: nn.Module, wanted: tuple[float, float]) -> list[Measurement]:
    batch = small.batch
    five, three = parts(batch)

    def missing(outputs: Any, R_hat: Any, given: Batch, *_: Any, **__: Any) -> LossResult:
        result = _mean_cost(outputs, R_hat, given)
        return dataclasses.replace(result, total=result.total * (1.0 if len(given) == len(five) else math.nan))

    diverged = dataclasses.replace(stages, loss=missing)
    loss = diverged.validate(diverged, model, [five, three])["loss"]
    many = stages.validate(stages, model, [five] * MANY + [three] * MANY)
    one = dataclasses.replace(batch, K=batch.K.clamp(max=1), ptr=batch.ptr.clone())
    one.ptr[:, 1:] = math.nan
    alone = stages.validate(stages, model, parts(one))["order"]
    right = float((wrong_counts(batch, small.config.scene.sources_max) == 1).double().mean())
    text = f"validated loss of {MANY} batches of 5 and {MANY} of 3"
    return [
        equal(math.isfinite(loss), False, "validated loss is finite where one batch's is NaN", where="validate"),
        close(many["loss"], *wanted, text, where="validate"),
        close(alone, right, 1e-6, "validated order of scenes that have one source", where="validate"),
    ]
