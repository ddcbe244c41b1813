"""Measurements in the form that a model is fitted to."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ris_verified.config import Config


@dataclass(frozen=True)
class Measurement:
    """A batch of measurements.

    Args:
        y: `B x L x M` complex, or `B x 1 x LM` where symbols are constant.
        Phi: `B x LM x N` complex, Φ_l = H diag(c_l), one snapshot below the other.
        cfg: configuration.
    """

    y: Tensor
    Phi: Tensor
    cfg: Config

    @classmethod
    def of(cls, y: Tensor, H_full: Tensor, C: Tensor, cfg: Config) -> Measurement:
        """Multiply the codes into the channel; where symbols are constant all snapshots become one.

        Args:
            y: `B x L x M` complex.
            H_full: `B x M x N` complex.
            C: `B x L x N` complex.
            cfg: reads `scene.symbols`.
        """
        Phi = (H_full[:, None] * C[:, :, None]).flatten(1, 2)
        return cls(y.flatten(1)[:, None] if cfg.scene.symbols == "constant" else y, Phi, cfg)

    def only(self, chosen: Tensor | slice) -> Measurement:
        """Return some of the scenes."""
        return Measurement(self.y[chosen], self.Phi[chosen], self.cfg)

    def to(self, dtype: torch.dtype) -> Measurement:
        """Return the same in another complex dtype."""
        return Measurement(self.y.to(dtype), self.Phi.to(dtype), self.cfg)

    def seen(self, field: Tensor) -> Tensor:
        """Return Φ_l v of vectors v on the panel, `B x N x P` or `N x P` → `B x L x M x P` complex."""
        seen: Tensor = (self.Phi @ field).unflatten(1, self.y.shape[1:])
        return seen

    @property
    def rows(self) -> int:
        """Complex numbers in one scene's measurement, LM."""
        return self.y.shape[1] * self.y.shape[2]

    @property
    def energy(self) -> Tensor:
        """Σ_l ‖y_l‖², `B` real."""
        return power(self.y).sum((1, 2))


def power(z: Tensor) -> Tensor:
    """Return |z|², without the square root that `abs` takes."""
    real, imag = z.real, z.imag
    return torch.addcmul(real.square(), imag, imag)
