"""Damage to stored scenes and to the configuration."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

from ris_verified.audit.damage import DAMAGE, damage_file
from ris_verified.audit.faults.fault import DataFault, Fault
from ris_verified.pipeline import Pipeline


def _bent(pipeline: Pipeline) -> Pipeline:
    config = copy.deepcopy(pipeline.config)
    # A frozen dataclass can be bent by whoever insists.
    object.__setattr__(config.model, "heads", 9)
    return dataclasses.replace(pipeline, config=config)


def _damage(kind: str) -> DataFault:
    def damage(folder: Path) -> None:
        damage_file(kind)(folder)

    return DataFault(f"shard_{kind.replace(' ', '_')}", "RV1001", f"a shard is {kind}", damage)


def _copied_split(folder: Path) -> None:
    from ris_verified.data.manifest import Manifest, checksum

    manifest = Manifest.load(folder)
    source, target = manifest.of("train")[0], manifest.of("test")[0]
    (folder / target.file).write_bytes((folder / source.file).read_bytes())
    changed = dataclasses.replace(
        target, sha256=checksum(folder / target.file), bytes=(folder / target.file).stat().st_size
    )
    shards = [changed if shard == target else shard for shard in manifest.shards]
    dataclasses.replace(manifest, shards=shards).save(folder)


def _split_lost(folder: Path) -> None:
    from ris_verified.data.manifest import Manifest

    manifest = Manifest.load(folder)
    kept = [shard for shard in manifest.shards if shard.split != "validation"]
    for shard in manifest.of("validation"):
        (folder / shard.file).unlink()
    dataclasses.replace(manifest, shards=kept).save(folder)


FAULTS = (
    Fault("heads_do_not_divide", "RV0104", "a field is written after construction", _bent),
    *(_damage(kind) for kind in DAMAGE),
    DataFault("split_lost", "RV1401", "one machine's part never arrived", _split_lost),
    DataFault("test_copied_from_training", "RV1609", "a shard is copied under another name", _copied_split),
)
