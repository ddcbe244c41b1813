"""How much of the true steering vectors a covariance's signal subspace holds."""

from __future__ import annotations

import torch
from torch import Tensor

from ris_verified.array.steering import steering
from ris_verified.config import ArrayConfig


@torch.no_grad()
def subspace_capture(R: Tensor, ptr: Tensor, array: ArrayConfig) -> Tensor:
    """Return the mean share of a true steering vector inside the top-K eigenvectors of R.

    mean_k ‖U_Kᴴ a_k‖²/‖a_k‖², K the true number of sources. Chance is K/N.

    Args:
        R: `B x N x N` complex, Hermitian.
        ptr: `B x K_MAX x 3` real, azimuth, elevation (rad), range (m); NaN beyond K.
        array: the panel.

    Returns:
        `B` real in [0, 1].
    """
    present = torch.isfinite(ptr).all(-1)
    place = torch.where(present[..., None], ptr, torch.ones_like(ptr))
    a = steering(array, *place.unbind(-1)).to(R.dtype)
    vectors = torch.linalg.eigh(R)[1].flip(-1)[..., : ptr.shape[1]]
    used = torch.arange(ptr.shape[1], device=R.device) < present.sum(-1, keepdim=True)
    inside = ((a.conj() @ vectors).abs().square() * used[:, None]).sum(-1)
    share = inside / a.abs().square().sum(-1)
    mean: Tensor = (share * present).sum(-1) / present.sum(-1)
    return mean
