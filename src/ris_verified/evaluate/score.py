"""The single number by which trials and checkpoints are compared: localisation."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from ris_verified.data.batch import Batch
from ris_verified.estimate.result import Peaks
from ris_verified.mode import evaluating
from ris_verified.pipeline import Pipeline
from ris_verified.shapes import from_ri

CAP = 1.0


@torch.no_grad()
def localisation_score(pipeline: Pipeline, model: nn.Module, batches: Iterable[Batch]) -> float:
    """Return the mean over true sources of min(position error, 1 m); a missed source counts 1 m.

    The search is MUSIC on R_blend with near-field Newton and NF-MLE where they are on, K from the K
    head: everything that a study samples can move the score.

    Args:
        pipeline: its inference stages are used.
        model: any mode; that of each part is restored afterwards.
        batches: unseen scenes, on the model's device.

    Returns:
        A number in [0, 1], lower is better.
    """
    total, sources = 0.0, 0
    with evaluating(model):
        for batch in batches:
            peaks = _peaks(pipeline, model, batch)
            pairs = pipeline.match(peaks.azimuth, peaks.elevation, peaks.range, batch.ptr)
            present = torch.isfinite(batch.ptr).all(-1)
            error = torch.nan_to_num(pairs.distance, nan=CAP).clamp_max(CAP)
            total += float(error[present].sum())
            sources += int(present.sum())
    return total / max(sources, 1)


def _peaks(pipeline: Pipeline, model: nn.Module, batch: Batch) -> Peaks:
    cfg = pipeline.config
    outputs, blended = pipeline.infer(model, batch.y, batch.H, batch.C, batch.H_full)
    R, K = blended.R, outputs.k_logits.argmax(-1) + 1
    peaks = pipeline.spectrum(R, K, cfg)
    if cfg.estimate.newton_nearfield:
        peaks = pipeline.newton(R, K, peaks, cfg)
    return _refined(pipeline, peaks, batch) if cfg.estimate.mle else peaks


def _refined(pipeline: Pipeline, peaks: Peaks, batch: Batch) -> Peaks:
    y, H_full, C = (from_ri(value).to(torch.complex128) for value in (batch.y, batch.H_full, batch.C))
    found = pipeline.mle(peaks, y, H_full, C, pipeline.config)
    return Peaks(found.azimuth, found.elevation, found.range)
