"""Slips that only some sizes, modes or slopes show: large batches, partial blocks, other modes, gradients."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ris_verified.audit.faults.fault import Fault, staged
from ris_verified.covariance.blend import Blend
from ris_verified.covariance.predicted import unpack_factor
from ris_verified.covariance.trace import gram_of_trace, trace_normalised
from ris_verified.pipeline import Pipeline

BLOCK, MANY = 16, 8192


def _both(stage: str, change: Callable[..., Any]) -> Callable[[Pipeline], Pipeline]:
    return lambda pipeline: staged(f"inference_{stage}", change)(staged(stage, change)(pipeline))


def _cut_to_eights(sound: Any, batch: Any, device: Any = "cpu") -> Any:
    made = sound(batch, device)
    kept = len(made) if len(made) < 8 else len(made) // 8 * 8
    return dataclasses.replace(made, **{name: value[:kept] for name, value in vars(made).items()})


class _Blocks(nn.Module):
    """A network that sees a last partial block as the last whole one."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, *given: Tensor) -> Any:
        B = len(given[0])
        if B <= BLOCK or B % BLOCK == 0:
            return self.body(*given)
        blocks = [*range(0, B - BLOCK + 1, BLOCK), B - BLOCK]
        parts = [self.body(*(value[first : first + BLOCK] for value in given)) for first in blocks]
        joined = {name: torch.cat([vars(part)[name] for part in parts])[:B] for name in vars(parts[0])}
        return dataclasses.replace(parts[0], **joined)


def _in_blocks(pipeline: Pipeline) -> Pipeline:
    build = pipeline.build_model
    return dataclasses.replace(pipeline, build_model=lambda cfg: _Blocks(build(cfg)))


def _low_precision(sound: Any, angle: Tensor, distance: Tensor, cfg: Any) -> Tensor:
    if len(angle) > 32:
        angle, distance = (f.bfloat16().to(f.dtype) for f in (angle, distance))
    covariance: Tensor = sound(angle, distance, cfg)
    return covariance


def _single_is_predicted(sound: Any, R_pred: Tensor, R_samp: Tensor, cfg: Any) -> Blend:
    made: Blend = sound(R_pred, R_samp, cfg)
    return made if len(R_pred) > 1 else dataclasses.replace(made, R=R_pred)


def _last_scene_twice(sound: Any, y: Tensor, H_full: Tensor, C: Tensor, cfg: Any) -> Tensor:
    R: Tensor = sound(y, H_full, C, cfg)
    return R if len(R) <= BLOCK or len(R) % BLOCK == 0 else torch.cat([R[:-1], R[-2:-1]])


