"""What RV1608 measures of the validation on batches of unequal size: each scene counts once, in evaluation mode."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from ris_verified.audit.laws.scored_batches import mode_laws, parts, told, wrong_counts
from ris_verified.audit.laws.watched import modes_of
from ris_verified.audit.rule import Measurement, close

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from ris_verified.audit.context import Context
    from ris_verified.data.batch import Batch
    from ris_verified.loss.total import LossResult
    from ris_verified.pipeline import Pipeline


def _costs(batch: Batch) -> tuple[Tensor, Tensor]:
    """Return two numbers of every scene that differ from scene to scene, and of which none is its own root."""
    return batch.ptr[:, 0, 2].double(), batch.y.double().square().mean((1, 2, 3))


def _mean_cost(outputs: Any, R_hat: Any, batch: Batch, *_: Any, **__: Any) -> LossResult:
    from ris_verified.loss.total import LossResult

    total, nmse = (values.mean() for values in _costs(batch))
    return LossResult(total, {}, nmse)


def validation_counts(small: Context, capture: Callable[[Pipeline, nn.Module, Batch], float]) -> list[Measurement]:
    """Validate eight scenes in batches of five and three, with a loss that is the mean of known numbers.

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
    return laws + [
        close(figures[name], value, bound, f"validated {name} {text}", where="validate")
        for name, (value, bound) in wanted.items()
    ]
