"""What one way of localising achieves in one cell of a sweep."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ris_verified.array.geometry import to_cartesian
from ris_verified.config import Config
from ris_verified.estimate.result import Estimates, Peaks
from ris_verified.evaluate.gospa import Gospa, gospa
from ris_verified.evaluate.interval import Figure, mean, median, root_mean_square, share
from ris_verified.evaluate.metrics import Errors, position_bound
from ris_verified.pipeline import Pipeline
from ris_verified.scene.scene import Scene

COORDINATES = ("position", "azimuth", "elevation", "range")
Real = NDArray[np.float64]


@dataclass(frozen=True)
class Scenes:
    """Scenes of one cell as the estimator and the judge receive them.

    Args:
        y: `B x L x M` complex128.
        H_full: `B x M x N` complex128, as the estimator believes it.
        C: `B x L x N` complex128, as the estimator believes it.
        K: `B` int64.
        ptr: `B x K_MAX x 3` float64, the truth; NaN beyond K.
        crb: `B x 3K_MAX x 3K_MAX` float64, bound of the nominal model.
    """

    y: Tensor
    H_full: Tensor
    C: Tensor
    K: Tensor
    ptr: Tensor
    crb: Tensor


def prepared(pipeline: Pipeline, scenes: list[Scene]) -> Scenes:
    """Stack scenes in double precision, beside the bound of each."""
    cfg, most = pipeline.config, pipeline.config.scene.sources_max
    ptr = torch.full((len(scenes), most, 3), torch.nan, dtype=torch.float64)
    symbols = torch.zeros(len(scenes), cfg.scene.snapshots, most, dtype=torch.complex128)
    for b, scene in enumerate(scenes):
        K = scene.azimuth.size
        ptr[b, :K] = torch.from_numpy(np.stack([scene.azimuth, scene.elevation, scene.range], -1))
        symbols[b, :, :K] = torch.from_numpy(scene.symbols)
    y, H_full, C = (torch.from_numpy(np.stack([vars(s)[name] for s in scenes])) for name in ("y", "H_full", "codes"))
    noise = torch.tensor([s.noise_variance for s in scenes], dtype=torch.float64)
    crb = pipeline.bound(*ptr.unbind(-1), symbols, H_full, C, noise, cfg)
    return Scenes(y, H_full, C, torch.isfinite(ptr[..., 0]).sum(-1), ptr, crb)


@dataclass(frozen=True)
class Found:
    """Estimates of the same scenes with estimated and with known number of sources.

    Args:
        free: order estimated, as a user would run it.
        known: order given.
    """

    free: Estimates
    known: Peaks


def localised(pipeline: Pipeline, model: nn.Module | None, scenes: Scenes) -> Found:
    """Localise scenes; only those whose order was wrong are done again with the right one.

    Args:
        pipeline: its stage `localize` is run.
        model: trained weights, or None for the classical search.
        scenes: from `prepared`.
    """
    cfg = _answerable(pipeline.config, model)
    data = scenes.y, scenes.H_full, scenes.C
    free = pipeline.localize(*data, cfg, model=model, pipeline=pipeline)
    wrong = free.order != scenes.K
    place = torch.stack([free.azimuth, free.elevation, free.range], -1)
    if bool(wrong.any()):
        again = pipeline.localize(
            *(value[wrong] for value in data), cfg, order=scenes.K[wrong], model=model, pipeline=pipeline
        )
        place = place.clone()
        place[wrong] = torch.stack([again.azimuth, again.elevation, again.range], -1).to(place.dtype)
    return Found(free, Peaks(*place.unbind(-1)))


def _answerable(cfg: Config, model: nn.Module | None) -> Config:
    # The K head cannot be asked without a model.
    asks_model = model is None and cfg.estimate.order_criterion == "model"
    return cfg.replaced({"estimate.order_criterion": "auto"}) if asks_model else cfg


def _points(azimuth: Tensor, elevation: Tensor, range: Tensor) -> Real:
    points = to_cartesian(azimuth, elevation, range).double()
    kept: Real = points[torch.isfinite(points).all(-1)].numpy()
    return kept


def distances(found: Estimates, ptr: Tensor, cutoff: float) -> list[Gospa]:
    """Return GOSPA of each scene.

    Args:
        found: `B x K_MAX`, order estimated.
        ptr: `B x K_MAX x 3` real.
        cutoff: c, metres.
    """
    estimates = zip(found.azimuth, found.elevation, found.range, strict=True)
    return [gospa(_points(*e), _points(*t.unbind(-1)), cutoff) for e, t in zip(estimates, ptr, strict=True)]


def _rmse(values: Tensor, rng: np.random.Generator) -> Figure:
    known = torch.isfinite(values)
    squares = torch.where(known, values, 0).square().sum(-1)
    return root_mean_square(squares.numpy(), known.sum(-1).double().numpy(), rng)


def _accuracy(judged: Errors, rng: np.random.Generator) -> dict[str, Figure]:
    figures = {f"{name}_rmse": _rmse(vars(judged)[name], rng) for name in COORDINATES}
    ratio = judged.over_bound
    known = ratio[torch.isfinite(ratio)].numpy()
    return figures | {
        "error_over_bound_found": _rmse(ratio[judged.found], rng),
        "error_over_bound_median": median(known, rng),
        "found": share(int(judged.found.sum()), len(judged.found)),
        "found_strictly": share(int(judged.found_strictly.sum()), len(judged.found)),
    }


def _detection(found: Estimates, scenes: Scenes, cutoff: float, rng: np.random.Generator) -> dict[str, Figure]:
    sets = distances(found, scenes.ptr, cutoff)
    detected, missed, false = (sum(vars(s)[name] for s in sets) for name in ("detected", "missed", "false"))
    return {
        "precision": share(detected, detected + false),
        "recall": share(detected, detected + missed),
        "gospa": mean(np.array([s.distance for s in sets]), rng),
        "order": share(int((found.order == scenes.K).sum()), len(sets)),
    }


def figures(
    pipeline: Pipeline, found: Found, scenes: Scenes, cutoff: float, rng: np.random.Generator
) -> dict[str, Any]:
    """Return everything that is measured of one method in one cell.

    Args:
        pipeline: its stage `metric` is run.
        found: from `localised`.
        scenes: from `prepared`.
        cutoff: c of GOSPA, metres.
        rng: source of the bootstrap.

    Returns:
        By name `{"value", "low", "high"}`. RMSE (m, rad) over the sources of all scenes, order known; error
        over bound in scenes with all sources found, and its median over all sources; shares of scenes with
        all sources found and with the right order; precision, recall and mean GOSPA (m), order estimated.
    """
    judged = pipeline.metric(pipeline, found.known, scenes.ptr, scenes.crb)
    measured = _accuracy(judged, rng) | _detection(found.free, scenes, cutoff, rng)
    return {name: asdict(figure) for name, figure in measured.items()}


def bounds(scenes: Scenes) -> dict[str, float]:
    """Return the root mean square over all sources of the bound of each coordinate, m and rad."""
    variance = torch.diagonal(scenes.crb, dim1=-2, dim2=-1).unflatten(-1, (-1, 3))
    squares = torch.cat([position_bound(scenes.ptr, scenes.crb)[..., None].square(), variance], -1)
    return {name: float(squares[..., i].nanmean().sqrt()) for i, name in enumerate(COORDINATES)}
