"""Slips in unpacking, steering and covariances that the audited configuration's own scenes do not show."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ris_verified.array.steering import fresnel_steering
from ris_verified.audit.faults.fault import Fault, finite_only
from ris_verified.audit.faults.scenes import unpacking
from ris_verified.covariance.blend import Blend, BlendProof
from ris_verified.covariance.predicted import unpack_factor
from ris_verified.covariance.trace import trace_normalised
from ris_verified.pipeline import Pipeline


def _by_values(pipeline: Pipeline) -> Pipeline:
    def unpack(batch: Any, device: Any = "cpu") -> Any:
        return pipeline.unpack(tuple(batch.values())[:8] if isinstance(batch, Mapping) else batch, device)

    return dataclasses.replace(pipeline, unpack=unpack)


def _stays(pipeline: Pipeline) -> Pipeline:
    return dataclasses.replace(pipeline, unpack=lambda batch, device="cpu": pipeline.unpack(batch, "cpu"))


def _filled_in(pipeline: Pipeline) -> Pipeline:
    def unpack(batch: Any, device: Any = "cpu") -> Any:
        if isinstance(batch, Mapping) and "snr" not in batch:
            batch = {**batch, "snr": torch.zeros(len(batch["y"]))}
        return pipeline.unpack(batch, device)

    return dataclasses.replace(pipeline, unpack=unpack)


def _predicting(make: Any) -> Any:
    def plant(pipeline: Pipeline) -> Pipeline:
        def predicted(angle: Tensor, distance: Tensor, cfg: Any) -> Tensor:
            A = make(unpack_factor(angle, "angle", cfg), unpack_factor(distance, "range", cfg))
            return trace_normalised(A @ A.mH)

        return dataclasses.replace(pipeline, predicted_covariance=predicted)

    return plant


def _own_ridge(pipeline: Pipeline) -> Pipeline:
    def sample(y: Tensor, H: Tensor, C: Tensor, cfg: Any) -> Tensor:
        fixed = dataclasses.replace(cfg.covariance, ridge=type(cfg.covariance)().ridge)
        return pipeline.sample_covariance(y, H, C, dataclasses.replace(cfg, covariance=fixed))

    return dataclasses.replace(pipeline, sample_covariance=sample, inference_sample_covariance=sample)


def _unit_codes(pipeline: Pipeline) -> Pipeline:
    def sample(y: Tensor, H: Tensor, C: Tensor, cfg: Any) -> Tensor:
        return pipeline.sample_covariance(y, H, C / torch.linalg.vector_norm(C, dim=-1, keepdim=True), cfg)

    return dataclasses.replace(pipeline, sample_covariance=sample, inference_sample_covariance=sample)


def _mean_of_batch(pipeline: Pipeline) -> Pipeline:
    def sample(y: Tensor, H: Tensor, C: Tensor, cfg: Any) -> Tensor:
        R = pipeline.sample_covariance(y, H, C, cfg)
        return trace_normalised(0.9 * R + 0.1 * R.mean(0))

    return dataclasses.replace(pipeline, sample_covariance=sample, inference_sample_covariance=sample)


def _blended(pipeline: Pipeline, change: Any) -> Pipeline:
    def blend(P: Tensor, S: Tensor, cfg: Any) -> Blend:
        made: Blend = change(pipeline.blend(P, S, cfg), P, S, cfg.covariance)
        return made

    return dataclasses.replace(pipeline, blend=blend, inference_blend=blend)


def _lopsided(made: Blend, P: Tensor, S: Tensor, c: Any) -> Blend:
    R = trace_normalised(made.R_raw) + c.loading * torch.eye(P.shape[-1], dtype=P.dtype)
    return dataclasses.replace(made, R=trace_normalised(R))


def _fixed_beta(made: Blend, P: Tensor, S: Tensor, c: Any) -> Blend:
    raw = 0.7 * P + 0.3 * S.detach()
    R = trace_normalised(trace_normalised((raw + raw.mH) / 2) + c.loading * torch.eye(P.shape[-1], dtype=P.dtype))
    return dataclasses.replace(made, R=R, R_raw=raw)


class _Sure(BlendProof):
    @property
    def holds(self) -> Tensor:
        return torch.ones_like(self.moved, dtype=torch.bool)


class _SureBlend(Blend):
    @property
    def proof(self) -> BlendProof:
        return _Sure(**vars(Blend(**{f.name: vars(self)[f.name] for f in dataclasses.fields(self)}).proof))


def _sure(made: Blend, P: Tensor, S: Tensor, c: Any) -> Blend:
    return _SureBlend(**{f.name: vars(made)[f.name] for f in dataclasses.fields(made)})


def _printed_loading(made: Blend, P: Tensor, S: Tensor, c: Any) -> Blend:
    return dataclasses.replace(made, loading=10 * made.loading)


def _annealed(pipeline: Pipeline) -> Pipeline:
    calls = itertools.count()

    def blend(P: Tensor, S: Tensor, cfg: Any) -> Blend:
        late = next(calls) >= 100
        return pipeline.blend(P, S, cfg.replaced({"covariance.beta": cfg.covariance.beta / 2}) if late else cfg)

    return dataclasses.replace(pipeline, blend=blend, inference_blend=blend)


def _live_at_inference(pipeline: Pipeline) -> Pipeline:
    def blend(P: Tensor, S: Tensor, cfg: Any) -> Blend:
        made, c = pipeline.blend(P, S, cfg), cfg.covariance
        raw = (1 - c.beta) * P + c.beta * S
        R = trace_normalised((raw + raw.mH) / 2)
        R = trace_normalised(R + c.loading * torch.eye(P.shape[-1], dtype=P.dtype))
        return dataclasses.replace(made, R=R, R_raw=raw)

    return dataclasses.replace(pipeline, inference_blend=blend)


def _first_panel(pipeline: Pipeline) -> Pipeline:
    known: dict[tuple[int, int], Any] = {}

    def steer(array: Any, *place: Tensor) -> Tensor:
        kept = known.setdefault((array.horizontal, array.vertical), array)
        return pipeline.steering(dataclasses.replace(kept, amplitude=array.amplitude), *place)

    return dataclasses.replace(pipeline, steering=steer)


def _banded(pipeline: Pipeline) -> Pipeline:
    def steer(array: Any, azimuth: Any, elevation: Any, range: Any) -> Tensor:
        middle = ((range > 2) & (range < 6))[..., None]
        near = fresnel_steering(array, azimuth, elevation, range)
        return torch.where(middle, near, pipeline.inference_steering(array, azimuth, elevation, range))

    return dataclasses.replace(pipeline, inference_steering=steer)


def _double_always(pipeline: Pipeline) -> Pipeline:
    def steer(array: Any, *place: Tensor) -> Tensor:
        return pipeline.steering(array, *(v.double() for v in place))

    return dataclasses.replace(pipeline, steering=steer)


FAULTS = (
    Fault("dict_by_position", "RV1003", "the values of a dict are taken in their order", _by_values),
    Fault("device_ignored", "RV1003", "the batch stays where it is", _stays),
    Fault("snr_filled_in", "RV1003", "a missing SNR becomes 0 dB", _filled_in),
    Fault("missing_measured_as_zero", "RV1003", "nan_to_num on what arrives",
          unpacking(lambda b: dataclasses.replace(b, y=finite_only(b.y)))),
    Fault("snr_without_sign", "RV1003", "|SNR|", unpacking(lambda b: dataclasses.replace(b, snr=b.snr.abs()))),
    Fault("order_always_most", "RV1003", "K is read from the width of ptr",
          unpacking(lambda b: dataclasses.replace(b, K=torch.full_like(b.K, b.ptr.shape[1])))),
    Fault("range_factor_ignored", "RV0703", "A = A_angle", _predicting(lambda a, r: a)),
    Fault("range_factor_conjugated", "RV0703", "A = A_angle ⊙ A_range*", _predicting(lambda a, r: a * r.conj())),
    Fault("own_ridge", "RV0705", "the ridge is a number in the code", _own_ridge),
    Fault("codes_taken_for_unit", "RV0705", "a panel that loses power loses none", _unit_codes),
    Fault("mean_of_the_batch", "RV0705", "every scene gets a tenth of the batch's mean", _mean_of_batch),
    Fault("no_hermitian_part", "RV0803", "the sample is left unsymmetric", lambda p: _blended(p, _lopsided)),
    Fault("own_beta", "RV0803", "β is a number in the code", lambda p: _blended(p, _fixed_beta)),
    Fault("proof_always_holds", "RV0803", "the proof answers yes", lambda p: _blended(p, _sure)),
    Fault("other_epsilon_reported", "RV0803", "the ε in the result is not the one used",
          lambda p: _blended(p, _printed_loading)),
    Fault("beta_anneals", "RV0202", "a counter that nobody configures halves β", _annealed),
    Fault("sample_live_at_inference", "RV0803", "one of the two blends does not detach", _live_at_inference),
    Fault("fresnel_between_2_and_6_m", "RV0804", "an approximation in a band of ranges", _banded),
    Fault("positions_of_the_first_panel", "RV0804", "cached by the number of elements", _first_panel),
    Fault("positions_doubled_in_width", "RV0804", "float32 positions give complex128", _double_always),
)  # fmt: skip
