"""Element positions and the two coordinate systems."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ris_verified.config import ArrayConfig
from ris_verified.contracts import check_centred
from ris_verified.shapes import shaped


@shaped
def element_positions(
    array: ArrayConfig, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu"
) -> Float[Tensor, "N 3"]:
    """Return where the elements are.

    Element n = v·N_H + h lies at (0, (h − (N_H−1)/2) d, (v − (N_V−1)/2) d).

    Args:
        array: the panel.
        dtype: real dtype of the result.
        device: device of the result.

    Returns:
        `N x 3` real, metres, centred on the origin, horizontal index fastest.

    Raises:
        InvariantError: the centroid is not the origin.
    """
    h = torch.arange(array.horizontal, dtype=torch.float64) - (array.horizontal - 1) / 2
    v = torch.arange(array.vertical, dtype=torch.float64) - (array.vertical - 1) / 2
    z, y = torch.meshgrid(v * array.spacing, h * array.spacing, indexing="ij")
    positions = torch.stack([torch.zeros_like(y), y, z], -1).reshape(-1, 3)
    check_centred(positions, array.spacing)
    return positions.to(device=device, dtype=dtype)


def to_cartesian(azimuth: Tensor, elevation: Tensor, range: Tensor) -> Tensor:
    """Return p = r (cosθ cosφ, cosθ sinφ, sinθ).

    Args:
        azimuth: `...` real, radians.
        elevation: `...` real, radians.
        range: `...` real, metres.

    Returns:
        `... x 3` real, metres.
    """
    azimuth, elevation, range = torch.broadcast_tensors(azimuth, elevation, range)
    flat = elevation.cos()
    direction = torch.stack([flat * azimuth.cos(), flat * azimuth.sin(), elevation.sin()], -1)
    return range[..., None] * direction


def to_spherical(position: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Undo `to_cartesian`.

    Args:
        position: `... x 3` real, metres.

    Returns:
        azimuth and elevation in radians, range in metres, each `...`.
    """
    x, y, z = position.unbind(-1)
    return torch.atan2(y, x), torch.atan2(z, torch.hypot(x, y)), position.norm(dim=-1)
