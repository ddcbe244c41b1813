"""Proposals on the dictionary and the slots that become sources."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ris_verified.config import Config
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


def propose(heat: Tensor, lobe: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Choose the strongest atoms of distinct main lobes and the weights inside each lobe.

    The choice is an index and carries no gradient; the weights, a softmax of the heat within the
    chosen lobe, do.

    Args:
        heat: `B x G` real.
        lobe: `G x G` bool.
        count: number of proposals P.

    Returns:
        indices `B x P` int64 and weights `B x P x G` real, each row summing to one.
    """
    left, indices, weights = heat, [], []
    low = torch.finfo(heat.dtype).min
    for _ in range(count):
        index = left.argmax(-1)
        inside = lobe[index]
        left = left.masked_fill(inside, low)
        indices.append(index)
        weights.append(heat.masked_fill(~inside, low).softmax(-1))
    return torch.stack(indices, 1), torch.stack(weights, 1)


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
        self.embed = nn.Linear(m.channels + 4, d)
        self.context = nn.Linear(m.width, d)
        layer = nn.TransformerDecoderLayer(
            d, m.heads, 4 * d, m.dropout, nn.functional.gelu, batch_first=True, norm_first=True
        )
        self.decoder = nn.TransformerDecoder(layer, m.head_layers, nn.LayerNorm(d))
        self.refine = _mlp(d, d, 4)
        self.residual = _mlp(d, d, 4 * self.elements) if m.residual else None
        self.count = _mlp(2 * d, d, self.sources)

    def forward(self, feature_map: Tensor, tokens: Tensor, log_power: Tensor, dictionary: Dictionary) -> Slots:
        """Return the slots.

        Args:
            feature_map: `B x c x V x H` real.
            tokens: `B x T x d` real.
            log_power: `B x R x V x H` real, standardised log beam power, the heat's prior.
            dictionary: the atoms.
        """
        heat = (self.heat(feature_map).float() + self.prior * log_power).flatten(1)
        indices, weights = propose(heat, dictionary.lobe, self.sources)
        coarse = weights @ dictionary.coordinates
        plane = weights.unflatten(-1, (dictionary.shape[0], -1)).sum(2)
        local = plane @ feature_map.float().flatten(2).mT
        peak = heat.gather(1, indices)[..., None]
        scaled = coarse / dictionary.coordinates.abs().amax(0)
        memory = self.context(tokens)
        slots = self.decoder(self.embed(torch.cat([local, scaled, peak], -1)), memory)
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
