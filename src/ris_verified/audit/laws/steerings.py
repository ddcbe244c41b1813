"""Steering vectors where no drawn scene asks for them: the other amplitude, many at once, slopes; for RV0804."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from ris_verified.audit.context import Context
from ris_verified.audit.oracle import relative, view_points, wave
from ris_verified.audit.rule import Measurement, at_most, close

if TYPE_CHECKING:
    from torch import Tensor

    from ris_verified.config import ArrayConfig

MANY = 3 * 8192 + 5


def steering_elsewhere(context: Context, name: str) -> list[Measurement]:
    """Return one steering stage against the closed form and against its own differences.

    Args:
        context: the evidence.
        name: `steering` or `inference_steering`.
    """
    stage, place = vars(context.pipeline)[name], view_points(context)
    array = context.config.array
    other = dataclasses.replace(array, amplitude="spherical" if array.amplitude == "unit" else "unit")
    found = [_apart(stage, other, place, f'amplitude "{other.amplitude}"', name)]
    # The same elements, wider apart: what was kept for the other panel does not fit.
    moved = dataclasses.replace(
        array, wavelength=1.3 * array.wavelength, spacing_wavelengths=0.9 * array.spacing_wavelengths
    )
    found.append(_apart(stage, moved, place, "another wavelength and spacing", name))
    turned = _same_count(array)
    found += [_apart(stage, turned, place, f"{turned.horizontal} × {turned.vertical} elements instead", name)]
    panel = context.small.config.array
    repeated = tuple(axis.repeat(MANY // len(axis) + 1)[:MANY] for axis in place)
    found.append(_apart(stage, panel, repeated, f"{MANY} positions at once", name))
    return [*found, *_slopes(stage, array, [axis[:12] for axis in place], name)]


def _same_count(array: ArrayConfig) -> ArrayConfig:
    """Return a panel of as many elements in other rows: what was kept by their number does not fit."""
    N = array.elements
    others = (h for h in (array.vertical, *range(2, N + 1), 1) if N % h == 0 and h != array.horizontal)
    horizontal = next(others, array.horizontal)
    return dataclasses.replace(array, horizontal=horizontal, vertical=N // horizontal)


def _apart(stage: Any, array: Any, place: tuple[Tensor, ...], what: str, name: str) -> Measurement:
    import torch

    wanted = torch.from_numpy(wave(array, *(axis.numpy() for axis in place)))
    return at_most(relative(stage(array, *place), wanted), 1e-6, f"distance from the closed form, {what}", where=name)


def _slopes(stage: Any, array: Any, place: list[Tensor], name: str) -> list[Measurement]:
    """Truncation and rounding of a central difference are of order h² = eps^⅔ times (k r)³ and 1."""
    import torch

    leaves = [axis.clone().requires_grad_() for axis in place]
    with torch.enable_grad():
        a = stage(array, *leaves)
    if not a.requires_grad:
        return []
    weight = torch.randn(a.shape, generator=torch.Generator().manual_seed(804), dtype=torch.float64)
    given = torch.autograd.grad((weight * a.real).sum(), leaves, allow_unused=True)
    h, found = 1e-7, []
    for i, label in enumerate(("azimuth", "elevation", "range")):
        ahead, behind = ([axis + sign * h * (j == i) for j, axis in enumerate(place)] for sign in (1, -1))
        change = (stage(array, *ahead) - stage(array, *behind)).real / (2 * h)
        wanted = float((weight * change).sum())
        slope = 0.0 if given[i] is None else float(given[i].sum())
        bound = 1e-4 * float((weight * change).abs().sum())
        found.append(close(slope, wanted, bound, f"slope in the {label}, autograd and difference", where=name))
    return found
