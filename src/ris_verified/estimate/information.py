"""From Fisher information to bounds, where the measurement determines what is asked for."""

from __future__ import annotations

import torch
from torch import Tensor

from ris_verified.contracts import tolerance
from ris_verified.errors import InputError

# Smallest eigenvalues of a matrix of ones on its diagonal, in roundings, that are told apart from zero.
ROUNDINGS = 64


def inverted(J: Tensor) -> Tensor:
    """Return J⁻¹ of `B x Q x Q` real, symmetric, NaN throughout where J is not positive, or singular to rounding."""
    size = torch.diagonal(J, dim1=-2, dim2=-1)
    sound = (torch.isfinite(J) & (size > 0)[:, None]).flatten(1).all(1)
    # Radians, metres and powers differ by many orders, so J is inverted with a diagonal of ones.
    J, scale = (torch.where(sound.view(-1, *[1] * (v.ndim - 1)), v, 1.0) for v in (J, size.sqrt()))
    value, vector = torch.linalg.eigh(J / (scale[:, :, None] * scale[:, None]))
    singular = ~(value[:, 0] > tolerance(J.dtype, J.shape[-1], ROUNDINGS) * value[:, -1])
    whitened = vector / value.masked_fill(singular[:, None], torch.nan).sqrt()[:, None] / scale[..., None]
    inverse: Tensor = whitened @ whitened.mT
    return (inverse + inverse.mT) / 2


def position_bound(J: Tensor, gone: Tensor) -> Tensor:
    """Return J⁻¹, NaN for what is gone.

    Args:
        J: `B x Q x Q` real, information of positions first and nuisances after; zero where gone.
        gone: `B x Q` bool, parameters of absent sources.

    Returns:
        `B x Q x Q` real.

    Raises:
        InputError: J is singular.
    """
    bound = inverted(J + torch.diag_embed(gone.to(J.dtype)))
    singular = torch.isnan(bound).flatten(1).any(1)
    if bool(singular.any()):
        raise InputError(
            "the Fisher information is singular",
            where=f"batch entry {int(singular.nonzero()[0])}",
            expected="parameters that the measurement determines",
            remedy="take more antennas or snapshots, part sources that coincide, or drop a coordinate that the array "
            "cannot see",
        )
    return bound.masked_fill(gone[:, None] | gone[:, :, None], torch.nan)