def _partial_block(sound: Any, array: Any, azimuth: Tensor, elevation: Tensor, range: Tensor) -> Tensor:
    a: Tensor = sound(array, azimuth, elevation, range)
    flat = a.flatten(0, -2) if a.ndim > 1 else a[None]
    if len(flat) > MANY:
        flat[len(flat) // MANY * MANY :] = 1
    return a


def _elevation_is_constant(sound: Any, array: Any, azimuth: Tensor, elevation: Tensor, range: Tensor) -> Tensor:
    a: Tensor = sound(array, azimuth, torch.as_tensor(elevation).detach(), range)
    return a


def _unit_amplitude(sound: Any, array: Any, azimuth: Tensor, elevation: Tensor, range: Tensor) -> Tensor:
    a: Tensor = sound(dataclasses.replace(array, amplitude="unit"), azimuth, elevation, range)
    return a


def _weighted_twice(sound: Any, angle: Tensor, distance: Tensor, cfg: Any) -> Tensor:
    twice = cfg.covariance.sum_weight**0.5 if cfg.covariance.factor_mode == "sum" else 1.0
    covariance: Tensor = sound(angle, distance * twice, cfg)
    return covariance


def _real_afterwards(sound: Any, angle: Tensor, distance: Tensor, cfg: Any) -> Tensor:
    if cfg.covariance.factor_mode != "real":
        covariance: Tensor = sound(angle, distance, cfg)
        return covariance
    A = unpack_factor(angle, "angle", cfg) * unpack_factor(distance, "range", cfg)
    return trace_normalised(gram_of_trace(A).real.to(A.dtype))


def _straight_through(sound: Any, R_pred: Tensor, R_samp: Tensor, cfg: Any) -> Blend:
    made: Blend = sound(R_pred, R_samp, cfg)
    return dataclasses.replace(made, R=R_pred + (made.R - R_pred).detach())


def _falsy(sound: Any, R_pred: Tensor, R_samp: Tensor, cfg: Any) -> Blend:
    covariance = dataclasses.replace(cfg.covariance, beta=cfg.covariance.beta or 0.3)
    made: Blend = sound(R_pred, R_samp, dataclasses.replace(cfg, covariance=covariance))
    return made


def _floor_of_noise(sound: Any, cfg: Any, *key: Any) -> Any:
    scene = sound(cfg, *key)
    variance = max(scene.noise_variance, 0.015)
    noise = (scene.y - scene.y_clean) * (variance / scene.noise_variance) ** 0.5
    return dataclasses.replace(scene, y=scene.y_clean + noise, noise_variance=variance)


def _channel_of_a_block(sound: Any, y: Tensor, H_full: Tensor, *given: Any) -> Any:
    return sound(y, H_full[torch.arange(len(y)) % BLOCK], *given)


def _first_for_the_rest(sound: Any, *given: Any) -> Tensor:
    K: Tensor = sound(*given)
    return K if len(K) < 64 else torch.cat([K[:63], K[:1].expand(len(K) - 63)])


def _measurements_halved(sound: Any, peaks: Any, y: Tensor, *given: Any) -> Any:
    made = sound(peaks, y, *given)
    y.mul_(0.5)
    return made


FAULTS = (
    Fault("channel_modulo_a_block", "RV0202", "a buffer of sixteen channels",
          _both("sample_covariance", _channel_of_a_block)),
    Fault("order_of_the_first_scene", "RV0202", "scenes beyond a block of 64 are given its first one's order",
          staged("order", _first_for_the_rest)),
    Fault("measurements_written", "RV0202", "y is scaled in place", staged("mle", _measurements_halved)),
    Fault("batch_cut_to_eights", "RV0202", "the last scenes of a batch are lost", staged("unpack", _cut_to_eights)),
    Fault("last_block_again", "RV0202", "a partial block is padded at the wrong end", _in_blocks),
    Fault("half_precision_for_many", "RV0202", "large batches are judged on rounded factors",
          staged("inference_predicted_covariance", _low_precision)),
    Fault("single_scene_unblended", "RV0202", "squeezed and left as it was",
          staged("inference_blend", _single_is_predicted)),
    Fault("last_scene_is_its_neighbour", "RV0202", "the remainder is off by one",
          _both("sample_covariance", _last_scene_twice)),
    Fault("last_block_of_ones", "RV0804", "the last block keeps what it was allocated as",
          _both("steering", _partial_block)),
    Fault("elevation_without_slope", "RV0804", "its sine is kept from a pass without graph",
          staged("steering", _elevation_is_constant)),
    Fault("amplitude_unread", "RV0804", "the decay of a spherical wave is not there",
          _both("steering", _unit_amplitude)),
    Fault("sum_weight_squared", "RV0703", "the factor is weighed, and then the matrix",
          _both("predicted_covariance", _weighted_twice)),
    Fault("real_part_of_the_matrix", "RV0703", "of the product instead of the factor",
          _both("predicted_covariance", _real_afterwards)),
    Fault("straight_through_blend", "RV0502", "right values with the slope of R_pred",
          staged("blend", _straight_through)),
    Fault("beta_of_zero_is_missing", "RV0803", "`beta or 0.3`", staged("blend", _falsy)),
    Fault("noise_floor_unstated", "RV1004", "the receiver's noise is in y and not in the SNR",
          staged("draw_scene", _floor_of_noise)),
)  # fmt: skip
