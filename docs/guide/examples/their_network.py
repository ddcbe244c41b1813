"""Somebody's network and loss: plain PyTorch with its own shapes and names, written without this library in mind."""

import torch
from torch import nn
from torch.nn import functional


class Encoder(nn.Module):
    """Back-projected snapshots, B x L x N complex, as tokens of a transformer, to one vector a scene."""

    def __init__(self, elements, width, layers, heads, dropout):
        super().__init__()
        self.embed = nn.Linear(2 * elements, width)
        layer = nn.TransformerEncoderLayer(width, heads, 4 * width, dropout, "gelu", batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)

    def forward(self, field):
        scaled = field / field.abs().mean((1, 2), keepdim=True)
        return self.layers(self.embed(torch.view_as_real(scaled).flatten(2))).mean(1)


class Decoder(nn.Module):
    """One vector a scene to two fields per source, their number and their places within the view."""

    def __init__(self, elements, sources, width, view):
        super().__init__()
        self.elements, self.sources, self.view = elements, sources, view
        self.fields = nn.Linear(width, 2 * elements * sources * 2)
        self.count = nn.Linear(width, sources)
        self.places = nn.Linear(width, 3 * sources)

    def forward(self, code):
        fields = self.fields(code).unflatten(1, (2, self.elements, self.sources, 2))
        azimuth_max, elevation_max, near, far = self.view
        x, y, z = torch.sigmoid(self.places(code)).unflatten(1, (3, self.sources)).unbind(1)
        place = torch.stack([(2 * x - 1) * azimuth_max, (2 * y - 1) * elevation_max, near + z * (far - near)], -1)
        return torch.view_as_complex(fields.contiguous()), self.count(code), place


def matrix_loss(found, wanted):
    """Relative squared Frobenius distance, one number a scene."""
    return (found - wanted).abs().square().sum((1, 2)) / wanted.abs().square().sum((1, 2))


def count_loss(logits, count):
    """Cross-entropy of the number of sources, counted from one."""
    return functional.cross_entropy(logits, count - 1)
