"""One run on several processes, started by `torchrun`: who they are, what each takes, what they agree on."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import importlib
import os
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ris_verified.errors import ConfigError, TrainingError


@dataclass(frozen=True)
class Ranks:
    """The processes of a run; one alone is the default, and then nothing is sent.

    Args:
        index: of this process, from 0.
        count: of all processes.
    """

    index: int = 0
    count: int = 1

    @property
    def leads(self) -> bool:
        """True in the one process that writes and prints."""
        return self.index == 0

    def share(self, order: Tensor, size: int) -> Tensor:
        """Return this process's part of every batch of `size`, in order; the parts are disjoint and make the whole.

        Args:
            order: `S` int64, the epoch's scenes.
            size: scenes a batch, a multiple of `count`.

        Raises:
            ConfigError: a batch cannot be split so that every process has a scene and all but the last the same.
        """
        rest = len(order) % size
        if size % self.count or 0 < rest < self.count:
            raise ConfigError(
                f"batches of {size} scenes, the last of {rest or size}, on {self.count} processes",
                where="train.batch_size",
                expected="batch_size · accumulation a multiple of the processes, and a scene for each in the last one",
                remedy="change train.batch_size, or start another number of processes",
            )
        return torch.cat([batch.tensor_split(self.count)[self.index] for batch in order.split(size)])

    def parallel(self, model: nn.Module) -> nn.Module:
        """Return the model itself, or one whose backward averages the gradients of all processes."""
        if self.count == 1:
            return model
        return DistributedDataParallel(model)

    def sum(self, value: Tensor) -> Tensor:
        """Return the sum over the processes."""
        if self.count > 1:
            dist.all_reduce(value)
        return value

    def total(self, number: int, device: torch.device) -> int:
        """Return the sum of a number over the processes; one alone reads no device."""
        return number if self.count == 1 else int(self.sum(torch.tensor(number, device=device)))

    def all(self, good: bool, device: torch.device) -> bool:
        """Return whether it is so in every process; all skip a step or none, or they would wait for each other."""
        return self.total(int(good), device) == self.count

    def gathered(self, value: Tensor) -> list[Tensor]:
        """Return the value of every process, in the order of their indices."""
        if self.count == 1:
            return [value]
        sent = _movable(value)
        parts = [torch.empty_like(sent) for _ in range(self.count)]
        dist.all_gather(parts, sent)
        return [part.cpu() for part in parts]

    def from_first(self, make: Callable[[], bytes]) -> bytes:
        """Return in every process what the first one makes; none of the others calls `make`.

        Raises:
            TrainingError: in the others, where the first one raised.
        """
        if self.count == 1:
            return make()
        made, size = b"", -1
        try:
            if self.leads:
                made = make()
                size = len(made)
        finally:
            # Also after an error, or the others would wait for ever.
            size = int(_broadcast(torch.tensor(size)))
        if size < 0:
            raise TrainingError("rank 0 could not begin", where=f"rank {self.index}", remedy="its error is the cause")
        content = torch.frombuffer(bytearray(made), dtype=torch.uint8) if made else torch.empty(size, dtype=torch.uint8)
        return bytes(_broadcast(content).numpy().tobytes()) if size else b""

    def give_weights(self, model: nn.Module) -> None:
        """Give all processes the first one's weights and buffers."""
        if self.count > 1:
            for value in model.state_dict().values():
                value.copy_(_broadcast(value))
        # Gloo's threads let go of what they sent: in a process that is ending already, that would abort it.
        self.wait()

    def require_same(self, content: bytes, what: str) -> None:
        """Raise in every process unless all hold the same.

        Raises:
            TrainingError: one holds something else.
        """
        if self.count == 1:
            return
        found = self.gathered(torch.frombuffer(bytearray(hashlib.sha256(content).digest()), dtype=torch.uint8))
        for index, other in enumerate(found):
            if not torch.equal(other, found[0]):
                raise TrainingError(
                    f"rank {index} has another {what} than rank 0",
                    where=f"rank {self.index} of {self.count}",
                    expected=f"the same {what} in all processes",
                    remedy="start the same command everywhere, with folders that all can see",
                )

    def wait(self) -> None:
        """Wait for all."""
        if self.count > 1:
            dist.barrier()


def _movable(value: Tensor) -> Tensor:
    # NCCL moves what lies on the device.
    return value.cuda() if dist.get_backend() == "nccl" else value


def _broadcast(value: Tensor) -> Tensor:
    sent = _movable(value.detach().clone())
    dist.broadcast(sent, 0)
    return sent.to(value.device)


def rank_of_environment() -> int:
    """Return what `torchrun` calls RANK, 0 without it."""
    return int(os.environ.get("RANK", "0"))


def count_of_environment() -> int:
    """Return what `torchrun` calls WORLD_SIZE, 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def default_device() -> torch.device:
    """Return this process's accelerator where there is one, else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


@contextlib.contextmanager
def joined() -> Iterator[Ranks]:
    """Join the processes that `torchrun` started, for the time of a run; alone where it started none.

    Raises:
        TrainingError: another process died.
    """
    if count_of_environment() == 1:
        yield Ranks()
        return
    device = default_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    # Imported later, by torch, its defaults would hold the group for ever.
    importlib.import_module("torch.distributed.nn")
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    index, count = dist.get_rank(), dist.get_world_size()
    try:
        yield Ranks(index, count)
    except BaseException as error:
        _let_go(error)
        if not isinstance(error, RuntimeError) or not _lost(error):
            raise
        raise TrainingError(
            f"rank {index} of {count} lost another one: {str(error).splitlines()[0]}",
            where=f"rank {index}",
            expected="all processes alive to the end",
            remedy="the first error above is the cause; the same command goes on from the last checkpoint",
        ) from error
    finally:
        dist.destroy_process_group()
        # Its threads end with the last that holds it; one that outlives the interpreter aborts the process.
        gc.collect()


def _let_go(error: BaseException | None) -> None:
    """Clear the frames that an error has left: what holds the group is in them."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _lost(error: RuntimeError) -> bool:
    # Gloo raises a plain RuntimeError.
    return isinstance(error, dist.DistError) or "gloo" in str(error) or "closed by peer" in str(error)
