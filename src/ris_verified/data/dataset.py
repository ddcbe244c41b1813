"""Reading scenes: memory-mapped shards, batches, and batches drawn without files."""

from __future__ import annotations

import dataclasses
import hashlib
import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ris_verified.config import Config
from ris_verified.data.assemble import Truth, to_batch, to_truth
from ris_verified.data.batch import Batch, ProposedBatch
from ris_verified.data.manifest import SPLITS, Manifest, Shard, again, known_checksum, planned_shards
from ris_verified.data.shard import FORMAT, stacked, stored_origin
from ris_verified.errors import DataError, InputError
from ris_verified.estimate.proposals import propose
from ris_verified.scene.scene import Scene, draw_scene
from ris_verified.shapes import from_ri

# Of a scene: what those who read it must know. The rest says how often which kind comes.
KNOWN = (
    "antennas", "snapshots", "sources_max", "azimuth_max", "elevation_max", "range_min", "range_max", "symbols",
)  # fmt: skip


def _physics(cfg: Config) -> dict[str, Any]:
    array = {f"array.{name}": value for name, value in dataclasses.asdict(cfg.array).items()}
    return {**array, **{f"scene.{name}": vars(cfg.scene)[name] for name in KNOWN}}


def _tensors(arrays: dict[str, NDArray[np.generic]]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def scenes_to_batch(scenes: list[Scene], cfg: Config) -> Batch:
    """Return drawn scenes as a batch, through the same stored form as files."""
    return to_batch(_tensors(stacked(scenes, cfg)), cfg)


def scenes_to_truth(scenes: list[Scene], cfg: Config) -> Truth:
    """Return the truth of drawn scenes, through the same stored form as files."""
    return to_truth(_tensors(stacked(scenes, cfg)))


def draw_batch(cfg: Config, count: int, *key: int) -> Batch:
    """Draw `count` scenes of a key of their own and return them as a batch; no file is read."""
    return scenes_to_batch([draw_scene(cfg, *key, index) for index in range(count)], cfg)


def with_proposals(batch: Batch, cfg: Config) -> ProposedBatch:
    """Return drawn scenes as a data folder would give them, with what the likelihood proposes."""
    with torch.no_grad():
        made = propose(from_ri(batch.y), from_ri(batch.H_full), from_ri(batch.C), cfg)
    return ProposedBatch(**vars(batch), proposals=made.packed())


class SceneDataset(torch.utils.data.Dataset[Batch]):
    """The scenes of one split, read from memory-mapped shards.

    Args:
        folder: written by `generate`.
        split: `train`, `validation` or `test`.

    Raises:
        DataError: no manifest, fewer scenes of this split than were drawn, or a damaged shard, which is named: every
            checksum is compared, once a process.
    """

    def __init__(self, folder: Path, split: str) -> None:
        manifest = Manifest.load(folder)
        self.folder, self.split = folder, split
        self.cfg = Config.loads(manifest.config, str(folder))
        self.shards = manifest.of(split)
        _require_all(folder, split, self.shards, self.cfg)
        self._stored = [_open(folder, shard, manifest.digest) for shard in self.shards]
        self._ends = np.cumsum([shard.scenes for shard in self.shards])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Batch:
        """Return one scene as a batch of one."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.batch(torch.tensor([index]))

    def require_physics(self, cfg: Config) -> None:
        """Raise DataError unless the scenes are of this configuration's array and field of view, and measured alike."""
        for (name, drawn), asked in zip(_physics(self.cfg).items(), _physics(cfg).values(), strict=True):
            if drawn != asked:
                raise DataError(
                    f"scenes of {name} = {drawn!r}",
                    where=str(self.folder),
                    expected=f"{name} = {asked!r}, as configured",
                    remedy="draw the scenes again, or use the configuration that they were drawn with",
                )

    def source_counts(self) -> Tensor:
        """Return K of every scene, `S` int64."""
        return torch.cat([stored["K"] for stored in self._stored])

    def scene_digests(self) -> list[str]:
        """Return the SHA-256 of y of every scene: equal ones are the same scene."""
        rows = (row for stored in self._stored for row in stored["y"])
        return [hashlib.sha256(row.numpy().tobytes()).hexdigest() for row in rows]

    def stored(self, index: Tensor) -> dict[str, Tensor]:
        """Return the stored tensors of some scenes, in the order asked for.

        Args:
            index: `B` int64, at least one.

        Raises:
            InputError: no index, or one outside 0 … S − 1.
        """
        if index.ndim != 1 or not len(index) or int(index.min()) < 0 or int(index.max()) >= len(self):
            raise InputError(
                f"{list(index.shape)} indices"
                + (f" from {int(index.min())} to {int(index.max())}" if index.numel() else ""),
                where="index",
                expected=f"[B] indices from 0 to {len(self) - 1}",
            )
        which = np.searchsorted(self._ends, index.numpy(), side="right")
        within = index.numpy() - np.concatenate([[0], self._ends])[which]
        groups = [(np.flatnonzero(which == shard), shard) for shard in np.unique(which)]
        back = torch.from_numpy(np.argsort(np.concatenate([places for places, _ in groups])))
        return {
            name: torch.cat([self._stored[s][name][torch.from_numpy(within[at])] for at, s in groups])[back]
            for name in self._stored[0]
        }

    def batch(self, index: Tensor) -> Batch:
        """Return scenes as a batch.

        Args:
            index: `B` int64.
        """
        return to_batch(self.stored(index), self.cfg)

    def truth(self, index: Tensor) -> Truth:
        """Return what evaluation needs beyond the batch for the same scenes."""
        return to_truth(self.stored(index))


def _require_all(folder: Path, split: str, listed: list[Shard], cfg: Config) -> None:
    known = {shard.file: shard.scenes for shard in listed}
    for shard in planned_shards(cfg):
        if shard.split == split and known.get(shard.file) != shard.scenes:
            raise _damaged(
                folder, shard, f"of which the manifest lists {known.get(shard.file, 0)}", "every shard that was drawn"
            )
    if not listed:
        raise DataError(f"no {split!r} scenes", where=str(folder), expected=" or ".join(SPLITS))


def _open(folder: Path, shard: Shard, digest: str) -> dict[str, Tensor]:
    path = folder / shard.file
    try:
        size = path.stat().st_size
        if size != shard.bytes:
            raise _damaged(folder, shard, f"has {size} bytes", f"{shard.bytes} bytes")
        if known_checksum(path) != shard.sha256:
            raise _damaged(folder, shard, "has changed, its checksum differs", f"SHA-256 {shard.sha256[:16]}…")
        origin = stored_origin(path)
        if (origin.get("format"), origin.get("digest")) != (FORMAT, digest):
            found = f"holds {origin.get('format')} of configuration {origin.get('digest')}"
            raise _damaged(folder, shard, found, f"{FORMAT} of configuration {digest}")
        return load_file(path)
    except DataError:
        raise
    except (OSError, SafetensorError) as error:
        found = f"is missing or unreadable: {error}"
        raise _damaged(folder, shard, found, "every shard that the manifest lists") from error


def _damaged(folder: Path, shard: Shard, found: str, expected: str) -> DataError:
    return DataError(
        f"shard of {shard.scenes} scenes {found}",
        where=str(folder / shard.file),
        expected=expected,
        remedy=again(folder),
    )


class BatchLoader:
    """Batches in a given order, the next ones prepared in a thread while the current one is used.

    Args:
        dataset: the scenes.
        size: scenes a batch; the last may be smaller.
        order: `S` int64, indices in the order to show them.
        ahead: how many batches to prepare.
        skip: batches at the beginning that an interrupted epoch has already used.
        pin: whether they go to an accelerator.
    """

    def __init__(
        self, dataset: SceneDataset, size: int, *, order: Tensor, ahead: int = 2, skip: int = 0, pin: bool = False
    ) -> None:
        self.dataset, self.size, self.ahead, self.pin = dataset, size, ahead, pin
        self.order = order[skip * size :]

    def __len__(self) -> int:
        return -(-len(self.order) // self.size)

    def __iter__(self) -> Iterator[Batch]:
        ready: queue.Queue[Batch | BaseException | None] = queue.Queue(self.ahead)
        stop = threading.Event()

        def put(item: Batch | BaseException | None) -> None:
            while not stop.is_set():
                try:
                    return ready.put(item, timeout=0.1)
                except queue.Full:
                    continue
            return None

        def fill() -> None:
            try:
                for index in torch.split(self.order, self.size) if len(self.order) else ():
                    batch = self.dataset.batch(index)
                    put(batch.pinned() if self.pin else batch)
                    if stop.is_set():
                        return
                put(None)
            except BaseException as error:  # noqa: BLE001 — handed to the consumer, who raises it
                put(error)

        thread = threading.Thread(target=fill, daemon=True)
        thread.start()
        try:
            while (item := ready.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            stop.set()
            thread.join()
