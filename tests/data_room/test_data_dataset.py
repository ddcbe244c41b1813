"""Reading: what was drawn comes back, in any order, without matrices on disk."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from ris_verified.config import Config
from ris_verified.data.batch import FIELDS
from ris_verified.data.dataset import (
    BatchLoader,
    SceneDataset,
    draw_batch,
    scenes_to_batch,
    scenes_to_truth,
    with_proposals,
)
from ris_verified.data.manifest import Manifest, checksum
from ris_verified.errors import DataError, InputError
from ris_verified.scene.scene import draw_scene

CODES = {"train": 0, "validation": 1, "test": 2}
EPS = float(np.finfo(np.float32).eps)


def _same(a, b):
    return all(torch.equal(x.nan_to_num(nan=-7.0), y.nan_to_num(nan=-7.0)) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("split", CODES)
def test_stored_scenes_are_the_drawn_ones(sound, small, split):
    dataset = SceneDataset(sound, split)
    scenes = [draw_scene(small, CODES[split], index) for index in range(len(dataset))]
    every = torch.arange(len(dataset))
    stored, drawn = dataset.batch(every), scenes_to_batch(scenes, small)
    assert _same((vars(stored)[name] for name in FIELDS), vars(drawn).values())
    assert _same(vars(dataset.truth(every)).values(), vars(scenes_to_truth(scenes, small)).values())


def test_fields_have_the_shapes_and_dtypes_of_the_checklist(sound, small):
    batch = SceneDataset(sound, "train").batch(torch.tensor([5, 0, 3]))
    L, M, N, K = 3, 4, 12, 3
    expected = {
        "y": ([3, L, M, 2], torch.float32),
        "H": ([3, L, M, 2], torch.float32),
        "C": ([3, L, N, 2], torch.float32),
        "ptr": ([3, K, 3], torch.float32),
        "K": ([3], torch.int64),
        "R_in": ([3, N, N], torch.complex64),
        "snr": ([3], torch.float32),
        "H_full": ([3, M, N, 2], torch.float32),
    }
    assert tuple(expected) == FIELDS
    expected["proposals"] = ([3, K, 11], torch.float32)
    assert {name: (list(v.shape), v.dtype) for name, v in vars(batch).items()} == expected


@pytest.mark.parametrize("split", CODES)
def test_stored_proposals_are_those_that_a_model_would_make(sound, small, split):
    dataset = SceneDataset(sound, split)
    stored = dataset.batch(torch.arange(len(dataset)))
    drawn = scenes_to_batch([draw_scene(small, CODES[split], index) for index in range(len(dataset))], small)
    made = with_proposals(drawn, small).proposals
    gap = (stored.proposals - made).abs() / made.abs().amax((0, 1))
    # Another number of threads may round a choice over.
    assert gap.amax((1, 2)).median() <= 1e3 * EPS


def test_truth_is_exact_and_padded(sound, small):
    truth = SceneDataset(sound, "train").truth(torch.arange(7))
    for index in range(7):
        scene, K = draw_scene(small, 0, index), 0
        K = scene.azimuth.size
        place = np.stack([scene.azimuth, scene.elevation, scene.range], -1)
        assert np.array_equal(truth.ptr[index, :K], place)
        assert np.array_equal(truth.powers[index, :K], scene.powers)
        assert float(truth.noise_variance[index]) == scene.noise_variance
        assert float(truth.rician_factor[index]) == scene.rician_factor
        symbols = torch.view_as_complex(truth.symbols[index]).numpy()
        assert np.abs(symbols[:, :K] - scene.symbols).max() <= EPS * np.abs(scene.symbols).max()
        assert not symbols[:, K:].any()
        assert torch.isnan(truth.ptr[index, K:]).all()
        assert torch.isnan(truth.powers[index, K:]).all()


@pytest.mark.parametrize("amplitude", ["unit", "spherical"])
def test_R_in_is_A_P_Ah_with_trace_N(small, wave, amplitude):
    cfg = dataclasses.replace(small, array=dataclasses.replace(small.array, amplitude=amplitude))
    scenes = [draw_scene(cfg, 0, index) for index in range(20)]
    R = scenes_to_batch(scenes, cfg).R_in.numpy()
    for ours, scene in zip(R, scenes, strict=True):
        A = wave(cfg, scene.azimuth, scene.elevation, scene.range)
        expected = (A * scene.powers) @ A.conj().T
        expected *= 12 / np.trace(expected).real
        # Products of single precision over K sources, of matrices with norm up to N.
        assert np.linalg.norm(ours - expected) <= 8 * EPS * np.sqrt(scene.azimuth.size) * 12


def test_stored_y_is_the_forward_model_plus_noise_of_the_stated_variance(sound, wave):
    dataset = SceneDataset(sound, "train")
    every = torch.arange(len(dataset))
    batch, truth = dataset.batch(every), dataset.truth(every)
    y, H, C, s = (torch.view_as_complex(v.double()).numpy() for v in (batch.y, batch.H_full, batch.C, truth.symbols))
    share = []
    for i, K in enumerate(batch.K.tolist()):
        A = wave(dataset.cfg, *truth.ptr[i, :K].numpy().T)
        clean = np.stack([H[i] @ np.diag(C[i, snap]) @ A @ s[i, snap, :K] for snap in range(len(C[i]))])
        share.append(np.mean(np.abs(y[i] - clean) ** 2) / float(truth.noise_variance[i]))
        stated = np.mean(np.abs(clean) ** 2) / float(truth.noise_variance[i])
        assert 10 * np.log10(stated) == pytest.approx(float(batch.snr[i]), abs=1e-4)
    # |n|²/σ² is exponential: the mean of n of them has standard deviation 1/√n.
    assert abs(np.mean(share) - 1) <= 5 / np.sqrt(y.size)


def test_measured_snr_is_the_stated_one_on_average():
    cfg, gaps = Config(), []
    for index in range(100):
        scene = draw_scene(cfg, 0, index)
        noise = np.mean(np.abs(scene.y - scene.y_clean) ** 2)
        gaps.append(10 * np.log10(np.mean(np.abs(scene.y_clean) ** 2) / noise) - scene.snr_db)
    # To first order the logarithm of a mean of n = LM exponentials spreads by 1/√n and is low by 1/(2n).
    decibel, n = 10 / np.log(10), 256
    assert abs(np.mean(gaps) - decibel / (2 * n)) <= 5 * decibel / np.sqrt(n * len(gaps))


def test_batches_follow_the_order_asked_for_across_shards(sound):
    dataset = SceneDataset(sound, "train")
    whole = dataset.batch(torch.arange(7))
    order = torch.tensor([6, 0, 3, 3, 1])
    assert _same(vars(dataset.batch(order)).values(), (v[order] for v in vars(whole).values()))
    assert _same(vars(dataset[4]).values(), (v[4:5] for v in vars(whole).values()))
    assert torch.equal(dataset.source_counts(), whole.K)


@pytest.mark.parametrize("index", [[-1], [7], [0, 7], [], [[0]]])
def test_an_index_outside_is_one_error(sound, index):
    dataset = SceneDataset(sound, "train")
    with pytest.raises(InputError, match="index"):
        dataset.batch(torch.tensor(index, dtype=torch.int64))
    assert len(list(dataset)) == 7


def test_a_split_without_scenes_is_one_error(sound):
    with pytest.raises(DataError, match="holdout"):
        SceneDataset(sound, "holdout")


@pytest.mark.parametrize("harm", ["missing", "truncated", "garbage", "foreign"])
def test_opening_names_the_shard_that_cannot_be_read(sound, small, tmp_path, harm):
    shard = sound / "train-0000004.safetensors"
    size = shard.stat().st_size
    if harm == "missing":
        shard.unlink()
    elif harm == "truncated":
        shard.write_bytes(shard.read_bytes()[:-1])
    elif harm == "garbage":
        shard.write_bytes(bytes(size))
    else:
        arrays = load_file(shard)
        save_file(arrays, shard, {"origin": "[]"})
        manifest = Manifest.load(sound)
        shards = [
            dataclasses.replace(s, bytes=shard.stat().st_size, sha256=checksum(shard)) if s.file == shard.name else s
            for s in manifest.shards
        ]
        dataclasses.replace(manifest, shards=shards).save(sound)
    with pytest.raises(DataError, match=r"train-0000004\.safetensors.*ris-verified generate"):
        SceneDataset(sound, "train")
    assert len(SceneDataset(sound, "test")) == 2


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the memory map of Linux")
def test_shards_are_mapped_and_small(sound):
    stored = SceneDataset(sound, "train").stored(torch.tensor([0]))
    assert "R_in" not in stored
    assert max(value.nelement() for value in stored.values()) < 12 * 12
    shard, maps = str(sound / "test-0000000.safetensors"), Path("/proc/self/maps")
    before = maps.read_text()
    dataset = SceneDataset(sound, "test")
    assert shard not in before
    assert shard in maps.read_text()
    assert len(dataset) == 2


def test_scene_digests_tell_scenes_apart(sound, small):
    digests = {split: SceneDataset(sound, split).scene_digests() for split in CODES}
    every = list(itertools.chain(*digests.values()))
    assert len(set(every)) == len(every) == 12
    y = draw_scene(small, 2, 1).y
    expected = hashlib.sha256(np.stack([y.real, y.imag], -1).astype(np.float32).tobytes()).hexdigest()
    assert digests["test"][1] == expected


def test_drawn_batches_have_a_key_of_their_own(small):
    first, again, other = draw_batch(small, 3, 7), draw_batch(small, 3, 7), draw_batch(small, 3, 8)
    assert _same(vars(first).values(), vars(again).values())
    assert not torch.equal(first.y, other.y)


def test_the_loader_shows_every_scene_once_in_order_and_can_skip(sound):
    dataset = SceneDataset(sound, "train")
    order = torch.randperm(7, generator=torch.Generator().manual_seed(3))
    whole = dataset.batch(order)
    batches = list(BatchLoader(dataset, 3, order=order))
    assert [len(batch) for batch in batches] == [3, 3, 1]
    assert torch.equal(torch.cat([batch.y for batch in batches]), whole.y)
    for skip in range(5):
        loader = BatchLoader(dataset, 3, order=order, skip=skip)
        rest = list(loader)
        assert len(rest) == len(loader) == max(3 - skip, 0)
        assert all(torch.equal(a.y, b.y) for a, b in zip(rest, batches[skip:], strict=True))


def test_the_loader_raises_what_its_thread_met_and_ends_it(sound):
    dataset = SceneDataset(sound, "train")
    threads = threading.active_count()
    loader = iter(BatchLoader(dataset, 2, order=torch.tensor([0, 1, 99, 2])))
    assert len(next(loader)) == 2
    with pytest.raises(InputError, match="99"):
        next(loader)
    assert threading.active_count() == threads


def test_batches_for_an_accelerator_alone_are_pinned(sound, monkeypatch):
    dataset, pinned = SceneDataset(sound, "train"), []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda value: pinned.append(value) or value.clone())
    plain = list(BatchLoader(dataset, 4, order=torch.arange(7)))
    assert not pinned
    held = list(BatchLoader(dataset, 4, order=torch.arange(7), pin=True))
    assert len(pinned) == sum(len(vars(batch)) for batch in held)
    assert all(_same(vars(one).values(), vars(two).values()) for one, two in zip(plain, held, strict=True))


@pytest.mark.parametrize("pinned", [False, True])
def test_what_is_pinned_alone_is_moved_without_waiting(sound, monkeypatch, pinned):
    batch, moves = SceneDataset(sound, "train").batch(torch.arange(2)), []
    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda value: pinned)
    move = torch.Tensor.to
    monkeypatch.setattr(torch.Tensor, "to", lambda v, *given, **named: moves.append(named) or move(v, *given, **named))
    batch.to("cpu")
    assert moves == [{"non_blocking": pinned}] * len(vars(batch))


def test_a_loader_that_is_left_ends_its_thread(sound):
    dataset = SceneDataset(sound, "train")
    threads = threading.active_count()
    loader = iter(BatchLoader(dataset, 1, order=torch.arange(7), ahead=1))
    next(loader)
    assert threading.active_count() == threads + 1
    loader.close()
    assert threading.active_count() == threads
