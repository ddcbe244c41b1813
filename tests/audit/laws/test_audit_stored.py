"""Which stored scenes an audit looks at, and that a wrong shard behind many sound ones is found."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save

from ris_verified.audit.context import Context, small_config
from ris_verified.audit.laws.proposals import stored_proposals
from ris_verified.audit.laws.stored import spread
from ris_verified.audit.laws.stored_truth import followed, forms, off_grids
from ris_verified.audit.rules import rules
from ris_verified.audit.runner import PACKAGE, run_rule
from ris_verified.config import Config
from ris_verified.data.generate import generate
from ris_verified.data.manifest import Manifest, checksum
from ris_verified.pipeline import Pipeline

LAST = "train-0000066.safetensors"


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("sizes", [[1], [5], [1000], [1000] * 80, [1000] * 79 + [3], [2] * 700, [64, 1]])
def test_every_shard_is_looked_at_and_no_scene_twice(sizes: list[int], seed: int) -> None:
    chosen = spread(sizes, 256, seed)
    ends = torch.tensor(sizes).cumsum(0)
    seen = torch.bincount(torch.searchsorted(ends, chosen, right=True), minlength=len(sizes))
    assert len(seen) == len(sizes)
    assert int(seen.min()) >= 1
    assert len(set(chosen.tolist())) == len(chosen) <= max(256, len(sizes))
    assert int(chosen.max()) < sum(sizes)


def test_places_within_shards_differ_from_shard_to_shard_and_from_seed_to_seed() -> None:
    within = spread([1000] * 80, 80) - 1000 * torch.arange(80)
    # Ten tenths of a shard, each looked at in some shard.
    assert len(set((within // 100).tolist())) == 10
    assert not torch.equal(spread([1000] * 80, 80, 1), spread([1000] * 80, 80))


@pytest.fixture(scope="module")
def config() -> Config:
    small = small_config(Config())
    sizes = {"data.train_scenes": 68, "data.validation_scenes": 4, "data.test_scenes": 4, "data.shard_scenes": 2}
    return small.replaced({**sizes, "data.workers": 1, "scene.power_spread_db": 6.0})


@pytest.fixture(scope="module")
def sound(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stored") / "data"
    generate(config, folder)
    return folder


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "data"))


def _audited(config: Config, folder: Path, seed: int = 0) -> Context:
    return Context(Pipeline.default(config), "quick", PACKAGE, folder, seed)


def _changed(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """Change the last training shard, and its checksum with it."""
    path, manifest = folder / LAST, Manifest.load(folder)
    with safe_open(path, "pt") as file:
        tensors, header = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    change(tensors)
    path.write_bytes(save(tensors, header))
    shards = [
        dataclasses.replace(s, sha256=checksum(path), bytes=path.stat().st_size) if s.file == LAST else s
        for s in manifest.shards
    ]
    dataclasses.replace(manifest, shards=shards).save(folder)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rule", ["RV1001", "RV1002", "RV1004", "RV1005", "RV1609"])
def test_sound_data_pass(config: Config, sound: Path, rule: str, seed: int) -> None:
    results = run_rule(rules()[rule], _audited(config, sound, seed))
    assert [(r.message, r.measured, r.bound) for r in results if r.status != "pass"] == []


def test_every_split_is_named(config: Config, sound: Path) -> None:
    context = _audited(config, sound)
    for law in (forms, followed, stored_proposals):
        said = [m.message for m in law(context)]
        assert all(any(split in text for text in said) for split in ("train", "validation", "test"))
    assert {m.where for m in off_grids(context)} == {"draw_scene", "train", "validation", "test"}


def test_proposals_of_a_late_shard_are_found_and_the_shard_is_named(config: Config, folder: Path) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors["proposals"] = tensors["proposals"].roll(1, 0)

    _changed(folder, change)
    assert {m.where for m in stored_proposals(_audited(config, folder)) if not m.passed} == {LAST}


def test_measurements_of_a_late_shard_are_found(config: Config, folder: Path) -> None:
    _changed(folder, lambda tensors: tensors["y"].copy_(tensors["y"].roll(1, 0)))
    assert {m.where for m in followed(_audited(config, folder)) if not m.passed} == {"y"}


def test_powers_of_a_late_shard_are_found(config: Config, folder: Path) -> None:
    _changed(folder, lambda tensors: tensors["sources"][:, 0, 3].mul_(1000))
    assert "powers" in {m.where for m in followed(_audited(config, folder)) if not m.passed}


def test_decimetres_of_a_late_shard_are_found(config: Config, folder: Path) -> None:
    _changed(folder, lambda tensors: tensors["sources"][..., 2].mul_(10).round_().div_(10))
    assert {m.where for m in off_grids(_audited(config, folder)) if not m.passed} == {"train"}


def test_what_the_declaration_fixes_may_lie_on_a_grid() -> None:
    fixed = Config().replaced({"scene.range_min": 3.0, "scene.range_max": 3.0, "scene.elevation_max": 0.0})
    results = run_rule(rules()["RV1005"], Context(Pipeline.default(fixed), "quick", PACKAGE))
    assert {r.status for r in results} == {"pass"}
