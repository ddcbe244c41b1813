"""Print training scenes per second, what share of a step each part takes, and how near the matrix-product peak it is.

Scenes come with their proposals, as a data folder holds them. Operations are those of real and complex matrix products
and convolutions, forward and backward, as torch counts them (a complex product as one real one); the peak is the best
of square products in the step's precision, in the same run.

Run: python benchmarks/training_step.py [--preset quick|reference] [--steps 12] [--set KEY=VALUE]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

import ris_verified.covariance.blend as blend_stage
import ris_verified.covariance.predicted as predicted_stage
import ris_verified.covariance.sample as sample_stage
import ris_verified.pipeline as pipeline_module
from ris_verified.config import Config
from ris_verified.data.batch import Batch
from ris_verified.data.dataset import draw_batch, with_proposals
from ris_verified.heap import keep_freed_memory
from ris_verified.model.call import outputs_of
from ris_verified.pipeline import Pipeline
from ris_verified.train.state import TrainState, autocast_dtype
from ris_verified.train.step import gradient_norm, update

CHECKS = [
    (blend_stage, "check_covariance"),
    (pipeline_module, "check_isolated"),
    (predicted_stage, "check_covariance"),
    (sample_stage, "check_covariance"),
]
Seconds = dict[str, float]


@contextmanager
def _timed(seconds: Seconds, name: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    seconds[name] += time.perf_counter() - began


def _time_contracts(seconds: Seconds) -> None:
    for module, name in CHECKS:
        check: Callable[..., None] = vars(module)[name]

        def timed(*arguments: Any, check: Callable[..., None] = check) -> None:
            with _timed(seconds, "contracts"):
                check(*arguments)

        setattr(module, name, timed)


def _leaves(record: Any) -> Any:
    return replace(record, **{f.name: vars(record)[f.name].detach().requires_grad_() for f in fields(record)})


def _step(pipeline: Pipeline, state: TrainState, batch: Batch, seconds: Seconds) -> None:
    cfg, dtype = pipeline.config, autocast_dtype(pipeline.config, batch.y.device)
    with _timed(seconds, "model"), torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
        outputs = outputs_of(state.model, batch)
    ends = _leaves(outputs)
    with _timed(seconds, "covariance"):
        blended = pipeline.covariances(ends, batch)
    R = blended.R.detach().requires_grad_()
    with _timed(seconds, "loss"):
        pipeline.loss(ends, blended.R_pred, batch, cfg, R_blend=R).total.backward()
    with _timed(seconds, "covariance"):
        blended.R.backward(R.grad)
    with _timed(seconds, "model"):
        used = [f.name for f in fields(ends) if vars(ends)[f.name].grad is not None]
        torch.autograd.backward([vars(outputs)[n] for n in used], [vars(ends)[n].grad for n in used])
    with _timed(seconds, "optimiser and averages"):
        update(state, gradient_norm(state), cfg.train)
        state.optimizer.zero_grad()


def _operations(pipeline: Pipeline, state: TrainState, batch: Batch) -> int:
    with FlopCounterMode(display=False) as counter:
        pipeline.train_step(state, batch, pipeline)
    return counter.get_total_flops()


def _peak(dtype: torch.dtype, size: int = 2048) -> float:
    """Return operations a second of square matrix products."""
    a, b = (torch.randn(size, size, generator=torch.Generator().manual_seed(n)).to(dtype) for n in (0, 1))
    taken = []
    for _ in range(8):
        began = time.perf_counter()
        a @ b
        taken.append(time.perf_counter() - began)
    return 2 * size**3 / min(taken)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    args = parser.parse_args()
    # As the command does.
    keep_freed_memory()
    pipeline = Pipeline.default(Config.load(args.preset, args.set))
    size = pipeline.config.train.batch_size
    drawn = draw_batch(pipeline.config, size, 0)
    with_proposals(drawn, pipeline.config)
    began = time.perf_counter()
    batch = with_proposals(drawn, pipeline.config)
    proposing = time.perf_counter() - began
    state = TrainState.create(pipeline, total_steps=1000)
    seconds: Seconds = defaultdict(float)
    whole = []
    for _ in range(args.steps):
        began = time.perf_counter()
        pipeline.train_step(state, batch, pipeline)
        whole.append(time.perf_counter() - began)
    operations = _operations(pipeline, state, batch)
    _time_contracts(seconds)
    _step(pipeline, state, batch, seconds)
    seconds.clear()
    for _ in range(args.steps):
        _step(pipeline, state, batch, seconds)
    # Contracts run inside the covariance stage; they are listed on their own.
    seconds["covariance"] -= seconds["contracts"]
    total = sum(seconds.values())
    write = sys.stdout.write
    write(f"preset {args.preset}, batch {size}, {torch.get_num_threads()} threads, medians of {args.steps} steps\n")
    middle = sorted(whole)[len(whole) // 2]
    write(f"train_step: {size / middle:.1f} scenes/s\n")
    write(f"proposals, made once where scenes are stored: {1e3 * proposing / size:.1f} ms a scene\n")
    dtype = autocast_dtype(pipeline.config, batch.y.device) or torch.float32
    rate, peak = operations / middle, _peak(dtype)
    write(f"products: {rate / 1e9:.1f} of {peak / 1e9:.0f} Gflop/s in {dtype}: {rate / peak:.1%}\n")
    for name in ("model", "covariance", "loss", "optimiser and averages", "contracts"):
        write(f"  {name:24s} {seconds[name] / args.steps * 1e3:8.1f} ms  {seconds[name] / total:6.1%}\n")


if __name__ == "__main__":
    main()
