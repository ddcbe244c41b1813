"""Measurements in the form that a model is fitted to."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ris_verified.config import Config

# So many fields are multiplied with the codes and then with the channel; for more it pays to make all Φ_l.
FEW = 8


@dataclass(frozen=True)
class Measurement:
    """A batch of measurements through Φ_l = H diag(c_l).

    Args:
        y: `B x L x M` complex, or `B x 1 x LM` where symbols are constant.
        H: `B x M x N` complex.
        C: `B x L x N` complex.
        cfg: configuration.
    """

    y: Tensor
    H: Tensor
    C: Tensor
    cfg: Config

    @classmethod
    def of(cls, y: Tensor, H_full: Tensor, C: Tensor, cfg: Config) -> Measurement:
        """Take a batch; where symbols are constant all snapshots become one.

        Args:
            y: `B x L x M` complex.
            H_full: `B x M x N` complex.
            C: `B x L x N` complex.
            cfg: reads `scene.symbols`.
        """
        return cls(y.flatten(1)[:, None] if cfg.scene.symbols == "constant" else y, H_full, C, cfg)

    def only(self, chosen: Tensor | slice) -> Measurement:
        """Return some of the scenes."""
        return Measurement(self.y[chosen], self.H[chosen], self.C[chosen], self.cfg)

    def to(self, dtype: torch.dtype) -> Measurement:
        """Return the same in another complex dtype."""
        return Measurement(self.y.to(dtype), self.H.to(dtype), self.C.to(dtype), self.cfg)

    @cached_property
    def Phi(self) -> Tensor:
        """One snapshot below the other, `B x LM x N` complex."""
        return (self.H[:, None] * self.C[:, :, None]).flatten(1, 2)

    def seen(self, fields: Tensor) -> Tensor:
        """Return Φ_l v of fields v on the panel, `B x P x N` → `B x L x M x P` complex."""
        if fields.shape[-2] > FEW:
            wide: Tensor = (self.Phi @ fields.mT).unflatten(1, self.y.shape[1:])
            return wide
        coded = self.C[:, :, None] * fields[:, None]
        rows = (coded.flatten(1, 2) @ self.H.mT).unflatten(1, coded.shape[1:3])
        if self._constant:
            rows = rows.transpose(1, 2).flatten(2)[:, None]
        seen: Tensor = rows.mT
        return seen

    def back(self, rows: Tensor) -> Tensor:
        """Return wᵀ Φ_l of rows w, `B x L x R x M` → `B x L x R x N` complex."""
        if self._constant:
            rows = rows[:, 0].unflatten(-1, (self.C.shape[1], -1)).transpose(1, 2)
        coded = (rows.flatten(1, 2) @ self.H).unflatten(1, rows.shape[1:3]) * self.C[:, :, None]
        back: Tensor = coded.sum(1, keepdim=True) if self._constant else coded
        return back

    @property
    def _constant(self) -> bool:
        return self.y.shape[1] < self.C.shape[1]

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
