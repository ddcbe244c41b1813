"""The single terms; each is exact at known points and reads the truth through positions or R_in."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ris_verified.array.geometry import to_cartesian
from ris_verified.array.steering import steering
from ris_verified.config import ArrayConfig
from ris_verified.covariance.trace import trace
from ris_verified.loss.assignment import assign
from ris_verified.loss.dense import inside, squared_distance, squared_norm

HUBER = 0.1


def covariance_error(R: Tensor, R_true: Tensor) -> Tensor:
    """Return the NMSE ‖R − R_true‖²_F/‖R_true‖²_F: 0 for (R, R), 1 for (0, R).

    Args:
        R: `B x N x N` complex.
        R_true: `B x N x N` complex.

    Returns:
        `B` real.
    """
    return squared_distance(R, R_true) / squared_norm(R_true)


def true_subspace(ptr: Tensor, array: ArrayConfig) -> tuple[Tensor, Tensor]:
    """Return an orthonormal basis of the true steering vectors; it carries no gradient.

    Args:
        ptr: `B x K_MAX x 3` real, NaN beyond K.
        array: the panel.

    Returns:
        U `B x N x K_MAX` complex with zero columns beyond the rank, and the mask of its columns
        `B x K_MAX` bool.
    """
    present = torch.isfinite(ptr).all(-1)
    place = torch.where(present[..., None], ptr, torch.ones_like(ptr)).double()
    A = steering(array, *place.unbind(-1)).mT * present[:, None]
    values, vectors = torch.linalg.eigh(A.mH @ A)
    kept = values > A.shape[-2] * A.shape[-1] * torch.finfo(values.dtype).eps
    scale = torch.where(kept, values.clamp_min(torch.finfo(values.dtype).tiny).rsqrt(), 0)
    U = A @ (vectors * scale[:, None])
    return U.to(torch.complex64 if ptr.dtype == torch.float32 else torch.complex128), kept


def alignment(R: Tensor, U: Tensor) -> Tensor:
    """Return tr((I − UUᴴ) R)/tr R: 0 where R lives in the true subspace, 1 in its complement.

    Args:
        R: `B x N x N` complex, Hermitian.
        U: `B x N x K_MAX` complex, orthonormal or zero columns.

    Returns:
        `B` real.
    """
    return aligned(*inside(R, U))


def aligned(block: Tensor, total: Tensor) -> Tensor:
    """Return `alignment` from what `inside` returns."""
    return 1 - trace(block) / total


def eigengap(R: Tensor, R_true: Tensor, U: Tensor, kept: Tensor) -> Tensor:
    """Return by how much the gap between signal and noise is too small, relative to tr/K.

    gap(R) = λ_min(UᴴRU) − tr((I − UUᴴ)R)/(N − K); the term is max(0, gap(R_true) − gap(R)) K/N. Only
    eigenvalues of K × K matrices appear, so repeated ones have finite gradients.

    Args:
        R: `B x N x N` complex.
        R_true: `B x N x N` complex.
        U: `B x N x K_MAX` complex, basis of the true subspace.
        kept: `B x K_MAX` bool, columns of U that are present.

    Returns:
        `B` real, 0 at R = R_true.
    """
    return missing_gap(inside(R, U), inside(R_true, U), kept, R.shape[-1])


def missing_gap(seen: tuple[Tensor, Tensor], true: tuple[Tensor, Tensor], kept: Tensor, N: int) -> Tensor:
    """Return `eigengap` from what `inside` returns for both matrices."""
    K = kept.sum(-1)

    def gap(block: Tensor, total: Tensor) -> Tensor:
        filled = (block + block.mH) / 2 + torch.diag_embed((~kept).to(block.dtype) * N)
        # eigvalsh raises on NaN; the caller must see a NaN loss instead and skip the step.
        finite = torch.isfinite(torch.view_as_real(filled)).all(-1).all(-1).all(-1)
        safe = torch.where(finite[:, None, None], filled, torch.zeros_like(filled))
        smallest = torch.where(finite, torch.linalg.eigvalsh(safe).amin(-1), torch.nan)
        # Where sources fill the space no noise is left, nor a dimension for it.
        return smallest - (total - trace(block)) / (N - K).clamp_min(1)

    return functional.relu(gap(*true) - gap(*seen)) * K / N


def positions_error(angles: Tensor, ranges: Tensor, ptr: Tensor) -> tuple[Tensor, Tensor]:
    """Return direction and range errors of the best assignment of slots to true sources.

    The direction error is the chord between unit vectors, the range error |1/r̂ − 1/r| times a
    metre: the panel's resolution is uniform in both. Both pass through Huber's function, divided by
    its knee, so that a hopeless slot does not outweigh the others.

    Args:
        angles: `B x K_MAX x 2` real, radians.
        ranges: `B x K_MAX` real, metres.
        ptr: `B x K_MAX x 3` real, NaN beyond K.

    Returns:
        Two `B` real, means over the true sources.
    """
    present = torch.isfinite(ptr).all(-1)
    place = torch.where(present[..., None], ptr, torch.ones_like(ptr))
    one = torch.ones_like(ranges)
    slot = to_cartesian(angles[..., 0], angles[..., 1], one)
    true = to_cartesian(place[..., 0], place[..., 1], one)
    chord = (slot[:, :, None] - true[:, None]).square().sum(-1)
    bend = (1 / ranges[:, :, None] - 1 / place[:, None, :, 2]).square()
    choice = assign((chord + bend) * present[:, None])[:, None]

    def mean(square: Tensor) -> Tensor:
        chosen = square.gather(1, choice)[:, 0]
        knee = torch.where(chosen < HUBER**2, chosen / 2, 0)
        beyond = HUBER * (chosen.clamp_min(HUBER**2).sqrt() - HUBER / 2)
        huber = torch.where(chosen < HUBER**2, knee, beyond) / HUBER
        average: Tensor = (huber * present).sum(-1) / present.sum(-1)
        return average

    return mean(chord), mean(bend)
