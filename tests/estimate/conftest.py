"""Scenes in the form that the estimators take, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from ris_verified.array.steering import steering
from ris_verified.config import Config
from ris_verified.covariance.trace import trace_normalised
from ris_verified.scene.scene import draw_scene


@dataclass(frozen=True)
class Truth:
    """A batch of scenes: measurement, `B x K_MAX x 3` positions padded with NaN, and what the bound needs."""

    cfg: Config
    y: Tensor
    H_full: Tensor
    C: Tensor
    ptr: Tensor
    K: Tensor
    symbols: Tensor
    noise_variance: Tensor

    @property
    def measurement(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.y, self.H_full, self.C

    @property
    def R_true(self) -> Tensor:
        present = torch.isfinite(self.ptr).all(-1, keepdim=True)
        place = torch.where(present, self.ptr, torch.ones_like(self.ptr))
        A = (steering(self.cfg.array, *place.unbind(-1)) * present).mT
        return trace_normalised(A @ A.mH)


def _stack(scenes, name):
    return torch.from_numpy(np.stack([vars(scene)[name] for scene in scenes]))


@pytest.fixture(scope="session")
def drawn() -> Callable[..., Truth]:
    """Return a function (configuration, how many, first index) → `Truth`, split 2."""

    def draw(cfg: Config, count: int, first: int = 0) -> Truth:
        scenes = [draw_scene(cfg, 2, index) for index in range(first, first + count)]
        most = cfg.scene.sources_max
        ptr = torch.full((count, most, 3), torch.nan, dtype=torch.float64)
        symbols = torch.zeros(count, cfg.scene.snapshots, most, dtype=torch.complex128)
        for b, scene in enumerate(scenes):
            k = scene.azimuth.size
            ptr[b, :k] = torch.from_numpy(np.stack([scene.azimuth, scene.elevation, scene.range], -1))
            symbols[b, :, :k] = torch.from_numpy(scene.symbols)
        return Truth(
            cfg,
            *(_stack(scenes, name) for name in ("y", "H_full", "codes")),
            ptr,
            torch.isfinite(ptr).all(-1).sum(-1),
            symbols,
            torch.tensor([scene.noise_variance for scene in scenes]),
        )

    return draw
