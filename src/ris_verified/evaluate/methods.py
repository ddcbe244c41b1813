"""The ways of localising that an evaluation sets side by side."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ris_verified.covariance.blend import Blend
from ris_verified.data.batch import Batch
from ris_verified.estimate.result import Estimates, Peaks
from ris_verified.estimate.search import greedy_search
from ris_verified.pipeline import Pipeline
from ris_verified.shapes import from_ri

METHODS = {
    "music_R_samp": "(a) MUSIC on R_samp",
    "music_R_pred": "(b) MUSIC on R_pred",
    "music_R_blend": "(c) MUSIC on R_blend",
    "newton": "(d) R_blend, Newton",
    "mle": "(e) R_blend, Newton, NF-MLE",
    "classical": "(–) greedy search, NF-MLE, no learning",
}


@torch.no_grad()
def localised(pipeline: Pipeline, model: nn.Module, batch: Batch) -> tuple[dict[str, Peaks | Estimates], Blend, Tensor]:
    """Localise a batch in every way, with the true number of sources.

    Args:
        pipeline: its inference stages are used.
        model: in evaluation mode.
        batch: on the model's device.

    Returns:
        Estimates by method, the blend, and the order from the model's K head `B`.
    """
    cfg = pipeline.config
    outputs, blended = pipeline.infer(model, batch.y, batch.H, batch.C, batch.H_full)
    y, H_full, C = (from_ri(value).to(torch.complex128) for value in (batch.y, batch.H_full, batch.C))
    found: dict[str, Peaks | Estimates] = {
        "music_R_samp": pipeline.spectrum(blended.R_samp, batch.K, cfg),
        "music_R_pred": pipeline.spectrum(blended.R_pred, batch.K, cfg),
    }
    peaks = pipeline.spectrum(blended.R, batch.K, cfg)
    refined = pipeline.newton(blended.R, batch.K, peaks, cfg)
    found |= {"music_R_blend": peaks, "newton": refined, "mle": pipeline.mle(refined, y, H_full, C, cfg)}
    found["classical"] = pipeline.mle(greedy_search(y, H_full, C, batch.K, cfg), y, H_full, C, cfg)
    return found, blended, outputs.k_logits.argmax(-1) + 1
