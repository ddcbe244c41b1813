"""The evaluation of trained weights on unseen scenes, written as JSON, Markdown and pictures."""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ris_verified.config import SceneConfig
from ris_verified.covariance.capture import subspace_capture
from ris_verified.data.dataset import SceneDataset
from ris_verified.evaluate.methods import METHODS, localised
from ris_verified.evaluate.metrics import Errors, summary
from ris_verified.evaluate.plots import draw_evaluation
from ris_verified.evaluate.table import to_markdown
from ris_verified.files import atomic_write
from ris_verified.pipeline import Pipeline
from ris_verified.shapes import from_ri

Progress = Callable[[int, int, str], None]
SCHEMA = "ris-verified-evaluation/1"
CHUNK = 50
SNR_WIDTH = 5.0


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Args:
        figures: the content of `evaluation.json`.
    """

    figures: dict[str, Any]


@dataclass(frozen=True)
class _Chunk:
    errors: dict[str, Errors]
    capture: dict[str, Tensor]
    head_order: Tensor
    residual_order: Tensor
    ptr: Tensor
    K: Tensor
    snr: Tensor


@torch.no_grad()
def _chunk(pipeline: Pipeline, model: nn.Module, start: nn.Module, dataset: SceneDataset, index: Tensor) -> _Chunk:
    cfg = pipeline.config
    batch, truth = pipeline.unpack(dataset.batch(index)), dataset.truth(index)
    found, blended, head_order = localised(pipeline, model, batch)
    y, H_full, C = (from_ri(value).to(torch.complex128) for value in (batch.y, batch.H_full, batch.C))
    azimuth, elevation, range = batch.ptr.double().unbind(-1)
    crb = pipeline.bound(
        azimuth, elevation, range, from_ri(truth.symbols).to(torch.complex128), H_full, C,
        truth.noise_variance.double(), cfg,
    )  # fmt: skip
    _, untrained = pipeline.forward(start, batch)
    matrices = {
        "R_samp": blended.R_samp,
        "R_pred": blended.R_pred,
        "R_blend": blended.R,
        "R_blend_untrained": untrained.R,
    }
    return _Chunk(
        {name: pipeline.metric(pipeline, estimate, batch.ptr, crb) for name, estimate in found.items()},
        {name: subspace_capture(R, batch.ptr, cfg.array) for name, R in matrices.items()},
        head_order, pipeline.order(y, H_full, C, cfg), batch.ptr, batch.K, batch.snr,
    )  # fmt: skip


def _joined(chunks: list[_Chunk]) -> _Chunk:
    def cat(pick: Callable[[_Chunk], Tensor]) -> Tensor:
        return torch.cat([pick(chunk) for chunk in chunks])

    def join(records: list[Errors]) -> Errors:
        return Errors(**{name: torch.cat([vars(record)[name] for record in records]) for name in vars(records[0])})

    merged = {name: join([chunk.errors[name] for chunk in chunks]) for name in chunks[0].errors}
    capture = {name: torch.cat([chunk.capture[name] for chunk in chunks]) for name in chunks[0].capture}
    return _Chunk(
        merged, capture, cat(lambda c: c.head_order), cat(lambda c: c.residual_order),
        cat(lambda c: c.ptr), cat(lambda c: c.K), cat(lambda c: c.snr),
    )  # fmt: skip


def _order(guess: Tensor, joined: _Chunk) -> dict[str, Any]:
    right = (guess == joined.K).double()
    by_K = {str(k): float(right[torch.eq(joined.K, k)].mean()) for k in joined.K.unique().tolist()}
    above = joined.snr >= 0
    return {
        "all": float(right.mean()),
        "at_least_0_db": float(right[above].mean()) if bool(above.any()) else None,
        "by_K": by_K,
    }


def _edges(lowest: float, highest: float) -> list[float]:
    # A range that is a multiple of the width but for rounding gets no sliver of a cell.
    count = max(1, math.ceil((highest - lowest) / SNR_WIDTH - 1e-9))
    return [*(lowest + SNR_WIDTH * i for i in range(count)), highest]


def _cells(joined: _Chunk, drawn: SceneConfig) -> list[dict[str, Any]]:
    edges = _edges(drawn.snr_db_min, drawn.snr_db_max)
    cells = []
    for K, (low, high) in itertools.product(range(drawn.sources_min, drawn.sources_max + 1), itertools.pairwise(edges)):
        below = torch.le if high == drawn.snr_db_max else torch.lt
        group = (joined.K == K) & (joined.snr >= low) & below(joined.snr, high)
        if not bool(group.any()):
            continue
        order = float((joined.head_order[group] == K).double().mean())
        residual = float((joined.residual_order[group] == K).double().mean())
        rows = {name: summary(e, joined.ptr, group) for name, e in joined.errors.items()}
        cells.append({"K": K, "snr_db": [low, high], "order_head": order, "order_residual": residual, "methods": rows})
    return cells


def _difference(first: Tensor, second: Tensor) -> dict[str, float | None]:
    """Return the mean difference of two figures of the same scenes, and its standard error."""
    apart = first.double() - second.double()
    error = float(apart.std() / len(apart) ** 0.5) if len(apart) > 1 else None
    return {"mean": float(apart.mean()), "standard_error": error}


def _differences(capture: dict[str, Tensor], errors: dict[str, Errors]) -> dict[str, Any]:
    return {
        "training_capture": _difference(capture["R_blend"], capture["R_blend_untrained"]),
        "blend_capture": _difference(capture["R_blend"], capture["R_pred"]),
        "learned_found": _difference(errors["mle"].found, errors["classical"].found),
    }


def _figures(joined: _Chunk, pipeline: Pipeline, drawn: SceneConfig, seconds: float) -> dict[str, Any]:
    everything = torch.ones_like(joined.K, dtype=torch.bool)
    return {
        "schema": SCHEMA,
        "config_hash": pipeline.config.digest(),
        "scenes": len(joined.K),
        "seconds": seconds,
        "subspace_capture": {name: float(value.mean()) for name, value in joined.capture.items()},
        "differences": _differences(joined.capture, joined.errors),
        "order_accuracy": {
            "head": _order(joined.head_order, joined),
            "residual": _order(joined.residual_order, joined),
        },
        "methods": {name: summary(e, joined.ptr, everything) for name, e in joined.errors.items()},
        "labels": METHODS,
        "cells": _cells(joined, drawn),
    }


def evaluate(
    pipeline: Pipeline, model: nn.Module, data: Path, out: Path, *, progress: Progress | None = None
) -> Evaluation:
    """Localise the test split in every way and compare with the truth and the bound.

    Args:
        pipeline: the stages and the configuration.
        model: trained weights; moved to the CPU and left in evaluation mode.
        data: folder written by `generate`; its test split is used.
        out: receives `evaluation.json`, `evaluation.md` and PNG pictures.
        progress: called with scenes done, scenes in all and a note.

    Returns:
        An `Evaluation`; `.figures` is what the JSON file holds.

    Raises:
        DataError: the data folder is missing, damaged or of another array or field of view.
        StorageError: a result could not be written.
    """
    began = time.perf_counter()
    dataset = SceneDataset(data, "test")
    dataset.require_physics(pipeline.config)
    model, start = model.cpu().eval(), pipeline.build_model(pipeline.config).eval()
    chunks = []
    for first in range(0, len(dataset), CHUNK):
        index = torch.arange(first, min(first + CHUNK, len(dataset)))
        chunks.append(_chunk(pipeline, model, start, dataset, index))
        if progress:
            progress(int(index[-1]) + 1, len(dataset), "localising")
    # The data's own ranges: weights may be judged on scenes of other SNRs than they were trained with.
    figures = _figures(_joined(chunks), pipeline, dataset.cfg.scene, time.perf_counter() - began)
    out.mkdir(parents=True, exist_ok=True)
    atomic_write(out / "evaluation.json", json.dumps(figures, indent=1, allow_nan=False).encode())
    atomic_write(out / "evaluation.md", to_markdown(figures).encode())
    draw_evaluation(figures, out / "evaluation.png")
    return Evaluation(figures)
