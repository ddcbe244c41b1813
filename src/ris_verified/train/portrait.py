"""What weights make of scenes that stay the same: a spectrum with its truth, and capture by number of sources."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ris_verified.covariance.capture import subspace_capture
from ris_verified.data.batch import Batch
from ris_verified.estimate.grid import spectrum_grid
from ris_verified.estimate.spectrum import music
from ris_verified.mode import evaluating
from ris_verified.pipeline import Pipeline

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Real = NDArray[np.float64]
NAMES = ("R_blend", "R_samp")


@dataclass(frozen=True)
class Portrait:
    """Figures of one model on fixed scenes.

    Args:
        capture: by number of sources, then by covariance, the mean subspace capture.
        scenes: by number of sources, how many.
        chance: by number of sources, K/N.
        azimuth: `H` float64, radians.
        elevation: `V` float64, radians.
        spectra: by covariance, `V x H` float64, MUSIC at its highest range plane in decibels; 0 is its floor.
        truth: `K x 2` float64, azimuth and elevation of the sources, radians.
        found: `K x 2` float64, the same of the peaks that the pipeline's spectrum names in R_blend.
        snr_db: of the scene.
    """

    capture: dict[int, dict[str, float]]
    scenes: dict[int, int]
    chance: dict[int, float]
    azimuth: Real
    elevation: Real
    spectra: dict[str, Real]
    truth: Real
    found: Real
    snr_db: float


def telling_scene(batch: Batch) -> int:
    """Return the scene of highest SNR among those with several sources, or among all where none has."""
    several = batch.K > 1
    pool = several if bool(several.any()) else torch.ones_like(several)
    return int(torch.where(pool, batch.snr, -math.inf).argmax())


@torch.no_grad()
def portrait(pipeline: Pipeline, model: nn.Module, batch: Batch, size: int = 0) -> Portrait:
    """Measure a model on scenes that are the same whenever it is asked; the model's mode is restored.

    Args:
        pipeline: its `forward` is the one that training runs.
        model: what is validated and saved.
        batch: on the model's device.
        size: scenes at once, for which there is memory; 0 for all.

    Returns:
        A `Portrait`.
    """
    cfg, one = pipeline.config, telling_scene(batch)
    captured, R = _measured(pipeline, model, batch.split(-(-len(batch) // (size or len(batch)))), one)
    counts = [int(K) for K in batch.K.unique()]
    K = batch.K[one : one + 1]
    peaks = pipeline.spectrum(R["R_blend"], K, cfg)
    grid = spectrum_grid(cfg, R["R_blend"].real.dtype, R["R_blend"].device)
    place = grid.places.unflatten(0, grid.shape)[0]
    return Portrait(
        capture={
            k: {name: float(value[torch.eq(batch.K, k)].mean()) for name, value in captured.items()} for k in counts
        },
        scenes={k: int(torch.eq(batch.K, k).sum()) for k in counts},
        chance={k: k / cfg.array.elements for k in counts},
        azimuth=_plain(place[0, :, 0]),
        elevation=_plain(place[:, 0, 1]),
        spectra={name: _decibels(music(value, K, cfg)[0].amax(0)) for name, value in R.items()},
        truth=_directions(batch.ptr[one, :, 0], batch.ptr[one, :, 1]),
        found=_directions(peaks.azimuth[0], peaks.elevation[0]),
        snr_db=float(batch.snr[one]),
    )


def _measured(
    pipeline: Pipeline, model: nn.Module, parts: list[Batch], one: int
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return capture of every scene and the matrices of one of them, by covariance."""
    held, kept, first = {name: list[Tensor]() for name in NAMES}, dict[str, Tensor](), 0
    with evaluating(model):
        for part in parts:
            _, blended = pipeline.forward(model, part)
            for name, value in zip(NAMES, (blended.R, blended.R_samp), strict=True):
                held[name].append(subspace_capture(value, part.ptr, pipeline.config.array))
                if 0 <= one - first < len(part):
                    # A copy, or it would keep the matrices of all its neighbours.
                    kept[name] = value[one - first : one - first + 1].clone()
            first += len(part)
    return {name: torch.cat(values) for name, values in held.items()}, kept


def _plain(value: Tensor) -> Real:
    array: Real = value.double().cpu().numpy()
    return array


def _decibels(power: Tensor) -> Real:
    return _plain(10 * torch.log10(power))


def _directions(azimuth: Tensor, elevation: Tensor) -> Real:
    both = torch.stack([azimuth, elevation], -1)
    return _plain(both[torch.isfinite(both).all(-1)])


def _figure(rows: int, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, height * rows), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def spectrum_figure(seen: Portrait) -> Figure:
    """Draw the spectra of one scene with its sources as rings and the peaks as crosses."""
    figure = _figure(len(NAMES), 3.4)
    panels = figure.subplots(len(NAMES), 1, sharex=True)
    azimuth, elevation = np.degrees(seen.azimuth), np.degrees(seen.elevation)
    # One scale for all, from the floor of MUSIC: how high a peak stands is how surely its source is inside.
    highest = max(float(level.max()) for level in seen.spectra.values())
    for axis, name in zip(panels, NAMES, strict=True):
        mesh = axis.pcolormesh(
            azimuth, elevation, seen.spectra[name], cmap="cividis", shading="nearest", vmin=0, vmax=highest
        )
        figure.colorbar(mesh, ax=axis, label="dB")
        ring = {"marker": "o", "s": 140, "facecolors": "none", "linewidths": 2}
        axis.scatter(*np.degrees(seen.truth).T, edgecolors="#D55E00", label="truth", **ring)
        axis.set(ylabel="elevation (°)", aspect="equal", title=f"MUSIC on {name}")
    panels[0].scatter(*np.degrees(seen.found).T, marker="x", s=60, c="white", linewidths=1.5, label="peak")
    panels[0].legend(loc="upper right", framealpha=0.6, facecolor="0.4", labelcolor="white")
    panels[-1].set_xlabel("azimuth (°)")
    figure.suptitle(f"{len(seen.truth)} sources, {seen.snr_db:.1f} dB, highest of all range planes")
    return figure


def capture_figure(seen: Portrait) -> Figure:
    """Draw the share of the true steering vectors inside the signal subspace against the number of sources."""
    figure = _figure(1, 3.6)
    axis = figure.subplots()
    counts = sorted(seen.capture)
    for number, name in enumerate(NAMES):
        values = [seen.capture[k][name] for k in counts]
        bars = axis.bar([k + 0.4 * number - 0.2 for k in counts], values, 0.38, label=name, color=f"C{number}")
        axis.bar_label(bars, fmt="%.2f", fontsize=8)
    axis.plot(counts, [seen.chance[k] for k in counts], "k--", lw=1, label="chance")
    axis.set(xlabel="sources (scenes)", ylabel="subspace capture", ylim=(0, 1.05))
    axis.set_xticks(counts, [f"{k} ({seen.scenes[k]})" for k in counts])
    axis.grid(alpha=0.3, axis="y")
    axis.legend(fontsize=8)
    return figure
