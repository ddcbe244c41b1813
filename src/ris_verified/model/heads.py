"""Proposals on the dictionary and the slots that become sources."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ris_verified.config import Config
from ris_verified.model.beams import Beams
from ris_verified.model.dictionary import Dictionary


@dataclass(frozen=True)
class Slots:
    """What the head says of each of K_MAX candidate sources.

    Args:
        coordinates: `B x K_MAX x 3` real, azimuth, elevation (rad), 1/range (1/m).
        log_power: `B x K_MAX` real, log of the share of power, sums to one over slots.
        residual: `B x K_MAX x 2 x N x 2` real, what is added to the two factors, or None.
        k_logits: `B x K_MAX` real.
    """

    coordinates: Tensor
    log_power: Tensor
    residual: Tensor | None
    k_logits: Tensor


@dataclass(frozen=True)
class Proposals:
    """Places chosen one after the other, each beside those before it.

    Args:
        weights: `B x P x G` real, softmax of the heat within each chosen main lobe.
        peak: `B x P` real, heat at the chosen atom.
        share: `B x P x 2` real, logarithms of the share of the measurements' energy that the choice explains and
            of what is left before it.
    """

    weights: Tensor
    peak: Tensor
    share: Tensor


def propose(learned: Tensor, prior: Tensor, beams: Beams, lobe: Tensor, count: int) -> Proposals:
    """Choose the hottest atoms of distinct main lobes; after each choice the measurements are looked at beside it.

    The heat is the learned map plus `prior` times the standardised log gain. The choice is an index and carries no
    gradient; the weights do.

    Args:
        learned: `B x G` real.
        prior: scalar.
        beams: the measurements.
        lobe: `G x G` bool.
        count: number of proposals P.

    Returns:
        `Proposals`.
    """
    log = beams.log_gain()
    mean, deviation = log.mean(1, keepdim=True), log.std(1, keepdim=True)
    taken = torch.zeros_like(log, dtype=torch.bool)
    low, weights, peaks, shares = torch.finfo(learned.dtype).min, [], [], []
    for number in range(count):
        heat = learned + prior * (log - mean) / deviation
        index = heat.masked_fill(taken, low).argmax(-1)
        inside = lobe[index]
        taken = taken | inside
        weights.append(heat.masked_fill(~inside, low).softmax(-1))
        peaks.append(heat.gather(1, index[:, None])[:, 0])
        shares.append(torch.stack([log.gather(1, index[:, None])[:, 0], beams.log_left()], -1))
        if number + 1 < count:
            beams = beams.beside(index)
            log = beams.log_gain()
    return Proposals(torch.stack(weights, 1), torch.stack(peaks, 1), torch.stack(shares, 1))


def _mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    last = nn.Linear(hidden, outputs)
    nn.init.normal_(last.weight, std=0.02 / hidden**0.5)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), last)


class Head(nn.Module):
    """Heat over the dictionary, proposals from it, and a decoder that refines them together.

    Args:
        cfg: reads `model`, `array.elements` and `scene.sources_max`.
    """

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        m, d = cfg.model, cfg.model.head_width
        self.sources, self.elements = cfg.scene.sources_max, cfg.array.elements
        self.heat = nn.Conv2d(m.channels, m.dictionary_range, 1)
        self.prior = nn.Parameter(torch.tensor(1.0))
        self.embed = nn.Linear(m.channels + 6, d)
        self.context = nn.Linear(m.width, d)
        layer = nn.TransformerDecoderLayer(
            d, m.heads, 4 * d, m.dropout, nn.functional.gelu, batch_first=True, norm_first=True
        )
        self.decoder = nn.TransformerDecoder(layer, m.head_layers, nn.LayerNorm(d))
        self.refine = _mlp(d, d, 4)
        self.residual = _mlp(d, d, 4 * self.elements) if m.residual else None
        self.count = _mlp(2 * d, d, self.sources)

    def forward(self, feature_map: Tensor, tokens: Tensor, beams: Beams, dictionary: Dictionary) -> Slots:
        """Return the slots.

        Args:
            feature_map: `B x c x V x H` real.
            tokens: `B x T x d` real.
            beams: the measurements; their log gain is the heat's prior.
            dictionary: the atoms.
        """
        learned = self.heat(feature_map).float().flatten(1)
        with torch.autocast(learned.device.type, enabled=False):
            found = propose(learned, self.prior, beams, dictionary.lobe, self.sources)
        coarse = found.weights @ dictionary.coordinates
        plane = found.weights.unflatten(-1, (dictionary.shape[0], -1)).sum(2)
        local = plane @ feature_map.float().flatten(2).mT
        scaled = coarse / dictionary.coordinates.abs().amax(0)
        memory = self.context(tokens)
        peak = found.peak[..., None]
        slots = self.decoder(self.embed(torch.cat([local, scaled, peak, found.share], -1)), memory)
        shift, power = self.refine(slots).float().split((3, 1), -1)
        pooled = torch.cat([slots.mean(1), memory.mean(1)], -1)
        strength = (power + peak)[..., 0]
        return Slots(
            coarse + dictionary.cell * shift,
            strength.log_softmax(-1),
            self._residual(slots),
            self.count(pooled).float(),
        )

    def _residual(self, slots: Tensor) -> Tensor | None:
        if self.residual is None:
            return None
        flat: Tensor = self.residual(slots)
        shaped: Tensor = flat.float().unflatten(-1, (2, self.elements, 2))
        return shaped
