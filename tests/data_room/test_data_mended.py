"""Damage to stored scenes: who reads them is told once, and what the error says to run mends it."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from pathlib import Path

import pytest

from ris_verified.cli.main import main
from ris_verified.config import Config
from ris_verified.data.dataset import SceneDataset
from ris_verified.data.generate import generate
from ris_verified.data.manifest import Manifest, known_checksum, verify
from ris_verified.errors import DataError
from ris_verified.evaluate.run import evaluate
from ris_verified.pipeline import Pipeline

TINY = {
    "array.horizontal": 6, "array.vertical": 4, "scene.antennas": 8, "scene.snapshots": 6, "scene.sources_max": 3,
    "data.train_scenes": 6, "data.validation_scenes": 4, "data.test_scenes": 4, "data.shard_scenes": 2,
    "data.workers": 1, "model.channels": 8, "model.width": 16, "model.layers": 1, "model.heads": 2,
    "model.head_width": 16, "model.head_layers": 1, "model.dictionary_azimuth": 8, "model.dictionary_elevation": 4,
    "model.dictionary_range": 3, "train.epochs": 1, "train.batch_size": 2, "train.precision": "float32",
    "estimate.grid_azimuth": 16, "estimate.grid_elevation": 8, "estimate.grid_range": 4, "hpo.data_share": 0.5,
}  # fmt: skip


@pytest.fixture(scope="module")
def tiny() -> Config:
    return Config().replaced(TINY)


@pytest.fixture(scope="module")
def _drawn(tiny: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "data"
    generate(tiny, folder)
    return folder


@pytest.fixture
def data(_drawn: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(_drawn, tmp_path / "data"))


def _flip(shard: Path) -> None:
    content = bytearray(shard.read_bytes())
    content[-5] ^= 16
    shard.write_bytes(content)


def _cut(shard: Path) -> None:
    shard.write_bytes(shard.read_bytes()[:-5])


def _remove(shard: Path) -> None:
    shard.unlink()


def _train(cfg: Config, data: Path, out: Path) -> None:
    pipeline = Pipeline.default(cfg)
    pipeline.train(pipeline, data, out)


def _try(cfg: Config, data: Path, out: Path) -> None:
    pipeline = Pipeline.default(cfg)
    pipeline.objective(pipeline, data, out, {}, 0)


def _judge(cfg: Config, data: Path, out: Path) -> None:
    pipeline = Pipeline.default(cfg)
    evaluate(pipeline, pipeline.build_model(cfg), data, out)


@pytest.mark.parametrize("harm", [_flip, _cut, _remove])
@pytest.mark.parametrize(("use", "split"), [(_train, "train"), (_train, "validation"), (_try, "train"),
                                            (_try, "validation"), (_judge, "test")])  # fmt: skip
def test_whoever_reads_damaged_scenes_is_told_file_scenes_and_what_to_run(tiny, data, tmp_path, use, split, harm):
    shard = data / f"{split}-0000002.safetensors"
    harm(shard)
    with pytest.raises(DataError) as caught:
        use(tiny, data, tmp_path / "out")
    error = caught.value
    assert error.where == str(shard)
    assert error.what.startswith("shard of 2 scenes ")
    assert f"--out {data}" in error.remedy
    assert not (tmp_path / "out" / "weights.safetensors").exists()


def test_scenes_that_the_manifest_forgot_are_missed(data, tmp_path):
    manifest = Manifest.load(data)
    forgotten = manifest.of("train")[1]
    Manifest(manifest.digest, manifest.config, [s for s in manifest.shards if s != forgotten]).save(data)
    with pytest.raises(DataError, match=r"train-0000002\.safetensors: shard of 2 scenes.*ris-verified generate"):
        SceneDataset(data, "train")
    assert len(SceneDataset(data, "test")) == 4


@pytest.mark.parametrize("command", ["generate", "evaluate", "hpo"])
def test_what_the_error_says_to_run_mends_the_folder(tiny, data, tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text(tiny.to_toml())
    options = {
        "generate": ["generate", "--out", "my data"],
        "evaluate": ["evaluate", "--weights", "trained", "--out", "my"],
        "hpo": ["hpo", "--n-trials", "1", "--out", "my", "--ignore-audit", "made for its data only"],
    }[command]
    if command == "evaluate":
        _train(tiny, data, Path("trained"))
    if command == "hpo":
        monkeypatch.setattr("ris_verified.cli.study.gate", lambda *given: type("Report", (), {"verdict": "GO"}))
    assert main([*options, "--config", "mine.toml"]) == 0
    folder = Path("my data" if command == "generate" else "my/data")
    split = "test" if command == "evaluate" else "validation"
    _flip(folder / f"{split}-0000000.safetensors")
    with pytest.raises(DataError) as caught:
        SceneDataset(folder, split)
    typed = re.search(r"`ris-verified (.*)`", str(caught.value)).group(1)
    # Elsewhere the user's own file is no help.
    Path("mine.toml").unlink()
    assert main(shlex.split(typed)) == 0, capsys.readouterr().err
    assert verify(folder) == []
    assert len(SceneDataset(folder, split)) > 0


def test_a_checksum_is_known_while_the_file_stays_what_it_was(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"a")
    os.utime(file, (10**9, 10**9))
    first = known_checksum(file)
    assert known_checksum(file) == first
    # Of the same size: a later time tells, or one that is too young to tell.
    file.write_bytes(b"b")
    assert known_checksum(file) != first
    os.utime(file, (10**9 + 1, 10**9 + 1))
    assert known_checksum(file) != first
