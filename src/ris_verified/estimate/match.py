"""Assigning estimates to true sources."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ris_verified.array.geometry import to_cartesian
from ris_verified.shapes import shaped


@dataclass(frozen=True)
class Assignment:
    """Which estimate belongs to which true source.

    Args:
        estimate_index: `B x K_MAX` int64 by true source; −1 where it is absent or missed.
        distance: `B x K_MAX` real, metres; NaN where there is no pair.
        misses: `B` int64, true sources without an estimate.
        false_alarms: `B` int64, estimates without a true source.
    """

    estimate_index: Tensor
    distance: Tensor
    misses: Tensor
    false_alarms: Tensor


@shaped
def match(
    azimuth: Float[Tensor, "B E"],
    elevation: Float[Tensor, "B E"],
    range: Float[Tensor, "B E"],
    ptr: Float[Tensor, "B K 3"],
) -> Assignment:
    """Pair estimates with true sources so that the summed Cartesian distance is smallest.

    Args:
        azimuth: `B x K_est` real, radians; NaN where there is no estimate.
        elevation: `B x K_est` real, radians.
        range: `B x K_est` real, metres.
        ptr: `B x K_MAX x 3` real, the truth; NaN where there is no source.

    Returns:
        An `Assignment`; every estimate is used while true sources are left.

    Raises:
        ShapeError: the axes do not agree.

    Source: Kuhn, "The Hungarian method for the assignment problem", Naval Res. Logist. 2 (1955).
    """
    estimate = to_cartesian(azimuth, elevation, range).double()
    truth = to_cartesian(*ptr.unbind(-1)).double()
    distances = (truth[:, :, None] - estimate[:, None]).norm(dim=-1).detach().cpu().numpy()
    index = np.full(distances.shape[:2], -1)
    paired = np.full(distances.shape[:2], np.nan)
    counts = np.zeros((len(distances), 2), dtype=np.int64)
    for b, distance in enumerate(distances):
        rows = np.flatnonzero(torch.isfinite(ptr[b]).all(-1).cpu().numpy())
        columns = np.flatnonzero(torch.isfinite(estimate[b]).all(-1).cpu().numpy())
        chosen = linear_sum_assignment(distance[np.ix_(rows, columns)])
        true, found = rows[chosen[0]], columns[chosen[1]]
        index[b, true], paired[b, true] = found, distance[true, found]
        counts[b] = len(rows) - len(true), len(columns) - len(true)
    device = ptr.device
    return Assignment(
        torch.from_numpy(index).to(device),
        torch.from_numpy(paired).to(device),
        torch.from_numpy(counts[:, 0]).to(device),
        torch.from_numpy(counts[:, 1]).to(device),
    )
