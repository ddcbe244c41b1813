"""Print what watching a training costs, as a share of its steps.

Run: python benchmarks/watching.py [--preset quick|reference] [--steps 40]
With the extra `tensorboard` installed its events are measured as well.
"""

from __future__ import annotations

import argparse
import io
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from ris_verified.cli.terminal import RENDERS_PER_SECOND, bar
from ris_verified.config import Config
from ris_verified.data.dataset import draw_batch
from ris_verified.errors import InputError
from ris_verified.pipeline import Pipeline
from ris_verified.train.board import Board
from ris_verified.train.log import FLUSH, TrainingLog
from ris_verified.train.pace import Pace
from ris_verified.train.portrait import portrait
from ris_verified.train.state import StepReport, TrainState
from ris_verified.train.watch import SHOWN

REPEATS = 40


def _seconds(call: Callable[[], Any], repeats: int) -> float:
    """Return the median time of a call."""
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def _logged(report: StepReport, folder: Path, heard: Callable[[list[dict[str, Any]]], None] | None) -> float:
    """Return seconds a step of the log and its listener, flushes included."""
    log = TrainingLog(folder / "log.jsonl", heard)
    numbers = iter(range(1, FLUSH * REPEATS + 1))

    def flush() -> None:
        for _ in range(FLUSH):
            log.step(next(numbers), report)

    return _seconds(flush, REPEATS) / FLUSH


def _shown() -> tuple[float, float]:
    """Return seconds of one update of the bar with its note, and of rendering it once."""
    pace = Pace(12, 64)
    pace.epoch(0)
    with bar(Console(file=io.StringIO(), force_terminal=True, width=120)) as progress:
        task = progress.add_task("steps", total=1000, note="")

        def update() -> None:
            progress.update(task, completed=500, total=1000, note=pace.note(1e-3, 0))

        return _seconds(update, 1000), _seconds(progress.refresh, REPEATS)


def _board(folder: Path) -> Board | None:
    try:
        return Board(folder)
    except InputError as error:
        sys.stdout.write(f"{error}\n")
        return None


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--steps", type=int, default=40)
    args = parser.parse_args()
    pipeline = Pipeline.default(Config.load(args.preset))
    cfg, write = pipeline.config, sys.stdout.write
    batch = draw_batch(cfg, cfg.train.batch_size, 0)
    state = TrainState.create(pipeline, total_steps=1000)
    step = _seconds(lambda: pipeline.train_step(state, batch, pipeline), args.steps)
    report = pipeline.train_step(state, batch, pipeline)
    write(f"preset {args.preset}, batch {len(batch)}, {torch.get_num_threads()} threads; a step: {step * 1e3:.1f} ms\n")

    def told(name: str, seconds: float, share: float) -> None:
        write(f"  {name:44s} {seconds * 1e3:9.3f} ms  {share:8.3%} of the steps\n")

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        plain = _logged(report, folder, None)
        told("log.jsonl, a step", plain, plain / step)
        update, render = _shown()
        told("bar, a step", update, update / step)
        # Rendering has a thread of its own, but one interpreter with the steps.
        told(f"bar, a render, {RENDERS_PER_SECOND:g} a second", render, render * RENDERS_PER_SECOND)
        board = _board(folder)
        if board is None:
            return
        events = _logged(report, folder, board.hear) - plain
        told("TensorBoard scalars, a step", events, events / step)
        shown = draw_batch(cfg, min(SHOWN, cfg.data.validation_scenes), 1)
        model = state.best
        figures = _seconds(lambda: board.figures(1, portrait(pipeline, model, shown)), 3)
        epoch = step * cfg.data.train_scenes / len(batch)
        told(f"TensorBoard figures, an epoch of {epoch:.0f} s", figures, figures / epoch)
        board.close()


if __name__ == "__main__":
    main()
