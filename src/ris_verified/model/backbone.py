"""Convolutions over the beam-space power and a transformer over its patches."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ris_verified.config import ModelConfig

PATCH = 4


class ResidualBlock(nn.Module):
    """Two 3 × 3 convolutions with group normalisation around an identity path."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        groups = 8 if channels % 8 == 0 else 1
        self.body = nn.Sequential(
            nn.GroupNorm(groups, channels),
            nn.GELU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.GroupNorm(groups, channels),
            nn.GELU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map `B x c x V x H` to the same shape."""
        out: Tensor = x + self.body(x)
        return out


class Backbone(nn.Module):
    """From dictionary-grid features to a feature map and context tokens.

    Args:
        inputs: number of feature channels.
        model: reads `channels`, `width`, `layers`, `heads`, `dropout` and the grid's size.
    """

    def __init__(self, inputs: int, model: ModelConfig) -> None:
        super().__init__()
        c, d = model.channels, model.width
        self.stem = nn.Conv2d(inputs, c, 3, padding=1)
        self.fine = ResidualBlock(c)
        self.patch = nn.Conv2d(c, d, PATCH, stride=PATCH)
        patches = (model.dictionary_elevation // PATCH) * (model.dictionary_azimuth // PATCH)
        self.position = nn.Parameter(torch.randn(patches, d) * 0.02)
        layer = nn.TransformerEncoderLayer(
            d, model.heads, 4 * d, model.dropout, nn.functional.gelu, batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, model.layers, nn.LayerNorm(d), enable_nested_tensor=False)
        self.spread = nn.Sequential(nn.Conv2d(d, c * PATCH * PATCH, 1), nn.PixelShuffle(PATCH))
        self.merge = ResidualBlock(c)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the feature map `B x c x V x H` and the tokens `B x T x d`.

        Args:
            features: `B x inputs x V x H` real.
        """
        fine = self.fine(self.stem(features))
        coarse = self.patch(fine)
        tokens = self.encoder(coarse.flatten(2).mT + self.position)
        context = self.spread(tokens.mT.unflatten(-1, coarse.shape[-2:]))
        return self.merge(fine + context), tokens
