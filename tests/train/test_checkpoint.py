"""An interrupted run goes on to the same bits; damage and strangers are told."""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import subprocess
import sys
import textwrap

import pytest
import torch
from safetensors.torch import load_file

from ris_verified.config import Config
from ris_verified.data.generate import generate
from ris_verified.errors import DataError
from ris_verified.pipeline import Pipeline
from ris_verified.train.checkpoint import KEPT
from ris_verified.train.log import read_log

TINY = [
    "array.horizontal=4", "array.vertical=4", "scene.antennas=5", "scene.snapshots=4", "scene.sources_max=3",
    "model.channels=8", "model.width=16", "model.layers=1", "model.heads=2", "model.head_width=16",
    "model.head_layers=1", "model.dictionary_azimuth=8", "model.dictionary_elevation=4", "model.dictionary_range=2",
    "model.dropout=0.5", "train.precision=float32", "train.batch_size=4", "train.epochs=2", "train.checkpoint_steps=2",
    "train.ema_decay=0.9", "train.swa_share=0.5", "train.curriculum_share=0.3",
    "data.train_scenes=18", "data.validation_scenes=6", "data.test_scenes=2", "data.shard_scenes=6", "data.workers=1",
]  # fmt: skip
STEPS = 10


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint") / "data"
    generate(Config.load(None, TINY), folder)
    return folder


def _train(data, out, *more, until=None, fresh=False, **stages):
    pipeline = dataclasses.replace(Pipeline.default(Config.load(None, [*TINY, *more])), **stages)

    def progress(step, total, note):
        if step == until:
            raise Killed

    return pipeline.train(pipeline, data, out, progress=progress, curves=False, fresh=fresh)


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("checkpoint") / "whole"
    return out, _train(data, out)


def _newest(out):
    return sorted((out / "checkpoints").iterdir())[-1]


def _same(first, second):
    assert read_log(first / "log.jsonl") == read_log(second / "log.jsonl")
    state = load_file(_newest(first))
    assert {name.split("/")[0] for name in state} == {"live", "ema", "swa", "optimizer", "random"}
    files = [("weights.safetensors", "weights.safetensors"), (_newest(first), _newest(second))]
    for a, b in ((load_file(first / x), load_file(second / y)) for x, y in files):
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("until", [1, 3, 5, 6, 9, STEPS])
def test_a_run_that_goes_on_ends_with_the_same_bits(data, whole, tmp_path, until):
    with pytest.raises(Killed):
        _train(data, tmp_path, until=until)
    result = _train(data, tmp_path)
    assert [r["epoch"] for r in result.history] == [1, 2]
    assert result.history == whole[1].history
    assert result.best_epoch == whole[1].best_epoch
    _same(tmp_path, whole[0])


def test_it_survives_many_ends_in_a_row(data, whole, tmp_path):
    for until in (1, 2, 4, 5, 7, 8, 9):
        with pytest.raises(Killed):
            _train(data, tmp_path, until=until)
    _train(data, tmp_path)
    _same(tmp_path, whole[0])


def test_accumulated_and_uneven_batches_too(data, tmp_path):
    more = ["train.accumulation=2", "train.checkpoint_steps=1"]
    _train(data, tmp_path / "whole", *more)
    with pytest.raises(Killed):
        _train(data, tmp_path / "ended", *more, until=4)
    _train(data, tmp_path / "ended", *more)
    _same(tmp_path / "ended", tmp_path / "whole")


def _troubled():
    """Stages of a run that meets a NaN in its third step and runs out of memory in its first one."""
    sound, calls = Pipeline.default(), []

    def unpack(given, device):
        calls.append(given)
        batch = sound.unpack(given, device)
        return dataclasses.replace(batch, y=batch.y * torch.nan) if len(calls) == 3 else batch

    def loss(*given, **options):
        if not full:
            full.append(True)
            raise MemoryError
        return sound.loss(*given, **options)

    full: list[bool] = []
    return {"unpack": unpack, "loss": loss}


def test_what_happened_before_is_remembered(data, tmp_path):
    whole = _train(data, tmp_path / "whole", **_troubled())
    with pytest.raises(Killed):
        _train(data, tmp_path / "ended", until=5, **_troubled())
    result = _train(data, tmp_path / "ended")
    assert result.skipped == whole.skipped == 1
    assert result.history == whole.history
    _same(tmp_path / "ended", tmp_path / "whole")


