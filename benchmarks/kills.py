"""Kill training runs at random moments, let them go on, and count those that end with the same bits.

Run: python benchmarks/kills.py [--kills 50] [--seed 0]
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

from ris_verified.cli.common import say
from ris_verified.config import Config
from ris_verified.data.generate import generate
from ris_verified.pipeline import Pipeline
from ris_verified.train.log import read_log

TINY = [
    "array.horizontal=6", "array.vertical=4", "scene.antennas=8", "scene.snapshots=6", "scene.sources_max=3",
    "model.channels=8", "model.width=16", "model.layers=1", "model.heads=2", "model.head_width=16",
    "model.head_layers=1", "model.dictionary_azimuth=8", "model.dictionary_elevation=4", "model.dictionary_range=3",
    "model.dropout=0.2", "train.batch_size=8", "train.epochs=3", "train.checkpoint_steps=3", "train.swa_share=0.3",
    "train.curriculum_share=0.3",
    "data.train_scenes=240", "data.validation_scenes=16", "data.test_scenes=8", "data.shard_scenes=120",
]  # fmt: skip


def _train(data: Path, out: Path) -> None:
    torch.set_num_threads(1)
    pipeline = Pipeline.default(Config.load(None, TINY))
    pipeline.train(pipeline, data, out, curves=False)


def _bits(out: Path) -> tuple[object, list[bytes]]:
    """Return the log and the sorted bytes of every tensor of the weights and of the last state."""
    files = [out / "weights.safetensors", sorted((out / "checkpoints").iterdir())[-1]]
    tensors = {f"{n} {name}": value for n, file in enumerate(files) for name, value in load_file(file).items()}
    return read_log(out / "log.jsonl"), [tensors[name].numpy().tobytes() for name in sorted(tensors)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    moments = random.Random(options.seed)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ris_verified.train.loop", "ris_verified._default_pipeline"])
    with tempfile.TemporaryDirectory() as folder:
        data, whole = Path(folder) / "data", Path(folder) / "whole"
        generate(Config.load(None, TINY), data)
        began = time.perf_counter()
        _finish(context, data, whole)
        length, wanted = time.perf_counter() - began, _bits(whole)
        say(f"uninterrupted: {length:.1f} s, {wanted[0][0][-1]['step']} steps")
        kills, runs, exact = 0, 0, 0
        while kills < options.kills:
            out, runs = Path(folder) / f"run-{runs}", runs + 1
            while kills < options.kills and _killed(context, data, out, moments.uniform(0, length)):
                kills += 1
            _finish(context, data, out)
            exact += _bits(out) == wanted
    say(f"{kills} kills in {runs} runs: {exact} of {runs} ended with the same weights, state and log")
    return int(exact != runs)


def _killed(context: multiprocessing.context.BaseContext, data: Path, out: Path, after: float) -> bool:
    child = context.Process(target=_train, args=(data, out))
    child.start()
    child.join(after)
    alive = child.is_alive()
    child.kill()
    child.join()
    return alive


def _finish(context: multiprocessing.context.BaseContext, data: Path, out: Path) -> None:
    child = context.Process(target=_train, args=(data, out))
    child.start()
    child.join()
    if child.exitcode:
        raise SystemExit(f"a run ended with {child.exitcode}")


if __name__ == "__main__":
    raise SystemExit(main())
