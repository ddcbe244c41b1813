"""Checkpoints: all that a run needs to go on bit for bit, in safetensors; loading runs no code from the file."""

from __future__ import annotations

import dataclasses
import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ris_verified.config import Config
from ris_verified.errors import DataError
from ris_verified.files import atomic_write
from ris_verified.train.contents import misfit, numbers_in, put_back, tensors_in
from ris_verified.train.identity import apart, conditions, shaping, told
from ris_verified.train.sealed import DamagedError, header, notes_of, require_intact, sealed, tensors_of
from ris_verified.train.state import TrainState

FORMAT = "ris-verified-checkpoint/3"
# Of the formats before only the first has no checksum.
OLDER = "ris-verified-checkpoint/1"
KEPT = 2
logger = logging.getLogger(__name__)


@dataclass
class Standing:
    """Where a run stands, besides its weights.

    Args:
        history: a record of each finished epoch.
        best: highest validated `merit` so far, and the epoch that reached it.
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
        config: of the run.
        data: digest of the data.
        stages: names of the functions that train.
    """

    def __init__(self, folder: Path, config: Config, data: str, stages: dict[str, str]) -> None:
        self.folder, self._config, self._stages = folder, config, stages
        self._identity: dict[str, Any] = {"format": FORMAT, "data": data, "settings": shaping(config)}

    @property
    def identity(self) -> bytes:
        """What all processes of a run must have in common."""
        return json.dumps(self._identity, sort_keys=True).encode()

    def save(self, state: TrainState, standing: Standing) -> None:
        """Write a checkpoint beside the older ones, then drop all but the two newest; every process must call it.

        Raises:
            StorageError: it could not be written; the older ones are intact.
        """
        # Before all but the first leave: each has a generator of its own.
        tensors = tensors_in(state)
        if not state.ranks.leads:
            return
        notes = {
            **self._identity,
            "conditions": conditions(state, self._config),
            "stages": self._stages,
            **numbers_in(state),
            "standing": dataclasses.asdict(standing),
        }
        path = self.folder / f"step-{state.step:09d}.safetensors"
        atomic_write(path, sealed(tensors, notes))
        kept = self._newest_first()
        # Those of later steps are damaged, or this run would have gone on from them.
        at = kept.index(path)
        for old in (*kept[:at], *kept[at + KEPT :]):
            old.unlink(missing_ok=True)

    def newest(self, *, aloud: bool = True) -> bytes:
        """Return the newest checkpoint that is as it was written; empty where there is none at all.

        Args:
            aloud: whether to warn of damaged ones.

        Raises:
            DataError: it belongs to another configuration or other data, all are damaged, or one cannot be read.
        """
        damaged = []
        for path in self._newest_first():
            content = _bytes(path)
            try:
                require_intact(content)
            except DamagedError as error:
                if OLDER.encode() in header(content):
                    raise _foreign(path, f"format is {OLDER}", f"{FORMAT}, which this version writes") from error
                damaged.append(f"{path.name}: {error}")
                logger.log(
                    logging.WARNING if aloud else logging.DEBUG,
                    "%s is damaged (%s): going back to the one before", path, error,
                )  # fmt: skip
                continue
            self._require_own(notes_of(content), path)
            return content
        if damaged:
            raise DataError(
                f"holds damaged checkpoints only ({'; '.join(damaged)})",
                where=str(self.folder),
                expected="one that is as it was written",
                remedy="put an intact one back, or start over with --fresh",
            )
        return b""

    def restore(self, state: TrainState, content: bytes) -> Standing:
        """Bring a new state to where a checkpoint left it; nothing is changed where it does not fit.

        Args:
            state: as it was created.
            content: of `newest`.

        Raises:
            DataError: it belongs to another network.
        """
        notes, tensors = notes_of(content), tensors_of(content)
        path = self.folder / f"step-{notes['counters']['step']:09d}.safetensors"
        if wrong := misfit(state, tensors):
            raise _foreign(path, f"network is another: {wrong}", "the tensors of this one")
        self._tell_changes(notes, state)
        put_back(state, notes, tensors)
        logger.info("continuing after step %d of %d, from %s", state.step, state.total_steps, path)
        return Standing(**notes["standing"])

    def clear(self) -> None:
        """Remove all of them."""
        for path in self._newest_first():
            path.unlink(missing_ok=True)

    def _newest_first(self) -> list[Path]:
        return sorted(self.folder.glob("step-*.safetensors"), reverse=True)

    def _require_own(self, notes: dict[str, Any], path: Path) -> None:
        for name in ("format", "data"):
            if notes[name] != self._identity[name]:
                raise _foreign(path, f"{name} is {notes[name]}", f"{name} {self._identity[name]}")
        if differing := apart(notes["settings"], self._identity["settings"]):
            raise _foreign(path, differing, "the same settings")

    def _tell_changes(self, notes: dict[str, Any], state: TrainState) -> None:
        before, now = notes["conditions"], conditions(state, self._config)
        changed = [name for name in now if before[name] != now[name]]
        if changed:
            logger.warning(
                "the run began with %s and goes on with %s: sums may round differently",
                *(told({name: values[name] for name in changed}) for values in (before, now)),
            )
        for stage, name in notes["stages"].items():
            if name != self._stages.get(stage):
                logger.warning(
                    "the run began with %s = %s and goes on with %s: --fresh would start over",
                    stage, name, self._stages.get(stage),
                )  # fmt: skip


def _foreign(path: Path, what: str, expected: str) -> DataError:
    return DataError(
        f"is of another run: its {what}",
        where=str(path),
        expected=expected,
        remedy="use another folder, go on with the configuration, data and network it began with, or start over "
        "with --fresh",
    )


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        # Not damage: what lies there may be whole.
        raise DataError(
            f"cannot be read: {error.strerror or error}",
            where=str(path),
            expected="a checkpoint that this process may read",
            remedy="make it readable, remove it to go on from the one before, or start over with --fresh",
        ) from error
