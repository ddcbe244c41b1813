"""What is stored with scenes against what it says: R_true, measurements, SNR, powers and positions."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ris_verified.audit.context import Context
from ris_verified.audit.laws.stored import Part, parts, places
from ris_verified.audit.moments import NATS
from ris_verified.audit.rule import Measurement, at_most, close, equal

if TYPE_CHECKING:
    from ris_verified.scene.scene import Scene

DECIBEL = 4.342944819032518  # of a relative change, to first order


def forms(context: Context) -> Iterator[Measurement]:
    """Compare shapes and R_true, split by split; R_true only where shapes are right."""
    import numpy as np
    import torch

    cfg = context.config
    N, M, L = cfg.array.elements, cfg.scene.antennas, cfg.scene.snapshots
    for name, read in parts(context):
        shapes, errors = {"H_full": set[Any](), "C": set[Any]()}, list[float]()
        for part in read:
            for field, seen in shapes.items():
                seen.add(tuple(vars(part.batch)[field].shape[1:]))
            if shapes == {"H_full": {(M, N, 2)}, "C": {(L, N, 2)}}:
                errors.append(_apart(context, part))
        for field, wanted in {"H_full": (M, N, 2), "C": (L, N, 2)}.items():
            yield equal(shapes[field], {wanted}, f"shapes of the scenes{name}", where=field)
        if errors:
            # Positions in float32 turn phases by at most k·r·eps on each element.
            bound = 8 * torch.finfo(torch.float32).eps * (N + cfg.array.wavenumber * cfg.scene.range_max)
            yield at_most(float(np.max(errors)), bound, f"R_true{name} against A P Aᴴ, relative", where="R_in")


def _apart(context: Context, part: Part) -> float:
    """Return the largest ‖R_true − A P Aᴴ‖/N of the stated positions and powers."""
    import torch

    N, ptr = context.config.array.elements, part.batch.ptr
    present = torch.isfinite(ptr).all(-1)
    place = torch.where(present[..., None], ptr, 1.0).double()
    P = torch.where(present, part.truth.powers, 0.0)
    A = context.pipeline.steering(context.config.array, *place.unbind(-1)).mT
    R = (A * P[:, None]) @ A.mH
    R = R * (N / torch.diagonal(R, dim1=1, dim2=2).real.sum(-1))[:, None, None]
    return float(((part.batch.R_in - R).flatten(1).norm(dim=1) / N).max())


@dataclass(frozen=True)
class _Row:
    """One scene, measured again without noise.

    Args:
        residual: mean |y − Φ A s|² over the stated σ².
        clean: mean |Φ A s|² over the stated σ².
        snr_db: as stated.
        symbols: mean |s|² over the stated power, of each source.
    """

    residual: float
    clean: float
    snr_db: float
    symbols: Any


def _row(y: Any, clean: Any, variance: float, snr_db: float, symbols: Any, powers: Any) -> _Row:
    import numpy as np

    residual, loud = (float(np.mean(np.abs(v) ** 2)) / variance for v in (y - clean, clean))
    return _Row(residual, loud, snr_db, np.mean(np.abs(symbols) ** 2, 0) / powers)


def _rows(context: Context) -> Iterator[tuple[str, list[_Row]]]:
    if context.data is None:
        yield "", [_drawn_row(context, scene) for scene in context.scenes + context.many]
        return
    for name, read in parts(context):
        yield name, [row for part in read for row in _stored_rows(context, part)]


def _drawn_row(context: Context, s: Scene) -> _Row:
    from ris_verified.audit.oracle import closed_form

    A = closed_form(context, s.azimuth, s.elevation, s.range).T
    clean = (s.codes * (s.symbols @ A.T)) @ s.H_full.T
    return _row(s.y, clean, s.noise_variance, s.snr_db, s.symbols, s.powers)


def _stored_rows(context: Context, part: Part) -> Iterator[_Row]:
    from ris_verified.audit.oracle import closed_form
    from ris_verified.shapes import from_ri

    batch, truth = part.batch, part.truth
    y, H, C, symbols = (from_ri(v.double()).numpy() for v in (batch.y, batch.H_full, batch.C, truth.symbols))
    for i, K in enumerate(batch.K.tolist()):
        A = closed_form(context, *truth.ptr[i, :K].numpy().T).T
        s, P = symbols[i, :, :K], truth.powers[i, :K].numpy()
        clean = (C[i] * (s @ A.T)) @ H[i].T
        yield _row(y[i], clean, float(truth.noise_variance[i]), float(batch.snr[i]), s, P)


def followed(context: Context) -> Iterator[Measurement]:
    """Measure residuals, SNR and powers, split by split."""
    import numpy as np

    scene = context.config.scene
    entries = scene.antennas * scene.snapshots
    for name, rows in _rows(context):
        residual, clean, snr_db = (
            np.array([vars(row)[field] for row in rows]) for field in ("residual", "clean", "snr_db")
        )
        count = len(rows) * entries
        text = f"residual over stated σ², {len(rows)} scenes{name}"
        yield close(float(np.mean(residual)), 1.0, 5 / count**0.5, text, where="y")
        gap = float(np.mean(10 * np.log10(clean / residual) - snr_db))
        # The checklist's half a decibel, where there are scenes enough to measure it.
        bound = max(0.5, 5 * DECIBEL / count**0.5)
        yield at_most(abs(gap), bound, f"measured minus stated SNR{name}, mean", "dB", "snr")
        stated = float(np.max(np.abs(10 * np.log10(clean) - snr_db)))
        yield at_most(stated, 0.05, f"SNR of the stated σ² minus the stated SNR, a scene{name}", "dB", "snr")
        yield _likely(residual, entries, f"residual of a scene{name}", "y")
        own = scene.snapshots if scene.symbols == "varying" else 1
        symbols = np.concatenate([row.symbols for row in rows])
        yield _likely(symbols, own, f"|s|² over the stated power of a source{name}", "powers")


def _likely(means: Any, count: int, message: str, where: str) -> Measurement:
    """Return that no mean of `count` unit exponentials is farther out than chance lets the farthest of all be."""
    import numpy as np
    from scipy.special import gammainc, gammaincc

    tails = np.minimum(gammainc(count, count * means), gammaincc(count, count * means))
    with np.errstate(divide="ignore"):
        far = float(np.max(-np.log(2 * tails)))
    text = f"{message}, the farthest of {len(means)}: −ln of its chance"
    return at_most(far, float(NATS + np.log(len(means))), text, "", where)


def off_grids(context: Context) -> Iterator[Measurement]:
    """Count coordinates on a grid of degrees or decimetres, or on an axis of the search's or the model's."""
    import numpy as np

    scene = context.config.scene
    # A coordinate that the declaration fixes is where it was put.
    free = np.array([scene.azimuth_max > 0, scene.elevation_max > 0, scene.range_max > scene.range_min])
    for where, found in places(context):
        units = np.concatenate([np.degrees(found[:, :2]), 10 * found[:, 2:]], 1)[:, free]
        on_units = int((np.abs(units - np.round(units)) <= _same(units)).sum())
        yield at_most(float(on_units), 0.0, f"coordinates on a grid of degrees or decimetres{_of(where)}", where=where)
        text = f"coordinates on a grid of search or model{_of(where)}"
        yield at_most(float(_on_axes(context, found, free)), 0.0, text, where=where)


def _of(where: str) -> str:
    return "" if where == "draw_scene" else f", {where} as stored"


def _same(values: Any) -> Any:
    """Return how far a double may be from a number of a grid that it was, through a handful of functions."""
    import numpy as np

    return 64 * np.finfo(np.float64).eps * np.maximum(np.abs(values), 1.0)


def _on_axes(context: Context, found: Any, free: Any) -> int:
    import numpy as np

    from ris_verified.array.grid import view_grid

    e, m, hits = context.config.estimate, context.config.model, 0
    coordinates = np.stack([found[:, 0], found[:, 1], 1 / found[:, 2]])
    for shape in (
        (e.grid_range, e.grid_elevation, e.grid_azimuth),
        (e.search_range, e.search_elevation, e.search_azimuth),
        (m.dictionary_range, m.dictionary_elevation, m.dictionary_azimuth),
    ):
        axes = [np.unique(axis) for axis in view_grid(context.config.scene, shape).numpy().T]
        for values, axis in itertools.compress(zip(coordinates, axes, strict=True), free):
            hits += int((np.abs(values[:, None] - axis) <= _same(axis)).any(-1).sum())
    return hits
