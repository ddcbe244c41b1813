"""What searches and estimators return."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ris_verified.covariance.blend import Blend
from ris_verified.shapes import require_axes


@dataclass(frozen=True)
class Peaks:
    """Candidate positions, one row a scene.

    Args:
        azimuth: `B x K_MAX` real, radians; NaN where there is none.
        elevation: `B x K_MAX` real, radians.
        range: `B x K_MAX` real, metres.
    """

    azimuth: Tensor
    elevation: Tensor
    range: Tensor


@dataclass(frozen=True)
class Estimates:
    """Localised sources.

    Args:
        azimuth: `B x K_MAX` real, radians; NaN beyond the order.
        elevation: `B x K_MAX` real, radians.
        range: `B x K_MAX` real, metres.
        order: `B` int64, number of sources found.
        covariance: `B x 3K_MAX x 3K_MAX` real, from the Fisher information at the estimate with the
            estimated noise; azimuth, elevation, range source by source; NaN beyond the order.
        blend: R_pred, R_samp, β and R_blend where a model was used.
    """

    azimuth: Tensor
    elevation: Tensor
    range: Tensor
    order: Tensor
    covariance: Tensor
    blend: Blend | None = None


def require_places(where: str, places: Peaks | Estimates, scenes: int) -> None:
    """Raise ShapeError unless azimuth, elevation and range are `B x K` of so many scenes."""
    tensors = {"azimuth": places.azimuth, "elevation": places.elevation, "range": places.range}
    require_axes(where, dict.fromkeys(tensors, "B K"), tensors, {"B": scenes})
