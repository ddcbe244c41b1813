"""RV1603 and RV1204: each source is measured by its own bound, and each scene's bound by its own noise."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from ris_verified.audit.oracle import relative
from ris_verified.audit.rule import Measurement, at_most, close, equal

if TYPE_CHECKING:
    from torch import Tensor

    from ris_verified.audit.context import Context

SIGMA = (1e-3, 2e-3, 0.05)
# Both sides of the documented 4 bounds, so near that no other round limit lies between.
SIDES = ((3.99, True), (4.01, False))
COORDINATES = ("azimuth", "elevation", "range")


def deviations(B: int, K_MAX: int) -> Tensor:
    """Return a standard deviation for every coordinate, `B x K_MAX x 3`, in ratios that no two sources share."""
    import torch

    grown = 1 + torch.arange(K_MAX, dtype=torch.float64) + 0.5 * torch.arange(B, dtype=torch.float64)[:, None]
    # A power of its own for each coordinate: none has another's ratio between two sources.
    return torch.stack([s * grown**power for s, power in zip(SIGMA, (1.0, 0.5, 0.75), strict=True)], -1)


def measured_by_own_bound(context: Context, ptr: Tensor) -> list[Measurement]:
    """Move one source at a time by 3.99 and 4.01 of its bounds, the estimates in slots other than the sources'.

    Args:
        context: its pipeline's metric is measured.
        ptr: `B x K_MAX x 3` real, sources far apart.
    """
    import torch

    from ris_verified.estimate.result import Peaks

    p, there = context.pipeline, torch.isfinite(ptr).all(-1)
    sigma = deviations(*ptr.shape[:2])
    # As from the bound of a scene: no numbers where there is no source.
    absent = (~there).repeat_interleave(3, 1)
    crb = torch.diag_embed(sigma.square().flatten(1)).masked_fill(absent[:, :, None] | absent[:, None], torch.nan)

    def judged(moved: Tensor) -> Any:
        return p.metric(p, Peaks(*moved.roll(1, 1).unbind(-1)), ptr, crb)

    found = [equal(judged(ptr).found_strictly.tolist(), [True] * len(ptr), "scenes found strictly by the truth",
                   where="metric")]  # fmt: skip
    for scene, source in there.nonzero().tolist():
        found += _at_the_limit(judged, ptr, sigma, scene, source) + _strictly(judged, ptr, sigma, scene, source)
    lost = ptr.clone()
    lost[0, 1] = torch.nan
    wanted = [False] + [True] * (len(ptr) - 1)
    strict = judged(lost).found_strictly.tolist()
    return [*found, equal(strict, wanted, "scenes found strictly with a source missing", where="metric")]


def _others_found(ptr: Tensor, scene: int, within: bool) -> list[bool]:
    return [within if b == scene else True for b in range(len(ptr))]


def _at_the_limit(judged: Any, ptr: Tensor, sigma: Tensor, scene: int, source: int) -> list[Measurement]:
    """Along its range: √(r²cos²θ σ_φ² + r² σ_θ² + σ_r²) each."""
    _, elevation, r = ptr[scene, source].tolist()
    first, second, third = sigma[scene, source].tolist()
    bound, found = math.hypot(r * math.cos(elevation) * first, r * second, third), []
    for times, within in SIDES:
        moved = ptr.clone()
        moved[scene, source, 2] += times * bound
        errors, text = judged(moved), f"{times:g} of its own bounds away (source {source} of scene {scene})"
        found.append(close(float(errors.over_bound[scene, source]), times, 1e-9, text, where="metric"))
        wanted = _others_found(ptr, scene, within)
        found.append(equal(errors.found.tolist(), wanted, f"scenes found with a source {text}", where="metric"))
    return found


def _strictly(judged: Any, ptr: Tensor, sigma: Tensor, scene: int, source: int) -> list[Measurement]:
    found = []
    for axis, name in enumerate(COORDINATES):
        for times, within in SIDES:
            moved = ptr.clone()
            moved[scene, source, axis] += times * sigma[scene, source, axis]
            text = f"scenes found strictly, {name} off by {times:g} sigma (source {source} of scene {scene})"
            wanted = _others_found(ptr, scene, within)
            found.append(equal(judged(moved).found_strictly.tolist(), wanted, text, where="metric"))
    return found


def bound_of_each_scene(context: Context) -> list[Measurement]:
    """Compare two scenes of one source, the second with four times its noise, with the bound of each alone."""
    import torch

    small = context.small
    one = dataclasses.replace(small.config.scene, sources_min=1, sources_max=1)
    scenes = small.draw(2, dataclasses.replace(small.config, scene=one), key=12)
    names = ("azimuth", "elevation", "range", "symbols", "H_full", "codes")
    given = [torch.stack([torch.from_numpy(vars(scene)[name]) for scene in scenes]) for name in names]
    noise = torch.tensor([scene.noise_variance * (1 + 3 * i) for i, scene in enumerate(scenes)], dtype=torch.float64)
    both = context.pipeline.bound(*given, noise, small.config).double()
    found = []
    for i, variance in enumerate(noise.tolist()):
        alone = context.pipeline.bound(*(v[i : i + 1] for v in given), variance, small.config).double()
        scale = torch.diagonal(alone[0]).sqrt()
        apart = relative(both[i : i + 1] / scale / scale[:, None], alone / scale / scale[:, None])
        text = f"bound of scene {i} among two of other noise, against it alone"
        found.append(at_most(apart, 1e-4, text, where="bound"))
    return found
