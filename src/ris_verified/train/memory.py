"""How much memory a training step will take, predicted from two small steps."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ris_verified.data.dataset import scenes_to_batch, with_proposals
from ris_verified.pipeline import Pipeline
from ris_verified.train.state import TrainState

# Scenes of a part of a step in the two that are followed: one alone goes other ways, and blocks of eight are met.
SMALL, LARGER = 4, 8
# In a schedule this long no average of the tail begins at one of the steps that are compared.
STEPS = 1000
KEY = 5_918_203
LEAST_NORM = 1e-9  # that the configuration takes
HEAP = 1.2  # measured, docs/decisions/0007


@dataclass(frozen=True)
class Memory:
    """Bytes that training takes on the device.

    Args:
        held: by weights, averages and the optimiser's moments, whatever the batch.
        step: on top of these at the peak of one step: batch, activations, gradients.
        overhead: bytes that the allocator takes for a byte of a step; a C library's heap keeps holes.
    """

    held: int
    step: int
    overhead: float

    @property
    def alive(self) -> int:
        """Bytes of tensors at the peak."""
        return self.held + self.step

    @property
    def total(self) -> int:
        """Bytes that the peak takes from the device."""
        return round(self.held + self.overhead * self.step)


class Allocations(TorchDispatchMode):
    """Follows the storages that operations make, forward and backward, until each is freed.

    Args:
        known: tensors that exist already and are not counted.
    """

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._known = {tensor.untyped_storage()._cdata for tensor in known}
        self._live: dict[int, int] = {}
        self._now = 0
        self.bytes: list[int] = []
        self.names: list[str] = []

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one operation and note how much is alive after it."""
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        self.bytes.append(self._now)
        self.names.append(str(func))
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self._live and key not in self._known:
            self._live[key] = storage.nbytes()
            self._now += storage.nbytes()
            weakref.finalize(storage, self._free, key)

    def _free(self, key: int) -> None:
        self._now -= self._live.pop(key, 0)


def held_tensors(state: TrainState) -> list[Tensor]:
    """Return weights, buffers, averages and moments of a training state."""
    modules = [state.model, *(m for m in (state.ema, state.swa) if m is not None)]
    found = [t for m in modules for t in (*m.parameters(), *m.buffers())]
    return found + [v for s in state.optimizer.state.values() for v in s.values() if isinstance(v, Tensor)]


def make_moments(state: TrainState) -> None:
    """Step the optimiser once with gradients of zero, so that its moments exist."""
    for parameter in state.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)


def step_bytes(pipeline: Pipeline, state: TrainState, scenes: int) -> list[int]:
    """Return the bytes alive after each operation of one step, batch included.

    Args:
        pipeline: its `train_step` is followed.
        state: has taken a step before, so that the moments exist; takes another.
        scenes: in the step.
    """
    return _step(pipeline, state, scenes)[0]


def _step(pipeline: Pipeline, state: TrainState, scenes: int) -> tuple[list[int], list[str]]:
    config = pipeline.config
    # The same scene over and over: a search that rests when it is done then does the same for every batch.
    same = [pipeline.draw_scene(config, KEY, 0)] * scenes
    drawn = with_proposals(scenes_to_batch(same, config), config)
    batch = pipeline.unpack(drawn, next(state.model.parameters()).device)
    state.optimizer.zero_grad(set_to_none=True)
    given = sum(value.untyped_storage().nbytes() for value in vars(batch).values())
    with Allocations([*held_tensors(state), *vars(batch).values()]) as followed:
        pipeline.train_step(state, batch, pipeline)
    return [given + live for live in followed.bytes], followed.names


def peak_memory(pipeline: Pipeline, scenes: int, device: torch.device | str = "cpu") -> Memory:
    """Predict the peak of a training step from steps of four and of eight scenes a part.

    A step of no more scenes than that is followed itself. From some operation on a step runs the same operations for
    every batch, so the bytes alive after operation t are s_t + a_t B; both are solved for from the two steps, and the
    peak is max_t (s_t + a_t B). Of what comes before, where a search may do other operations for another batch, the
    two peaks are extended.

    Args:
        pipeline: the stages and the configuration.
        scenes: B, of the whole step, which `train.accumulation` parts share.
        device: where training will run.

    Returns:
        A `Memory`, in bytes.
    """
    # Whether a step clips depends on its gradient; those that are compared all do.
    pipeline = replace(pipeline, config=pipeline.config.replaced({"train.clip_norm": LEAST_NORM}))
    state = TrainState.create(pipeline, total_steps=STEPS, device=device)
    make_moments(state)
    parts = min(pipeline.config.train.accumulation, scenes)
    # The first step begins the average, in operations that no later step repeats.
    _step(pipeline, state, min(scenes, SMALL * parts))
    if scenes <= LARGER * parts:
        step = max(step_bytes(pipeline, state, scenes))
    else:
        small, larger = (_step(pipeline, state, B * parts) for B in (SMALL, LARGER))
        step = _extended(small, larger, (scenes / parts - SMALL) / (LARGER - SMALL))
    held = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in held_tensors(state)}
    return Memory(sum(held.values()), step, HEAP if torch.device(device).type == "cpu" else 1.0)


def _extended(small: tuple[list[int], list[str]], larger: tuple[list[int], list[str]], share: float) -> int:
    """Return the peak of a step as much larger than the second as that is than the first, times a share."""
    same = _alike(small[1], larger[1])
    pairs = list(zip(small[0][len(small[0]) - same :], larger[0][len(larger[0]) - same :], strict=True))
    before = [bytes[: len(bytes) - same] for bytes, _ in (small, larger)]
    if all(before):
        pairs.append((max(before[0]), max(before[1])))
    return round(max(a + share * (b - a) for a, b in pairs))


def _alike(first: list[str], second: list[str]) -> int:
    """Return how many operations at the end of two steps are the same."""
    pairs = zip(reversed(first), reversed(second), strict=False)
    return next((count for count, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))
