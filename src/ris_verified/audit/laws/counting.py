"""What RV1202 measures on the order stage, and scenes with chosen sources in them."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from ris_verified.audit.context import Context
from ris_verified.audit.laws.estimation import separate_sources
from ris_verified.audit.oracle import closed_form
from ris_verified.audit.rule import Measurement, at_least, equal

if TYPE_CHECKING:
    from torch import Tensor

    from ris_verified.scene.scene import Scene

# Sources that are told apart at 30 dB in all scenes but one in a hundred: coherent ones sooner fail.
MOST = {"varying": 5, "constant": 3}
SEARCH = ("search_azimuth", "search_elevation", "search_range", "search_summits", "search_exchanges")


def measured_scenes(context: Context, places: list[Any], snr_db: float, stream: int) -> list[Scene]:
    """Return drawn scenes with other sources in them: equal powers, measured anew by the closed form.

    Args:
        context: gives scenes, whose channel and codes stay, and the seed.
        places: `K x 3` positions of each scene.
        snr_db: of all.
        stream: separates draws.
    """
    import numpy as np

    rng, s, made = np.random.default_rng([context.seed, stream]), context.config.scene, []
    for place, scene in zip(places, context.many, strict=False):
        A = closed_form(context, *place.T).T
        rows = 1 if s.symbols == "constant" else s.snapshots
        drawn = rng.standard_normal((rows, len(place), 2)).view(np.complex128)[..., 0] / np.sqrt(2)
        symbols = np.broadcast_to(drawn, (s.snapshots, len(place))).copy()
        clean = (scene.codes * (symbols @ A.T)) @ scene.H_full.T
        variance = float(np.mean(np.abs(clean) ** 2) / 10 ** (snr_db / 10))
        noise = rng.standard_normal((*clean.shape, 2)).view(np.complex128)[..., 0] / np.sqrt(2)
        azimuth, elevation, range = (place[:, i].copy() for i in (0, 1, 2))
        made.append(dataclasses.replace(
            scene, azimuth=azimuth, elevation=elevation, range=range, powers=np.ones(len(place)), symbols=symbols,
            y_clean=clean, y=clean + np.sqrt(variance) * noise, noise_variance=variance, snr_db=snr_db,
        ))  # fmt: skip
    return made


def inputs(batch: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Return y, H_full and C of a batch, complex128."""
    import torch

    from ris_verified.shapes import from_ri

    y, H_full, C = (from_ri(vars(batch)[n]).to(torch.complex128) for n in ("y", "H_full", "C"))
    return y, H_full, C


def order_found(context: Context) -> list[Measurement]:
    """Return that the order stage counts separate sources of 30 dB on a small panel, by BIC and as configured."""
    s, criterion = context.config.scene, context.config.estimate.order_criterion
    found = _counted(_sized(context.small, "bic", s.symbols, min(2, s.sources_max)), 3)
    # AICc is known to count coherent sources too often.
    symbols = "varying" if criterion == "aicc" else s.symbols
    most = min(MOST[symbols], s.sources_max)
    return found + _counted(_sized(context.small, criterion, symbols, most), 4) if found[1].passed else found


def _counted(place: Context, each: int) -> list[Measurement]:
    import torch

    sources = separate_sources(place, place.config.scene.sources_max)
    counts = list(range(1, len(sources) + 1)) * each
    batch = place.as_batch(measured_scenes(place, [sources[:K] for K in counts], 30.0, 1202))
    with torch.no_grad():
        # Three times louder: a count must not depend on the unit of y.
        y, H_full, C = inputs(batch)
        order = place.pipeline.order(3 * y, H_full, C, place.config)
    found = [
        equal(order.dtype, torch.int64, "dtype of the order", where="order"),
        equal(list(order.shape), [len(counts)], "one order a scene", where="order"),
    ]
    if not found[-1].passed:
        return found
    criterion = place.config.estimate.order_criterion
    for K in sorted(set(counts)):
        share = float((order[torch.tensor(counts) == K] == K).double().mean())
        text = f"share of scenes with {K} separate sources at 30 dB that are counted right ({criterion})"
        found.append(at_least(share, 0.5, text, where="order"))
    return found


def _sized(small: Context, criterion: Any, symbols: Any, most: int) -> Context:
    """Return the small panel with antennas and snapshots enough to count `most` sources, and a search as by default."""
    cfg = small.config
    e, default = cfg.estimate, type(cfg.estimate)()
    scene = dataclasses.replace(
        cfg.scene, antennas=max(12, 8 + 2 * most), snapshots=12, sources_min=1, sources_max=most, symbols=symbols
    )
    least = {name: max(vars(e)[name], vars(default)[name]) for name in SEARCH}
    estimate = dataclasses.replace(e, order_criterion=criterion, **least)
    return small.with_config(dataclasses.replace(cfg, scene=scene, estimate=estimate))
