"""Slips in several sources, orders, assignments and the covariance of estimates."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ris_verified.array.geometry import to_cartesian
from ris_verified.audit.faults.fault import Fault
from ris_verified.estimate.match import Assignment
from ris_verified.estimate.result import Estimates, Peaks
from ris_verified.pipeline import Pipeline

AXES = ("azimuth", "elevation", "range")


def _peaks(change: Callable[[Peaks, Tensor], Peaks]) -> Callable[[Pipeline], Pipeline]:
    def plant(pipeline: Pipeline) -> Pipeline:
        return dataclasses.replace(pipeline, spectrum=lambda R, K, cfg: change(pipeline.spectrum(R, K, cfg), K))

    return plant


def _refining(change: Callable[[Peaks, Any], Peaks]) -> Callable[[Pipeline], Pipeline]:
    def plant(pipeline: Pipeline) -> Pipeline:
        return dataclasses.replace(pipeline, newton=lambda R, K, p, cfg: change(pipeline.newton(R, K, p, cfg), cfg))

    return plant


def _estimating(change: Callable[[Estimates], Estimates]) -> Callable[[Pipeline], Pipeline]:
    def plant(pipeline: Pipeline) -> Pipeline:
        return dataclasses.replace(pipeline, mle=lambda *given: change(pipeline.mle(*given)))

    return plant


def _pairing(change: Callable[[Assignment], Assignment]) -> Callable[[Pipeline], Pipeline]:
    def plant(pipeline: Pipeline) -> Pipeline:
        return dataclasses.replace(pipeline, match=lambda *given: change(pipeline.match(*given)))

    return plant


def _twins(peaks: Peaks, K: Tensor) -> Peaks:
    first = {n: vars(peaks)[n][:, :1] for n in AXES}
    return Peaks(*(torch.where(torch.isfinite(vars(peaks)[n]), first[n], torch.nan) for n in AXES))


def _pads_first(peaks: Peaks, K: Tensor) -> Peaks:
    return Peaks(*(vars(peaks)[n].flip(1) for n in AXES))


def _one_subspace(pipeline: Pipeline) -> Pipeline:
    def spectrum(R: Tensor, K: Tensor, cfg: Any) -> Peaks:
        wide = pipeline.spectrum(R, torch.full_like(K, cfg.scene.sources_max), cfg)
        return Peaks(
            *(vars(wide)[n].masked_fill(torch.arange(len(wide.range.mT)) >= K[:, None], torch.nan) for n in AXES)
        )

    return dataclasses.replace(pipeline, spectrum=spectrum)


def _sorted(peaks: Peaks, cfg: Any) -> Peaks:
    order = peaks.azimuth.argsort(1)
    return Peaks(*(vars(peaks)[n].gather(1, order) for n in AXES))


def _lost_at_edge(peaks: Peaks, cfg: Any) -> Peaks:
    edge = peaks.azimuth.abs() >= cfg.scene.azimuth_max * (1 - 1e-9)
    return dataclasses.replace(peaks, azimuth=peaks.azimuth.masked_fill(edge, torch.nan))


def _fewer_snapshots(pipeline: Pipeline) -> Pipeline:
    def mle(peaks: Peaks, y: Tensor, H: Tensor, C: Tensor, cfg: Any) -> Estimates:
        L = y.shape[1] - y.shape[1] // 4
        return pipeline.mle(peaks, y[:, :L], H, C[:, :L], cfg)

    return dataclasses.replace(pipeline, mle=mle)


def _by_eigenvalues(pipeline: Pipeline) -> Pipeline:
    def order(y: Tensor, H: Tensor, C: Tensor, cfg: Any) -> Tensor:
        values = torch.linalg.eigvalsh(y.mT @ y.conj())
        count: Tensor = (values > values[:, -1:] * 0.1).sum(-1)
        return count.clamp(1, cfg.scene.sources_max)

    return dataclasses.replace(pipeline, order=order)


def _assign(cost: Callable[[Tensor, Tensor], Tensor], greedy: bool) -> Callable[[Pipeline], Pipeline]:
    def match(azimuth: Tensor, elevation: Tensor, range: Tensor, ptr: Tensor) -> Assignment:
        from scipy.optimize import linear_sum_assignment

        estimate, truth = torch.stack([azimuth, elevation, range], -1).double(), ptr.double()
        price = cost(truth[:, :, None], estimate[:, None]).numpy()
        metres = _metres(truth[:, :, None], estimate[:, None]).numpy()
        index, paired = np.full(metres.shape[:2], -1), np.full(metres.shape[:2], np.nan)
        for b, distance in enumerate(price):
            rows, columns = (np.flatnonzero(np.isfinite(v[b].numpy()).all(-1)) for v in (truth, estimate))
            part = distance[np.ix_(rows, columns)]
            for i, j in _shortest_first(part) if greedy else zip(*linear_sum_assignment(part), strict=True):
                index[b, rows[i]], paired[b, rows[i]] = columns[j], metres[b, rows[i], columns[j]]
        used = torch.from_numpy((index >= 0).sum(1))
        there, given = (torch.isfinite(v).all(-1).sum(-1) for v in (truth, estimate))
        return Assignment(torch.from_numpy(index), torch.from_numpy(paired), there - used, given - used)

    return lambda pipeline: dataclasses.replace(pipeline, match=match)


def _shortest_first(part: Any) -> list[tuple[int, int]]:
    left, pairs = part.copy(), []
    for _ in range(min(part.shape)):
        i, j = (int(v) for v in np.unravel_index(left.argmin(), left.shape))
        pairs.append((i, j))
        left[i], left[:, j] = np.inf, np.inf
    return pairs


def _metres(a: Tensor, b: Tensor) -> Tensor:
    distance: Tensor = (to_cartesian(*a.unbind(-1)) - to_cartesian(*b.unbind(-1))).norm(dim=-1)
    return distance


def _gated(pairs: Assignment) -> Assignment:
    far = pairs.distance > 5
    lost = far.sum(-1)
    index, distance = pairs.estimate_index.masked_fill(far, -1), pairs.distance.masked_fill(far, torch.nan)
    return Assignment(index, distance, pairs.misses + lost, pairs.false_alarms + lost)


def _angles(a: Tensor, b: Tensor) -> Tensor:
    distance: Tensor = (a - b)[..., :2].norm(dim=-1)
    return distance


FAULTS = (
    Fault("peaks_not_distinct", "RV1602", "the strongest lobe is taken K times", _peaks(_twins)),
    Fault("pads_before_peaks", "RV1602", "a sort puts NaN first", _peaks(_pads_first)),
    Fault("subspace_of_most_sources", "RV1602", "the subspace has K_MAX columns whatever K is", _one_subspace),
    Fault("newton_sorts_by_azimuth", "RV1602", "refined sources leave their slots", _refining(_sorted)),
    Fault("newton_loses_the_edge", "RV1602", "a source at the edge of the view becomes NaN", _refining(_lost_at_edge)),
    Fault("order_from_eigenvalues", "RV1202", "large eigenvalues at the antennas are counted", _by_eigenvalues),
    Fault("order_always_one", "RV1202", "a default that is never replaced",
          lambda p: dataclasses.replace(p, order=lambda y, H, C, cfg: torch.ones(len(y), dtype=torch.int64))),
    Fault("mle_on_fewer_snapshots", "RV1204", "the last quarter of the snapshots is held out", _fewer_snapshots),
    Fault("covariance_doubled", "RV1204", "σ² per real part is taken for σ²",
          _estimating(lambda e: dataclasses.replace(e, covariance=2 * e.covariance))),
    Fault("covariance_in_degrees", "RV1204", "degrees² beside radians",
          _estimating(lambda e: dataclasses.replace(e, covariance=e.covariance * (180 / np.pi) ** 2))),
    Fault("far_pairs_unmatched", "RV1603", "a gate of five metres", _pairing(_gated)),
    Fault("matched_greedily", "RV1603", "the nearest pair is taken first", _assign(_metres, greedy=True)),
    Fault("matched_by_angles", "RV1603", "ranges do not enter the cost", _assign(_angles, greedy=False)),
    Fault("distance_squared", "RV1603", "the root is forgotten",
          _pairing(lambda a: dataclasses.replace(a, distance=a.distance**2))),
    Fault("false_alarms_lost", "RV1603", "only misses are counted",
          _pairing(lambda a: dataclasses.replace(a, false_alarms=0 * a.false_alarms))),
)  # fmt: skip
