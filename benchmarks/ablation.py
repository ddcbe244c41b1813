"""Print what each part of the localisation brings: where the search starts, near-field Newton, NF-MLE; as Markdown.

Starts are the spectra of R_samp, R_pred and R_blend and the greedy search; each goes on to NF-MLE with and without
near-field Newton between. K is known. R_pred and R_blend need trained weights: the folder that `ris-verified launch`
or `ris-verified train` wrote. Newton works on the covariance of its spectrum; behind the greedy search, which has
none, on R_blend where there are weights, else on R_samp.

Run: python benchmarks/ablation.py [--weights runs/quick] [--scenes 100] [--snr-db 10] [--batch 50]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ris_verified.config import Config
from ris_verified.data.batch import Batch
from ris_verified.data.dataset import scenes_to_batch, scenes_to_truth
from ris_verified.estimate.result import Estimates, Peaks
from ris_verified.estimate.search import greedy_search
from ris_verified.evaluate.metrics import Errors, summary
from ris_verified.pipeline import Pipeline
from ris_verified.scene.scene import Scene, draw_scene
from ris_verified.shapes import from_ri
from ris_verified.train.weights import load_model, stored_config

KEY = 40_962
NEED_WEIGHTS = ("R_pred", "R_blend")
COLUMNS = (
    "start", "Newton", "search ms", "Newton ms", "NF-MLE ms", "found before NF-MLE", "all found", "strictly",
    "error/bound",
)  # fmt: skip
Measured = tuple[Tensor, Tensor, Tensor]
Covariance = Callable[[Batch], Tensor]


class Tally:
    """Seconds and errors of every row, over all batches."""

    def __init__(self) -> None:
        self.seconds: dict[tuple[str, ...], float] = defaultdict(float)
        self.errors: dict[tuple[str, ...], list[Errors]] = defaultdict(list)

    def timed(self, key: tuple[str, ...], work: Callable[[], Any]) -> Any:
        """Do the work, adding its time to `key`."""
        began = time.perf_counter()
        done = work()
        self.seconds[key] += time.perf_counter() - began
        return done

    def joined(self, key: tuple[str, ...]) -> Errors:
        """Return the errors of all batches."""
        parts = [vars(part) for part in self.errors[key]]
        return Errors(**{name: torch.cat([part[name] for part in parts]) for name in parts[0]})


def _covariances(pipeline: Pipeline, model: nn.Module | None) -> dict[str, Covariance]:
    cfg = pipeline.config

    def sample(batch: Batch) -> Tensor:
        return pipeline.inference_sample_covariance(batch.y, batch.H_full, batch.C, cfg)

    found: dict[str, Covariance] = {"R_samp": sample}
    if model is None:
        return found

    def predicted(batch: Batch) -> Tensor:
        outputs = model(batch.y, batch.H, batch.C, batch.H_full)
        return pipeline.inference_predicted_covariance(outputs.cov_fact_angle, outputs.cov_fact_range, cfg)

    def blended(batch: Batch) -> Tensor:
        return pipeline.infer(model, batch.y, batch.H, batch.C, batch.H_full)[1].R

    return found | {"R_pred": predicted, "R_blend": blended}


def _rows(pipeline: Pipeline, forms: dict[str, Covariance], batch: Batch, data: Measured, tally: Tally) -> dict[
    tuple[str, ...], Peaks | Estimates
]:  # fmt: skip
    """Run every start with and without Newton; return estimates by (start, with or without, before or after)."""
    cfg, K = pipeline.config, batch.K
    done: dict[tuple[str, ...], Peaks | Estimates] = {}

    def searched(name: str) -> Peaks:
        if name == "greedy":
            return greedy_search(*data, K, cfg)
        return pipeline.spectrum(forms[name](batch), K, cfg)

    for name in [*forms, "greedy"]:
        start = tally.timed((name, "search"), partial(searched, name))
        # Behind a spectrum its covariance is there already; the time of Newton is Newton's.
        R = forms[name if name in forms else list(forms)[-1]](batch)
        refined = tally.timed((name, "newton"), partial(pipeline.newton, R, K, start, cfg))
        for newton, peaks in (("without", start), ("with", refined)):
            done[name, newton, "before"] = peaks
            done[name, newton, "after"] = tally.timed((name, newton, "mle"), partial(pipeline.mle, peaks, *data, cfg))
    return done


def _measure(pipeline: Pipeline, model: nn.Module | None, scenes: list[Scene], tally: Tally) -> Tensor:
    cfg, forms = pipeline.config, _covariances(pipeline, model)
    batch, truth = scenes_to_batch(scenes, cfg), scenes_to_truth(scenes, cfg)
    y, H_full, C = (from_ri(value).to(torch.complex128) for value in (batch.y, batch.H_full, batch.C))
    symbols = from_ri(truth.symbols).to(torch.complex128)
    crb = pipeline.bound(*truth.ptr.unbind(-1), symbols, H_full, C, truth.noise_variance, cfg)
    done = _rows(pipeline, forms, batch, (y, H_full, C), tally)
    for key, estimate in done.items():
        tally.errors[key].append(pipeline.metric(pipeline, estimate, truth.ptr, crb))
    return truth.ptr


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |\n"


def _table(tally: Tally, ptr: Tensor) -> str:
    everything = torch.ones(len(ptr), dtype=torch.bool)
    each = 1e3 / len(ptr)
    text = _line(COLUMNS) + _line(["---"] * len(COLUMNS))
    for name in ("R_samp", *NEED_WEIGHTS, "greedy"):
        for newton in ("without", "with"):
            if (name, newton, "after") not in tally.errors:
                text += _line([name, newton, "no weights", *["–"] * (len(COLUMNS) - 3)])
                continue
            before = summary(tally.joined((name, newton, "before")), ptr, everything)
            after = summary(tally.joined((name, newton, "after")), ptr, everything)
            times = [tally.seconds[name, "search"], tally.seconds[name, newton, "mle"]]
            middle = f"{each * tally.seconds[name, 'newton']:.1f}" if newton == "with" else "–"
            ratio = after["error_over_bound_found"]
            searched, fitted = f"{each * times[0]:.1f}", f"{each * times[1]:.1f}"
            shares = [f"{value:.1%}" for value in (before["found"], after["found"], after["found_strictly"])]
            text += _line([name, newton, searched, middle, fitted, *shares, "–" if ratio is None else f"{ratio:.2f}"])
    return text


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, metavar="FOLDER")
    parser.add_argument("--scenes", type=int, default=100)
    parser.add_argument("--snr-db", type=float, default=10.0)
    parser.add_argument("--batch", type=int, default=50)
    args = parser.parse_args()
    snr = [f"scene.snr_db_min={args.snr_db}", f"scene.snr_db_max={args.snr_db}"]
    folder = args.weights
    if folder is not None and (folder / "train").is_dir():
        folder = folder / "train"
    cfg = Config.load(None, snr) if folder is None else stored_config(folder, snr)
    pipeline = Pipeline.default(cfg)
    model = None if folder is None else load_model(folder, pipeline)
    scenes = [draw_scene(cfg, KEY, index) for index in range(args.scenes)]
    tally = Tally()
    with torch.no_grad():
        # Grids and steering vectors are made once, outside the times.
        _measure(pipeline, model, scenes[:2], Tally())
        parts = range(0, len(scenes), args.batch)
        ptr = torch.cat([_measure(pipeline, model, scenes[a : a + args.batch], tally) for a in parts])
    sys.stdout.write(
        f"{len(ptr)} scenes, {args.snr_db:g} dB, K known, {torch.get_num_threads()} thread(s), ms a scene\n\n"
    )
    sys.stdout.write(_table(tally, ptr))


if __name__ == "__main__":
    main()
