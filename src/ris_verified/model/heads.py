"""The layers that turn proposals into slots."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ris_verified.config import Config
from ris_verified.estimate.proposals import Proposals
from ris_verified.model.dictionary import Dictionary
from ris_verified.model.warm_start import begin_at_likelihood

# Of a proposal: coordinates and their sigmas; gain, loss, promise, power and noise, which tell how many there are.
FACTS, EVIDENCE = 11, 5
# Width of the layers that count.
COUNTING = 192
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


class ResidualBlock(nn.Module):
    """Two layers of one width after a normalisation, around an identity path."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width), nn.Dropout(dropout)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map `B x d` to the same shape."""
        out: Tensor = x + self.body(x)
        return out


class Head(nn.Module):
    """Layers that count and move all proposals together.

    Args:
        cfg: reads `model`, `array.elements` and `scene.sources_max`.
    """

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        m, d = cfg.model, cfg.model.head_width
        self.sources, self.elements = cfg.scene.sources_max, cfg.array.elements
        # The strongest comes first, so a place in the vector means the same in every scene.
        self.embed = nn.Linear(self.sources * (m.channels + FACTS) + m.width, d)
        self.joint = nn.Sequential(*(ResidualBlock(d, m.dropout) for _ in range(m.head_layers)))
        self.norm = nn.LayerNorm(d)
        self.refine = _last(d, 3 * self.sources)
        self.residual = _last(d, 4 * self.elements * self.sources) if m.residual else None
        self.around = _last(d, self.sources)
        # A way of their own: among the features of the scene a score of figures would be learnt slowly.
        layers = nn.Linear(self.sources * EVIDENCE, COUNTING), nn.Linear(COUNTING, COUNTING)
        last = _last(COUNTING, self.sources)
        begin_at_likelihood(*layers, last, EVIDENCE)
        self.count = nn.Sequential(layers[0], nn.GELU(), layers[1], nn.GELU(), last)

    def forward(self, feature_map: Tensor, context: Tensor, found: Proposals, dictionary: Dictionary) -> Slots:
        """Return the slots.

        Args:
            feature_map: `B x c x V x H` real.
            context: `B x d` real.
            found: the proposals.
            dictionary: gives the cell of a place and the scale of a coordinate.
        """
        facts = _facts(found, dictionary)
        cell = dictionary.cell_of(found.parameters)[:, None].expand(-1, feature_map.shape[1], -1)
        local = feature_map.flatten(2).gather(2, cell)
        given = torch.cat([local.flatten(1), facts.flatten(1), context], -1)
        joint = self.norm(self.joint(self.embed(given)))
        moves = self.refine(joint).float().unflatten(-1, (self.sources, 3))
        return Slots(
            # In units of one sigma: what is known well is not moved far.
            found.parameters + torch.minimum(found.sigma, dictionary.cell) * moves,
            found.log_share,
            self._residual(joint),
            (self.count(facts[..., -EVIDENCE:].flatten(1)) + self.around(joint)).float(),
        )

    def _residual(self, joint: Tensor) -> Tensor | None:
        if self.residual is None:
            return None
        flat: Tensor = self.residual(joint)
        shaped: Tensor = flat.float().unflatten(-1, (self.sources, 2, self.elements, 2))
        return shaped


def _last(inputs: int, outputs: int) -> nn.Linear:
    """Return a layer that begins near zero."""
    last = nn.Linear(inputs, outputs)
    nn.init.normal_(last.weight, std=0.02 / inputs**0.5)
    nn.init.zeros_(last.bias)
    return last


def _facts(found: Proposals, dictionary: Dictionary) -> Tensor:
    """Return what is known of each proposal as numbers of about one, `B x K x FACTS` real."""
    scaled = found.parameters / dictionary.coordinates.abs().amax(0)
    width = (found.sigma / dictionary.cell).log().clamp(-WIDEST, WIDEST)
    nats = torch.stack([found.gain, found.loss, found.promise], -1).asinh() / 2
    shares = torch.stack([found.log_power / 4, found.noise], -1)
    return torch.cat([scaled, width, nats, shares], -1)
