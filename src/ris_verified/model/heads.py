"""The decoder that turns proposals into slots."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ris_verified.config import Config
from ris_verified.estimate.proposals import Proposals
from ris_verified.model.dictionary import Dictionary

# Coordinates and their sigmas, power, gain, loss and noise.
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
    """A decoder that counts and moves the proposals together.

    Args:
        cfg: reads `model`, `array.elements` and `scene.sources_max`.
    """

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        m, d = cfg.model, cfg.model.head_width
        self.sources, self.elements = cfg.scene.sources_max, cfg.array.elements
        self.embed = nn.Linear(m.channels + FACTS, d)
        self.context = nn.Linear(m.width, d)
        layer = nn.TransformerDecoderLayer(
            d, m.heads, 4 * d, m.dropout, nn.functional.gelu, batch_first=True, norm_first=True
        )
        self.decoder = nn.TransformerDecoder(layer, m.head_layers, nn.LayerNorm(d))
        self.refine = _mlp(d, d, 3)
        self.residual = _mlp(d, d, 4 * self.elements) if m.residual else None
        # A way of their own: among the pooled slots a score of figures would be learnt slowly.
        self.count = nn.Sequential(nn.Linear(4 * self.sources + 1, d), nn.GELU(), _mlp(d, 2 * d, self.sources))
        self.around = nn.Linear(2 * d, self.sources)

    def forward(self, feature_map: Tensor, tokens: Tensor, found: Proposals, dictionary: Dictionary) -> Slots:
        """Return the slots.

        Args:
            feature_map: `B x c x V x H` real.
            tokens: `B x T x d` real.
            found: the proposals.
            dictionary: gives the cell of a place and the scale of a coordinate.
        """
        facts = _facts(found, dictionary)
        cell = dictionary.cell_of(found.parameters)[:, None].expand(-1, feature_map.shape[1], -1)
        local = feature_map.float().flatten(2).gather(2, cell).mT
        memory = self.context(tokens)
        slots = self.decoder(self.embed(torch.cat([local, facts], -1)), memory)
        nats = torch.cat([found.gain, found.loss, found.promise], -1)
        evidence = torch.cat([_tamed(nats), found.log_power / 4, found.noise[:, :1]], -1)
        pooled = torch.cat([slots.mean(1), memory.mean(1)], -1)
        return Slots(
            # In units of one sigma: what is known well is not moved far.
            found.parameters + torch.minimum(found.sigma, dictionary.cell) * self.refine(slots).float(),
            found.log_share,
            self._residual(slots),
            (self.count(evidence) + self.around(pooled)).float(),
        )

    def _residual(self, slots: Tensor) -> Tensor | None:
        if self.residual is None:
            return None
        flat: Tensor = self.residual(slots)
        shaped: Tensor = flat.float().unflatten(-1, (2, self.elements, 2))
        return shaped


def _tamed(nats: Tensor) -> Tensor:
    return nats.asinh() / 2


def _facts(found: Proposals, dictionary: Dictionary) -> Tensor:
    """Return what is known of each proposal as numbers of about one, `B x K x FACTS` real."""
    scaled = found.parameters / dictionary.coordinates.abs().amax(0)
    width = (found.sigma / dictionary.cell).log().clamp(-WIDEST, WIDEST)
    single = torch.stack([found.log_power, _tamed(found.gain), _tamed(found.loss), found.noise], -1)
    return torch.cat([scaled, width, single], -1)
