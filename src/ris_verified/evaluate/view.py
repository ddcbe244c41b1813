"""The field of view: where one source is found how well, and what the spectrum of a scene looks like."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colorbar import Colorbar
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter
from numpy.typing import NDArray
from torch import Tensor, nn

from ris_verified.config import Config
from ris_verified.estimate.bound import measured
from ris_verified.estimate.result import Estimates
from ris_verified.estimate.spectra import music_spectrum
from ris_verified.evaluate.axes import Axes
from ris_verified.evaluate.cell import Scenes, prepared
from ris_verified.evaluate.metrics import position_bound
from ris_verified.evaluate.place import draw_directions
from ris_verified.files import atomic_write
from ris_verified.page import as_png
from ris_verified.pipeline import Pipeline
from ris_verified.scene.scene import scene_at

MAP_STREAM, SPECTRUM_STREAM = 7, 8
MAP_AZIMUTHS, MAP_ELEVATIONS = 11, 5
FINE_AZIMUTHS, FINE_ELEVATIONS = 121, 61
CHUNK = 64
DPI = 100
Real = NDArray[np.float64]


def shown_range(axes: Axes, cfg: Config) -> float:
    """Return the first range of a sweep, or the geometric middle of the view, in metres."""
    given = [r for r in axes.range if r is not None]
    return given[0] if given else math.sqrt(cfg.scene.range_min * cfg.scene.range_max)


def _middle(values: tuple[float, ...]) -> float:
    return sorted(values)[len(values) // 2]


def _centres(largest: float, count: int) -> Real:
    return largest * ((2 * np.arange(count) + 1) / count - 1)


def error_map(pipeline: Pipeline, axes: Axes) -> dict[str, Any]:
    """Localise one source in each direction of the view, K known, at one range and the middle SNR.

    Args:
        pipeline: its stages `localize`, `bound` and `metric` are run.
        axes: gives range, SNR and the number of scenes in each direction.

    Returns:
        azimuth and elevation (rad), range (m), snr_db, scenes, and by elevation and azimuth the RMSE of
        position and the root mean square of its bound (m).
    """
    cfg, snr_db, reach = pipeline.config, _middle(axes.snr_db), shown_range(axes, pipeline.config)
    azimuth = _centres(cfg.scene.azimuth_max, MAP_AZIMUTHS)
    elevation = _centres(cfg.scene.elevation_max, MAP_ELEVATIONS)
    scenes = []
    for number, (theta, phi) in enumerate((t, p) for t in elevation for p in azimuth):
        for index in range(axes.map_scenes):
            rng = np.random.default_rng([cfg.seed, MAP_STREAM, number, index])
            place = (np.array([value]) for value in (phi, theta, reach))
            scenes.append(scene_at(cfg, *place, snr_db=snr_db, rng=rng))
    parts = [_single(pipeline, prepared(pipeline, scenes[i : i + CHUNK])) for i in range(0, len(scenes), CHUNK)]
    squares = torch.cat(parts).reshape(len(elevation), len(azimuth), axes.map_scenes, 2).mean(2).sqrt()
    return {
        "azimuth": azimuth.tolist(),
        "elevation": elevation.tolist(),
        "range": reach,
        "snr_db": snr_db,
        "scenes": axes.map_scenes,
        "position_rmse": squares[..., 0].tolist(),
        "bound": squares[..., 1].tolist(),
    }


def _single(pipeline: Pipeline, scenes: Scenes) -> Tensor:
    # Squared error and squared bound of one source a scene.
    found = pipeline.localize(scenes.y, scenes.H_full, scenes.C, pipeline.config, order=1, pipeline=pipeline)
    judged = pipeline.metric(pipeline, found, scenes.ptr, scenes.crb)
    both = torch.stack([judged.position, position_bound(scenes.ptr, scenes.crb)], -1)
    squares: Tensor = both[:, 0].square()
    return squares


def _plain(bar: Colorbar) -> None:
    # A decade or less has no power of ten to be labelled with.
    bar.ax.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7), numticks=30))
    bar.ax.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    bar.ax.yaxis.set_minor_formatter(NullFormatter())


def draw_map(view: dict[str, Any], picture: Path) -> None:
    """Draw RMSE and RMSE over bound of one source against its direction.

    Args:
        view: from `error_map`.
        picture: the PNG to write.
    """
    rmse, bound = np.array(view["position_rmse"]), np.array(view["bound"])
    azimuth, elevation = (np.degrees(view[name]) for name in ("azimuth", "elevation"))
    most = float(np.exp(np.abs(np.log(rmse / bound)).max()))
    shown = (
        (rmse, "position RMSE (m)", LogNorm(), "cividis"),
        (rmse / bound, "RMSE over bound", LogNorm(1 / most, most), "PuOr_r"),
    )
    figure = Figure(figsize=(8, 6.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, 1, sharex=True)
    for axis, (values, name, norm, colours) in zip(panels, shown, strict=True):
        mesh = axis.pcolormesh(azimuth, elevation, values, norm=norm, cmap=colours, shading="nearest")
        _plain(figure.colorbar(mesh, ax=axis, label=name))
        axis.set(ylabel="elevation (°)", aspect="equal")
    panels[1].set_xlabel("azimuth (°)")
    figure.suptitle(
        f"One source at {view['range']:.3g} m, {view['snr_db']:g} dB; scenes in each direction: {view['scenes']}"
    )
    atomic_write(picture, as_png(figure, DPI))


@dataclass(frozen=True)
class SpectrumView:
    """One scene's spectra over azimuth and elevation at the sources' range.

    Args:
        azimuth: `H` float64, radians.
        elevation: `V` float64, radians.
        range: metres.
        snr_db: decibels.
        spectra: by name, `V x H` float64, decibels below the highest value.
        truth: `K x 2` float64, azimuth and elevation of the sources, radians.
        found: the same of the estimates, as many as were found.
    """

    azimuth: Real
    elevation: Real
    range: float
    snr_db: float
    spectra: dict[str, Real]
    truth: Real
    found: Real


def _decibels(power: Tensor, shape: tuple[int, int]) -> Real:
    level: Real = (10 * torch.log10(power / power.max())).reshape(shape).numpy()
    return level


def _whitened(scenes: Scenes, ridge: float) -> tuple[Tensor, Tensor]:
    """Return channel and measurement times (H Hᴴ + αI)^(−1/2): what other sources send through H becomes white."""
    H = scenes.H_full
    factor = torch.linalg.cholesky(H @ H.mH + ridge * torch.eye(H.shape[1], dtype=H.dtype))
    whiten = torch.linalg.solve_triangular(factor, torch.eye(H.shape[1], dtype=H.dtype)[None], upper=False)
    return whiten @ H, scenes.y @ whiten.mT


def _matched_field(a: Tensor, scenes: Scenes, cfg: Config) -> Tensor:
    """Return Σ_l |(Φ_l a_g)ᴴ y_l|²/‖Φ_l a_g‖² after whitening: the energy that a source at each row of `a` explains."""
    H, y = _whitened(scenes, cfg.covariance.ridge)
    joint = cfg.scene.symbols == "constant"
    seen = measured(H, scenes.C, a.mT[None], joint)
    y = y.flatten(1)[:, None] if joint else y
    hit = (seen.mH @ y[..., None])[..., 0].abs().square()
    gain: Tensor = (hit / seen.abs().square().sum(2)).sum((0, 1))
    return gain


def spectrum_view(pipeline: Pipeline, model: nn.Module | None, axes: Axes) -> SpectrumView:
    """Draw one scene with the most sources and the highest SNR of a sweep, all at one range, and localise it.

    Args:
        pipeline: its stages are run, the order estimated.
        model: adds the MUSIC spectrum of R_blend to that of the whitened matched field; may be None.
        axes: gives the number of sources, SNR, range and the smallest separation.

    Returns:
        A `SpectrumView`.
    """
    cfg, reach, K = pipeline.config, shown_range(axes, pipeline.config), max(axes.sources)
    rng = np.random.default_rng([cfg.seed, SPECTRUM_STREAM])
    directions = draw_directions(cfg.scene, K, min(axes.separation), rng)
    scenes = prepared(pipeline, [scene_at(cfg, *directions, np.full(K, reach), snr_db=max(axes.snr_db), rng=rng)])
    data = scenes.y, scenes.H_full, scenes.C
    azimuth = _centres(cfg.scene.azimuth_max, FINE_AZIMUTHS)
    elevation = _centres(cfg.scene.elevation_max, FINE_ELEVATIONS)
    shape = len(elevation), len(azimuth)
    theta, phi = (torch.from_numpy(v.ravel()) for v in np.meshgrid(elevation, azimuth, indexing="ij"))
    a = pipeline.inference_steering(cfg.array, phi, theta, torch.full_like(phi, reach))
    matched = _matched_field(a, scenes, cfg)
    spectra = {"whitened matched field": _decibels(matched, shape)}
    found = pipeline.localize(*data, cfg, model=model, pipeline=pipeline)
    if found.blend is not None:
        spectra["MUSIC on R_blend"] = _decibels(music_spectrum(found.blend.R, scenes.K, a)[0], shape)
    truth = np.stack(directions, -1)
    return SpectrumView(azimuth, elevation, reach, max(axes.snr_db), spectra, truth, _directions(found))


def _directions(found: Estimates) -> Real:
    both = torch.stack([found.azimuth[0], found.elevation[0]], -1).double()
    kept: Real = both[torch.isfinite(both).all(-1)].numpy()
    return kept


def draw_spectrum(view: SpectrumView, picture: Path) -> None:
    """Draw the spectra with the sources as rings and the estimates as crosses.

    Args:
        view: from `spectrum_view`.
        picture: the PNG to write.
    """
    count = len(view.spectra)
    figure = Figure(figsize=(8, 3.8 * count), layout="constrained")
    FigureCanvasAgg(figure)
    azimuth, elevation = np.degrees(view.azimuth), np.degrees(view.elevation)
    panels = figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0]
    for axis, (name, level) in zip(panels, view.spectra.items(), strict=True):
        mesh = axis.pcolormesh(azimuth, elevation, level, cmap="cividis", shading="nearest")
        figure.colorbar(mesh, ax=axis, label=f"{name} (dB)")
        ring = {"marker": "o", "s": 160, "facecolors": "none", "linewidths": 2}
        axis.scatter(*np.degrees(view.truth).T, edgecolors="#D55E00", label="truth", **ring)
        axis.scatter(*np.degrees(view.found).T, marker="x", s=60, c="white", linewidths=1.5, label="estimate")
        axis.set(ylabel="elevation (°)", aspect="equal")
    panels[-1].set_xlabel("azimuth (°)")
    panels[0].legend(loc="upper right", framealpha=0.6, facecolor="0.4", labelcolor="white")
    figure.suptitle(f"{len(view.truth)} sources at {view.range:.3g} m, {view.snr_db:g} dB; plane at their range")
    atomic_write(picture, as_png(figure, DPI))
