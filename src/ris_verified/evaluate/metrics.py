"""Errors of matched estimates, their bounds, and what a group of scenes amounts to."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ris_verified.array.geometry import to_cartesian
from ris_verified.estimate.result import Estimates, Peaks
from ris_verified.pipeline import Pipeline
from ris_verified.shapes import require_axes

FOUND = 4.0
AXES = {"azimuth": "B E", "elevation": "B E", "range": "B E", "ptr": "B K 3", "crb": "B Q Q"}


def position_bound(ptr: Tensor, crb: Tensor) -> Tensor:
    """Return the root of the trace of each source's bound in Cartesian coordinates.

    √tr(J Σ Jᵀ), J = ∂p/∂(azimuth, elevation, range), whose columns are orthogonal with lengths
    r cosθ, r and 1, so the trace is r² cos²θ σ_φ² + r² σ_θ² + σ_r².

    Args:
        ptr: `B x K x 3` real, azimuth, elevation (rad), range (m).
        crb: `B x 3K x 3K` real, rad² and m².

    Returns:
        `B x K` real, metres; NaN where there is no source.
    """
    variance = torch.diagonal(crb, dim1=-2, dim2=-1).unflatten(-1, (-1, 3))
    _, elevation, range = ptr.unbind(-1)
    lengths = torch.stack([range * elevation.cos(), range, torch.ones_like(range)], -1)
    bound: Tensor = (lengths.square() * variance).sum(-1).sqrt()
    return bound


@dataclass(frozen=True)
class Errors:
    """Errors of one method on a batch, source by source.

    Args:
        azimuth: `B x K_MAX` real, radians; NaN where the source is absent or missed.
        elevation: `B x K_MAX` real, radians.
        range: `B x K_MAX` real, metres.
        position: `B x K_MAX` real, metres.
        over_bound: `B x K_MAX` real, position error over its Cramér–Rao bound.
        found: `B` bool, no source missed and every position within 4 bounds.
        found_strictly: `B` bool, the same for azimuth, elevation and range each. A far source's range
            bound can be metres, and position alone then forgives a wrong direction.
    """

    azimuth: Tensor
    elevation: Tensor
    range: Tensor
    position: Tensor
    over_bound: Tensor
    found: Tensor
    found_strictly: Tensor


def errors(pipeline: Pipeline, estimate: Peaks | Estimates, ptr: Tensor, crb: Tensor) -> Errors:
    """Match estimates to the truth and measure what remains.

    Args:
        pipeline: gives the matching.
        estimate: `B x K_MAX` positions, NaN-padded.
        ptr: `B x K_MAX x 3` real.
        crb: `B x 3K_MAX x 3K_MAX` real.

    Returns:
        An `Errors`.

    Raises:
        ShapeError: the axes do not agree.
    """
    given = {"azimuth": estimate.azimuth, "elevation": estimate.elevation, "range": estimate.range}
    sizes = {"Q": 3 * ptr.shape[1]} if ptr.ndim > 1 else {}
    require_axes("metric", AXES, given | {"ptr": ptr, "crb": crb}, sizes)
    ptr = ptr.double()
    pairs = pipeline.match(estimate.azimuth, estimate.elevation, estimate.range, ptr)
    index = pairs.estimate_index
    chosen = [
        value.double().gather(1, index.clamp_min(0)).masked_fill(index < 0, torch.nan)
        for value in (estimate.azimuth, estimate.elevation, estimate.range)
    ]
    position = (to_cartesian(*chosen) - to_cartesian(*ptr.unbind(-1))).norm(dim=-1)
    over = position / position_bound(ptr, crb)
    present = torch.isfinite(ptr).all(-1)
    wrong = torch.stack(chosen, -1) - ptr
    sigma = torch.diagonal(crb, dim1=-2, dim2=-1).unflatten(-1, (-1, 3)).sqrt()
    each = (wrong.abs() <= FOUND * sigma).all(-1)
    azimuth, elevation, range = wrong.unbind(-1)
    found = ((over <= FOUND) | ~present).all(-1)
    return Errors(azimuth, elevation, range, position, over, found, (each | ~present).all(-1))


def _rms(values: Tensor) -> float | None:
    finite = values[torch.isfinite(values)]
    return float(finite.square().mean().sqrt()) if finite.numel() else None


def summary(found: Errors, ptr: Tensor, chosen: Tensor) -> dict[str, float | int | None]:
    """Return the figures of one group of scenes; None where nothing could be measured.

    Args:
        found: errors of all scenes.
        ptr: `B x K_MAX x 3` real.
        chosen: `B` bool, the group.

    Returns:
        RMSE of azimuth and elevation (rad), range and position (m) over matched sources; RMS of the
        position error over its bound in scenes where all sources are found; median of the same ratio
        over all matched sources; share of scenes with all sources found; share of sources missed.
    """
    scenes = int(chosen.sum())
    if not scenes:
        return {"scenes": 0}
    present = torch.isfinite(ptr[chosen]).all(-1)
    ratio = found.over_bound[chosen]
    measured = ratio[torch.isfinite(ratio)]
    return {
        "scenes": scenes,
        "azimuth_rmse": _rms(found.azimuth[chosen]),
        "elevation_rmse": _rms(found.elevation[chosen]),
        "range_rmse": _rms(found.range[chosen]),
        "position_rmse": _rms(found.position[chosen]),
        "error_over_bound_found": _rms(ratio[found.found[chosen]]),
        "error_over_bound_median": float(measured.quantile(0.5)) if measured.numel() else None,
        "found": float(found.found[chosen].double().mean()),
        "found_strictly": float(found.found_strictly[chosen].double().mean()),
        "missed": 1 - measured.numel() / int(present.sum()),
    }
