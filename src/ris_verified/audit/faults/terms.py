"""Slips inside the loss: which scenes, sources and entries count, and what is differentiated."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ris_verified.array.geometry import to_cartesian
from ris_verified.audit.faults.fault import Fault, finite_only, staged
from ris_verified.audit.faults.learning import losing
from ris_verified.audit.faults.networks import scaled
from ris_verified.errors import InvariantError
from ris_verified.loss.assignment import assign
from ris_verified.loss.terms import alignment, covariance_error, eigengap, true_subspace
from ris_verified.loss.total import LossResult
from ris_verified.pipeline import Pipeline

Rows = dict[str, Tensor]
HUBER = 0.1


def _mean_of_true(cost: Tensor, present: Tensor) -> Tensor:
    return (cost * present).sum(-1) / present.sum(-1)


@dataclass(frozen=True)
class Recipe:
    """A loss with one part exchanged.

    Args:
        covariance: R, R_true → `B`.
        angles, ranges: what is done to these outputs first.
        direction: angles, true positions → squared cost `B x slot x source`.
        choose: cost, present → slots for angle and for range.
        sources: cost of each true source, present → `B`.
        rows: all terms by scene, batch → the same, changed.
        scenes: name, a term by scene → its mean.
        total: sum of the weighted terms, training → total.
    """

    covariance: Callable[[Tensor, Tensor], Tensor] = covariance_error
    angles: Callable[[Tensor], Tensor] = lambda a: a
    ranges: Callable[[Tensor], Tensor] = lambda r: r
    direction: Callable[[Tensor, Tensor], Tensor] | None = None
    choose: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]] | None = None
    sources: Callable[[Tensor, Tensor], Tensor] = _mean_of_true
    rows: Callable[[Rows, Any], Rows] = lambda rows, batch: rows
    scenes: Callable[[str, Tensor], Tensor] = lambda name, row: row.mean()
    total: Callable[[Tensor, bool], Tensor] = lambda total, training: total

    def __call__(self, pipeline: Pipeline) -> Pipeline:
        """Plant it."""

        def loss(
            outputs: Any, R_hat: Tensor, batch: Any, cfg: Any, *, R_blend: Any = None, training: bool = True
        ) -> LossResult:
            if training and not R_hat.requires_grad:
                raise InvariantError("carries no gradient", where="R_hat")
            R = R_hat if R_blend is None else R_blend
            made = self.rows(self._rows(outputs, R, batch, cfg), batch)
            used = {n: self.scenes(n, made[n]) for n, weight in vars(cfg.loss).items() if weight}
            total = sum((vars(cfg.loss)[n] * v for n, v in used.items()), R.real.new_zeros(()))
            terms = {n: v.detach() for n, v in used.items()}
            return LossResult(self.total(total, training), terms, made["covariance"].detach().mean())

        return dataclasses.replace(pipeline, loss=loss)

    def _rows(self, outputs: Any, R: Tensor, batch: Any, cfg: Any) -> Rows:
        U, kept = true_subspace(batch.ptr, cfg.array)
        angle, range = self._positions(self.angles(outputs.angles), self.ranges(outputs.ranges), batch.ptr)
        return {
            "covariance": self.covariance(R, batch.R_in),
            "alignment": alignment(R, U.to(R.dtype)),
            "eigengap": eigengap(R, batch.R_in, U.to(R.dtype), kept),
            "angle": angle,
            "range": range,
            "order": functional.cross_entropy(outputs.k_logits, batch.K - 1, reduction="none"),
        }

    def _positions(self, angles: Tensor, ranges: Tensor, ptr: Tensor) -> tuple[Tensor, Tensor]:
        present = torch.isfinite(ptr).all(-1)
        place = torch.where(present[..., None], ptr, torch.ones_like(ptr))
        one = torch.ones_like(ranges)
        slot, true = (to_cartesian(a[..., 0], a[..., 1], one)[:, :] for a in (angles, place))
        chord = (slot[:, :, None] - true[:, None]).square().sum(-1)
        chord = self.direction(angles, place) if self.direction else chord
        bend = (1 / ranges[:, :, None] - 1 / place[:, None, :, 2]).square()
        best = assign((chord + bend) * present[:, None])[:, None]
        first, second = self.choose(chord, bend, present) if self.choose else (best, best)

        def huber(square: Tensor, choice: Tensor) -> Tensor:
            chosen = square.gather(1, choice)[:, 0]
            beyond = HUBER * (chosen.clamp_min(HUBER**2).sqrt() - HUBER / 2)
            return torch.where(chosen < HUBER**2, chosen / 2, beyond) / HUBER

        return self.sources(huber(chord, first), present), self.sources(huber(bend, second), present)


def _one_normaliser(R: Tensor, T: Tensor) -> Tensor:
    share = (R - T).abs().square().sum() / T.abs().square().sum()
    return share.expand(len(R))


def _real_part(R: Tensor, T: Tensor) -> Tensor:
    return (R - T).real.square().sum((1, 2)) / T.real.square().sum((1, 2))


def _diagonal(R: Tensor, T: Tensor) -> Tensor:
    wrong, true = (torch.diagonal(m, dim1=1, dim2=2).abs().square().sum(-1) for m in (R - T, T))
    return wrong / true


def _magnitudes(R: Tensor, T: Tensor) -> Tensor:
    return (R.abs() - T.abs()).square().sum((1, 2)) / T.abs().square().sum((1, 2))


def _all_but_last(cost: Tensor, present: Tensor) -> Tensor:
    full = present.all(-1, keepdim=True)
    counted = present & ~(full & (torch.arange(present.shape[1]) == present.shape[1] - 1) & (present.shape[1] > 1))
    return _mean_of_true(cost, counted)


def _azimuth_only(angles: Tensor, place: Tensor) -> Tensor:
    return (angles[:, :, None, 0] - place[:, None, :, 0]).square()


def _degrees(angles: Tensor, place: Tensor) -> Tensor:
    return torch.rad2deg(angles[:, :, None] - place[:, None, :, :2]).square().sum(-1)


def _apart(chord: Tensor, bend: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    return assign(chord * present[:, None])[:, None], assign(bend * present[:, None])[:, None]


def _greedy(chord: Tensor, bend: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    cost = torch.where(present[:, None], chord + bend, torch.inf)
    slots, S = torch.zeros_like(present, dtype=torch.long), present.shape[1]
    for scene in range(len(cost)):
        for _ in range(int(present[scene].sum())):
            nearest = int(cost[scene].argmin())
            slots[scene, nearest % S] = nearest // S
            cost[scene, nearest // S], cost[scene, :, nearest % S] = torch.inf, torch.inf
    return slots[:, None], slots[:, None]


def _nearest(chord: Tensor, bend: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    slot = (chord + bend).argmin(1)[:, None]
    return slot, slot


def _zero(name: str, where: Callable[[Any], Tensor]) -> Callable[[Rows, Any], Rows]:
    return lambda rows, batch: {**rows, name: torch.where(where(batch), 0 * rows[name], rows[name])}


def _weighted(name: str, weight: Callable[[Any], Tensor]) -> Callable[[Rows, Any], Rows]:
    return lambda rows, batch: {**rows, name: rows[name] * weight(batch)}


def _spoils_batch(f: Any, o: Any, R: Tensor, b: Any, cfg: Any, blend: Any, t: bool) -> Any:
    made = f(o, R, b, cfg, R_blend=blend, training=t)
    b.ptr[..., 2].mul_(1.01)
    return made


def _annealed(pipeline: Pipeline) -> Pipeline:
    calls = itertools.count()
    return Recipe(total=lambda total, training: total * (1 + 1e-3 * next(calls)))(pipeline)


def _reads_beta(f: Any, o: Any, R: Tensor, b: Any, cfg: Any, blend: Any, t: bool) -> Any:
    made = f(o, R, b, cfg, R_blend=blend, training=t)
    return dataclasses.replace(made, total=made.total * (1 - cfg.covariance.beta))


def _both_or_none(f: Any, outputs: Any, R_hat: Any, batch: Any, cfg: Any, **named: Any) -> Any:
    w = cfg.loss
    if bool(w.angle) != bool(w.range) and w.covariance + w.alignment + w.eigengap + w.order:
        cfg = cfg.replaced({"loss.angle": 0.0, "loss.range": 0.0})
    return f(outputs, R_hat, batch, cfg, **named)


def _other_error_logged(f: Any, outputs: Any, R_hat: Any, batch: Any, cfg: Any, **named: Any) -> Any:
    result = f(outputs, R_hat, batch, cfg, **named)
    if cfg.loss.covariance:
        return result
    return dataclasses.replace(result, nmse=f(outputs, R_hat, batch, cfg, **{**named, "R_blend": None}).nmse)


FAULTS = (
    Fault("angle_falls_with_range", "RV0602", "`and` for `or`: with one weight of zero both terms are gone",
          staged("loss", _both_or_none)),
    Fault("error_logged_by_weight", "RV0602", "without its weight the logged error is another's",
          staged("loss", _other_error_logged)),
    Fault("mean_over_slots", "RV0603", "absent sources lower the mean",
          Recipe(sources=lambda c, p: (c * p).sum(-1) / p.shape[-1])),
    Fault("absent_sources_counted", "RV0603", "the padding is a position", Recipe(sources=lambda c, p: c.mean(-1))),
    Fault("sum_over_sources", "RV0603", "more sources, more loss", Recipe(sources=lambda c, p: (c * p).sum(-1))),
    Fault("last_source_ignored", "RV0603", "a slice ends early", Recipe(sources=_all_but_last)),
    Fault("last_scene_ignored", "RV0603", "a slice of the batch ends early",
          Recipe(scenes=lambda n, row: row[: max(1, len(row) - 1)].mean())),
    Fault("order_summed_over_batch", "RV0603", "reduction is sum",
          Recipe(scenes=lambda n, row: row.sum() if n == "order" else row.mean())),
    Fault("worst_scene_only", "RV0603", "max in place of mean",
          Recipe(scenes=lambda n, row: row.max() if n == "angle" else row.mean())),
    Fault("one_normaliser_for_the_batch", "RV0603", "strong scenes hide weak ones", Recipe(covariance=_one_normaliser)),
    Fault("real_part_only", "RV0603", "a cast drops the imaginary part", Recipe(covariance=_real_part)),
    Fault("diagonal_only", "RV0603", "powers are compared", Recipe(covariance=_diagonal)),
    Fault("magnitudes_only", "RV0603", "phases are not compared", Recipe(covariance=_magnitudes)),
    Fault("one_source_without_angle", "RV0603", "K = 1 is a special case",
          Recipe(rows=_zero("angle", lambda b: b.K == 1))),
    Fault("most_sources_without_order", "RV0603", "K = K_MAX is the ignored class",
          Recipe(rows=_zero("order", lambda b: b.ptr.shape[1] == b.K))),
    Fault("range_weighted_by_order", "RV0603", "multiplied by K and not divided",
          Recipe(rows=_weighted("range", lambda b: b.K))),
    Fault("elevation_ignored", "RV0603", "only the first angle is read", Recipe(direction=_azimuth_only)),
    Fault("loss_in_degrees", "RV0603", "a unit of people", Recipe(direction=_degrees)),
    Fault("nearest_pair_first", "RV0603", "pairs are taken greedily", Recipe(choose=_greedy)),
    Fault("assigned_apart", "RV0603", "angles and ranges choose their own slots", Recipe(choose=_apart)),
    Fault("nearest_slot", "RV0603", "one slot serves two sources", Recipe(choose=_nearest)),
    Fault("angle_term_capped", "RV0602", "far slots get no gradient",
          Recipe(rows=lambda rows, b: {**rows, "angle": rows["angle"].clamp(max=0.2)})),
    Fault("tenth_of_the_gradient", "RV0604", "a loss scale is not undone",
          Recipe(total=lambda total, training: scaled(total, 0.1) if training else total)),
    Fault("angles_uphill", "RV0604", "a reversed gradient", Recipe(angles=lambda a: scaled(a, -1.0))),
    Fault("root_at_the_truth", "RV0604", "√ of an error that can be zero",
          Recipe(rows=lambda rows, b: {**rows, "angle": rows["angle"].sqrt()})),
    Fault("loss_weighted_by_snr", "RV1604", "weak scenes count less, undeclared",
          Recipe(rows=_weighted("angle", lambda b: torch.sigmoid(b.snr / 10)))),
    Fault("noisy_scenes_dropped", "RV1604", "scenes below 0 dB have no angle term",
          Recipe(rows=_weighted("angle", lambda b: (b.snr > 0).float()))),
    Fault("loss_reads_beta", "RV1604", "the total is scaled by 1 − β", losing(_reads_beta)),
    Fault("loss_spoils_batch", "RV1604", "positions are scaled in place", losing(_spoils_batch)),
    Fault("hidden_annealing", "RV1604", "a weight grows with every call", _annealed),
    Fault("nan_to_zero_in_loss", "RV1403", "nan_to_num on the total",
          Recipe(total=lambda total, training: finite_only(total))),
)  # fmt: skip
