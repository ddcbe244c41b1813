"""Checkpoints: all that a run needs to go on bit for bit, in safetensors; loading runs no code from the file."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FunctionType
from typing import Any

import safetensors
import torch
from safetensors.torch import save
from torch import Tensor, nn

from ris_verified.errors import DataError
from ris_verified.files import atomic_write
from ris_verified.train.state import TrainState

FORMAT = "ris-verified-checkpoint/1"
KEPT = 2
# What reading a file raises that a killed writer or a worn disk has left.
UNREADABLE = (OSError, safetensors.SafetensorError, KeyError, ValueError)
logger = logging.getLogger(__name__)


@dataclass
class Standing:
    """Where a run stands, besides its weights.

    Args:
        history: a record of each finished epoch.
        best: highest validated capture so far, and the epoch that reached it.
        total: sum of the losses of the unfinished epoch.
        counted: steps in that sum.
        rate: the last learning rate of the backbone.
        seconds: spent in steps.
    """

    history: list[dict[str, Any]] = field(default_factory=list)
    best: float = -1.0
    best_epoch: int = 0
    total: float = 0.0
    counted: int = 0
    rate: float = 0.0
    seconds: float = 0.0


class Checkpoints:
    """The checkpoints of one run; the two newest are kept.

    Args:
        folder: where they lie.
        config: digest of the configuration.
        data: digest of the data.
        stages: names of the functions that train.
    """

    def __init__(self, folder: Path, config: str, data: str, stages: dict[str, str]) -> None:
        self.folder, self._stages = folder, stages
        self._identity = {"format": FORMAT, "config": config, "data": data}

    def save(self, state: TrainState, standing: Standing) -> None:
        """Write a checkpoint beside the older ones, then drop all but the two newest; every process must call it.

        Raises:
            StorageError: it could not be written; the older ones are intact.
        """
        drawn = _gathered_randomness(state)
        if not state.ranks.leads:
            return
        notes = {
            **self._identity,
            "numbers": _numbers(state),
            "stages": self._stages,
            "counters": _counters(state),
            "scheduler": _plain(state.scheduler.state_dict()),
            "standing": dataclasses.asdict(standing),
        }
        path = self.folder / f"step-{state.step:09d}.safetensors"
        atomic_write(path, save({**_tensors(state), **drawn}, {"notes": json.dumps(notes)}))
        for old in self._newest_first()[KEPT:]:
            old.unlink(missing_ok=True)

    def restore(self, state: TrainState) -> Standing | None:
        """Bring a new state to where the newest readable checkpoint left it; None where there is none.

        Raises:
            DataError: a checkpoint belongs to another configuration, other data or another network.
        """
        for path in self._newest_first():
            try:
                notes, tensors = _read(path)
            except UNREADABLE as error:
                logger.warning("%s cannot be read (%s): going back to the one before", path, error)
                continue
            self._check(notes, path, _numbers(state))
            try:
                _restore(state, notes, tensors)
            except RuntimeError as error:
                wrong = str(error).splitlines()[-1].strip()
                raise self._foreign(path, f"network is another: {wrong}", "the tensors of this one") from error
            logger.info("continuing after step %d of %d, from %s", state.step, state.total_steps, path)
            return Standing(**notes["standing"])
        return None

    def require_own(self) -> None:
        """Raise unless the newest readable checkpoint, if there is one, is of this configuration and these data.

        Raises:
            DataError: it belongs to another configuration or other data.
        """
        for path in self._newest_first():
            try:
                notes = _notes(path)
            except UNREADABLE:
                continue
            self._require_identity(notes, path)
            return

    def clear(self) -> None:
        """Remove all of them."""
        for path in self._newest_first():
            path.unlink(missing_ok=True)

    def _newest_first(self) -> list[Path]:
        return sorted(self.folder.glob("step-*.safetensors"), reverse=True)

    def _require_identity(self, notes: dict[str, Any], path: Path) -> None:
        for name, mine in self._identity.items():
            if notes.get(name) != mine:
                raise self._foreign(path, f"{name} is {notes.get(name)}", f"{name} {mine}")

    def _check(self, notes: dict[str, Any], path: Path, numbers: dict[str, int]) -> None:
        self._require_identity(notes, path)
        if notes["numbers"] != numbers:
            logger.warning(
                "the run began with %s and goes on with %s: sums may round differently", notes["numbers"], numbers
            )
        for stage, name in notes.get("stages", {}).items():
            if name != self._stages.get(stage):
                logger.warning(
                    "the run began with %s = %s and goes on with %s: --fresh would start over",
                    stage, name, self._stages.get(stage),
                )  # fmt: skip

    @staticmethod
    def _foreign(path: Path, what: str, expected: str) -> DataError:
        return DataError(
            f"is of another run: its {what}",
            where=str(path),
            expected=expected,
            remedy="use another folder, go on with the configuration, data and network it began with, or start over "
            "with --fresh",
        )


def name_of(stage: Callable[..., Any]) -> str:
    """Return module and name of a function, or of the class of a callable object."""
    named = stage if isinstance(stage, FunctionType | type) else type(stage)
    return f"{named.__module__}.{named.__qualname__}"


def _numbers(state: TrainState) -> dict[str, int]:
    return {"threads": torch.get_num_threads(), "processes": state.ranks.count}


def _modules(state: TrainState) -> dict[str, nn.Module]:
    found = {"live": state.model, "ema": state.ema, "swa": state.swa}
    return {name: module for name, module in found.items() if module is not None}


def _counters(state: TrainState) -> dict[str, int]:
    return {name: vars(state)[name] for name in ("step", "skipped", "consecutive", "parts")}


def _plain(scheduler: dict[str, Any]) -> dict[str, Any]:
    # The rate's law follows from the configuration; a function cannot be stored.
    return {**scheduler, "lr_lambdas": [None] * len(scheduler["lr_lambdas"])}


def _tensors(state: TrainState) -> dict[str, Tensor]:
    found = {
        f"{name}/{key}": value.detach().cpu().contiguous()
        for name, module in _modules(state).items()
        for key, value in module.state_dict().items()
    }
    for name, parameter in state.model.named_parameters():
        for key, value in state.optimizer.state[parameter].items():
            found[f"optimizer/{key}/{name}"] = value.detach().cpu().contiguous()
    return found


def _gathered_randomness(state: TrainState) -> dict[str, Tensor]:
    found = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        found["cuda"] = torch.cuda.get_rng_state()
    return {
        f"random/{name}/{rank}": part
        for name, value in found.items()
        for rank, part in enumerate(state.ranks.gathered(value))
    }


def _notes(path: Path) -> dict[str, Any]:
    with safetensors.safe_open(str(path), framework="pt") as archive:
        notes: dict[str, Any] = json.loads((archive.metadata() or {})["notes"])
        return notes


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    with safetensors.safe_open(str(path), framework="pt") as archive:
        return _notes(path), {name: archive.get_tensor(name) for name in archive.keys()}  # noqa: SIM118


def _restore(state: TrainState, notes: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    for name, module in _modules(state).items():
        prefix = f"{name}/"
        module.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
    for name, parameter in state.model.named_parameters():
        for key in ("step", "exp_avg", "exp_avg_sq"):
            if (value := tensors.get(f"optimizer/{key}/{name}")) is not None:
                state.optimizer.state[parameter][key] = value.to(parameter.device)
    state.scheduler.load_state_dict(notes["scheduler"])
    for group, rate in zip(state.optimizer.param_groups, state.scheduler.get_last_lr(), strict=True):
        group["lr"] = rate
    for name, value in notes["counters"].items():
        setattr(state, name, value)
    for name, put in (("cpu", torch.set_rng_state), ("cuda", torch.cuda.set_rng_state)):
        if (value := tensors.get(f"random/{name}/{state.ranks.index}")) is not None:
            put(value)
