"""Somebody's network and loss as stages; `ris-verified audit --pipeline torch_pipeline:pipeline`."""

import dataclasses

import their_network
import torch
from torch import nn

import ris_verified as rv
from ris_verified.errors import InvariantError
from ris_verified.loss import terms
from ris_verified.loss.total import LossResult
from ris_verified.model.output import ModelOutput
from ris_verified.shapes import as_complex, to_ri


class Adapter(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        s, m, N = cfg.scene, cfg.model, cfg.array.elements
        view = s.azimuth_max, s.elevation_max, s.range_min, s.range_max
        self.backbone = their_network.Encoder(N, m.width, m.layers, m.heads, m.dropout)
        self.head = their_network.Decoder(N, s.sources_max, m.width, view)

    def forward(self, y, H, C, H_full):
        y, C, H_full = as_complex(y, "y", "B L M"), as_complex(C, "C", "B L N"), as_complex(H_full, "H_full", "B M N")
        fields, count, place = self.head(self.backbone((y @ H_full.conj()) * C.conj()))
        angle, distance = (to_ri(field).flatten(1) for field in fields.unbind(1))
        return ModelOutput(angle, distance, count, place[..., :2], place[..., 2])


def build_model(cfg):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(cfg.seed)
        return Adapter(cfg)


def loss(outputs, R_hat, batch, cfg, *, R_blend=None, training=True):
    if training and not R_hat.requires_grad:
        raise InvariantError("carries no gradient", where="R_hat", expected="a graph in training")
    R = R_hat if R_blend is None else R_blend
    U, kept = terms.true_subspace(batch.ptr, cfg.array)
    aligned, gap = terms.alignment(R, U.to(R.dtype)), terms.eigengap(R, batch.R_in, U.to(R.dtype), kept)
    error, count = their_network.matrix_loss(R, batch.R_in), their_network.count_loss(outputs.k_logits, batch.K)
    angle, far = terms.positions_error(outputs.angles, outputs.ranges, batch.ptr)
    values = {"covariance": error, "alignment": aligned, "eigengap": gap, "angle": angle, "range": far, "order": count}
    used = {name: value.mean() for name, value in values.items() if vars(cfg.loss)[name]}
    total = sum(vars(cfg.loss)[name] * value for name, value in used.items())
    return LossResult(total, {name: value.detach() for name, value in used.items()}, error.mean().detach())


pipeline = dataclasses.replace(rv.Pipeline.default(), build_model=build_model, loss=loss)
