"""Two processes are one run: the same loss, no scene twice, one writer, and an end when one of them dies."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from ris_verified.config import Config
from ris_verified.data.generate import generate
from ris_verified.errors import ConfigError
from ris_verified.pipeline import Pipeline
from ris_verified.train.log import read_log
from ris_verified.train.ranks import Ranks
from ris_verified.train.ready import require_ready

# Fewer measurements leave flat objectives, whose minima move with the rounding of another batch shape.
TINY = [
    "array.horizontal=8", "array.vertical=8", "scene.antennas=8", "scene.snapshots=12", "scene.sources_max=3",
    "model.channels=8", "model.width=16", "model.layers=1", "model.heads=2", "model.head_width=16",
    "model.head_layers=1", "model.dictionary_azimuth=8", "model.dictionary_elevation=4", "model.dictionary_range=2",
    "model.dropout=0.0", "train.precision=float32", "train.batch_size=4", "train.epochs=2", "train.checkpoint_steps=2",
    "train.ema_decay=0.9", "train.swa_share=0.5", "train.curriculum_share=0.3", "train.learning_rate=1e-4",
    "data.train_scenes=19", "data.validation_scenes=6", "data.test_scenes=2", "data.shard_scenes=6", "data.workers=1",
]  # fmt: skip
DROPOUT = "model.dropout=0.5"
RUN = """
    import dataclasses, os, signal, sys
    from pathlib import Path
    from ris_verified.config import Config
    from ris_verified.pipeline import Pipeline
    import ris_verified.train.loop
    import torch
    torch.set_num_threads(1)
    data, out, at, spoilt, more = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5:]
    second = os.environ.get("RANK") == "1"
    pipeline, batches = Pipeline.default(Config.load(None, more)), []
    def progress(step, total, note):
        (out / f"seed-{os.environ.get('RANK')}").write_text(str(torch.initial_seed()))
        if step == at and second:
            os.kill(os.getpid(), signal.SIGKILL)
    def unpack(given, device):
        batches.append(pipeline.unpack(given, device))
        bad = second and len(batches) == spoilt
        return dataclasses.replace(batches[-1], y=batches[-1].y * float("nan")) if bad else batches[-1]
    spoiling = dataclasses.replace(pipeline, unpack=unpack)
    try:
        result = spoiling.train(spoiling, data, out, progress=progress, curves=False)
    finally:
        names = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
        sys.stderr.write(f"{names.count('pt_gloo_runloop')} threads of gloo left\\n")
    assert result.weights.exists()
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks") / "data"
    generate(Config.load(None, TINY), folder)
    return folder


def _script(data, out, *more, at=-1, spoilt=-1):
    out.mkdir(exist_ok=True)
    script = out / "run.py"
    script.write_text(textwrap.dedent(RUN))
    return [str(script), str(data), str(out), str(at), str(spoilt), *TINY, *more]


def _start(data, out, *more, at=-1, spoilt=-1):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, *_script(data, out, *more, at=at, spoilt=spoilt)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def _figures(out):
    steps, epochs = read_log(out / "log.jsonl")
    return [[step[name] for name in ("loss", "nmse", "gradient_norm")] for step in steps], epochs


@pytest.mark.parametrize("parts", [1, 2])
def test_two_processes_lose_as_one(data, tmp_path, parts):
    accumulated = ["train.batch_size=2", "train.accumulation=2"] if parts == 2 else []
    two = tmp_path / "two"
    done = _start(data, two, *accumulated)
    assert done.returncode == 0, done.stderr
    # One that outlives the interpreter aborts the process, now and then.
    assert done.stderr.count("0 threads of gloo left") == 2
    pipeline = Pipeline.default(Config.load(None, TINY))
    pipeline.train(pipeline, data, tmp_path / "one", curves=False)
    (ours, epochs), (theirs, their_epochs) = _figures(two), _figures(tmp_path / "one")
    assert [e["step"] for e in epochs] == [e["step"] for e in their_epochs] == [5, 10]
    ours, theirs = torch.tensor(ours), torch.tensor(theirs)
    # Rounding differs in the order of sums, grows through ten steps of the optimiser, and in slopes before it does so
    # in the loss.
    torch.testing.assert_close(ours[:, :2], theirs[:, :2], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours[:, 2], theirs[:, 2], rtol=1e-4, atol=1e-6)
    one, many = (load_file(out / "weights.safetensors") for out in (tmp_path / "one", two))
    assert one.keys() == many.keys()


@pytest.fixture(scope="module")
def spoilt(data, tmp_path_factory):
    """A run with dropout in which one process alone meets a NaN, in its third step."""
    out = tmp_path_factory.mktemp("ranks") / "spoilt"
    done = _start(data, out, DROPOUT, spoilt=3)
    assert done.returncode == 0, done.stderr
    return out


def test_a_step_that_one_process_cannot_take_is_skipped_in_all(spoilt):
    steps, epochs = read_log(spoilt / "log.jsonl")
    assert [step["step"] for step in steps if step["skipped"]] == [3]
    assert [epoch["skipped"] for epoch in epochs] == [1, 1]


