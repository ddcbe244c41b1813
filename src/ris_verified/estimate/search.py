"""Greedy matched-field search with exchanges; it needs no training."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from jaxtyping import Complex
from torch import Tensor

from ris_verified.config import Config
from ris_verified.estimate.beside import beside, snr
from ris_verified.estimate.candidates import best_exchanges, first_source, ranked_places
from ris_verified.estimate.descent import descend, moved
from ris_verified.estimate.field import Field, see
from ris_verified.estimate.linearised import Linearised, linearised, linearised_gaussian
from ris_verified.estimate.measurement import Measurement
from ris_verified.estimate.order import chosen_order, order_criterion
from ris_verified.estimate.parameters import remoteness, to_peaks
from ris_verified.estimate.projection import Fit, put
from ris_verified.estimate.result import Peaks
from ris_verified.shapes import require_axes, shaped

CHUNK = 64
# Levenberg–Marquardt steps after an addition, after the last one, in an exchange, and of a fit that stays as it is.
INNER, LAST, MOVED, OUTER = 1, 3, 2, 10
# Fits whose criterion is so many nats from the best are worth exchanges.
REACH = 30.0
# The search rests at this share of one sigma; NF-MLE goes on from there.
CLOSE = 0.1
# Exchanges tried before a scene is left as it is, and how much log-likelihood each may cost before it is refined; more
# where another number of sources is a close call, so many nats away.
QUICK, THOROUGH, CLOSE_CALL = (1, 3.0), (4, 10.0), 14.0
# Below this SNR sources begin to be lost, and all scenes get more exchanges.
FAINT = 5.0
# An exchange is kept where it then brings so much.
BETTER = 0.1


@dataclass(frozen=True)
class Nested:
    """Greedy fits with 1 … K_MAX sources.

    Args:
        parameters: `K_MAX x B x K_MAX x 3` real; entry k − 1 holds k sources, NaN beyond.
        residual: `K_MAX x B` real, RSS of each.
        deviance: `K_MAX x B` real, minus the log-likelihood of each with Gaussian symbols.
    """

    parameters: Tensor
    residual: Tensor
    deviance: Tensor


def _added(now: Fit, data: Measurement, field: Field, steps: int) -> Fit:
    start = torch.cat([now.parameters, ranked_places(beside(now, data), data, field)[0][:, :1]], 1)
    return _refined(linearised(start, data, now.next_load), data, steps)


def _refined(start: Linearised, data: Measurement, steps: int) -> Fit:
    """Go on until all rest where `steps` is OUTER, else take just so many."""
    return descend(start, data, steps, CLOSE).fit if steps == OUTER else moved(start, data, steps, CLOSE)


def exchanged(now: Fit, data: Measurement, field: Field, effort: tuple[int, float] = QUICK) -> Fit:
    """Move single sources to where what is left beside all of them proposes, as long as that raises the likelihood.

    A place that is farther counts for more, by the density of sources there, or for less where sources are lost.
    """
    tries, hope = effort
    scenes = torch.arange(len(now.rss), device=now.rss.device)
    for _ in range(data.cfg.estimate.search_exchanges if len(scenes) else 0):
        part = now if len(scenes) == len(now.rss) else now.only(scenes)
        known, better, won = beside(part, data), part, torch.zeros_like(scenes, dtype=torch.bool)
        places, gains, left = best_exchanges(part.parameters, known, data, field, tries)
        for changed, gain in zip(places, gains, strict=True):
            tried = torch.nonzero((gain > -hope) & ~won)[:, 0]
            wins, trial = _tried(changed[tried], part.only(tried), known.far_weight[tried], data.only(tried))
            better, won[tried[wins]] = put(better, tried[wins], trial), True
        kept = torch.nonzero(won)[:, 0]
        if not len(kept):
            break
        now = put(now, scenes[kept], better.only(kept))
        scenes, data, field = scenes[kept], data.only(kept), left.only(kept)
    return now


def _tried(changed: Tensor, before: Fit, far_weight: Tensor, data: Measurement) -> tuple[Tensor, Fit]:
    """Refine changed sources; return which scenes are likelier with them, and the fits of these."""
    trial = moved(linearised(changed, data, before.next_load), data, MOVED, CLOSE)
    closer = remoteness(before.parameters, data.cfg).sum(1) - remoteness(trial.parameters, data.cfg).sum(1)
    wins = torch.nonzero(trial.cost + far_weight * closer < before.cost - BETTER)[:, 0]
    return wins, trial.only(wins)


def _chain(data: Measurement, most: int, steps: int, last: int) -> tuple[list[Fit], Field | None]:
    """Return fits with 1 … `most` sources, each with one more than the one before, and the field that showed them.

    An addition takes so many steps, the last one `last`.
    """
    first = linearised_gaussian(first_source(data)[:, None], data)
    if most == 1:
        return [_refined(first, data, last)], None
    fits, field = [_refined(first, data, steps)], see(data)
    while len(fits) < most:
        fits.append(_added(fits[-1], data, field, steps if len(fits) + 1 < most else last))
    return fits, field


def _greedy(data: Measurement, K: int) -> Fit:
    fits, field = _chain(data, K, INNER, LAST)
    if field is None:
        return fits[-1]
    now = exchanged(fits[-1], data, field)
    return _exchanged_some(now, snr(now, data) < FAINT, data, field, THOROUGH)


def _nested(data: Measurement, most: int) -> Nested:
    fits, field = _chain(data, most, OUTER, OUTER)
    if field is not None:
        costs = _criterion(fits, data)
        near = costs < costs.amin(0) + REACH
        for k in range(most - 1, 0, -1):
            fits[k] = _exchanged_some(fits[k], near[k], data, field, QUICK)
            fits[k - 1] = _with_one_less(fits[k - 1], fits[k], data)
        costs = _criterion(fits, data)
        for k in range(1, most):
            # A source more than the best: what is missing is seldom seen, what is too much is soon told.
            close = (costs.argmin(0) == k - 1) & (costs[k] < costs[k - 1] + CLOSE_CALL)
            fits[k] = _exchanged_some(fits[k], close, data, field, THOROUGH)
    parameters = data.y.real.new_full((most, len(data.y), most, 3), torch.nan)
    for k, each in enumerate(fits):
        parameters[k, :, : k + 1] = each.parameters
    return Nested(parameters, *_figures(fits, data))


def _exchanged_some(now: Fit, chosen: Tensor, data: Measurement, field: Field, effort: tuple[int, float]) -> Fit:
    scenes = torch.nonzero(chosen)[:, 0]
    if not len(scenes):
        return now
    return put(now, scenes, exchanged(now.only(scenes), data.only(scenes), field.only(scenes), effort))


def _criterion(fits: list[Fit], data: Measurement) -> Tensor:
    """Return half of what `chosen_order` compares, in nats, `K_MAX x B` real."""
    return order_criterion(*_figures(fits, data), data.cfg) / 2


def _with_one_less(now: Fit, more: Fit, data: Measurement) -> Fit:
    """Return a fit, or that with one more source less its least, where that is likelier."""
    loss, least = beside(more, data).loss(more.symbols, more.inverse_diagonal).sum(1).min(-1)
    scenes = torch.nonzero(more.cost + loss < now.cost + QUICK[1])[:, 0]
    if not len(scenes):
        return now
    K, part = more.parameters.shape[1], data.only(scenes)
    kept = torch.arange(K, device=least.device) != least[scenes, None]
    start = more.parameters[scenes][kept].unflatten(0, (len(scenes), K - 1))
    trial = _refined(linearised(start, part, more.likelier_load[scenes]), part, OUTER)
    wins = torch.nonzero(trial.cost < now.cost[scenes])[:, 0]
    return put(now, scenes[wins], trial.only(wins))


def _figures(fits: list[Fit], data: Measurement) -> tuple[Tensor, Tensor]:
    residual = torch.stack([f.free_rss(data) for f in fits])
    return residual, torch.stack([f.cost for f in fits])


def _single(y: Tensor, H_full: Tensor, C: Tensor, chosen: Tensor | slice, cfg: Config) -> Measurement:
    y, H_full, C = (value[chosen].to(torch.complex64) for value in (y, H_full, C))
    return Measurement.of(y, H_full, C, cfg)


def nested_search(y: Tensor, H_full: Tensor, C: Tensor, cfg: Config) -> Nested:
    """Return greedy fits with 1, 2, … sources; after each addition all are refined and exchanged.

    The search runs in single precision; what it finds is only a start.

    Args:
        y: `B x L x M` complex.
        H_full: `B x M x N` complex.
        C: `B x L x N` complex.
        cfg: reads `estimate.search_*`, `scene` and `array`.

    Returns:
        A `Nested`.
    """
    parts = [
        _nested(_single(y, H_full, C, slice(first, first + CHUNK), cfg), cfg.scene.sources_max)
        for first in range(0, len(y), CHUNK)
    ]
    return Nested(*(torch.cat([vars(part)[field.name] for part in parts], 1) for field in fields(Nested)))


def greedy_search(y: Tensor, H_full: Tensor, C: Tensor, K: Tensor | None, cfg: Config) -> Peaks:
    """Find sources by adding the likeliest to those that are there, then exchanging single ones.

    Args:
        y: `B x L x M` complex.
        H_full: `B x M x N` complex.
        C: `B x L x N` complex.
        K: `B` int64; None asks for as many as `estimate.order_criterion` finds in the nested fits.
        cfg: reads `estimate`, `scene` and `array`.

    Returns:
        `Peaks`, NaN beyond K.

    Source: Ziskind and Wax, "Maximum likelihood localization of multiple sources by alternating
    projection", IEEE Trans. ASSP 36 (1988).
    """
    if K is None:
        nested = nested_search(y, H_full, C, cfg)
        order = chosen_order(nested.residual, nested.deviance, cfg)
        return to_peaks(nested.parameters[order - 1, torch.arange(len(y), device=y.device)].to(y.real.dtype))
    found = y.real.new_full((len(y), cfg.scene.sources_max, 3), torch.nan)
    for k in K.unique().tolist():
        for chosen in torch.nonzero(k == K)[:, 0].split(CHUNK):
            found[chosen, :k] = _greedy(_single(y, H_full, C, chosen, cfg), k).parameters.to(found.dtype)
    return to_peaks(found)


@shaped
def estimate_order(
    y: Complex[Tensor, "B L M"], H_full: Complex[Tensor, "B M N"], C: Complex[Tensor, "B L N"], cfg: Config
) -> Tensor:
    """Return the number of sources, from 1 to K_MAX.

    Args:
        y: `B x L x M` complex.
        H_full: `B x M x N` complex.
        C: `B x L x N` complex.
        cfg: reads `estimate`, `scene` and `array`.

    Returns:
        `B` int64.

    Raises:
        ShapeError: the axes do not agree.
    """
    require_axes("order", {"C": "B L N"}, {"C": C}, {"N": cfg.array.elements})
    nested = nested_search(y, H_full, C, cfg)
    return chosen_order(nested.residual, nested.deviance, cfg)
