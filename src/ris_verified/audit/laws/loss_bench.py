"""Scenes with every number of sources, and the loss at them: what the rules about the loss measure on."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ris_verified.audit.context import Context

if TYPE_CHECKING:
    from torch import Tensor

    from ris_verified.data.batch import Batch
    from ris_verified.loss.total import LossResult
    from ris_verified.model.output import ModelOutput


@dataclass
class Bench:
    """Scenes with 1 … K_MAX sources at the small size, and the loss with all weights one.

    Args:
        context: small.
    """

    context: Context

    @cached_property
    def config(self) -> Any:
        """The configuration with every loss weight one."""
        weights = {f"loss.{f.name}": 1.0 for f in dataclasses.fields(self.context.config.loss)}
        return self.context.config.replaced(weights)

    @property
    def most(self) -> int:
        """K_MAX."""
        return self.context.config.scene.sources_max

    @property
    def orders(self) -> list[int]:
        """1 … K_MAX."""
        return list(range(1, self.most + 1))

    @cached_property
    def batch(self) -> Batch:
        """Two scenes of one source, two of K_MAX, one of each number between."""
        scenes = []
        for i, K in enumerate([1, *self.orders, self.most]):
            fixed = self.context.config.replaced({"scene.sources_min": K, "scene.sources_max": K})
            scenes += self.context.draw(1, fixed, key=20 + i)
        return self.context.as_batch(scenes)

    @cached_property
    def outputs(self) -> ModelOutput:
        """The network's, without a graph."""
        import torch

        b = self.batch
        with torch.no_grad():
            made: ModelOutput = self.context.model(b.y, b.H, b.C, b.H_full)
        return made

    @cached_property
    def R(self) -> Tensor:
        """R_blend of the outputs."""
        import torch

        with torch.no_grad():
            return self.context.pipeline.covariances(self.outputs, self.batch).R

    @property
    def K(self) -> list[int]:
        """Number of sources of each scene."""
        return [int(k) for k in self.batch.K]

    def evaluate(self, outputs: ModelOutput, R: Tensor, batch: Batch, *names: str) -> LossResult:
        """Return the loss with weight one on the named terms, on all without a name."""
        config = self.config
        if names:
            others = {f.name: 0.0 for f in dataclasses.fields(config.loss)}
            config = dataclasses.replace(config, loss=type(config.loss)(**{**others, **dict.fromkeys(names, 1.0)}))
        return self.context.pipeline.loss(outputs, R, batch, config, R_blend=R, training=False)

    def positions(self, angles: Tensor, ranges: Tensor, ptr: Tensor) -> tuple[float, float]:
        """Return the terms `angle` and `range` of one scene with these slots and true positions."""
        outputs, R, batch = self.row(0)
        K = (ptr[:, 0] == ptr[:, 0]).sum()[None]
        made = dataclasses.replace(outputs, angles=angles[None], ranges=ranges[None])
        truth = dataclasses.replace(batch, ptr=ptr[None], K=K)
        terms = self.evaluate(made, R, truth, "angle", "range").terms
        return float(terms["angle"]), float(terms["range"])

    def row(self, i: int) -> tuple[ModelOutput, Tensor, Batch]:
        """Return outputs, R and truth of one scene."""
        return row(self.outputs, i), self.R[i : i + 1], row(self.batch, i)


def row(fields: Any, i: int) -> Any:
    """Return one scene of a dataclass of batched tensors."""
    return dataclasses.replace(fields, **{n: v[i : i + 1] for n, v in vars(fields).items()})


def separated(R: Tensor) -> Tensor:
    """Return matrices plus a ramp on the diagonal, complex128: an eigenvalue that occurs twice has no derivative."""
    import torch

    N = R.shape[-1]
    return R.to(torch.complex128) + torch.diag(torch.arange(1, N + 1, device=R.device) / N)


def rounding(R: Tensor) -> float:
    """Return 8 eps·N of a matrix."""
    from ris_verified.contracts import tolerance

    return tolerance(R.dtype, R.shape[-1], 8)
