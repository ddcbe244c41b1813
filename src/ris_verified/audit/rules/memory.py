"""RV1402: memory of a step, predicted before the launch, and what happens when it runs out."""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ris_verified.audit.context import Context
from ris_verified.audit.drills import resident_bytes
from ris_verified.audit.laws.rounding import AMPLIFIED, SHAKES, shaken
from ris_verified.audit.plain_step import step_gradients
from ris_verified.audit.rule import Measurement, at_most, close, equal, mended, rule

if TYPE_CHECKING:
    from torch import Tensor

    from ris_verified.data.batch import Batch
    from ris_verified.pipeline import Pipeline
    from ris_verified.train.state import StepReport

GIB = 2**30
SHARE = 0.2
RESET = "/proc/self/clear_refs"


@rule(
    "RV1402",
    "Memory is predicted, and running out of it halves the micro-batch",
    law="predicted peak ≤ free memory; |predicted/measured − 1| ≤ 0.2; out of memory: halved parts, same gradient",
    why="A run that dies of memory at its first long epoch has cost the night.",
    how="The prediction for the configured batch against what is free on the device. On the small model the prediction "
    "for 64 scenes, at once and in four parts, and for 2 with both averages, against what is held, counted, and a step "
    "followed allocation by allocation; in profile full also a real step of the configured batch against the process's "
    "resident peak. Then a step whose loss has no memory for more than three scenes: its gradient against the whole "
    "batch's, bound 64 eps·√8 or 8 times what rounding in the measurements does to it.",
    remedy="predict from the tensors of a small step; on torch.OutOfMemoryError halve the micro-batch, keep the batch",
    apart=True,
)
def memory_predicted(context: Context) -> Sequence[Measurement]:
    """20 % is the checklist's figure; a mean over B parts is rounded B times more than one over the batch."""
    from ris_verified.train.free_memory import free_memory
    from ris_verified.train.ranks import default_device

    device, pipeline = default_device(), context.pipeline
    batch = _scenes(context)
    needed = pipeline.peak_memory(pipeline, batch, str(device)).total
    free = free_memory(device)
    found = [
        at_most(needed / GIB, free / GIB, f"predicted peak of {batch} scenes, {device.type}", "GiB", "peak_memory")
    ]
    averaged = context.small.with_config(
        context.small.config.replaced({"train.ema_decay": 0.9, "train.swa_share": 0.3})
    )
    parted = context.small.with_config(context.small.config.replaced({"train.accumulation": 4}))
    found += [_followed(context.small, 64), _followed(averaged, 2), _followed(parted, 64), *_halved(context.small)]
    return found + ([_resident(context, needed)] if context.profile == "full" else [])


def _scenes(context: Context) -> int:
    """Return the scenes of a step: the parts that are accumulated share its tensors."""
    train = context.config.train
    return train.batch_size * train.accumulation


def _followed(small: Context, scenes: int) -> Measurement:
    from ris_verified.train.memory import held_tensors, make_moments, step_bytes

    pipeline, state = small.pipeline, small.state()
    make_moments(state)
    measured = sum(t.nbytes for t in held_tensors(state)) + max(step_bytes(pipeline, state, scenes))
    ratio = pipeline.peak_memory(pipeline, scenes, "cpu").alive / measured
    what = f"small model, {scenes} scenes, train.accumulation = {small.config.train.accumulation}"
    return close(ratio, 1.0, SHARE, f"predicted over followed peak, {what}", where="peak_memory")


def _scarce(small: Context, sizes: list[int]) -> tuple[Pipeline, Pipeline]:
    """Return stages without memory for more than three scenes, and such that run out once, in the second part.

    Args:
        small: the small context.
        sizes: receives the sizes of the parts that had memory.
    """
    import torch

    calls = itertools.count()

    def scarce(outputs: Any, R_hat: Any, part: Any, cfg: Any, **options: Any) -> Any:
        if len(part) > 3:
            raise torch.OutOfMemoryError("out of memory, says the drill")
        sizes.append(len(part))
        return small.pipeline.loss(outputs, R_hat, part, cfg, **options)

    def late(outputs: Any, R_hat: Any, part: Any, cfg: Any, **options: Any) -> Any:
        if next(calls) == 1:
            raise torch.OutOfMemoryError("out of memory in the second part, says the drill")
        return small.pipeline.loss(outputs, R_hat, part, cfg, **options)

    two = small.config.replaced({"train.accumulation": 2})
    return dataclasses.replace(small.pipeline, loss=scarce), dataclasses.replace(small.pipeline, loss=late, config=two)


