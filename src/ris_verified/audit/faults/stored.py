"""Damage to stored scenes and to the configuration."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ris_verified.audit.damage import DAMAGE, damage_file
from ris_verified.audit.faults.fault import DataFault, Fault, staged
from ris_verified.pipeline import Pipeline

if TYPE_CHECKING:
    from torch import Tensor

    from ris_verified.data.manifest import Shard


def _bent(pipeline: Pipeline) -> Pipeline:
    config = copy.deepcopy(pipeline.config)
    # A frozen dataclass can be bent by whoever insists.
    object.__setattr__(config.model, "heads", 9)
    return dataclasses.replace(pipeline, config=config)


def _damage(kind: str) -> DataFault:
    def damage(folder: Path) -> None:
        damage_file(kind)(folder)

    return DataFault(f"shard_{kind.replace(' ', '_')}", "RV1001", f"a shard is {kind}", damage)


def _rewritten(folder: Path, target: Shard, content: bytes) -> None:
    """Put other content into a shard, and its checksum into the manifest."""
    from ris_verified.data.manifest import Manifest, checksum

    (folder / target.file).write_bytes(content)
    manifest, sha256 = Manifest.load(folder), checksum(folder / target.file)
    changed = dataclasses.replace(target, sha256=sha256, bytes=len(content))
    shards = [changed if shard == target else shard for shard in manifest.shards]
    dataclasses.replace(manifest, shards=shards).save(folder)


def _copied_split(folder: Path) -> None:
    from ris_verified.data.manifest import Manifest

    manifest = Manifest.load(folder)
    source, target = manifest.of("train")[0], manifest.of("test")[0]
    _rewritten(folder, target, (folder / source.file).read_bytes())


def _restored(split: str, change: Callable[[dict[str, Tensor]], None]) -> Callable[[Path], None]:
    """Return a damage that changes what the shards of a split hold, with checksums to match."""

    def damage(folder: Path) -> None:
        from safetensors import safe_open
        from safetensors.torch import save

        from ris_verified.data.manifest import Manifest

        for shard in Manifest.load(folder).of(split):
            with safe_open(folder / shard.file, "pt") as file:
                tensors, header = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
            change(tensors)
            _rewritten(folder, shard, save(tensors, header))

    return damage


def _rolled(name: str) -> Callable[[dict[str, Tensor]], None]:
    def change(tensors: dict[str, Tensor]) -> None:
        tensors[name] = tensors[name].roll(1, 0)

    return change


def _whole_degrees(tensors: dict[str, Tensor]) -> None:
    tensors["sources"][..., :2] = tensors["sources"][..., :2].rad2deg().round().deg2rad()


def _on_an_axis(tensors: dict[str, Tensor]) -> None:
    from ris_verified.array.grid import view_grid
    from ris_verified.config import Config

    e = Config().estimate
    grid = view_grid(Config().scene, (e.search_range, e.search_elevation, e.search_azimuth))
    tensors["sources"][:, 0, 0] = grid[len(grid) // 3, 0]


def _another_reference(tensors: dict[str, Tensor]) -> None:
    tensors["sources"][:, 0, 3] *= 1000


def _equal_powers(pipeline: Pipeline) -> Pipeline:
    import torch

    config = pipeline.config.replaced({"scene.power_spread_db": 9.0})

    def unpack(batch: Any, device: Any = "cpu") -> Any:
        made = pipeline.unpack(batch, device)
        present = torch.isfinite(made.ptr).all(-1)
        A = pipeline.steering(config.array, *torch.where(present[..., None], made.ptr, 1.0).double().unbind(-1))
        R = (A.mT * present[:, None]) @ A.conj()
        R = R * (len(R[0]) / torch.diagonal(R, dim1=1, dim2=2).real.sum(-1))[:, None, None]
        return dataclasses.replace(made, R_in=R.to(made.R_in.dtype))

    return dataclasses.replace(pipeline, config=config, unpack=unpack)


def _split_lost(folder: Path) -> None:
    from ris_verified.data.manifest import Manifest

    manifest = Manifest.load(folder)
    kept = [shard for shard in manifest.shards if shard.split != "validation"]
    for shard in manifest.of("validation"):
        (folder / shard.file).unlink()
    dataclasses.replace(manifest, shards=kept).save(folder)


def _stamped_anew(f: Any, pipeline: Pipeline, data: Path, *given: Any, **named: Any) -> Any:
    from ris_verified.data.manifest import Manifest

    for shard in Manifest.load(data).shards:
        if (data / shard.file).is_file():
            _rewritten(data, shard, (data / shard.file).read_bytes())
    return f(pipeline, data, *given, **named)


def _filled_up(f: Any, pipeline: Pipeline, data: Path, *given: Any, **named: Any) -> Any:
    """Train with a copy of the split's first shard wherever one is missing or of another size."""
    from ris_verified.data.manifest import Manifest

    manifest = Manifest.load(data)
    for shard in manifest.shards:
        path, first = data / shard.file, data / manifest.of(shard.split)[0].file
        if first.is_file() and not (path.is_file() and path.stat().st_size == shard.bytes):
            _rewritten(data, shard, first.read_bytes())
    return f(pipeline, data, *given, **named)


def _told_nothing(f: Any, pipeline: Pipeline, data: Path, *given: Any, **named: Any) -> Any:
    from ris_verified.errors import DataError

    try:
        return f(pipeline, data, *given, **named)
    except DataError as error:
        raise DataError("the data cannot be used") from error


FAULTS = (
    Fault("heads_do_not_divide", "RV0104", "a field is written after construction", _bent),
    *(_damage(kind) for kind in DAMAGE),
    DataFault("split_lost", "RV1401", "one machine's part never arrived", _split_lost),
    Fault("checksums_made_anew", "RV1401", "training stamps what it finds as sound", staged("train", _stamped_anew)),
    Fault("trial_on_damaged_data", "RV1401", "a trial stamps what it finds", staged("objective", _stamped_anew)),
    Fault("shards_filled_up", "RV1401", "training replaces a lost shard by another", staged("train", _filled_up)),
    Fault("damage_without_a_name", "RV1401", "the error of the loader is swallowed", staged("train", _told_nothing)),
    DataFault(
        "proposals_of_others", "RV1002", "shards are shuffled without their proposals",
        _restored("train", _rolled("proposals")),
    ),
    DataFault(
        "test_proposals_of_others", "RV1002", "one split is shuffled without its proposals",
        _restored("test", _rolled("proposals")),
    ),
    Fault("truth_of_equal_powers", "RV1002", "R_true is built from positions alone", _equal_powers),
    DataFault(
        "test_of_other_measurements", "RV1004", "the measurements of one split are shuffled alone",
        _restored("test", _rolled("y")),
    ),
    DataFault(
        "powers_of_another_reference", "RV1004", "stored powers are not those of the symbols",
        _restored("validation", _another_reference),
    ),
    DataFault(
        "test_on_whole_degrees", "RV1005", "one split was drawn by an older generator",
        _restored("test", _whole_degrees),
    ),
    DataFault(
        "validation_on_the_search_grid", "RV1005", "one split was drawn from the search's grid",
        _restored("validation", _on_an_axis),
    ),
    DataFault("test_copied_from_training", "RV1609", "a shard is copied under another name", _copied_split),
)  # fmt: skip
