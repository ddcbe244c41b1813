"""Batches and truth, assembled from the stored form of scenes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ris_verified.array.steering import steering
from ris_verified.config import Config
from ris_verified.data.batch import Batch, ProposedBatch
from ris_verified.scene.codes import code_values
from ris_verified.shapes import from_ri, to_ri


@dataclass(frozen=True)
class Truth:
    """What evaluation knows beyond the batch.

    Args:
        symbols: `B x L x K_MAX x 2` float32; zero beyond K.
        powers: `B x K_MAX` float64; NaN beyond K.
        noise_variance: `B` float64.
        rician_factor: `B` float64.
        ptr: `B x K_MAX x 3` float64, positions as drawn.
    """

    symbols: Tensor
    powers: Tensor
    noise_variance: Tensor
    rician_factor: Tensor
    ptr: Tensor


def measured(stored: dict[str, Tensor], cfg: Config) -> tuple[Tensor, Tensor, Tensor]:
    """Return y, H_full and C of stored scenes, `S x L x M`, `S x M x N` and `S x L x N` complex64."""
    table = torch.from_numpy(code_values(np.arange(1 << cfg.scene.code_bits, dtype=np.uint8), cfg.scene.code_bits))
    C = table.to(torch.complex64)[stored["codes"].long()]
    return from_ri(stored["y"]), from_ri(stored["H_full"].float()), C


def to_batch(stored: dict[str, Tensor], cfg: Config) -> Batch:
    """Build a batch from the stored form of scenes (see `stacked`); R_true is A P Aᴴ, trace N.

    Args:
        stored: tensors with S first.
        cfg: reads `array` and `scene.code_bits`.

    Returns:
        A `Batch` of S scenes, with their proposals where these are stored.
    """
    _, H_full, C = measured(stored, cfg)
    H = torch.einsum("bmn,bln->blm", H_full, C)
    sources = stored["sources"]
    present = torch.isfinite(sources).all(-1)
    place = torch.where(present[..., None], sources, 1.0)
    A = steering(cfg.array, *place[..., :3].unbind(-1)).mT
    A = A * (place[..., 3].sqrt() * present)[:, None]
    # tr(A Aᴴ) = Σ|a|², so that the trace is N before precision is halved.
    A = (A * (A.shape[1] / A.abs().square().sum((1, 2), keepdim=True)).sqrt()).to(torch.complex64)
    R_true = A @ A.mH
    fields = (
        stored["y"], to_ri(H), to_ri(C), sources[..., :3].float(), stored["K"], R_true,
        stored["snr_db"].float(), to_ri(H_full),
    )  # fmt: skip
    return ProposedBatch(*fields, stored["proposals"]) if "proposals" in stored else Batch(*fields)


def to_truth(stored: dict[str, Tensor]) -> Truth:
    """Return what evaluation needs beyond the batch, from the stored form of the same scenes."""
    place, powers = stored["sources"][..., :3], stored["sources"][..., 3]
    return Truth(stored["symbols"], powers, stored["noise_variance"], stored["rician_factor"], place)