def _halved(small: Context) -> list[Measurement]:
    import torch

    from ris_verified.data.dataset import with_proposals

    sizes: list[int] = []
    # As stored: where two places tie in a search, the size of the batch decides between them.
    batch = with_proposals(small.batch, small.config)
    whole = _gradient(small, batch, small.pipeline)[1]
    least = 64 * torch.finfo(torch.float32).eps * len(batch) ** 0.5
    bound = max([least, *(AMPLIFIED * _apart(_shaken(small, batch, key), whole) for key in range(SHAKES))])
    try:
        scarce, late = _scarce(small, sizes)
        report, parts = _gradient(small, batch, scarce)
        _, resumed = _gradient(small, batch, late)
    except RuntimeError as error:
        return [equal(type(error).__name__, "a step", "out of memory with more than three scenes", where="train_step")]
    apart = _apart(parts, whole)
    return [
        equal(report.skipped, False, "a step that ran out of memory is taken, not skipped", where="train_step"),
        *mended(
            [
                equal(sum(sizes), len(batch), "scenes in the step after halving", where="train_step"),
                at_most(apart, bound, "gradient after halving against the whole batch's, relative", where="train_step"),
                at_most(
                    _apart(resumed, whole), bound, "the same, out of memory in the second part", where="train_step"
                ),
            ],
            "clear gradients before the retry, weight parts by their scenes, and let no scene see its neighbours",
        ),
    ]


def _gradient(small: Context, batch: Batch, pipeline: Pipeline) -> tuple[StepReport, dict[str, Tensor]]:
    state = small.state()
    return step_gradients(state, lambda: small.pipeline.train_step(state, batch, pipeline))


def _shaken(small: Context, batch: Batch, key: int) -> dict[str, Tensor]:
    """Return the gradients of measurements disturbed by rounding."""
    disturbed = dataclasses.replace(batch, y=shaken(batch.y, key))
    return _gradient(small, disturbed, small.pipeline)[1]


def _apart(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    """Return the relative difference of two steps' gradients."""
    import torch

    if not second or first.keys() != second.keys():
        return float("inf")
    a, b = (torch.cat([found[name].flatten() for name in second]) for found in (first, second))
    return float((a - b).norm() / b.norm())


def _resident(context: Context, needed: int) -> Measurement:
    from ris_verified.train.ranks import default_device

    batch = _scenes(context)
    if default_device().type == "cuda":
        measured = _on_cuda(context.pipeline, batch)
    elif Path(RESET).exists():
        measured = _on_cpu(context.pipeline, batch)
    else:
        return _followed(context, batch)
    message = f"predicted over measured peak, {batch} scenes, {measured / GIB:.2f} GiB measured"
    return close(needed / measured, 1.0, SHARE, message, where="peak_memory")


def _on_cuda(pipeline: Pipeline, scenes: int) -> int:
    import torch

    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    _steps(pipeline, "cuda", scenes)
    return torch.cuda.max_memory_allocated() - before


def _on_cpu(pipeline: Pipeline, scenes: int) -> int:
    """Return the resident peak of two steps above what the process held before."""
    gc.collect()
    # Freed blocks that the allocator keeps would be used again without showing in the peak.
    ctypes.CDLL(None).malloc_trim(0)
    Path(RESET).write_text("5", encoding="ascii")
    before = resident_bytes()
    _steps(pipeline, "cpu", scenes)
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
    return peak * 1024 - before


def _steps(pipeline: Pipeline, device: str, scenes: int) -> None:
    from ris_verified.train.memory import make_moments, step_bytes
    from ris_verified.train.state import TrainState

    state = TrainState.create(pipeline, total_steps=3, device=device)
    # The first step makes the moments after its activations are gone: its peak is not that of the others.
    make_moments(state)
    step_bytes(pipeline, state, scenes)