def test_a_dead_rank_ends_the_job_and_the_run_goes_on(data, spoilt, tmp_path):
    ended = _start(data, tmp_path, DROPOUT, at=5, spoilt=3)
    assert ended.returncode != 0
    assert "Signal 9 (SIGKILL)" in ended.stderr
    assert "rank      : 1" in ended.stderr
    # Each process drops others.
    assert [(tmp_path / f"seed-{rank}").read_text() for rank in range(2)] == ["0", "1"]
    done = _start(data, tmp_path, DROPOUT)
    assert done.returncode == 0, done.stderr
    assert read_log(tmp_path / "log.jsonl") == read_log(spoilt / "log.jsonl")
    first, second = (load_file(out / "weights.safetensors") for out in (tmp_path, spoilt))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_one_left_says_whom_it_lost(data, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    base = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *_script(data, tmp_path, at=3)]
    environments = [{**os.environ, **base, "RANK": str(rank)} for rank in range(2)]
    ranks = [subprocess.Popen(command, env=e, stderr=subprocess.PIPE, text=True) for e in environments]
    said = [rank.communicate(timeout=300)[1] for rank in ranks]
    assert ranks[1].returncode == -signal.SIGKILL
    assert ranks[0].returncode == 1
    assert "TrainingError: rank 0: rank 0 of 2 lost another one" in said[0]
    assert "goes on from the last checkpoint" in said[0]
    assert "0 threads of gloo left" in said[0]


@given(st.integers(1, 8), st.integers(1, 8), st.integers(0, 6), st.integers(0, 70))
def test_shares_are_disjoint_even_and_whole(count, each, batches, rest):
    size = each * count
    rest = rest % size
    order = torch.randperm(batches * size + rest)
    if 0 < rest < count:
        with pytest.raises(ConfigError, match="processes"):
            Ranks(0, count).share(order, size)
        return
    if not len(order):
        return
    shares = [Ranks(index, count).share(order, size) for index in range(count)]
    for step, batch in enumerate(order.split(size)):
        parts = [share[step * each : (step + 1) * each] for share in shares]
        assert torch.equal(torch.cat(parts), batch)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_batch_that_does_not_split_is_told():
    with pytest.raises(ConfigError, match=r"train\.batch_size"):
        Ranks(0, 3).share(torch.arange(20), 4)


def test_two_processes_train_without_the_order(data, tmp_path):
    done = _start(data, tmp_path, "loss.order=0.0", "train.epochs=1")
    assert done.returncode == 0, done.stderr


def test_a_batch_that_does_not_split_is_told_before_anything_is_done(data, tmp_path, monkeypatch):
    pipeline = Pipeline.default(Config.load(None, TINY))
    require_ready(pipeline, data, tmp_path / "out", fresh=False)
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ConfigError, match=r"train\.batch_size"):
        require_ready(pipeline, data, tmp_path / "out", fresh=False)


def _apart(data, out, *more, configs=((), ())):
    """Run both processes with folders of their own, as on two nodes with local disks."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    base = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, *_script(data, out / f"local{rank}", *more, *configs[rank])],
            env={**os.environ, **base, "RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [rank.communicate(timeout=300)[1] for rank in ranks]
    return [rank.returncode for rank in ranks], said


def test_the_first_process_alone_needs_the_folder(data, spoilt, tmp_path):
    ended = _start(data, tmp_path / "local0", DROPOUT, at=5, spoilt=3)
    assert ended.returncode != 0
    # The second one has a checkpoint of its own, of a later step.
    (tmp_path / "local1").mkdir()
    shutil.copytree(spoilt / "checkpoints", tmp_path / "local1" / "checkpoints")
    codes, said = _apart(data, tmp_path, DROPOUT)
    assert codes[0] == 0, said[0]
    assert read_log(tmp_path / "local0" / "log.jsonl") == read_log(spoilt / "log.jsonl")
    first, second = (load_file(out / "weights.safetensors") for out in (tmp_path / "local0", spoilt))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_another_configuration_in_one_process_is_one_error_in_all(data, tmp_path):
    codes, said = _apart(data, tmp_path, configs=((), ("train.learning_rate=2e-4",)))
    assert codes == [1, 1]
    for text in said:
        assert "0 threads of gloo left" in text
        assert "TrainingError: rank" in text
        assert "rank 1 has another configuration or data folder than rank 0" in text


def test_what_stops_the_first_process_stops_all(data, tmp_path):
    _script(data, tmp_path / "local0")
    (tmp_path / "local0" / "checkpoints").mkdir()
    (tmp_path / "local0" / "checkpoints" / "step-000000001.safetensors").write_bytes(b"half")
    codes, said = _apart(data, tmp_path)
    assert codes == [1, 1]
    assert "holds damaged checkpoints only" in said[0]
    assert "rank 1: rank 0 could not begin; its error is the cause" in said[1]
