"""Localisation over SNR, number of sources, range, separation and model mismatch, with intervals."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from ris_verified.evaluate.axes import Axes, Cell
from ris_verified.evaluate.cell import bounds, figures, localised, prepared
from ris_verified.evaluate.interval import CONFIDENCE
from ris_verified.evaluate.sweep_plots import draw_mismatch, draw_rmse
from ris_verified.evaluate.sweep_table import to_csv, to_markdown
from ris_verified.evaluate.view import draw_map, draw_spectrum, error_map, spectrum_view
from ris_verified.files import atomic_write, require_folder
from ris_verified.pipeline import Pipeline

Progress = Callable[[int, int, str], None]
SCHEMA = "ris-verified-sweep/1"
BOOTSTRAP = 6
LABELS = {"classical": "greedy search, NF-MLE, no learning", "learned": "MUSIC on R_blend, Newton, NF-MLE"}


def _cell(pipeline: Pipeline, models: dict[str, nn.Module | None], cell: Cell, axes: Axes) -> dict[str, Any]:
    scenes = prepared(pipeline, [cell.scene(pipeline.config, index) for index in range(axes.cell_scenes)])
    methods = {}
    for name, model in models.items():
        rng = np.random.default_rng([pipeline.config.seed, BOOTSTRAP])
        methods[name] = figures(pipeline, localised(pipeline, model, scenes), scenes, axes.cutoff, rng)
    return {**cell.described(), "bound": bounds(scenes), "methods": methods}


def sweep(
    pipeline: Pipeline, model: nn.Module | None, axes: Axes, out: Path, *, progress: Progress | None = None
) -> dict[str, Any]:
    """Draw scenes for every cell of the axes, localise them and write what was measured.

    Args:
        pipeline: the stages and the configuration, whose seed makes the scenes.
        model: trained weights to compare with the classical search, or None.
        axes: what to run over.
        out: receives `sweep.json`, `sweep.md`, `sweep.csv` and PNG pictures.
        progress: called with cells done, cells in all and a note.

    Returns:
        The content of `sweep.json`.

    Raises:
        InputError: the axes ask for what the configuration cannot hold, or a file lies where the folder should be.
        StorageError: a result could not be written.
    """
    began, cells = time.perf_counter(), axes.cells(pipeline.config)
    require_folder(out)
    models: dict[str, nn.Module | None] = {"classical": None} | (
        {} if model is None else {"learned": model.cpu().eval()}
    )
    measured = []
    for number, cell in enumerate(cells, 1):
        measured.append(_cell(pipeline, models, cell, axes))
        if progress:
            progress(number, len(cells), "localising")
    view = error_map(pipeline, axes) if axes.map_scenes else None
    record = {
        "schema": SCHEMA,
        "config_hash": pipeline.config.digest(),
        "seed": pipeline.config.seed,
        "scenes": axes.cell_scenes,
        "cutoff": axes.cutoff,
        "confidence": CONFIDENCE,
        "labels": {name: LABELS[name] for name in models},
        "cells": measured,
        "map": view,
        "seconds": time.perf_counter() - began,
    }
    _write(record, out)
    draw_spectrum(spectrum_view(pipeline, model, axes), out / "spectrum.png")
    return record


def _write(record: dict[str, Any], out: Path) -> None:
    atomic_write(out / "sweep.json", json.dumps(record, indent=1, allow_nan=False).encode())
    atomic_write(out / "sweep.md", to_markdown(record).encode())
    atomic_write(out / "sweep.csv", to_csv(record).encode())
    draw_rmse(record, out / "rmse.png")
    if len({cell["mismatch"] for cell in record["cells"]}) > 1:
        draw_mismatch(record, out / "mismatch.png")
    if record["map"]:
        draw_map(record["map"], out / "error_map.png")
