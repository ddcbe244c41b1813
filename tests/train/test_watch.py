"""Who looks on: the note beside the bar, the log's listeners, a whole run with and without them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from ris_verified.config import Config
from ris_verified.data.generate import generate
from ris_verified.pipeline import Pipeline
from ris_verified.train import pace as clock
from ris_verified.train.board import FOLDER
from ris_verified.train.log import FLUSH, TrainingLog, read_log
from ris_verified.train.pace import Pace
from ris_verified.train.result import TrainResult
from ris_verified.train.state import StepReport

TINY = [
    "array.horizontal=4", "array.vertical=4", "scene.antennas=5", "scene.snapshots=4", "scene.sources_max=3",
    "model.channels=8", "model.width=16", "model.layers=1", "model.heads=2", "model.head_width=16",
    "model.head_layers=1", "model.dictionary_azimuth=8", "model.dictionary_elevation=4", "model.dictionary_range=2",
    "model.dropout=0.5", "estimate.grid_azimuth=8", "estimate.grid_elevation=4", "estimate.grid_range=2",
    "train.precision=float32", "train.batch_size=4", "train.epochs=2",
    "data.train_scenes=12", "data.validation_scenes=6", "data.test_scenes=2", "data.shard_scenes=6", "data.workers=1",
]  # fmt: skip
NOTE = re.compile(r"epoch [12]/2, \d+ scenes/s(, loss [\d.]+)?, lr \d\.\de-\d\d, skipped 0")


class Unread(torch.Tensor):
    """A scalar that must not be read from its device yet."""

    def __float__(self) -> float:
        raise AssertionError("a step was synchronised")


def _report(loss: torch.Tensor, *, skipped: bool = False) -> StepReport:
    return StepReport(loss, {"angle": loss}, loss, loss, {"backbone": 1e-3}, skipped)


class TestLog:
    def test_listeners_hear_what_is_written_when_it_is_written(self, tmp_path):
        heard = []
        log = TrainingLog(tmp_path / "log.jsonl", heard.append)
        for step in range(1, FLUSH):
            log.step(step, _report(torch.tensor(0.5)))
        assert heard == []
        assert log.path.read_text() == ""
        log.step(FLUSH, _report(torch.tensor(0.25)))
        log.epoch({"epoch": 1, "step": FLUSH})
        assert [len(records) for records in heard] == [FLUSH, 1]
        assert [json.dumps(r) for records in heard for r in records] == log.path.read_text().splitlines()

    def test_steps_stay_on_the_device_until_the_flush(self, tmp_path):
        log = TrainingLog(tmp_path / "log.jsonl")
        unread = torch.tensor(0.5).as_subclass(Unread)
        for step in range(1, FLUSH):
            log.step(step, _report(unread))
        with pytest.raises(AssertionError, match="synchronised"):
            log.flush()


class TestPace:
    @pytest.fixture
    def at(self, monkeypatch):
        now = [100.0]
        monkeypatch.setattr(clock.time, "perf_counter", lambda: now[0])
        return now

    def test_speed_is_of_the_epochs_last_steps(self, at):
        pace = Pace(3, 64)
        pace.epoch(0)
        for _ in range(10):
            at[0] += 2.0
            note = pace.note(1e-3, 0)
        assert note == "epoch 1/3, 32 scenes/s, lr 1.0e-03, skipped 0"
        for _ in range(2 * clock.WINDOW):
            at[0] += 0.5
            note = pace.note(5e-4, 1)
        assert note == "epoch 1/3, 128 scenes/s, lr 5.0e-04, skipped 1"
        # A validation of an hour is not time of a step.
        at[0] += 3600
        pace.epoch(1)
        at[0] += 1.0
        assert pace.note(5e-4, 1) == "epoch 2/3, 64 scenes/s, lr 5.0e-04, skipped 1"

    def test_loss_is_the_last_good_one_that_was_logged(self, at):
        pace = Pace(3, 64)
        pace.epoch(0)
        at[0] += 1
        assert "loss" not in pace.note(1e-3, 0)
        pace.hear([{"step": 1, "loss": 0.75, "skipped": False}, {"step": 2, "loss": "nan", "skipped": True}])
        assert ", loss 0.75, " in pace.note(1e-3, 1)
        pace.hear([{"epoch_end": {}}])
        assert ", loss 0.75, " in pace.note(1e-3, 1)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    generate(Config.load(None, TINY), folder)
    return folder


def _train(data: Path, out: Path, notes: list[tuple[int, int, str]] | None = None, **options: bool) -> TrainResult:
    pipeline = Pipeline.default(Config.load(None, TINY))
    torch.manual_seed(11)
    progress = None if notes is None else lambda *call: notes.append(call)
    return pipeline.train(pipeline, data, out, progress=progress, **options)


def test_progress_counts_every_step_of_the_run(data, tmp_path):
    notes = []
    _train(data, tmp_path, notes, curves=False)
    assert [(done, total) for done, total, _ in notes] == [(step, 6) for step in range(1, 7)]
    assert all(NOTE.fullmatch(note) for _, _, note in notes)
    # The end of the first epoch has written the loss.
    assert ["loss" in note for _, _, note in notes] == [False] * 3 + [True] * 3
    assert not (tmp_path / "summary.html").exists()
    assert not (tmp_path / FOLDER).exists()


def test_a_watched_run_trains_the_same_weights_and_says_what_the_log_says(data, tmp_path):
    pytest.importorskip("tensorboard")
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    alone, watched = (
        _train(data, tmp_path / name, [], curves=False, tensorboard=name == "watched") for name in ("alone", "watched")
    )
    for name, value in alone.model.state_dict().items():
        assert torch.equal(value, watched.model.state_dict()[name]), name
    events = reader.EventAccumulator(str(tmp_path / "watched" / FOLDER), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    steps, epochs = read_log(tmp_path / "watched" / "log.jsonl")
    assert [(e.step, e.value) for e in events.Scalars("step/loss")] == [
        (r["step"], pytest.approx(r["loss"])) for r in steps
    ]
    assert [e.value for e in events.Scalars("validation/capture")] == [
        pytest.approx(r["validation"]["capture"]) for r in epochs
    ]
    assert [picture.step for picture in events.Images("spectrum")] == [3, 6]


def test_a_second_run_into_the_same_folder_begins_anew(data, tmp_path):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for _ in range(2):
        _train(data, tmp_path, curves=False, tensorboard=True)
    events = reader.EventAccumulator(str(tmp_path / FOLDER), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    assert [e.step for e in events.Scalars("step/loss")] == [1, 2, 3, 4, 5, 6]
    assert [picture.step for picture in events.Images("spectrum")] == [3, 6]
