"""Slopes of a network's outputs in its weights, autograd against differences; measured for RV0502."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ris_verified.audit.context import Context
from ris_verified.audit.laws.model_laws import WHERE, pick, run
from ris_verified.audit.rule import Measurement, at_least, at_most

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ris_verified.data.batch import Batch

WIDTHS = (3e-5, 1e-5, 3e-6)  # shares of the weights' norm
SCENES = 6
AGREED = 2  # scenes


@dataclass(frozen=True)
class Slope:
    """Autograd's slope of one projected output along its own gradient.

    Args:
        projection: `B x ...`, weights of the output's entries.
        along: direction in the weights, the sum over scenes of the gradients.
        length: its norm.
        scenes: slope of each scene along the unit direction.
    """

    projection: Tensor
    along: list[Tensor]
    length: float
    scenes: list[float]


def output_slopes(context: Context) -> list[Measurement]:
    """Measure that each output carries its own derivative in the weights (RV0502).

    Along the gradient of a random projection of one output, autograd's slope of single scenes against central
    differences of three widths. A network may choose by argmax, so a difference can straddle a jump, for one scene
    in two hundred at the narrowest width: the second best of six scenes counts. Rounding is a few thousandths of
    the slope there; bound a fiftieth.
    """
    import torch

    small = context.small
    model, batch = small.model, pick(small.batch, list(range(len(small.batch)))[-SCENES:])
    weights = [p for p in model.parameters() if p.requires_grad]
    size = math.sqrt(sum(float(p.detach().square().sum()) for p in weights))
    found = []
    for name, slope in _slopes(model, batch, weights, context.seed).items():
        where = f"{WHERE}: {name}"
        if not slope.length:
            message = "gradient of the output in the weights"
            found.append(at_least(slope.length, torch.finfo(torch.float32).tiny, message, where=where))
            continue
        errors = []
        for width in WIDTHS:
            h = width * size
            up, down = (_moved(model, weights, slope, sign * h, batch, name) for sign in (1, -1))
            ratio = zip(up - down, slope.scenes, strict=True)
            errors.append([abs(float(d) / (2 * h) / s - 1) if s else math.inf for d, s in ratio])
        best = sorted(min(column) for column in zip(*errors, strict=True))
        message = "slope of the output in the weights, difference over autograd less one"
        found.append(at_most(best[AGREED - 1], 0.02, message, where=where))
    return found


def _slopes(model: nn.Module, batch: Batch, weights: list[nn.Parameter], seed: int) -> dict[str, Slope]:
    import torch

    generator, made = torch.Generator().manual_seed(seed), {}
    for name, value in vars(model(batch.y, batch.H, batch.C, batch.H_full)).items():
        w = torch.randn(value.shape, generator=generator)
        figures = (w * value).flatten(1).sum(1)
        rows = [_gradient(figure, weights) for figure in figures] if value.requires_grad else []
        along = [torch.stack(columns).sum(0) for columns in zip(*rows, strict=True)]
        length = math.sqrt(sum(float(v.square().sum()) for v in along))
        scenes = [sum(float((g * d).sum()) for g, d in zip(row, along, strict=True)) / (length or 1.0) for row in rows]
        made[name] = Slope(w, along, length, scenes)
    return made


def _gradient(figure: Tensor, weights: list[nn.Parameter]) -> list[Tensor]:
    import torch

    given = torch.autograd.grad(figure, weights, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for g, p in zip(given, weights, strict=True)]


def _moved(model: nn.Module, weights: list[nn.Parameter], slope: Slope, step: float, batch: Batch, name: str) -> Tensor:
    """Return the projections of an output by scene with the weights moved, and put them back to the bit."""
    import torch

    kept = [p.detach().clone() for p in weights]
    with torch.no_grad():
        for p, d in zip(weights, slope.along, strict=True):
            p.add_(d, alpha=step / slope.length)
        value = vars(run(model, batch))[name]
        for p, k in zip(weights, kept, strict=True):
            p.copy_(k)
    made: Tensor = (slope.projection * value).double().flatten(1).sum(1)
    return made
