"""Run one study with and without pruning and early stopping: what is saved, and whether the best is as good.

Both studies draw the same first trials from the same data. Also printed: the best against the median trial, the best
trained again, resident memory after trials 2 and 10, and how far the two bests are apart on unseen scenes when each is
trained from several seeds, beside the standard error of that difference by seeds and by scenes.

Run: python benchmarks/study.py [--trials 20] [--epochs 12] [--seeds 3] [--set KEY=VALUE ...]
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import torch
from torch import nn

from ris_verified.cli.common import say
from ris_verified.config import Config
from ris_verified.data.batch import Batch
from ris_verified.data.dataset import draw_batch
from ris_verified.data.generate import generate
from ris_verified.hpo.apart import apart
from ris_verified.hpo.fleet import trial
from ris_verified.pipeline import Pipeline

VERDICT = {"verdict": "benchmark", "waiver": ""}
# Scenes that no study sees: key, sets and scenes in each.
KEY, SETS, UNSEEN = 71_406, 16, 32
SAVING = {"pruning and early stopping": {}, "neither": {"hpo.pruning": False, "hpo.patience": 0}}


def _resident() -> int:
    """Return the pages of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1])


def _scores(study: optuna.Study) -> list[float]:
    """Return each trial's best score, pruned ones included."""
    return [min(t.intermediate_values.values()) for t in study.trials if t.intermediate_values]


def _watched(memory: list[int]) -> Callable[[optuna.Study], None]:
    return lambda study: memory.append(_resident())


def _study(cfg: Config, data: Path, out: Path) -> tuple[optuna.Study, float, list[int]]:
    pipeline, memory = Pipeline.default(cfg), list[int]()
    objective = apart(partial(trial, cfg, data, out))
    began = time.perf_counter()
    study = pipeline.run_study(
        cfg, objective, str(out / "journal.log"), VERDICT, pipeline.spaces, True, _watched(memory)
    )
    return study, time.perf_counter() - began, memory


def _again(cfg: Config, data: Path, out: Path, values: dict[str, Any]) -> tuple[float, list[float]]:
    """Train a trial again; return its score, and that of its best epoch on sets of unseen scenes."""
    pipeline = Pipeline.default(cfg)
    kept: list[tuple[float, Pipeline, nn.Module]] = []

    def score(used: Pipeline, model: nn.Module, batches: Iterable[Batch]) -> float:
        own = pipeline.score(used, model, batches)
        if not kept or own < kept[-1][0]:
            kept.append((own, used, copy.deepcopy(model)))
        return own

    watched = dataclasses.replace(pipeline, score=score)
    value = watched.objective(watched, data, out, values, 0)
    _, used, model = kept[-1]
    unseen = (pipeline.unpack(draw_batch(cfg, UNSEEN, KEY, index), "cpu") for index in range(SETS))
    return value, [pipeline.score(used, model, [batch]) for batch in unseen]


def _variance(rows: list[list[float]]) -> float:
    """Return the variance of the mean of rows of figures, each of one seed; one seed says nothing of it."""
    means = [statistics.mean(row) for row in rows]
    return statistics.variance(means) / len(means) if len(means) > 1 else math.nan


def _compared(saving: list[list[float]], none: list[list[float]]) -> str:
    """Say how far scores are apart, `seeds x sets` each."""
    by_set = zip(zip(*saving, strict=True), zip(*none, strict=True), strict=True)
    worse = [statistics.mean(a) - statistics.mean(b) for a, b in by_set]
    seeds = (_variance(saving) + _variance(none)) ** 0.5
    scenes = statistics.stdev(worse) / SETS**0.5
    return (
        f"best with saving less best without, {len(none)} seeds, {SETS * UNSEEN} unseen scenes: "
        f"{statistics.mean(worse):+.4f} m, standard error {seeds:.4f} by seeds, {scenes:.4f} by scenes"
    )


def _measured(cfg: Config, label: str, folder: Path, seeds: int) -> tuple[float, list[list[float]]]:
    """Run a study and say what came of it; return its seconds, and its best's scores on unseen scenes for each seed."""
    study, taken, memory = _study(cfg, folder / "data", folder / label)
    states, scores = [t.state.name for t in study.trials], _scores(study)
    say(
        f"{label}: {taken:.0f} s, {sum(len(t.intermediate_values) for t in study.trials)} epochs, "
        f"{states.count('COMPLETE')} complete, {states.count('PRUNED')} pruned, {states.count('FAIL')} failed"
    )
    say(f"  best {study.best_value:.4f} m, median {statistics.median(scores):.4f}, worst {max(scores):.4f}")
    if len(memory) >= 10:
        say(f"  memory after trial 10 over that after trial 2: {memory[9] / memory[1]:.3f}")
    each = [cfg.replaced({"seed": cfg.seed + more}) for more in range(seeds)]
    again, unseen = zip(*(_again(c, folder / "data", folder / "again", study.best_params) for c in each), strict=True)
    say(f"  the best trained again: {again[0]:.4f} m, difference {abs(again[0] - study.best_value):.1e}")
    say(f"  on unseen scenes, by seed: {' '.join(f'{statistics.mean(row):.4f}' for row in unseen)} m")
    return taken, list(unseen)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sized = [f"hpo.trials={options.trials}", f"hpo.epochs_per_trial={options.epochs}"]
    cfg = Config.load("quick", [*sized, *options.set])
    say(f"{options.trials} trials of {options.epochs} epochs, {torch.get_num_threads()} thread(s)")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        generate(Pipeline.default(cfg).trial_config(cfg, {}), folder / "data")
        measured = [_measured(cfg.replaced(change), label, folder, options.seeds) for label, change in SAVING.items()]
    (with_, saving), (without, none) = measured
    say(f"saved: {1 - with_ / without:.0%} of the time")
    say(_compared(saving, none))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
