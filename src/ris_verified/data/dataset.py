"""Reading scenes: memory-mapped shards, batches, and batches drawn without files."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ris_verified.array.steering import steering
from ris_verified.config import Config
from ris_verified.covariance.trace import trace_normalised
from ris_verified.data.batch import Batch
from ris_verified.data.manifest import Manifest, Shard, verify
from ris_verified.data.shard import stacked
from ris_verified.errors import DataError
from ris_verified.scene.codes import code_values
from ris_verified.scene.scene import Scene, draw_scene
from ris_verified.shapes import from_ri, to_ri


@dataclass(frozen=True)
class Truth:
    """What evaluation knows beyond the batch.

    Args:
        symbols: `B x L x K_MAX x 2` float32; zero beyond K.
        powers: `B x K_MAX` float64; NaN beyond K.
        noise_variance: `B` float64.
        rician_factor: `B` float64.
        ptr: `B x K_MAX x 3` float64, positions as drawn.
    """

    symbols: Tensor
    powers: Tensor
    noise_variance: Tensor
    rician_factor: Tensor
    ptr: Tensor


def to_batch(stored: dict[str, Tensor], cfg: Config) -> Batch:
    """Build a batch from the stored form of scenes (see `stacked`); R_true is A P Aᴴ, trace N.

    Args:
        stored: tensors with S first.
        cfg: reads `array` and `scene.code_bits`.

    Returns:
        A `Batch` of S scenes.
    """
    table = torch.from_numpy(code_values(np.arange(1 << cfg.scene.code_bits, dtype=np.uint8), cfg.scene.code_bits))
    C = table.to(torch.complex64)[stored["codes"].long()]
    H_full = stored["H_full"].float()
    H = torch.einsum("bmn,bln->blm", from_ri(H_full), C)
    sources = stored["sources"]
    present = torch.isfinite(sources).all(-1)
    place = torch.where(present[..., None], sources, 1.0)
    A = steering(cfg.array, *place[..., :3].unbind(-1)).mT
    A = (A * (place[..., 3].sqrt() * present)[:, None]).to(torch.complex64)
    R_true = trace_normalised(A @ A.mH)
    return Batch(
        stored["y"], to_ri(H), to_ri(C), sources[..., :3].float(), stored["K"], R_true,
        stored["snr_db"].float(), H_full,
    )  # fmt: skip


def _tensors(arrays: dict[str, NDArray[np.generic]]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def scenes_to_batch(scenes: list[Scene], cfg: Config) -> Batch:
    """Return drawn scenes as a batch, through the same stored form as files."""
    return to_batch(_tensors(stacked(scenes, cfg)), cfg)


def draw_batch(cfg: Config, count: int, *key: int) -> Batch:
    """Draw `count` scenes of a key of their own and return them as a batch; no file is read."""
    return scenes_to_batch([draw_scene(cfg, *key, index) for index in range(count)], cfg)


class SceneDataset(torch.utils.data.Dataset[Batch]):
    """The scenes of one split, read from memory-mapped shards.

    Args:
        folder: written by `generate`.
        split: `train`, `validation` or `test`.
        checked: also compare every checksum.

    Raises:
        DataError: no manifest, no scenes of this split, or a damaged shard, which is named.
    """

    def __init__(self, folder: Path, split: str, *, checked: bool = False) -> None:
        manifest = Manifest.load(folder)
        self.folder, self.split = folder, split
        self.cfg = Config.loads(manifest.config, str(folder))
        self.shards = manifest.of(split)
        problems = verify(folder) if checked else []
        if problems or not self.shards:
            raise DataError(
                "; ".join(problems) or f"no {split} scenes", where=str(folder), expected="a whole data folder"
            )
        self._stored = [_open(folder, shard) for shard in self.shards]
        self._ends = np.cumsum([shard.scenes for shard in self.shards])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Batch:
        """Return one scene as a batch of one."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.batch(torch.tensor([index]))

    def source_counts(self) -> Tensor:
        """Return K of every scene, `S` int64."""
        return torch.cat([stored["K"] for stored in self._stored])

    def stored(self, index: Tensor) -> dict[str, Tensor]:
        """Return the stored tensors of some scenes, in the order asked for."""
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
        stored = self.stored(index)
        return Truth(
            stored["symbols"], stored["sources"][..., 3], stored["noise_variance"], stored["rician_factor"],
            stored["sources"][..., :3],
        )  # fmt: skip


def _open(folder: Path, shard: Shard) -> dict[str, Tensor]:
    path = folder / shard.file
    try:
        if path.stat().st_size != shard.bytes:
            raise DataError(
                f"{path.stat().st_size} bytes",
                where=str(path),
                expected=f"{shard.bytes} bytes",
                remedy="delete it and run `ris-verified generate` again",
            )
        return load_file(path)
    except (FileNotFoundError, SafetensorError) as error:
        raise DataError(
            f"shard of {shard.scenes} scenes is missing or unreadable: {error}",
            where=str(path),
            expected="every shard that the manifest lists",
            remedy="run `ris-verified generate` again; whole shards are kept",
        ) from error


class BatchLoader:
    """Batches in a given order, the next ones prepared in a thread while the current one is used.

    Args:
        dataset: the scenes.
        size: scenes a batch; the last may be smaller.
        order: `S` int64, indices in the order to show them.
        ahead: how many batches to prepare.
    """

    def __init__(self, dataset: SceneDataset, size: int, *, order: Tensor, ahead: int = 2) -> None:
        self.dataset, self.order, self.size, self.ahead = dataset, order, size, ahead

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
                for index in torch.split(self.order, self.size):
                    put(self.dataset.batch(index))
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
