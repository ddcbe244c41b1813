"""What every contender of `peers.py` is given, and how far its spectrum may be from the reference.

The noise eigenvalues are spread by 1e-4 of their value: acoular weighs the noise subspace by them, which unequal ones
would show, and pyargus, which takes R for a general matrix, finds no orthogonal eigenvectors of equal ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ris_verified.array.geometry import element_positions, to_cartesian
from ris_verified.array.steering import steering
from ris_verified.config import Config
from ris_verified.covariance.low_rank import LowRank
from ris_verified.estimate.grid import spectrum_grid
from ris_verified.scene.scene import draw_scene

Array = NDArray[Any]
NOISE, RIPPLE = 0.1, 1e-4
# The columns of R_blend's factor: K_MAX of the prediction and L of the sample covariance.
WIDTH = 21
# Metres a second: only the wavelength matters.
SPEED = 1.0
PLACE = ("azimuth", "elevation", "range")


@dataclass(frozen=True)
class Rounding:
    """What a contender's spectrum may be off by.

    Args:
        arithmetic: dtype of its products.
        phase: rounding of its phases in units of k·distance.
        weighed: True where noise eigenvalues weigh the noise subspace.
        general: True where eigenvectors are not made orthogonal.
    """

    arithmetic: type[np.floating[Any]] = np.float64
    phase: float = 2.0**-53
    weighed: bool = False
    general: bool = False


@dataclass(frozen=True)
class Problem:
    """What every contender is given.

    Args:
        cfg: array, field of view and grid.
        sources: K, the same for every covariance.
        R: `B x N x N` complex128, trace N.
        low: the same as a `LowRank` of `WIDTH` columns, without the spread of the noise.
        sensors: `N x 3`, metres.
        points: `G x 3`, metres.
        atoms: `G x N` complex128, norm one.
        null: `B x G`, 1 − ‖Uᴴa‖² in double precision.
        spread: ‖R‖₂ over the gap that separates the signal subspace, the largest of all covariances.
        noise_spread: ‖R‖₂ over the smallest gap in the noise.
    """

    cfg: Config
    sources: int
    R: Array
    low: LowRank
    sensors: Array
    points: Array
    atoms: Array
    null: Array
    spread: float
    noise_spread: float

    @classmethod
    def drawn(cls, cfg: Config, count: int, sources: int) -> Problem:
        """Draw positions as scenes are drawn, and form covariances and the reference."""
        picked = cfg.replaced({"scene.sources_min": sources, "scene.sources_max": sources})
        scenes = [draw_scene(picked, 4, index) for index in range(count)]
        A = steering(cfg.array, *(np.stack([vars(s)[name] for s in scenes]) for name in PLACE)).mT
        mixing = torch.randn(WIDTH, sources, dtype=A.dtype, generator=torch.Generator().manual_seed(0))
        wide = torch.linalg.qr(mixing)[0]
        scale = (1 / (sources + NOISE)) ** 0.5
        low = LowRank(scale * A @ wide.mH, torch.full((count,), NOISE * scale**2, dtype=torch.float64))
        R, floor = low.dense(), float(low.floor[0])
        azimuth, elevation, inverse = spectrum_grid(cfg, torch.float64, R.device).places.unbind(-1)
        atoms = steering(cfg.array, azimuth, elevation, 1 / inverse)
        atoms = atoms / torch.linalg.vector_norm(atoms, dim=-1, keepdim=True)
        values, vectors = torch.linalg.eigh(R)
        U, rest = vectors[..., -sources:], vectors[..., :-sources]
        ripple = RIPPLE * floor * torch.linspace(-0.5, 0.5, rest.shape[-1], dtype=torch.float64)
        R = R + (rest * ripple) @ rest.mH
        null = torch.stack([(atoms - (atoms @ u.conj()) @ u.mT).abs().square().sum(-1) for u in U])
        gap = values[:, -sources] - values[:, -sources - 1]
        points = to_cartesian(azimuth, elevation, 1 / inverse)
        return cls(
            cfg, sources, R.numpy(), low, element_positions(cfg.array).numpy(), points.numpy(), atoms.numpy(),
            null.numpy(), float((values[:, -1] / gap).max()),
            float(values[:, -1].max() / (ripple[1] - ripple[0])),
        )  # fmt: skip

    def disagreement(self, found: Array, rounding: Rounding) -> float:
        """Return the largest error of a normalised spectrum `B x G` in units of its bound.

        With δ = k·distance·phase + N·eps·(1 + ‖R‖/gap), the error of steering vectors and subspace, the null spectrum D
        is known to ΔD = 2√D δ + δ² + N·eps, and D_min/D to (ΔD/D + ΔD_min/D_min)/(1 − ΔD/D). Where noise eigenvalues
        weigh, ΔD/D grows by their spread. Infinite where ΔD reaches D, which leaves nothing to compare.
        """
        N, eps = self.R.shape[-1], float(np.finfo(rounding.arithmetic).eps)
        farthest = np.linalg.norm(self.points, axis=1).max() + np.linalg.norm(self.sensors, axis=1).max()
        spread = self.noise_spread if rounding.general else self.spread
        delta = self.cfg.array.wavenumber * farthest * rounding.phase + N * eps * (1 + spread)
        D = self.null[: len(found)]
        relative = (2 * np.sqrt(D) * delta + delta**2 + N * eps) / D + RIPPLE * rounding.weighed
        if not (relative < 1).all():
            return float("inf")
        least = np.take_along_axis(relative, D.argmin(-1)[:, None], -1)
        bound = (relative + least) / (1 - relative)
        normalised = found / found.max(-1, keepdims=True) * D / D.min(-1, keepdims=True)
        return float((np.abs(normalised - 1) / bound).max())
