"""Slips in the covariances and the blend."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from ris_verified.audit.faults.fault import Fault
from ris_verified.covariance.blend import Blend
from ris_verified.covariance.predicted import unpack_factor
from ris_verified.covariance.trace import trace_normalised
from ris_verified.pipeline import Pipeline


def _configured(pipeline: Pipeline, **changes: Any) -> Pipeline:
    covariance = dataclasses.replace(pipeline.config.covariance, **changes)
    return dataclasses.replace(pipeline, config=dataclasses.replace(pipeline.config, covariance=covariance))


def _sampling(pipeline: Pipeline, change: Any, both: bool = True) -> Pipeline:
    def sample(y: Tensor, H_full: Tensor, C: Tensor, cfg: Any) -> Tensor:
        changed: Tensor = change(pipeline.sample_covariance, y, H_full, C, cfg)
        return changed

    changed = dataclasses.replace(pipeline, inference_sample_covariance=sample)
    return dataclasses.replace(changed, sample_covariance=sample) if both else changed


def _other(cfg: Any, **changes: Any) -> Any:
    return dataclasses.replace(cfg, covariance=dataclasses.replace(cfg.covariance, **changes))


def _wrong_conjugate(pipeline: Pipeline) -> Pipeline:
    return _sampling(pipeline, lambda f, y, H, C, cfg: f(y, H, C, cfg).conj().resolve_conj())


def _not_centred(pipeline: Pipeline) -> Pipeline:
    return _sampling(pipeline, lambda f, y, H, C, cfg: f(y, H, C, _other(cfg, centre=False)))


def _no_ridge(pipeline: Pipeline) -> Pipeline:
    return _sampling(pipeline, lambda f, y, H, C, cfg: f(y, H, C, _other(cfg, ridge=100 * cfg.covariance.ridge)))


def _inference_ridge(pipeline: Pipeline) -> Pipeline:
    change = lambda f, y, H, C, cfg: f(y, H, C, _other(cfg, ridge=10 * cfg.covariance.ridge))  # noqa: E731
    return _sampling(pipeline, change, both=False)


def _energy(y: Tensor) -> Tensor:
    return y.abs().square().flatten(1).sum(1)[:, None, None]


def _no_trace(pipeline: Pipeline) -> Pipeline:
    return _sampling(pipeline, lambda f, y, H, C, cfg: f(y, H, C, cfg) * _energy(y).detach())


def _live_sample(pipeline: Pipeline) -> Pipeline:
    return _sampling(pipeline, lambda f, y, H, C, cfg: f(y, H, C, cfg) * (_energy(y) / _energy(y).detach()))


def _any_shape(pipeline: Pipeline) -> Pipeline:
    def cut(f: Any, y: Tensor, H: Tensor, C: Tensor, cfg: Any) -> Tensor:
        L = min(y.shape[1], C.shape[1])
        M = min(y.shape[2], H.shape[1])
        return torch.as_tensor(f(y[:, :L, :M], H[:, :M], C[:, :L], cfg))

    return _sampling(pipeline, cut)


def _sixteen(pipeline: Pipeline) -> Pipeline:
    def fixed(f: Any, y: Tensor, H: Tensor, C: Tensor, cfg: Any) -> Tensor:
        return torch.as_tensor(f(y.reshape(-1, 16, 16, 2), H, C, cfg))

    return _sampling(pipeline, fixed)


def _changing(pipeline: Pipeline, change: Any) -> Pipeline:
    def predicted(angle: Tensor, distance: Tensor, cfg: Any) -> Tensor:
        changed: Tensor = change(pipeline.predicted_covariance, angle, distance, cfg)
        return changed

    return dataclasses.replace(pipeline, predicted_covariance=predicted)


def _transpose(pipeline: Pipeline) -> Pipeline:
    def symmetric(f: Any, angle: Tensor, distance: Tensor, cfg: Any) -> Tensor:
        A = unpack_factor(angle, "angle", cfg) * unpack_factor(distance, "range", cfg)
        return trace_normalised(A @ A.mT)

    return _changing(pipeline, symmetric)


def _untraced(pipeline: Pipeline) -> Pipeline:
    return _changing(pipeline, lambda f, angle, distance, cfg: f(angle, distance, cfg) * (1 + _energy(angle)))


def _full_rank(pipeline: Pipeline) -> Pipeline:
    def loaded(f: Any, angle: Tensor, distance: Tensor, cfg: Any) -> Tensor:
        R = f(angle, distance, cfg)
        return trace_normalised(R + 0.01 * torch.eye(R.shape[-1], dtype=R.dtype))

    return _changing(pipeline, loaded)


def _mirrored(pipeline: Pipeline) -> Pipeline:
    return _configured(pipeline, factor_mode="real")


def _source_major(pipeline: Pipeline) -> Pipeline:
    def regrouped(f: Any, angle: Tensor, distance: Tensor, cfg: Any) -> Tensor:
        N, K = cfg.array.elements, cfg.scene.sources_max
        turned = [factor.unflatten(-1, (K, N, 2)).transpose(1, 2).flatten(1) for factor in (angle, distance)]
        return torch.as_tensor(f(*turned, cfg))

    return _changing(pipeline, regrouped)


def _blending(pipeline: Pipeline, change: Any, both: bool = True) -> Pipeline:
    def blend(R_pred: Tensor, R_samp: Tensor, cfg: Any) -> Blend:
        changed: Blend = change(pipeline.blend, R_pred, R_samp, cfg)
        return changed

    changed = dataclasses.replace(pipeline, inference_blend=blend)
    return dataclasses.replace(changed, blend=blend) if both else changed


def _swapped(f: Any, P: Tensor, S: Tensor, cfg: Any) -> Any:
    made = f(P, S, _other(cfg, beta=1 - cfg.covariance.beta))
    return dataclasses.replace(made, beta=cfg.covariance.beta)


def _attached(f: Any, P: Tensor, S: Tensor, cfg: Any) -> Any:
    made, b, e = f(P, S, cfg), cfg.covariance.beta, cfg.covariance.loading
    raw = (1 - b) * P + b * S
    R = trace_normalised(trace_normalised(raw) + e * torch.eye(P.shape[-1], dtype=P.dtype))
    return dataclasses.replace(made, R=R, R_raw=raw)


def _loaded_raw(f: Any, P: Tensor, S: Tensor, cfg: Any) -> Any:
    made = f(P, S, cfg)
    return dataclasses.replace(made, R_raw=made.R)


def _alone(f: Any, P: Tensor, S: Tensor, cfg: Any) -> Any:
    made = f(P, P.detach(), cfg)
    return dataclasses.replace(made, R_samp=S.detach())


def _other_sample(f: Any, P: Tensor, S: Tensor, cfg: Any) -> Any:
    return dataclasses.replace(f(P, S, cfg), R_samp=S.detach().mT)


FAULTS = (
    Fault("wrong_conjugate_in_sample", "RV0705", "X̂ᴴX̂ for X̂ᵀX̂*: the mirrored scene", _wrong_conjugate),
    Fault("snapshots_not_centred", "RV0705", "the mean is computed and not subtracted", _not_centred),
    Fault("ridge_times_hundred", "RV0705", "α is taken relative to tr G instead of tr G/N", _no_ridge),
    Fault("other_ridge_at_inference", "RV0802", "inference keeps its own default", _inference_ridge),
    Fault("sample_without_trace", "RV0801", "the average over snapshots is left unscaled", _no_trace),
    Fault("sample_with_graph", "RV0501", "no_grad is missing around the least squares", _live_sample),
    Fault("any_shape_accepted", "RV0707", "arguments are cut to the shorter one", _any_shape),
    Fault("sixteen_hard_coded", "RV0202", "y is reshaped to 16 × 16", _sixteen),
    Fault("transpose_for_conjugate", "RV0704", "A Aᵀ of complex factors", _transpose),
    Fault("prediction_without_trace", "RV0801", "R_pred is left unscaled", _untraced),
    Fault("prediction_of_full_rank", "RV1303", "a multiple of I is added for stability", _full_rank),
    Fault("real_factors", "RV0704", "the imaginary parts are dropped", _mirrored),
    Fault("source_major_factors", "RV0703", "factors are read source by source", _source_major),
    Fault("swapped_beta", "RV0803", "β weighs the prediction", lambda p: _blending(p, _swapped)),
    Fault("swapped_beta_in_the_spectrum", "RV1307", "β weighs the prediction", lambda p: _blending(p, _swapped)),
    Fault("blend_without_detach", "RV0501", "R_samp enters the graph", lambda p: _blending(p, _attached)),
    Fault("c_eps_of_one", "RV0803", "C_EPS = 1.0 from the old checklist", lambda p: _configured(p, loading=1.0)),
    Fault("c_eps_doubled", "RV1304", "ε of 0.002 rounds to another print", lambda p: _configured(p, loading=2e-3)),
    Fault("raw_after_loading", "RV1305", "the norm is taken after loading", lambda p: _blending(p, _loaded_raw)),
    Fault("proof_of_another_matrix", "RV0302", "R_raw is the loaded matrix", lambda p: _blending(p, _loaded_raw)),
    Fault("sample_ignored", "RV1305", "the prediction is blended with itself", lambda p: _blending(p, _alone)),
    Fault("norms_of_another_blend", "RV1306", "the sample reported is not the one blended",
          lambda p: _blending(p, _other_sample)),
    Fault("equal_weights_at_inference", "RV0802", "inference blends half and half",
          lambda p: _blending(p, lambda f, P, S, c: f(P, S, _other(c, beta=0.5)), both=False)),
    Fault("result_without_beta", "RV0301", "inference reports β = 0",
          lambda p: _blending(p, lambda f, P, S, c: dataclasses.replace(f(P, S, c), beta=0.0), both=False)),
    Fault("prediction_detached", "RV0502", "both halves are detached",
          lambda p: _blending(p, lambda f, P, S, c: f(P.detach(), S, c))),
)  # fmt: skip
