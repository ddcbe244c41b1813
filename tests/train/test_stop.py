"""A run that is asked to end: after its step, in all processes alike, and it goes on to the same bits."""

from __future__ import annotations

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
from ris_verified.errors import StoppedError
from ris_verified.pipeline import Pipeline
from ris_verified.train.log import read_log

# Fewer measurements leave flat objectives, whose minima move with the rounding of another batch shape.
TINY = [
    "array.horizontal=8", "array.vertical=8", "scene.antennas=8", "scene.snapshots=12", "scene.sources_max=3",
    "model.channels=8", "model.width=16", "model.layers=1", "model.heads=2", "model.head_width=16",
    "model.head_layers=1", "model.dictionary_azimuth=8", "model.dictionary_elevation=4", "model.dictionary_range=2",
    "model.dropout=0.5", "train.precision=float32", "train.batch_size=4", "train.epochs=2",
    "train.checkpoint_steps=100", "train.ema_decay=0.9", "train.swa_share=0.5",
    "data.train_scenes=12", "data.validation_scenes=4", "data.test_scenes=2", "data.shard_scenes=6", "data.workers=1",
]  # fmt: skip
STEPS = 6
RUN = """
    import os, signal, sys
    from pathlib import Path
    from ris_verified.config import Config
    from ris_verified.pipeline import Pipeline
    from ris_verified.errors import StoppedError
    from ris_verified.signals import stop_requests
    import torch
    torch.set_num_threads(1)
    data, out, at, more = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
    pipeline = Pipeline.default(Config.load(None, more))
    def progress(step, total, note):
        # One process alone is told.
        if step == at and os.environ.get("RANK") == "1":
            os.kill(os.getpid(), signal.SIGUSR1)
    try:
        with stop_requests() as stop:
            pipeline.train(pipeline, data, out, progress=progress, curves=False, stop=stop)
    except StoppedError as stopped:
        (out / f"stopped-{os.environ['RANK']}").write_text(str(stopped))
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stop") / "data"
    generate(Config.load(None, TINY), folder)
    return folder


def _train(data, out, *more, stop=None):
    pipeline = Pipeline.default(Config.load(None, [*TINY, *more]))
    return pipeline.train(pipeline, data, out, curves=False, stop=stop)


def _same(first, second):
    assert read_log(first / "log.jsonl") == read_log(second / "log.jsonl")
    a, b = (load_file(out / "weights.safetensors") for out in (first, second))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("stop") / "whole"
    _train(data, out)
    return out


def test_a_run_that_is_stopped_after_every_question_ends_with_the_same_bits(data, whole, tmp_path):
    reached = []
    for _ in range(3 * STEPS):
        asked = []

        def stop(asked=asked):
            # The first question of a run comes before its first step, the second one after it.
            asked.append(True)
            return signal.SIGTERM if len(asked) > 1 else 0

        try:
            _train(data, tmp_path, stop=stop)
        except StoppedError as error:
            reached.append(str(error))
        else:
            break
    told = "; a checkpoint is kept: the same command goes on"
    assert list(dict.fromkeys(reached)) == [f"stopped by SIGTERM after step {k} of {STEPS}{told}" for k in range(1, 7)]
    _same(tmp_path, whole)


def test_a_request_before_the_first_step_leaves_nothing_done(data, tmp_path):
    with pytest.raises(StoppedError, match="after step 0 of 6; the same command begins again"):
        _train(data, tmp_path, stop=lambda: signal.SIGINT)
    assert read_log(tmp_path / "log.jsonl") == ([], [])


def test_a_run_without_checkpoints_says_that_nothing_is_kept(data, tmp_path):
    asked = []
    with pytest.raises(StoppedError, match=r"nothing is kept, for train\.checkpoint_steps is 0"):
        _train(data, tmp_path, "train.checkpoint_steps=0", stop=lambda: asked.append(1) or 15 * (len(asked) > 3))
    assert not list(tmp_path.glob("checkpoints/*"))


def _two(data, out, at):
    out.mkdir(exist_ok=True)
    script = out / "run.py"
    script.write_text(textwrap.dedent(RUN))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, str(script), str(data), str(out), str(at), *TINY]
    done = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr


def test_all_processes_stop_at_the_step_of_the_one_that_was_told(data, tmp_path):
    _two(data, tmp_path / "whole", -1)
    _two(data, tmp_path / "ended", 2)
    for rank in range(2):
        assert (tmp_path / "ended" / f"stopped-{rank}").read_text().startswith("stopped by SIGUSR1 after step 2 of 6")
    assert not (tmp_path / "ended" / "weights.safetensors").exists()
    _two(data, tmp_path / "ended", -1)
    _same(tmp_path / "ended", tmp_path / "whole")
