"""Candidate sources, added one after the other where the likelihood and the learned heat together are highest."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from ris_verified.array.folded import FoldedGrid
from ris_verified.estimate.beside import Beside, beside_nothing, beside_powers, deviance_of
from ris_verified.estimate.candidates import best_exchanges, refined, summits
from ris_verified.estimate.descent import improved
from ris_verified.estimate.field import Field, gain, see
from ris_verified.estimate.linearised import linearise
from ris_verified.estimate.measurement import Measurement, power
from ris_verified.estimate.parameters import remoteness
from ris_verified.estimate.powers import source_powers
from ris_verified.estimate.projection import Fit, columns_at, fit_columns

# Scenes whose fields are held at once.
TOGETHER = 128
# Rounds of the powers.
ROUNDS = 3
# The exchange is kept where it brings so many nats.
BETTER = 2.0


@dataclass(frozen=True)
class Proposals:
    """K_MAX places, the strongest first, refined jointly.

    Args:
        parameters: `B x K x 3` real, azimuth, elevation (rad), 1/range (1/m).
        sigma: `B x K x 3` real, their Cramér–Rao bounds, in their units.
        log_power: `B x K` real, logarithm of the share of power.
        log_chosen: `B x K` real, logarithm of the weight of the choice among its rivals, zero where exchanged; carries
            the heat's gradient.
        gain: `B x K` real, by how much each raises the log-likelihood beside those before it, in nats.
        noise: `B` real, logarithm of the noise's share of the energy.
        cell: `B x K` int64, where in a plane of the dictionary each is.
    """

    parameters: Tensor
    sigma: Tensor
    log_power: Tensor
    log_chosen: Tensor
    gain: Tensor
    noise: Tensor
    cell: Tensor


def propose(heat: Tensor, data: Measurement, grid: FoldedGrid, lobe: Tensor, count: int) -> Proposals:
    """Add one source after the other, each beside those before it, and refine all after every addition; exchange one.

    A place is chosen by the gain in log-likelihood, with Gaussian symbols once a source is known, the density of
    sources there and the learned heat, all in nats. The choice is an index and carries no gradient; its weight
    among the other summits does.

    Args:
        heat: `B x R x V x H` real.
        data: the measurements.
        grid: the dictionary.
        lobe: `G x G` bool, main lobes; the heat of a lobe counts once.
        count: number of sources to propose.

    Returns:
        `Proposals`.
    """
    parts = [
        _proposed(heat[first : first + TOGETHER], data.only(slice(first, first + TOGETHER)), grid, lobe, count)
        for first in range(0, len(heat), TOGETHER)
    ]
    return Proposals(*(torch.cat([vars(part)[field.name] for part in parts]) for field in fields(Proposals)))


def _proposed(heat: Tensor, data: Measurement, grid: FoldedGrid, lobe: Tensor, count: int) -> Proposals:
    field = see(data, grid)
    added, weight = _added(heat, data, field, lobe, count)
    exchanged, weight = _exchanged(*_stepped(added, data), weight, data, field)
    now, _ = _stepped(exchanged, data)
    rank = now.powers.argsort(-1, descending=True)
    now = now.ranked(rank)
    end = linearise(fit_columns(now.place, now.columns, data, now.load), data)
    directions = grid.places.view(-1, heat.shape[2] * heat.shape[3], 3)[0, :, :2]
    return Proposals(
        now.place,
        _sigma(end.curvature, now.noise),
        now.powers.log().log_softmax(-1),
        weight.gather(1, rank),
        -_costs(now, data).diff(dim=0).mT,
        (now.noise * data.rows / data.energy).log(),
        torch.cdist(now.place[..., :2], directions).argmin(-1),
    )


@dataclass(frozen=True)
class _State:
    """Sources with powers of their own."""

    place: Tensor
    columns: Tensor
    powers: Tensor
    noise: Tensor

    @property
    def load(self) -> Tensor:
        """Noise over each power, `B x K`."""
        return self.noise[:, None] / self.powers

    def ranked(self, rank: Tensor) -> _State:
        """Return some of the sources in another order, `B x K` int64."""
        return _State(
            self.place.gather(1, rank[..., None].expand(-1, -1, 3)),
            self.columns.gather(3, rank[:, None, None].expand(-1, *self.columns.shape[1:3], -1)),
            self.powers.gather(1, rank),
            self.noise,
        )

    def where(self, chosen: Tensor, other: _State) -> _State:
        """Return this for the chosen scenes and the other one for the rest."""
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return _State(*(torch.where(chosen.view(-1, *[1] * (mine.ndim - 1)), mine, its) for mine, its in pairs))

    def joined(self, place: Tensor, data: Measurement) -> _State:
        """Return this with one more source, `B x 1 x 3`, of all the energy."""
        column = columns_at(place, data)
        return _State(
            torch.cat([self.place, place], 1),
            torch.cat([self.columns, column], -1),
            torch.cat([self.powers, data.energy[:, None] / power(column).sum((1, 2))], 1),
            self.noise,
        )


def _added(heat: Tensor, data: Measurement, field: Field, lobe: Tensor, count: int) -> tuple[_State, Tensor]:
    """Add sources one after the other; return them and the log weight of each choice, `B x K` real."""
    learned, known, now = heat.flatten(1), beside_nothing(data), _nothing(data)
    weights, taken = [], torch.zeros_like(learned, dtype=torch.bool)
    for _ in range(count):
        new, index, weight = _choice(learned.masked_fill(taken, 0.0), known, data, field)
        now, fitted = _stepped(now.joined(new, data), data)
        known, taken = beside_powers(fitted, now.powers, now.noise), taken | lobe[index]
        weights.append(weight)
    return now, torch.stack(weights, 1)


def _exchanged(now: _State, fitted: Fit, weight: Tensor, data: Measurement, field: Field) -> tuple[_State, Tensor]:
    """Move the source that promises most elsewhere, where all are likelier after a step; heat has no say in it."""
    known = beside_powers(fitted, now.powers, now.noise)
    places, _, _ = best_exchanges(now.place, known, data, field, 1)
    moved = (places[0] != now.place).any(-1)
    new = columns_at(places[0].gather(1, moved.int().argmax(1)[:, None, None].expand(-1, 1, 3)), data)
    powers = torch.where(moved, now.powers.amax(1, keepdim=True), now.powers)
    columns = torch.where(moved[:, None, None], new, now.columns)
    trial, after = _stepped(_State(places[0], columns, powers, now.noise), data)
    farther = (remoteness(trial.place, data.cfg) - remoteness(now.place, data.cfg)).sum(1)
    wins = after.cost - farther < fitted.cost - BETTER
    return trial.where(wins, now), weight.masked_fill(moved & wins[:, None], 0.0)


def _nothing(data: Measurement) -> _State:
    B, L, M = data.y.shape
    noise = data.energy / data.rows
    none = noise.new_zeros(B, 0)
    return _State(noise.new_zeros(B, 0, 3), data.y.new_zeros(B, L, M, 0), none, noise)


def _costs(now: _State, data: Measurement) -> Tensor:
    """Return minus the log-likelihood of the first 0, 1, … sources, symbols of one power, `K + 1 x B` real."""
    return torch.stack([deviance_of(now.columns[..., :k], data) for k in range(now.columns.shape[-1] + 1)])


def _stepped(now: _State, data: Measurement) -> tuple[_State, Fit]:
    """Take one joint step with symbols of the likeliest powers."""
    powers, noise = source_powers(now.columns, data, now.powers, now.noise, ROUNDS)
    now = replace(now, powers=powers, noise=noise)
    start = linearise(fit_columns(now.place, now.columns, data, now.load), data)
    after = improved(start, data, start.given_load(data))
    return replace(now, place=after.parameters, columns=after.columns), after


def _choice(heat: Tensor, known: Beside, data: Measurement, field: Field) -> tuple[Tensor, Tensor, Tensor]:
    """Return the place `B x 1 x 3`, its grid point `B` and the log weight `B` among the summits."""
    volume, _ = gain(known, data, field)
    # How many scenes have a source there, apart from what is learned.
    worth = heat + remoteness(field.grid.places, data.cfg)
    rivals = summits(volume + worth.view_as(volume), data.cfg.estimate.search_summits)
    places, gains = refined(field.grid.places[rivals], known, data)
    score = gains + worth.gather(1, rivals)
    best = score.argmax(-1, keepdim=True)
    place = places.gather(1, best[..., None].expand(-1, -1, 3))
    return place, rivals.gather(1, best)[:, 0], score.log_softmax(-1).gather(1, best)[:, 0]


def _sigma(curvature: Tensor, noise: Tensor) -> Tensor:
    size = torch.diagonal(curvature, dim1=-2, dim2=-1)
    eps, tiny = torch.finfo(size.dtype).eps, torch.finfo(size.dtype).tiny
    # A source without power says nothing of its place; what it lacks must not overflow into the others' figures.
    size = size.clamp_min(tiny**0.5).maximum(eps**2 * size.amax(-1, keepdim=True))
    root = size.rsqrt()
    scaled = curvature * root[:, None] * root[:, :, None] + 16 * eps * torch.eye(size.shape[1], device=size.device)
    variance = torch.diagonal(torch.linalg.inv_ex(scaled)[0], dim1=-2, dim2=-1).clamp_min(eps) / size
    sigma: Tensor = (0.5 * noise[:, None] * variance).sqrt().unflatten(-1, (-1, 3))
    return sigma
