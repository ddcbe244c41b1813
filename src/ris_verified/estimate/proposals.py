"""Candidate sources, added one after the other where the likelihood and the density of sources together are highest."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from ris_verified.array.folded import folded
from ris_verified.config import Config, EstimateConfig
from ris_verified.estimate.beside import beside_nothing, beside_powers, deviance_of, loss_without
from ris_verified.estimate.candidates import best_exchanges, ranked_places
from ris_verified.estimate.descent import improved
from ris_verified.estimate.field import Field, see
from ris_verified.estimate.linearised import linearise
from ris_verified.estimate.measurement import Measurement, power
from ris_verified.estimate.parameters import remoteness
from ris_verified.estimate.powers import LEAST, source_powers
from ris_verified.estimate.projection import Fit, columns_at, fit_columns

# Range planes, elevations and azimuths of the grid.
GRID = (8, 10, 24)
# Of a packed proposal.
FIGURES = 11
# Nats at which a proposal is as likely noise as a source, and how softly.
DOUBTFUL, SOFT = 6.0, 4.0
# Scenes whose fields are held at once.
TOGETHER = 128
# Rounds of the powers.
ROUNDS = 3
# A place that promises fewer nats becomes no source.
HOPELESS = 3.0
# Of the strongest, the power below which a source stays where it is.
FADED = 1e-4
# The exchange is kept where it brings so many nats.
BETTER = 2.0


@dataclass(frozen=True)
class Proposals:
    """K_MAX places, the strongest first, refined jointly.

    Args:
        parameters: `B x K x 3` real, azimuth, elevation (rad), 1/range (1/m).
        sigma: `B x K x 3` real, their Cramér–Rao bounds, in their units.
        log_power: `B x K` real, logarithm of the share of power.
        gain: `B x K` real, by how much each raises the log-likelihood beside those before it, in nats.
        loss: `B x K` real, by how much the log-likelihood falls without each, in nats.
        promise: `B x K` real, gain that each promised when it was added, in that order, density included, in nats.
        noise: `B x K` real, logarithm of the noise's share of the energy, the same for all of a scene.
    """

    parameters: Tensor
    sigma: Tensor
    log_power: Tensor
    gain: Tensor
    loss: Tensor
    promise: Tensor
    noise: Tensor

    def packed(self) -> Tensor:
        """Return all in one, `B x K x 11` real."""
        single = torch.stack([self.log_power, self.gain, self.loss, self.promise, self.noise], -1)
        return torch.cat([self.parameters, self.sigma, single], -1)

    @property
    def log_share(self) -> Tensor:
        """Logarithm of each one's share of power, counted by how surely it is a source, `B x K` real.

        A place that is seldom seen may fit noise with much power: it must not rank before a source.
        """
        sure = torch.nn.functional.logsigmoid((self.loss - DOUBTFUL) / SOFT)
        return (self.log_power + sure).log_softmax(-1)

    @classmethod
    def of(cls, packed: Tensor) -> Proposals:
        """Return what `packed` was made of."""
        return cls(packed[..., :3], packed[..., 3:6], *packed[..., 6:].unbind(-1))


def propose(y: Tensor, H_full: Tensor, C: Tensor, cfg: Config) -> Proposals:
    """Add one source after the other, each beside those before it, and refine all after every addition; exchange one.

    A place is chosen by the gain in log-likelihood, with Gaussian symbols once a source is known, and the density of
    sources there, in nats. Where no place promises enough, the next best follow with hardly any power. What is
    proposed depends on the scene alone: the estimators' settings have no say in it.

    Args:
        y: `B x L x M` complex.
        H_full: `B x M x N` complex.
        C: `B x L x N` complex.
        cfg: reads `array` and `scene`.

    Returns:
        `Proposals`.
    """
    search = EstimateConfig()
    # At least as many places as there can be sources.
    search = replace(search, search_summits=max(search.search_summits, cfg.scene.sources_max))
    data = Measurement.of(y, H_full, C, replace(cfg, estimate=search))
    parts = [_proposed(data.only(slice(first, first + TOGETHER))) for first in range(0, len(y), TOGETHER)]
    return Proposals(*(torch.cat([vars(part)[field.name] for part in parts]) for field in fields(Proposals)))


def _proposed(data: Measurement) -> Proposals:
    field = see(data, folded(data.cfg.array, data.cfg.scene, GRID, data.y.real.dtype, data.y.device))
    now, promise = _added(data, field)
    now = _exchanged(*_stepped(now, data), data, field)
    now, _ = _stepped(now, data)
    now = now.ranked(now.powers.argsort(dim=-1, descending=True, stable=True))
    end = linearise(fit_columns(now.place, now.columns, data, now.load), data)
    log_power, gains = now.powers.log().log_softmax(-1), -_costs(now, data).diff(dim=0).mT
    noise = (now.noise * data.rows / data.energy).log()[:, None].expand_as(gains)
    losses = _losses(end, now.noise)
    return Proposals(now.place, _sigma(end.curvature, now.noise), log_power, gains, losses, promise, noise)


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

    def only(self, chosen: Tensor) -> _State:
        """Return some of the scenes."""
        return _State(*(value[chosen] for value in vars(self).values()))

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


def _added(data: Measurement, field: Field) -> tuple[_State, Tensor]:
    """Add sources one after the other; return K_MAX of them and what each promised, `B x K` real.

    Where no place promises enough, those that promise most follow with hardly any power.
    """
    most, energy = data.cfg.scene.sources_max, data.energy
    place, powers, promised = (energy.new_zeros(len(energy), most, *more) for more in ((3,), (), ()))
    noise, going = energy.clone(), torch.arange(len(energy), device=energy.device)
    known, now = beside_nothing(data), _nothing(data)
    part, left = data, field
    for count in range(most):
        places, promise = ranked_places(known, part, left)
        place[going, count:], promised[going, count:] = places[:, : most - count], promise[:, : most - count]
        hopeful = torch.nonzero((promise[:, 0] > HOPELESS) | (count == 0))[:, 0]
        if not len(hopeful):
            break
        if len(hopeful) < len(going):
            going, part, left, now = going[hopeful], part.only(hopeful), left.only(hopeful), now.only(hopeful)
        now, fitted = _stepped(now.joined(places[hopeful, :1], part), part)
        known = beside_powers(fitted, now.powers, now.noise)
        place[going, : count + 1], powers[going, : count + 1], noise[going] = now.place, now.powers, now.noise
    powers = powers.maximum(LEAST * powers.amax(1, keepdim=True))
    return _State(place, columns_at(place, data), powers, noise), promised


def _exchanged(now: _State, fitted: Fit, data: Measurement, field: Field) -> _State:
    """Move the source that promises most elsewhere, where all are likelier after a step."""
    known = beside_powers(fitted, now.powers, now.noise)
    places, _, _ = best_exchanges(now.place, known, data, field, 1)
    moved = (places[0] != now.place).any(-1)
    new = columns_at(places[0].gather(1, moved.int().argmax(1)[:, None, None].expand(-1, 1, 3)), data)
    powers = torch.where(moved, now.powers.amax(1, keepdim=True), now.powers)
    columns = torch.where(moved[:, None, None], new, now.columns)
    trial, after = _stepped(_State(places[0], columns, powers, now.noise), data)
    farther = (remoteness(trial.place, data.cfg) - remoteness(now.place, data.cfg)).sum(1)
    return trial.where(after.cost - farther < fitted.cost - BETTER, now)


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
    # Rounding alone would say where to one without power goes.
    after = improved(start, data, start.given_load(data), still=powers <= FADED * powers.amax(1, keepdim=True))
    return replace(now, place=after.parameters, columns=after.columns), after


def _losses(now: Fit, noise: Tensor) -> Tensor:
    """Return by how much the log-likelihood falls without each source, `B x K` real."""
    return loss_without(now.symbols, now.inverse_diagonal, noise[:, None, None], now.load[:, None]).sum(1)


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
