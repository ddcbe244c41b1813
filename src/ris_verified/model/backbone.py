"""A convolution over the beam-space power, a transformer over its patches and one vector of all of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ris_verified.config import ModelConfig

PATCH = 4


class Patches(nn.Conv2d):
    """A convolution with a stride of its size, as one product of patches: half the time, forward and backward."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__(channels, width, PATCH, stride=PATCH)

    def forward(self, image: Tensor) -> Tensor:
        """Return a token for each patch, row after row, `B x P x width`.

        Args:
            image: `B x channels x V x H` real, V and H multiples of `PATCH`.
        """
        cut = image.unflatten(3, (-1, PATCH)).unflatten(2, (-1, PATCH)).permute(0, 2, 4, 1, 3, 5)
        return nn.functional.linear(cut.flatten(3).flatten(1, 2), self.weight.flatten(1), self.bias)


class Backbone(nn.Module):
    """From dictionary-grid features to a feature map and one vector of the scene.

    Args:
        inputs: number of feature channels.
        model: reads `channels`, `width`, `layers`, `heads`, `dropout` and the grid's size.
    """

    def __init__(self, inputs: int, model: ModelConfig) -> None:
        super().__init__()
        c, d = model.channels, model.width
        groups = 8 if c % 8 == 0 else 1
        self.stem = nn.Sequential(nn.Conv2d(inputs, c, 3, padding=1), nn.GroupNorm(groups, c), nn.GELU())
        self.patch = Patches(c, d)
        patches = (model.dictionary_elevation // PATCH) * (model.dictionary_azimuth // PATCH)
        self.position = nn.Parameter(torch.randn(patches, d) * 0.02)
        layer = nn.TransformerEncoderLayer(
            d, model.heads, 4 * d, model.dropout, nn.functional.gelu, batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, model.layers, nn.LayerNorm(d), enable_nested_tensor=False)
        # Most parameters are here, where each is used once a scene and not once a token.
        self.whole = nn.Sequential(nn.Linear(patches * d, 2 * d), nn.GELU(), nn.Linear(2 * d, d))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the feature map `B x c x V x H` and the context `B x d`.

        Args:
            features: `B x inputs x V x H` real.
        """
        feature_map = self.stem(features)
        tokens = self.encoder(self.patch(feature_map) + self.position)
        return feature_map, self.whole(tokens.flatten(1))
