"""What RV1603 measures on matching: cases whose answer is known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ris_verified.audit.context import Context
from ris_verified.audit.rule import Measurement, at_most, equal

if TYPE_CHECKING:
    from torch import Tensor


def spherical(position: Any) -> Any:
    """Return azimuth, elevation and range of Cartesian positions, `... x 3`; NaN stays NaN."""
    import numpy as np

    x, y, z = np.moveaxis(np.asarray(position, dtype=float), -1, 0)
    return np.stack([np.arctan2(y, x), np.arctan2(z, np.hypot(x, y)), np.sqrt(x * x + y * y + z * z)], -1)


def _cases() -> tuple[Any, Any, list[list[int]]]:
    """Return truths and estimates in metres, `B x 3 x 3`, and which estimate belongs to each truth (−1: none)."""
    import numpy as np

    none = [np.nan] * 3
    a, b, c = [3.0, 0.0, 0.0], [3.0, 1.0, 0.0], [5.0, -1.0, 1.0]
    cases = [
        # Greedy takes the shortest, 0.4 m from b, and leaves 1.6 m for a; the smallest sum is 0.6 + 0.6.
        ([a, b, none], [[3.0, 0.6, 0.0], [3.0, 1.6, 0.0], none], [0, 1, -1]),
        # So does a search row by row.
        ([b, a, none], [[3.0, 0.6, 0.0], [3.0, 1.6, 0.0], none], [1, 0, -1]),
        # In one direction, told apart by range only.
        ([[2.0, 0.0, 0.0], [6.0, 0.0, 0.0], none], [[5.5, 0.0, 0.0], [2.5, 0.0, 0.0], none], [1, 0, -1]),
        # Two estimates for one source: the nearer one is it, the other is a false alarm.
        ([c, none, none], [[5.0, -1.0, 0.0], [5.0, -1.0, 1.25], none], [1, -1, -1]),
        # Two sources, one estimate behind a pad: the nearer source has it, the other is missed.
        ([a, c, none], [none, [5.0, -1.0, 3.0], none], [-1, 1, -1]),
        # Metres off: nothing is too far to be matched.
        ([a, b, c], [[5.0, -1.0, 4.0], [3.0, 0.0, 3.0], [3.0, 1.0, 3.0]], [1, 2, 0]),
        ([a, none, none], [none, none, [60.0, 0.0, 0.0]], [2, -1, -1]),
        # 1.9 + 0.1 is less than 1.05 + 1.05; of squares the second is the smaller sum.
        ([[5.0, 0.0, 0.0], [5.0, -0.95, 0.55], none], [[5.0, 0.0, 0.1], [5.0, 0.95, 0.45], none], [0, 1, -1]),
        ([none, none, none], [a, none, none], [-1, -1, -1]),
    ]  # fmt: skip
    truth, estimate = (np.array([case[i] for case in cases], dtype=float) for i in (0, 1))
    return truth, estimate, [case[2] for case in cases]


def known_cases(context: Context) -> list[Measurement]:
    """Return index, distance, misses and false alarms of nine cases against their answers."""
    import numpy as np
    import torch

    truth, estimate, wanted = _cases()
    found = torch.from_numpy(spherical(estimate))
    azimuth, elevation, range = found.unbind(-1)
    pairs = context.pipeline.match(azimuth, elevation, range, torch.from_numpy(spherical(truth)))
    index = np.array(wanted)
    picked = np.take_along_axis(estimate, np.maximum(index, 0)[..., None], 1)
    distance = np.where(index >= 0, np.linalg.norm(picked - truth, axis=-1), np.nan)
    there, given = (np.isfinite(v).all(-1).sum(1) for v in (truth, estimate))
    matched = (index >= 0).sum(1)
    return [
        equal(pairs.estimate_index.tolist(), wanted, "estimates of the sources of known cases", where="match"),
        _distances(pairs.distance, distance),
        equal(pairs.misses.tolist(), (there - matched).tolist(), "misses of known cases", where="match"),
        equal(pairs.false_alarms.tolist(), (given - matched).tolist(), "false alarms of known cases", where="match"),
    ]


def _distances(measured: Tensor, wanted: Any) -> Measurement:
    import numpy as np

    got = measured.double().numpy()
    if not np.array_equal(np.isnan(got), np.isnan(wanted)):
        return equal(np.isnan(got).tolist(), np.isnan(wanted).tolist(), "sources without a distance", where="match")
    error = float(np.nanmax(np.abs(got - wanted)))
    # Trigonometry there and back in float64.
    return at_most(error, 64 * float(np.finfo(float).eps) * 10, "distances of known cases in metres", "m", "match")
