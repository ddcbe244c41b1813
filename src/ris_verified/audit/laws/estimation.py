"""What RV1602 and RV1202 measure on the estimators: several sources, any start, the order."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from ris_verified.audit.context import Context
from ris_verified.audit.laws.known import random_covariances
from ris_verified.audit.oracle import closed_form
from ris_verified.audit.rule import Measurement, NotApplicable, at_least, at_most, equal

if TYPE_CHECKING:
    from ris_verified.config import Config
    from ris_verified.estimate.result import Peaks

APART, POOL = 0.25, 600
AXES = ("azimuth", "elevation", "range")


def separate_sources(context: Context, most: int) -> Any:
    """Return up to `most` positions, `K x 3`, whose steering vectors correlate by less than a quarter.

    They are chosen from a fixed pool inside the view, one by one, the least like the others first.
    """
    import numpy as np

    s, rng = context.config.scene, np.random.default_rng(1602)
    low = np.array([-0.9 * s.azimuth_max, -0.9 * s.elevation_max, 1 / s.range_max])
    high = np.array([0.9 * s.azimuth_max, 0.9 * s.elevation_max, 1 / s.range_min])
    # Within nine tenths in 1/range too: a search must not be clamped at the truth.
    low[2], high[2] = low[2] + 0.05 * (high[2] - low[2]), high[2] - 0.05 * (high[2] - low[2])
    pool = rng.uniform(low, high, (POOL, 3))
    pool[:, 2] = 1 / pool[:, 2]
    a = closed_form(context, *pool.T)
    a /= np.linalg.norm(a, axis=1, keepdims=True)
    chosen = [0]
    while len(chosen) < most:
        likeness = np.abs(a.conj() @ a[chosen].T).max(1)
        if likeness.min() > APART:
            break
        chosen.append(int(likeness.argmin()))
    return pool[chosen]


def refining(config: Config) -> Config:
    """Return the configuration with Newton and plain NF-MLE on and steps enough to converge."""
    e = config.estimate
    default = type(e)()
    # Levenberg–Marquardt settles by itself; ill-conditioned scenes need a hundred steps and more.
    changed = dataclasses.replace(
        e, newton_nearfield=True, newton_step=1.0, mle=True, prior="none", mle_ridge=0.0,
        newton_iterations=max(e.newton_iterations, default.newton_iterations),
        mle_iterations=max(e.mle_iterations, 150),
        mle_snr_threshold_db=min(e.mle_snr_threshold_db, default.mle_snr_threshold_db),
    )  # fmt: skip
    return dataclasses.replace(config, estimate=changed)


def require_surface(context: Context) -> None:
    """Raise NotApplicable where one row or column of elements leaves a direction undetermined."""
    array = context.config.array
    if min(array.horizontal, array.vertical) < 2:
        raise NotApplicable(f"a panel of {array.horizontal} × {array.vertical} does not determine both angles")


def several_sources(context: Context) -> list[Measurement]:
    """Return that spectrum and Newton find 1, 2, … sources of unequal power from their exact covariances."""
    import numpy as np
    import torch

    stages, cfg = context.pipeline, refining(context.config)
    place = separate_sources(context, cfg.scene.sources_max)
    a = closed_form(context, *place.T)
    counts = list(range(1, len(place) + 1))
    # The signal subspace holds 10 dB of difference alike; the sources that are not asked for stay 30 dB below.
    powers = [np.where(np.arange(len(place)) < K, np.logspace(0, -1, len(place)), 1e-4) for K in counts]
    R = np.stack([np.einsum("k,kn,km->nm", p, a, a.conj()) for p in powers])
    covariance = torch.from_numpy(R)
    K = torch.tensor(counts)
    with torch.no_grad():
        peaks = stages.spectrum(covariance.to(torch.complex64), K, cfg)
        refined = stages.newton(covariance, K, peaks, cfg)
    found = [_slots(peaks, counts, "spectrum"), _slots(refined, counts, "newton")]
    if not all(m.passed for m in found):
        return found
    first, order = _likeness(context, peaks, a, counts)
    last, after = _likeness(context, refined, a, counts)
    text = f"smallest |aᴴâ|/‖a‖‖â‖ of 1 … {len(place)} sources"
    kept = [np.array_equal(x, y) for x, y in zip(order, after, strict=True)]
    return [
        *found,
        at_least(first, 0.5, f"{text}, each with a peak of its own", where="spectrum"),
        at_least(last, 1 - 1e-6, f"{text}, refined", where="newton"),
        equal(kept, [True] * len(kept), "refined sources keep their slots", where="newton"),
        *_inside(refined, cfg, "newton"),
    ]


def _slots(found: Peaks, counts: list[int], where: str) -> Measurement:
    import torch

    finite = torch.isfinite(torch.stack([vars(found)[n] for n in AXES])).all(0)
    any_finite = torch.isfinite(torch.stack([vars(found)[n] for n in AXES])).any(0)
    wanted = [[k < K for k in range(finite.shape[1])] for K in counts]
    held = finite.tolist() == wanted and any_finite.tolist() == wanted
    return equal(held, True, "the first K slots hold positions and the others NaN", where=where)


def _likeness(context: Context, found: Peaks, a: Any, counts: list[int]) -> tuple[float, list[Any]]:
    import numpy as np
    from scipy.optimize import linear_sum_assignment

    smallest, order = 1.0, []
    for i, K in enumerate(counts):
        columns = [vars(found)[n][i, :K].double().numpy() for n in AXES]
        other = closed_form(context, *columns)
        size = np.linalg.norm(other, axis=1)[:, None] * np.linalg.norm(a[:K], axis=1)
        like = np.abs(other.conj() @ a[:K].T) / size
        rows, chosen = linear_sum_assignment(-like)
        smallest = min(smallest, float(like[rows, chosen].min()))
        order.append(chosen)
    return smallest, order


def _inside(found: Peaks, cfg: Config, where: str) -> list[Measurement]:
    import torch

    s = cfg.scene
    limits = {"azimuth": (-s.azimuth_max, s.azimuth_max), "elevation": (-s.elevation_max, s.elevation_max),
              "range": (s.range_min, s.range_max)}  # fmt: skip
    result = []
    for name, (low, high) in limits.items():
        value = vars(found)[name].double()
        value = value[torch.isfinite(value)]
        beyond = max(float(value.max()) - high, low - float(value.min()))
        result.append(at_most(beyond, 1e-6 * high, f"{name} beyond the view", where=where))
    return result


def at_edges(context: Context) -> list[Measurement]:
    """Return that Newton finds a source in each corner of the view, from near by."""
    import numpy as np
    import torch

    from ris_verified.estimate.result import Peaks

    cfg = refining(context.config)
    s, K_MAX = cfg.scene, cfg.scene.sources_max
    sides = [(-s.azimuth_max, s.azimuth_max), (-s.elevation_max, s.elevation_max), (1 / s.range_max, 1 / s.range_min)]
    corners = np.stack(np.meshgrid(*sides), -1).reshape(-1, 3)
    begin = np.full((len(corners), K_MAX, 3), np.nan)
    begin[:, 0] = 0.98 * corners + 0.02 * corners.mean(0)
    a = closed_form(context, corners[:, 0], corners[:, 1], 1 / corners[:, 2])
    R = torch.from_numpy(a[:, :, None] * a[:, None].conj())
    start = Peaks(*(torch.from_numpy(v.copy()) for v in (begin[..., 0], begin[..., 1], 1 / begin[..., 2])))
    with torch.no_grad():
        refined = context.pipeline.newton(R, torch.ones(len(R), dtype=torch.int64), start, cfg)
    found = [_slots(refined, [1] * len(R), "newton in the corners of the view")]
    if not found[0].passed:
        return found
    other = closed_form(context, *(vars(refined)[n][:, 0].double().numpy() for n in AXES))
    size = np.linalg.norm(a, axis=1) * np.linalg.norm(other, axis=1)
    like = float((np.abs(np.sum(a.conj() * other, 1)) / size).min())
    text = "|aᴴâ|/‖a‖‖â‖ of sources in the corners of the view"
    return [*found, at_least(like, 1 - 1e-6, text, where="newton"), *_inside(refined, cfg, "newton")]


def any_start(context: Context) -> list[Measurement]:
    """Return that Newton from chance and from a corner, at random covariances, stays inside and never gets worse."""
    import numpy as np
    import torch

    from ris_verified.estimate.result import Peaks

    cfg = context.config
    s, K_MAX = cfg.scene, cfg.scene.sources_max
    three = random_covariances(context, 3, min(K_MAX + 2, cfg.array.elements))
    R, bases = three.repeat(3, 1, 1), torch.linalg.eigh(three)[1].repeat(3, 1, 1).numpy()
    rng = np.random.default_rng([context.seed, 1602])
    high = np.array([s.azimuth_max, s.elevation_max, s.range_max])
    low = np.array([-s.azimuth_max, -s.elevation_max, s.range_min])
    begin = rng.uniform(low, high, (len(R), K_MAX, 3))
    begin[0, 0] = high
    # With one source a subspace of more columns climbs elsewhere.
    counts = [K_MAX, 1, 1] * 3
    for row, K in zip(begin, counts, strict=True):
        row[K:] = np.nan
    start = Peaks(*(torch.from_numpy(begin[..., i].copy()) for i in range(3)))
    with torch.no_grad():
        refined = context.pipeline.newton(R, torch.tensor(counts), start, cfg)
    found = [_slots(refined, counts, "newton from any start")]
    if not found[0].passed:
        return found
    before, after = (_null(context, bases, e, counts) for e in (start, refined))
    bound = 1e3 * float(np.finfo(np.float64).eps) * R.shape[-1]
    text = "rise of the null spectrum from a start by chance or at the edge of the view"
    return [
        *found,
        at_most(float((after - before).max()), bound, text, where="newton"),
        *_inside(refined, cfg, "newton"),
    ]


def _null(context: Context, bases: Any, found: Peaks, counts: list[int]) -> Any:
    import numpy as np

    rows: list[Any] = []
    for b, (U, K) in enumerate(zip(bases, counts, strict=True)):
        a = closed_form(context, *(vars(found)[n][b, :K].double().numpy() for n in AXES))
        rows.append(1 - np.sum(np.abs(a.conj() @ U[:, -K:]) ** 2, 1) / np.sum(np.abs(a) ** 2, 1))
    return np.concatenate(rows)


def threshold_obeys(context: Context) -> list[Measurement]:
    """Start NF-MLE beside a lone source at 20 dB: with a threshold of 15 dB it moves, with one of 25 dB it stays."""
    import torch

    from ris_verified.estimate.result import Peaks
    from ris_verified.shapes import from_ri

    small = context.small
    lone = {"scene.sources_min": 1, "scene.sources_max": 1, "scene.snr_db_min": 20.0, "scene.snr_db_max": 20.0}
    batch = small.as_batch(small.draw(2, small.config.replaced(lone), key=15))
    start = (batch.ptr.double() * torch.tensor([0.99, 0.99, 1.02])).unbind(-1)
    y, H_full, C = (from_ri(value).to(torch.complex128) for value in (batch.y, batch.H_full, batch.C))
    found = []
    for threshold, moves in ((15.0, True), (25.0, False)):
        cfg = refining(small.config).replaced({"estimate.mle_snr_threshold_db": threshold})
        with torch.no_grad():
            made = context.pipeline.mle(Peaks(*start), y, H_full, C, cfg)
        moved = bool(((made.azimuth - start[0]).abs() > 1e-9).any())
        text = f"whether peaks of scenes at 20 dB move with estimate.mle_snr_threshold_db = {threshold:g}"
        found.append(equal(moved, moves, text, where="mle"))
    return found