def test_a_real_kill(data, whole, tmp_path):
    code = f"""
        import os, signal
        from pathlib import Path
        from ris_verified.config import Config
        from ris_verified.pipeline import Pipeline
        import torch
        torch.set_num_threads({torch.get_num_threads()})
        pipeline = Pipeline.default(Config.load(None, {TINY!r}))
        def progress(step, total, note):
            if step == 7:
                os.kill(os.getpid(), signal.SIGKILL)
        pipeline.train(pipeline, Path({str(data)!r}), Path({str(tmp_path)!r}), progress=progress, curves=False)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], env=os.environ, check=False)
    assert done.returncode == -signal.SIGKILL
    _train(data, tmp_path)
    _same(tmp_path, whole[0])


def test_a_finished_run_only_returns_its_result(data, whole):
    out, first = whole
    before = _newest(out).stat().st_mtime_ns
    result = _train(data, out, until=1)
    assert result.history == first.history
    assert _newest(out).stat().st_mtime_ns == before
    for name, value in result.model.state_dict().items():
        assert torch.equal(value, first.model.state_dict()[name])


def test_old_ones_are_pruned(whole):
    names = [path.name for path in sorted((whole[0] / "checkpoints").iterdir())]
    assert len(names) == KEPT
    assert names[-1] == f"step-{STEPS:09d}.safetensors"


@pytest.mark.parametrize("damage", [lambda c: c[: len(c) // 2], lambda c: b"", lambda c: b"\xff" * 64])
def test_a_torn_newest_falls_back_to_the_one_before(data, whole, tmp_path, caplog, damage):
    with pytest.raises(Killed):
        _train(data, tmp_path, until=7)
    torn = _newest(tmp_path)
    torn.write_bytes(damage(torn.read_bytes()))
    with caplog.at_level(logging.WARNING, "ris_verified"):
        _train(data, tmp_path)
    assert torn.name in caplog.text
    _same(tmp_path, whole[0])


def test_another_run_is_one_error_and_starting_over_is_possible(data, tmp_path):
    with pytest.raises(Killed):
        _train(data, tmp_path, until=5)
    kept = _newest(tmp_path)
    with pytest.raises(DataError, match="--fresh"):
        _train(data, tmp_path, "train.learning_rate=1e-4")
    assert kept.exists()
    result = _train(data, tmp_path, "train.learning_rate=1e-4", fresh=True)
    assert len(read_log(tmp_path / "log.jsonl")[0]) == STEPS
    assert result.history[-1]["step"] == STEPS


def test_another_network_is_one_error(data, tmp_path):
    with pytest.raises(Killed):
        _train(data, tmp_path, until=5)
    kept = _newest(tmp_path).read_bytes()
    wider = Config.load(None, [*TINY, "model.width=32"])
    with pytest.raises(DataError, match="size mismatch"):
        _train(data, tmp_path, build_model=lambda _: Pipeline.default(wider).build_model(wider))
    assert _newest(tmp_path).read_bytes() == kept


def test_other_stages_are_told(data, tmp_path, caplog):
    with pytest.raises(Killed):
        _train(data, tmp_path, until=5)
    sound = Pipeline.default()

    def halved(*given, **options):
        result = sound.loss(*given, **options)
        return dataclasses.replace(result, total=result.total / 2)

    with caplog.at_level(logging.WARNING, "ris_verified"):
        _train(data, tmp_path, loss=halved)
    told = [record.message for record in caplog.records if "goes on with" in record.message]
    assert len(told) == 1
    assert told[0].startswith("the run began with loss = ris_verified.loss.total.loss and goes on with ")
    assert told[0].endswith("halved: --fresh would start over")


def test_a_run_without_checkpoints_does_not_overwrite_one_that_has_some(data, tmp_path):
    first = _train(data, tmp_path)
    kept = first.weights.read_bytes()
    with pytest.raises(DataError, match="another folder"):
        _train(data, tmp_path, "train.checkpoint_steps=0", "train.learning_rate=1e-4")
    assert first.weights.read_bytes() == kept
    # The same run, which has ended.
    assert _train(data, tmp_path, "train.checkpoint_steps=0", until=1).history == first.history
    assert first.weights.read_bytes() == kept
    assert len(read_log(tmp_path / "log.jsonl")[0]) == STEPS


def test_what_dead_writers_left_is_removed(data, tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    parts = [
        tmp_path / folder / f".{name}.safetensors.{ended.pid}.part"
        for folder, name in ((".", "weights"), ("checkpoints", "step-000000099"))
    ]
    for part in parts:
        part.parent.mkdir(exist_ok=True)
        part.write_bytes(b"half")
    _train(data, tmp_path)
    assert not any(part.exists() for part in parts)


def test_other_data_is_one_error(data, tmp_path):
    generate(Config.load(None, [*TINY, "seed=5"]), tmp_path / "other")
    with pytest.raises(Killed):
        _train(data, tmp_path / "run", until=5)
    with pytest.raises(DataError, match="its data is"):
        _train(tmp_path / "other", tmp_path / "run")


def test_without_checkpoints_none_are_written(data, tmp_path):
    _train(data, tmp_path, "train.checkpoint_steps=0")
    assert not (tmp_path / "checkpoints").exists()


def test_the_global_generator_is_left_alone(data, tmp_path):
    before = torch.random.get_rng_state()
    _train(data, tmp_path)
    assert torch.equal(before, torch.random.get_rng_state())
