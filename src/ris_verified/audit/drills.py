"""Runs that several rules look at: trials on a handful of scenes, and what they leave behind."""

from __future__ import annotations

import dataclasses
import gc
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ris_verified.audit.damage import tiny_data

if TYPE_CHECKING:
    from ris_verified.audit.context import Context
    from ris_verified.config import Config
    from ris_verified.pipeline import Pipeline


VERDICT = {"verdict": "drill", "waiver": ""}


@dataclass(frozen=True)
class TrialRun:
    """What one trial returned and what was alive after it.

    Args:
        score: of the objective.
        tensor_bytes: of all tensors made since the first trial began that Python can reach, each storage once.
        resident: bytes of the process.
        files: open ones.
        accelerator: bytes allocated on the accelerator, 0 without one.
    """

    score: float
    tensor_bytes: int
    resident: int
    files: int
    accelerator: int = 0


def tiny_trials(context: Context) -> Pipeline:
    """Return the small pipeline whose trials train one epoch on four scenes and validate on one."""
    config = context.small.config
    share = config.hpo.data_share
    return dataclasses.replace(
        context.small.pipeline,
        config=dataclasses.replace(
            config,
            hpo=dataclasses.replace(config.hpo, epochs_per_trial=1, timed=False),
            data=dataclasses.replace(config.data, train_scenes=round(4 / share), validation_scenes=round(1 / share)),
        ),
    )


@contextmanager
def tiny_folder(context: Context) -> Iterator[Path]:
    """Yield a temporary folder with six scenes in `data`."""
    with tempfile.TemporaryDirectory() as name:
        tiny_data(context, Path(name) / "data")
        yield Path(name)


def run_trials(context: Context, count: int) -> list[TrialRun]:
    """Run the objective `count` times with the configuration's own values, numbered from 0.

    Args:
        context: its pipeline's objective is run.
        count: of trials.

    Returns:
        A record of each.
    """
    pipeline, runs = tiny_trials(context), []
    with _only_new_objects(), tiny_folder(context) as folder:
        for number in range(count):
            score = pipeline.objective(pipeline, folder / "data", folder / "out", {}, number)
            runs.append(TrialRun(float(score), *_alive()))
    return runs


@contextmanager
def _only_new_objects() -> Iterator[None]:
    # Collecting what was there before takes a quarter of a second each time, and is not in question.
    frozen = gc.get_freeze_count()
    gc.collect()
    if not frozen:
        gc.freeze()
    try:
        yield
    finally:
        if not frozen:
            gc.unfreeze()


class _Reached(Exception):
    """Ends a trial where its training would begin."""


def trained_config(context: Context, values: dict[str, Any]) -> Config | None:
    """Return the configuration that an objective trains with, None where it does not train at all.

    Args:
        context: its pipeline's objective is run up to the training.
        values: sampled.
    """
    seen: list[Config] = []

    def train(pipeline: Pipeline, *_: Any, **__: Any) -> Any:
        seen.append(pipeline.config)
        raise _Reached

    pipeline = dataclasses.replace(tiny_trials(context), train=train)
    with tempfile.TemporaryDirectory() as folder, suppress(_Reached):
        pipeline.objective(pipeline, Path(folder), Path(folder), values, 0)
    return seen[0] if seen else None


def _alive() -> tuple[int, int, int, int]:
    import torch

    gc.collect()
    # `type`, not `isinstance`: proxies among the objects answer to the latter by importing what they stand for.
    tensors = [item for item in gc.get_objects() if issubclass(type(item), torch.Tensor)]
    storages = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors if t.layout == torch.strided}
    return sum(storages.values()), resident_bytes(), len(os.listdir("/dev/fd")), accelerator_bytes()


def accelerator_bytes() -> int:
    """Return the bytes that tensors hold on this process's accelerator, those that Python does not reach included."""
    import torch

    from ris_verified.train.ranks import default_device

    device = default_device()
    return int(torch.cuda.memory_allocated(device)) if device.type == "cuda" else 0


def resident_bytes() -> int:
    """Return the resident memory of the process; its peak where the system tells no more."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
