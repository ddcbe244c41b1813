"""Slips in spectrum, Newton, MLE and matching."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor

from ris_verified.array.geometry import to_cartesian
from ris_verified.audit.faults.fault import Fault
from ris_verified.estimate.match import Assignment
from ris_verified.estimate.result import Peaks
from ris_verified.pipeline import Pipeline


def _conjugate_subspace(pipeline: Pipeline) -> Pipeline:
    return dataclasses.replace(pipeline, spectrum=lambda R, K, cfg: pipeline.spectrum(R.conj().resolve_conj(), K, cfg))


def _noise_subspace(pipeline: Pipeline) -> Pipeline:
    def spectrum(R: Tensor, K: Tensor, cfg: Any) -> Peaks:
        N = R.shape[-1]
        return pipeline.spectrum(N * torch.eye(N, dtype=R.dtype) - R, K, cfg)

    return dataclasses.replace(pipeline, spectrum=spectrum)


def _axes_swapped(pipeline: Pipeline) -> Pipeline:
    def spectrum(R: Tensor, K: Tensor, cfg: Any) -> Peaks:
        peaks = pipeline.spectrum(R, K, cfg)
        return dataclasses.replace(peaks, azimuth=peaks.elevation, elevation=peaks.azimuth)

    return dataclasses.replace(pipeline, spectrum=spectrum)


def _inverse_range(pipeline: Pipeline) -> Pipeline:
    def newton(R: Tensor, K: Tensor, peaks: Peaks, cfg: Any) -> Peaks:
        refined = pipeline.newton(R, K, peaks, cfg)
        return dataclasses.replace(refined, range=1 / refined.range)

    return dataclasses.replace(pipeline, newton=newton)


def _newton_away(pipeline: Pipeline) -> Pipeline:
    def newton(R: Tensor, K: Tensor, peaks: Peaks, cfg: Any) -> Peaks:
        refined = pipeline.newton(R, K, peaks, cfg)
        return Peaks(*(2 * vars(peaks)[n] - vars(refined)[n] for n in ("azimuth", "elevation", "range")))

    return dataclasses.replace(pipeline, newton=newton)


def _unrefined(pipeline: Pipeline) -> Pipeline:
    def mle(peaks: Peaks, y: Tensor, H: Tensor, C: Tensor, cfg: Any) -> Any:
        found = pipeline.mle(peaks, y, H, C, cfg)
        return dataclasses.replace(found, azimuth=peaks.azimuth, elevation=peaks.elevation, range=peaks.range)

    return dataclasses.replace(pipeline, mle=mle)


def _wrong_codes(pipeline: Pipeline) -> Pipeline:
    def mle(peaks: Peaks, y: Tensor, H: Tensor, C: Tensor, cfg: Any) -> Any:
        return pipeline.mle(peaks, y, H, C.conj().resolve_conj(), cfg)

    return dataclasses.replace(pipeline, mle=mle)


def _prior_forgotten(pipeline: Pipeline) -> Pipeline:
    def mle(peaks: Peaks, y: Tensor, H: Tensor, C: Tensor, cfg: Any) -> Any:
        found, plain = pipeline.mle(peaks, y, H, C, cfg), cfg.replaced({"estimate.prior": "none"})
        return found if cfg == plain else pipeline.mle(peaks, y, H, C, plain)

    return dataclasses.replace(pipeline, mle=mle)


def _last_lost(pipeline: Pipeline) -> Pipeline:
    def mle(peaks: Peaks, y: Tensor, H: Tensor, C: Tensor, cfg: Any) -> Any:
        found = pipeline.mle(peaks, y, H, C, cfg)
        azimuth = found.azimuth.clone()
        azimuth[torch.arange(len(y)), torch.isfinite(azimuth).sum(-1).clamp_min(1) - 1] = torch.nan
        return dataclasses.replace(found, azimuth=azimuth)

    return dataclasses.replace(pipeline, mle=mle)


def _by_index(azimuth: Tensor, elevation: Tensor, range: Tensor, ptr: Tensor) -> Assignment:
    distance = (to_cartesian(azimuth, elevation, range) - to_cartesian(*ptr.unbind(-1))).norm(dim=-1)
    found, present = torch.isfinite(distance), torch.isfinite(ptr).all(-1)
    index = torch.where(found, torch.arange(distance.shape[1]), -1)
    return Assignment(index, distance, (present & ~found).sum(-1), (~present & found).sum(-1))


def _ratio_for_decibels(pipeline: Pipeline) -> Pipeline:
    def mle(peaks: Peaks, y: Tensor, H_full: Tensor, C: Tensor, cfg: Any) -> Any:
        least = cfg.estimate.mle_snr_threshold_db
        # The comparison 10^(SNR/10) ≥ threshold, written as one of decibels.
        fixed = 10 * math.log10(least) if least > 0 else -200.0
        return pipeline.mle(peaks, y, H_full, C, cfg.replaced({"estimate.mle_snr_threshold_db": fixed}))

    return dataclasses.replace(pipeline, mle=mle)


FAULTS = (
    Fault("threshold_in_ratios", "RV1204", "the SNR of a fit is a ratio, the limit decibels", _ratio_for_decibels),
    Fault("conjugate_subspace", "RV1602", "the subspace is conjugated: the mirror image is found", _conjugate_subspace),
    Fault("noise_subspace", "RV1602", "eigenvalues are sorted the other way", _noise_subspace),
    Fault("axes_of_the_grid_swapped", "RV1602", "the index is unravelled in another order", _axes_swapped),
    Fault("inverse_range_returned", "RV1602", "Newton works in 1/r and returns it", _inverse_range),
    Fault("newton_uphill", "RV1602", "the sign of Newton's step", _newton_away),
    Fault("mle_returns_its_start", "RV1204", "a step that is never accepted", _unrefined),
    Fault("mle_with_conjugate_codes", "RV1204", "Φ is formed with c*", _wrong_codes),
    Fault("prior_forgotten_in_mle", "RV1204", "the free symbols of an older estimator", _prior_forgotten),
    Fault("source_lost_in_mle", "RV1202", "a loop to K − 1", _last_lost),
    Fault("matched_by_index", "RV1603", "estimate i is compared with source i",
          lambda p: dataclasses.replace(p, match=_by_index)),
)  # fmt: skip
