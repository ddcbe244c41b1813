"""The heat that helps to propose sources, and the decoder that turns proposals into slots."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ris_verified.config import Config
from ris_verified.model.dictionary import Dictionary
from ris_verified.model.proposals import Proposals

# Coordinates and their sigmas, power, weight of the choice, gain and noise.
FACTS = 10
# Of the logarithm of a sigma over a cell.
WIDEST = 8.0


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


def _mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    last = nn.Linear(hidden, outputs)
    nn.init.normal_(last.weight, std=0.02 / hidden**0.5)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), last)


class Head(nn.Module):
    """Heat over the dictionary, and a decoder that counts and moves the proposals together.

    Args:
        cfg: reads `model`, `array.elements` and `scene.sources_max`.
    """

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        m, d = cfg.model, cfg.model.head_width
        self.sources, self.elements = cfg.scene.sources_max, cfg.array.elements
        self.cells = m.dictionary_range
        # One source has all the power: nothing is weighed against it, and no gradient would come back.
        alone = self.sources == 1
        self.heat = None if alone else nn.Conv2d(m.channels, m.dictionary_range, 1)
        if self.heat is not None:
            # Nothing is known better than by the measurements before something is learned.
            nn.init.zeros_(self.heat.weight)
        self.trust = None if alone else nn.Parameter(torch.tensor(0.3))
        self.embed = nn.Linear(m.channels + FACTS, d)
        self.context = nn.Linear(m.width, d)
        layer = nn.TransformerDecoderLayer(
            d, m.heads, 4 * d, m.dropout, nn.functional.gelu, batch_first=True, norm_first=True
        )
        self.decoder = nn.TransformerDecoder(layer, m.head_layers, nn.LayerNorm(d))
        self.refine = _mlp(d, d, 3)
        self.residual = _mlp(d, d, 4 * self.elements) if m.residual else None
        self.count = _mlp(2 * d + 2 * self.sources + 1, d, self.sources)

    def warm(self, feature_map: Tensor) -> Tensor:
        """Return the learned heat over the dictionary, `B x R x V x H` real; zero where one source is alone."""
        if self.heat is None:
            return feature_map.new_zeros(len(feature_map), self.cells, *feature_map.shape[2:])
        heat: Tensor = self.heat(feature_map)
        return heat

    def forward(self, feature_map: Tensor, tokens: Tensor, found: Proposals, dictionary: Dictionary) -> Slots:
        """Return the slots.

        Args:
            feature_map: `B x c x V x H` real.
            tokens: `B x T x d` real.
            found: the proposals.
            dictionary: gives the scale of a coordinate.
        """
        facts = _facts(found, dictionary)
        cell = found.cell[:, None].expand(-1, feature_map.shape[1], -1)
        local = feature_map.float().flatten(2).gather(2, cell).mT
        memory = self.context(tokens)
        slots = self.decoder(self.embed(torch.cat([local, facts], -1)), memory)
        trusted = 0.0 if self.trust is None else self.trust * found.log_chosen
        evidence = torch.cat([_tamed(found.gain), found.log_power, found.noise[:, None]], -1)
        pooled = torch.cat([slots.mean(1), memory.mean(1), evidence], -1)
        return Slots(
            # In units of one sigma: what is known well is not moved far.
            found.parameters + torch.minimum(found.sigma, dictionary.cell) * self.refine(slots).float(),
            (found.log_power + trusted).log_softmax(-1),
            self._residual(slots),
            self.count(pooled).float(),
        )

    def _residual(self, slots: Tensor) -> Tensor | None:
        if self.residual is None:
            return None
        flat: Tensor = self.residual(slots)
        shaped: Tensor = flat.float().unflatten(-1, (2, self.elements, 2))
        return shaped


def _tamed(gain: Tensor) -> Tensor:
    return gain.asinh()


def _facts(found: Proposals, dictionary: Dictionary) -> Tensor:
    """Return what is known of each proposal as numbers of about one, `B x K x FACTS` real."""
    scaled = found.parameters / dictionary.coordinates.abs().amax(0)
    width = (found.sigma / dictionary.cell).log().clamp(-WIDEST, WIDEST)
    noise = found.noise[:, None].expand_as(found.gain)
    single = torch.stack([found.log_power, found.log_chosen, _tamed(found.gain), noise], -1)
    return torch.cat([scaled, width, single], -1)
