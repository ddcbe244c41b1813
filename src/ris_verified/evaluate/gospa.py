"""The distance between a set of estimates and a set of sources, misses and false alarms counted in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from ris_verified.errors import InputError, ShapeError


@dataclass(frozen=True)
class Gospa:
    """One distance and what it is made of.

    Args:
        distance: metres.
        localisation: Σ d² over the pairs, m².
        detected: number of pairs.
        missed: true sources without a pair.
        false: estimates without a pair.
    """

    distance: float
    localisation: float
    detected: int
    missed: int
    false: int


def gospa(estimate: NDArray[np.float64], truth: NDArray[np.float64], cutoff: float) -> Gospa:
    """Return the generalised optimal sub-pattern assignment metric with p = 2 and α = 2.

    d² = min over assignments γ of Σ_{(i,j) ∈ γ} ‖x_i − y_j‖² + c²/2 (|X| + |Y| − 2|γ|); pairs at least c
    apart count as one miss and one false alarm.

    Args:
        estimate: `A x D` real, Cartesian, metres; may be empty.
        truth: `B x D` real, Cartesian, metres; may be empty.
        cutoff: c, metres.

    Returns:
        A `Gospa`.

    Raises:
        ShapeError: not two lists of points of one dimension.
        InputError: the cut-off is not a positive number.

    Source: Rahmathullah, García-Fernández, Svensson, "Generalized optimal sub-pattern assignment metric", 20th
    Int. Conf. Information Fusion (2017), proposition 1.
    """
    if estimate.ndim != 2 or truth.ndim != 2 or estimate.shape[1] != truth.shape[1]:
        raise ShapeError(
            f"{list(estimate.shape)}, {list(truth.shape)}", where="estimate, truth", expected="points [A, D] and [B, D]"
        )
    if not 0 < cutoff < np.inf:
        raise InputError(f"{cutoff}", where="cutoff", expected="a positive number of metres")
    square = ((estimate[:, None] - truth) ** 2).sum(-1)
    # With every pair cut at c² the best complete assignment leaves exactly the right pairs unmade.
    rows, columns = linear_sum_assignment(np.minimum(square, cutoff**2))
    near = square[rows, columns]
    near = near[near < cutoff**2]
    missed, false = len(truth) - near.size, len(estimate) - near.size
    localisation = float(near.sum())
    total = localisation + cutoff**2 / 2 * (missed + false)
    return Gospa(float(np.sqrt(total)), localisation, near.size, missed, false)
