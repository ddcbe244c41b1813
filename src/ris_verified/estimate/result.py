"""What searches and estimators return."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ris_verified.covariance.blend import Blend


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
