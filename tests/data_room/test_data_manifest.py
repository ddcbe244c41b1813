"""Verification: what is wrong with a folder is named, with what to run."""

from __future__ import annotations

import dataclasses
import json

import pytest

from ris_verified.data.dataset import SceneDataset
from ris_verified.data.manifest import CONFIG, MANIFEST, Manifest, data_digest, verify
from ris_verified.errors import DataError

SHARD = "train-0000002.safetensors"


def _flip(folder):
    content = bytearray((folder / SHARD).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / SHARD).write_bytes(content)


def _truncate(folder):
    (folder / SHARD).write_bytes((folder / SHARD).read_bytes()[:-1])


def _remove(folder):
    (folder / SHARD).unlink()


def _exchange(folder):
    # Of the same size and configuration: only the checksum can tell.
    (folder / SHARD).write_bytes((folder / "train-0000000.safetensors").read_bytes())


@pytest.mark.parametrize(
    ("harm", "words"),
    [(_flip, "content changed"), (_truncate, "bytes instead of"), (_remove, "missing"), (_exchange, "content changed")],
)
def test_damage_is_named_once_with_what_to_run(sound, small, harm, words):
    harm(sound)
    (problem,) = verify(sound, small)
    assert problem.startswith(SHARD)
    assert words in problem
    assert f"ris-verified generate --config {sound / CONFIG} --out {sound}" in problem
    with pytest.raises(DataError, match=r"of 2 scenes (has changed|has \d+ bytes|is missing)") as caught:
        SceneDataset(sound, "train")
    assert SHARD in str(caught.value)
    assert f"ris-verified generate --config {sound / CONFIG} --out {sound}" in str(caught.value)


def test_a_folder_of_an_earlier_version_asks_for_its_configuration(sound):
    (sound / CONFIG).unlink()
    _remove(sound)
    (problem,) = verify(sound)
    assert f"ris-verified generate --config FILE --out {sound}" in problem


def test_a_stranger_is_named(sound):
    (sound / "train-9999999.safetensors").write_bytes((sound / SHARD).read_bytes())
    (problem,) = verify(sound)
    assert "train-9999999.safetensors: not in the manifest" in problem


def test_a_manifest_that_forgets_a_shard_is_short_of_scenes(sound):
    manifest = Manifest.load(sound)
    shards = [shard for shard in manifest.shards if shard.file != SHARD]
    dataclasses.replace(manifest, shards=shards).save(sound)
    (sound / SHARD).unlink()
    (problem,) = verify(sound)
    assert problem.startswith(f"{SHARD}: the manifest lists 0 of its 2 scenes")


def test_another_configuration_is_named(sound, small):
    other = dataclasses.replace(small, seed=small.seed + 1)
    (problem,) = verify(sound, other)
    assert small_digests(small, other) <= set(problem.replace(",", " ").replace(";", " ").split())


def small_digests(*configs):
    return {data_digest(cfg) for cfg in configs}


@pytest.mark.parametrize("opened", [Manifest.load, verify, lambda folder: SceneDataset(folder, "test")])
@pytest.mark.parametrize("state", ["absent", "empty", "file"])
def test_a_missing_folder_is_one_error_that_says_what_to_run(tmp_path, opened, state):
    folder = tmp_path / "data"
    if state == "empty":
        folder.mkdir()
    elif state == "file":
        folder.write_bytes(b"")
    with pytest.raises(DataError, match=r"data.*run `ris-verified generate"):
        opened(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"schema": "ris-verified-data/9"},
        {"shards": "all"},
        {"shards": [{"split": "train"}]},
        {"shards": [{"split": "../x", "first": 0, "scenes": 1, "sha256": "0" * 64, "bytes": 1}]},
        {"shards": [{"split": "train", "first": "0", "scenes": 1, "sha256": "0" * 64, "bytes": 1}]},
        {"shards": [{"split": "train", "first": 0, "scenes": 1, "sha256": None, "bytes": 1}]},
    ],
)
def test_a_damaged_manifest_is_one_error(sound, change):
    record = json.loads((sound / MANIFEST).read_text())
    (sound / MANIFEST).write_text(json.dumps(record | change))
    with pytest.raises(DataError, match=MANIFEST):
        Manifest.load(sound)


def test_a_manifest_cut_short_is_one_error(sound):
    content = (sound / MANIFEST).read_bytes()
    (sound / MANIFEST).write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="is damaged"):
        verify(sound)
