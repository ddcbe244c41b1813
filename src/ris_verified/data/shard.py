"""One shard: scenes drawn, stacked and stored."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save

from ris_verified.config import Config
from ris_verified.data.assemble import measured
from ris_verified.data.manifest import SPLITS, Shard, checksum, data_digest
from ris_verified.estimate.proposals import propose
from ris_verified.files import atomic_write
from ris_verified.scene.scene import Scene, draw_scene

Arrays = dict[str, NDArray[Any]]
FORMAT = "ris-verified-shard/2"
SIDECAR = ".safetensors.json"


def _ri(z: NDArray[np.complex128], dtype: type) -> NDArray[Any]:
    return np.stack([z.real, z.imag], -1).astype(dtype)


def stacked(scenes: list[Scene], cfg: Config) -> Arrays:
    """Return the stored form of scenes: what R_true and the rest are built from.

    Args:
        scenes: S of them.
        cfg: reads `scene.sources_max`.

    Returns:
        y `S x L x M x 2` float32, H_full `S x M x N x 2` float16 (exact, see `draw_channel`), codes
        `S x L x N` uint8 phase indices, sources `S x K_MAX x 4` float64 (azimuth, elevation, range,
        power; NaN beyond K), symbols `S x L x K_MAX x 2` float32, noise_variance, snr_db and
        rician_factor `S` float64, K `S` int64.
    """
    S, most = len(scenes), cfg.scene.sources_max
    sources = np.full((S, most, 4), np.nan)
    symbols = np.zeros((S, cfg.scene.snapshots, most, 2), np.float32)
    for i, scene in enumerate(scenes):
        K = scene.azimuth.size
        sources[i, :K] = np.stack([scene.azimuth, scene.elevation, scene.range, scene.powers], -1)
        symbols[i, :, :K] = _ri(scene.symbols, np.float32)
    return {
        "y": np.stack([_ri(s.y, np.float32) for s in scenes]),
        "H_full": np.stack([_ri(s.H_full, np.float16) for s in scenes]),
        "codes": np.stack([s.code_index for s in scenes]),
        "sources": sources,
        "symbols": symbols,
        "noise_variance": np.array([s.noise_variance for s in scenes]),
        "snr_db": np.array([s.snr_db for s in scenes]),
        "rician_factor": np.array([s.rician_factor for s in scenes]),
        "K": np.array([s.azimuth.size for s in scenes], np.int64),
    }


def stored_bytes(cfg: Config) -> int:
    """Return the bytes that one scene takes, up to the header of its file."""
    arrays = stacked([draw_scene(cfg, 0, 0)], cfg)
    return sum(array.nbytes for array in arrays.values()) + proposed(arrays, cfg).nbytes


def proposed(arrays: Arrays, cfg: Config) -> NDArray[np.float32]:
    """Return what the likelihood proposes in stored scenes, `S x K_MAX x 11` float32: no training step makes it anew.

    Args:
        arrays: from `stacked`.
        cfg: reads `array` and `scene`.
    """
    y, H_full, C = measured({name: torch.from_numpy(array) for name, array in arrays.items()}, cfg)
    threads = torch.get_num_threads()
    # Their number changes the last bits of a product.
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            packed: NDArray[np.float32] = propose(y, H_full, C, cfg).packed().numpy()
    finally:
        torch.set_num_threads(threads)
    return packed


def sidecar(folder: Path, shard: Shard) -> Path:
    """Return the file that holds a shard's checksum from the moment that the shard is whole."""
    return (folder / shard.file).with_suffix(SIDECAR)


def _header(cfg: Config, shard: Shard) -> dict[str, str]:
    # One entry: safetensors writes several in an order that changes from call to call.
    origin = {"format": FORMAT, "digest": data_digest(cfg), "split": shard.split, "first": shard.first}
    return {"origin": json.dumps(origin)}


def stored_origin(path: Path) -> dict[str, Any]:
    """Return format, digest, split and first of a shard file, empty where it says nothing.

    Raises:
        OSError: it cannot be read.
        SafetensorError: it is no safetensors file.
    """
    with safe_open(path, "np") as file:
        header = file.metadata() or {}
    try:
        return dict(json.loads(header.get("origin", "{}")))
    except (ValueError, TypeError):
        return {}


def write_shard(cfg: Config, folder: Path, shard: Shard) -> Shard:
    """Draw the scenes of one shard and store them; the bytes depend on configuration and index only.

    The checksum is written beside the shard after it is in place, so a shard with a checksum is whole.

    Args:
        cfg: configuration.
        folder: where to.
        shard: which.

    Returns:
        The shard with checksum and size.

    Raises:
        StorageError: the disk is full or not writable.
    """
    code = SPLITS[shard.split]
    scenes = [draw_scene(cfg, code, index) for index in range(shard.first, shard.first + shard.scenes)]
    arrays = stacked(scenes, cfg)
    content = save({**arrays, "proposals": proposed(arrays, cfg)}, _header(cfg, shard))
    atomic_write(folder / shard.file, content)
    done = Shard(shard.split, shard.first, shard.scenes, hashlib.sha256(content).hexdigest(), len(content))
    record = {"digest": data_digest(cfg), "sha256": done.sha256, "bytes": done.bytes}
    atomic_write(sidecar(folder, shard), json.dumps(record).encode())
    return done


def finished_shard(cfg: Config, folder: Path, shard: Shard) -> Shard | None:
    """Return a shard that an earlier run completed, or None where it must be drawn (again).

    Args:
        cfg: configuration; a shard of another one does not count.
        folder: the data.
        shard: which.
    """
    path = folder / shard.file
    try:
        record = json.loads(sidecar(folder, shard).read_text(encoding="utf-8"))
        size, digest, sha256 = record["bytes"], record["digest"], record["sha256"]
        whole = path.stat().st_size == size and digest == data_digest(cfg) and checksum(path) == sha256
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Shard(shard.split, shard.first, shard.scenes, sha256, size) if whole else None


def stored_digests(folder: Path) -> list[str]:
    """Return the configurations that the whole shards of a folder say they are of."""
    found = []
    for path in sorted(folder.glob(f"*{SIDECAR}")):
        # One that cannot be read is of a shard that is drawn again.
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            found.append(str(json.loads(path.read_text(encoding="utf-8"))["digest"]))
    return found
