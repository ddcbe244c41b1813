"""The manifest of a data folder: what is there, with checksums, and what is wrong with it."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import shlex
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ris_verified._config_load import plain
from ris_verified.config import Config, DataConfig
from ris_verified.errors import DataError
from ris_verified.files import atomic_write

SCHEMA = "ris-verified-data/2"
MANIFEST = "manifest.json"
CONFIG = "config.toml"
# Within it a file may change twice and keep its time: the coarsest clocks of file systems count by two seconds.
TICK = 2.0
SPLITS = {"train": 0, "validation": 1, "test": 2}


def data_digest(cfg: Config) -> str:
    """Return the hash of what shapes the data: seed, array, scene, split and shard sizes."""
    sizes = {name: value for name, value in plain(cfg.data).items() if name != "workers"}
    parts = [SCHEMA, cfg.seed, plain(cfg.array), plain(cfg.scene), sizes]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def split_size(cfg: Config, split: str) -> int:
    """Return the number of scenes of `train`, `validation` or `test`."""
    sizes = {"train": cfg.data.train_scenes, "validation": cfg.data.validation_scenes, "test": cfg.data.test_scenes}
    return sizes[split]


@dataclass(frozen=True)
class Shard:
    """One file of consecutive scenes.

    Args:
        split: `train`, `validation` or `test`.
        first: index of its first scene within the split.
        scenes: how many.
        sha256: of the file; empty until it is written.
        bytes: size of the file.
    """

    split: str
    first: int
    scenes: int
    sha256: str = ""
    bytes: int = 0

    @property
    def file(self) -> str:
        """Name of the file in the data folder."""
        return f"{self.split}-{self.first:07d}.safetensors"


def planned_shards(cfg: Config) -> list[Shard]:
    """Return every shard of every split, in order, not yet written."""
    step = cfg.data.shard_scenes
    return [
        Shard(split, first, min(step, split_size(cfg, split) - first))
        for split in SPLITS
        for first in range(0, split_size(cfg, split), step)
    ]


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def known_checksum(path: Path) -> str:
    """Return the SHA-256 of a file, read once a process while the file stays what it was.

    Raises:
        OSError: it cannot be read.
    """
    seen = path.stat()
    if abs(time.time() - seen.st_mtime) < TICK:
        return checksum(path)
    return _remembered(path.resolve(), seen.st_size, seen.st_mtime_ns, seen.st_ino)


@functools.cache
def _remembered(path: Path, size: int, changed: int, node: int) -> str:
    return checksum(path)


@dataclass(frozen=True)
class Manifest:
    """What a data folder holds.

    Args:
        digest: `data_digest` of the configuration that made it.
        config: that configuration as TOML.
        shards: all of them.
    """

    digest: str
    config: str
    shards: list[Shard]

    def of(self, split: str) -> list[Shard]:
        """Return the shards of one split in order."""
        return [shard for shard in self.shards if shard.split == split]

    def save(self, folder: Path) -> None:
        """Write `manifest.json`; atomic."""
        record = {"schema": SCHEMA, **dataclasses.asdict(self)}
        atomic_write(folder / MANIFEST, json.dumps(record, indent=1).encode())

    @classmethod
    def load(cls, folder: Path) -> Manifest:
        """Read the manifest of a folder.

        Raises:
            DataError: no folder, no manifest, or not one of ours.
        """
        path = folder / MANIFEST
        try:
            record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if record["schema"] != SCHEMA:
                raise DataError(f"schema {record['schema']!r}", where=str(path), expected=SCHEMA)
            return cls(record["digest"], record["config"], [_shard(**shard) for shard in record["shards"]])
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(
                "cannot be read" if folder.is_dir() else "is no folder" if folder.exists() else "no such folder",
                where=str(path if folder.is_dir() else folder),
                expected=f"a folder with {MANIFEST}",
                remedy=again(folder),
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"is damaged: {error!r}",
                where=str(path),
                expected=SCHEMA,
                remedy=f"delete it and {again(folder)}",
            ) from error


def again(folder: Path) -> str:
    """Return what to run where something is missing from a data folder; it knows what it was drawn with."""
    held = folder / CONFIG
    config = shlex.quote(str(held)) if held.is_file() else "FILE"
    return f"run `ris-verified generate --config {config} --out {shlex.quote(str(folder))}`; whole shards are kept"


def drawn_config(cfg: Config) -> Config:
    """Return what shapes the data of a configuration; everything else has its default."""
    sizes = dataclasses.replace(cfg.data, workers=DataConfig().workers)
    return Config(seed=cfg.seed, array=cfg.array, scene=cfg.scene, data=sizes)


def _shard(split: str, first: int, scenes: int, sha256: str, bytes: int) -> Shard:
    numbers = (first, scenes, bytes)
    if split not in SPLITS or not all(type(n) is int and n >= 0 for n in numbers) or len(sha256) != 64:
        raise ValueError(f"shard {split!r} {numbers}")
    return Shard(split, first, scenes, sha256, bytes)


def verify(folder: Path, cfg: Config | None = None) -> list[str]:
    """Return one sentence for each thing that is wrong with a data folder; none when it is sound.

    Args:
        folder: the data.
        cfg: also compare with what this configuration would make.

    Returns:
        Sentences that name the shard (missing, truncated, changed or foreign) and what to run.

    Raises:
        DataError: there is no readable manifest.
    """
    manifest = Manifest.load(folder)
    problems = [problem for shard in manifest.shards for problem in _shard_problems(folder, shard)]
    known = {shard.file: shard.scenes for shard in manifest.shards}
    planned = planned_shards(Config.loads(manifest.config, str(folder / MANIFEST)))
    problems += [
        f"{shard.file}: the manifest lists {known.get(shard.file, 0)} of its {shard.scenes} scenes; {again(folder)}"
        for shard in planned
        if known.get(shard.file) != shard.scenes
    ]
    strays = sorted(path.name for path in folder.glob("*.safetensors") if path.name not in known)
    problems += [f"{name}: not in the manifest, a foreign shard; move it elsewhere" for name in strays]
    if cfg is not None and manifest.digest != data_digest(cfg):
        problems.append(
            f"{MANIFEST}: made by configuration {manifest.digest}, not by {data_digest(cfg)};"
            " use that configuration or another folder"
        )
    return problems


def _shard_problems(folder: Path, shard: Shard) -> list[str]:
    path = folder / shard.file
    if not path.is_file():
        return [f"{shard.file}: missing ({shard.scenes} scenes); {again(folder)}"]
    if path.stat().st_size != shard.bytes:
        return [f"{shard.file}: {path.stat().st_size} bytes instead of {shard.bytes}; {again(folder)}"]
    if checksum(path) != shard.sha256:
        return [f"{shard.file}: content changed, its checksum differs; {again(folder)}"]
    return []
