"""The run around the steps: what it prints, refuses, keeps when it fails, and survives."""

from __future__ import annotations

import dataclasses
import json
import logging

import pytest
import torch

from ris_verified.config import Config
from ris_verified.data.dataset import SceneDataset, draw_batch, with_proposals
from ris_verified.data.generate import generate
from ris_verified.errors import ConfigError, DataError, TrainingError
from ris_verified.pipeline import Pipeline
from ris_verified.train.log import read_log
from ris_verified.train.memory import Allocations
from ris_verified.train.printout import first_epoch
from ris_verified.train.state import TrainState

TINY = [
    "array.horizontal=4", "array.vertical=4", "scene.antennas=5", "scene.snapshots=4", "scene.sources_max=3",
    "model.channels=8", "model.width=16", "model.layers=1", "model.heads=2", "model.head_width=16",
    "model.head_layers=1", "model.dictionary_azimuth=8", "model.dictionary_elevation=4", "model.dictionary_range=2",
    "train.precision=float32", "train.batch_size=4", "train.warmup_share=0.5", "train.epochs=2",
    "train.checkpoint_steps=2", "data.workers=1",
    "data.train_scenes=12", "data.validation_scenes=6", "data.test_scenes=2", "data.shard_scenes=6",
]  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("loop") / "data"
    generate(Config.load(None, TINY), folder)
    return folder


def _train(data, out, *more, spoilt=(), curves=False, **stages):
    sound, batches = Pipeline.default(Config.load(None, [*TINY, *more])), []

    def unpack(given, device):
        batches.append(sound.unpack(given, device))
        bad = len(batches) in spoilt
        return dataclasses.replace(batches[-1], y=batches[-1].y * torch.nan) if bad else batches[-1]

    pipeline = dataclasses.replace(sound, unpack=unpack, **stages)
    return pipeline.train(pipeline, data, out, curves=curves)


def _printed(data, out, caplog, more=(), **options):
    with caplog.at_level(logging.INFO, "ris_verified"):
        result = _train(data, out, *more, **options)
    return result, [record.message for record in caplog.records]


def test_the_first_epoch_is_printed_with_the_rates_that_were_asked_for(data, tmp_path, caplog):
    _, lines = _printed(data, tmp_path, caplog)
    groups = [line for line in lines if line.startswith("Optimiser: ")]
    assert len(groups) == 1
    assert "backbone" in groups[0]
    assert " at 3.00e-04" in groups[0]
    assert " at 1.20e-03 (4×)" in groups[0]
    steps, _ = read_log(tmp_path / "log.jsonl")
    rates = [f"lr {steps[last]['learning_rates']['backbone']:.2e}" for last in (2, 5)]
    assert [line.rpartition("| ")[2] for line in lines if line.startswith("Epoch ")] == rates


def test_a_first_batch_that_is_not_finite_is_skipped_like_any_other(data, tmp_path, caplog):
    result, lines = _printed(data, tmp_path, caplog, spoilt=(1,))
    assert result.skipped == 1
    assert sum(line.startswith("Optimiser: ") for line in lines) == 1


def test_an_epoch_of_skipped_steps_leaves_json_and_curves(data, tmp_path):
    _train(data, tmp_path, spoilt=(1, 2, 3), curves=True)

    def refuse(name):
        raise AssertionError(name)

    for line in (tmp_path / "log.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=refuse)
    assert read_log(tmp_path / "log.jsonl")[1][0]["train"] == "nan"
    assert '<td class="number">nan</td>' in (tmp_path / "summary.html").read_text()
    assert (tmp_path / "curves.png").stat().st_size > 0


def test_a_run_that_gives_up_leaves_the_steps_that_led_to_it(data, tmp_path):
    with pytest.raises(TrainingError, match="in a row"):
        _train(data, tmp_path, "train.nonfinite_limit=1", "train.checkpoint_steps=0", spoilt=(2, 3))
    assert [step["skipped"] for step in read_log(tmp_path / "log.jsonl")[0]] == [False, True, True]


@pytest.mark.parametrize(
    "changed", ["array.spacing_wavelengths=0.25", "scene.range_max=3.0", "scene.sources_max=2", "scene.snapshots=5"]
)
def test_scenes_of_other_physics_are_one_error(data, tmp_path, changed):
    name = changed.partition("=")[0]
    with pytest.raises(DataError, match=f"scenes of {name} = .* as configured"):
        _train(data, tmp_path, changed)


def test_scenes_that_come_otherwise_often_are_not(data, tmp_path, caplog):
    _, lines = _printed(data, tmp_path, caplog)
    assert not [line for line in lines if "holds" in line]
    _train(data, tmp_path / "more", "scene.snr_db_min=0.0", "data.train_scenes=13")
    assert f"{data} holds 12 of data.train_scenes = 13 scenes" in caplog.messages


def _narrow(holds, without=None):
    """Stages on a device that has no memory for more than so many scenes, with and without gradients."""
    without = 2 * holds if without is None else without

    def build_model(cfg):
        model = Pipeline.default(cfg).build_model(cfg)
        forward = model.forward

        def scarce(y, *given):
            if len(y) > (holds if torch.is_grad_enabled() else without):
                raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to hold {len(y)} scenes")
            return forward(y, *given)

        model.forward = scarce
        return model

    return {"build_model": build_model}


@pytest.mark.parametrize("without", [4, 1])
def test_a_run_that_has_memory_for_few_scenes_ends_well(data, tmp_path, caplog, without):
    result, lines = _printed(data, tmp_path, caplog, **_narrow(1, without))
    assert len(result.history) == 2
    assert "Measured on the first 1 of the step's 4 scenes: a micro-batch" in lines
    shapes = next(line for line in lines if line.startswith("Shapes: "))
    assert "y [4, 4, 5, 2]" in shapes
    assert "R_blend [1, 16, 16]" in shapes
    wide = _train(data, tmp_path / "wide")
    for few, many in zip(result.history, wide.history, strict=True):
        for name, value in many["validation"].items():
            # A mean over scenes whatever the batch; weights differ by the rounding of two epochs.
            assert few["validation"][name] == pytest.approx(value, rel=1e-3), name


def test_validation_that_runs_out_of_memory_goes_on_in_halves_with_the_same_mean(data, tmp_path, caplog):
    sizes = []

    def validate(pipeline, model, batches):
        given = list(batches)
        sizes.append([len(batch) for batch in given])
        if max(sizes[-1]) > 2:
            raise MemoryError
        return Pipeline.default().validate(pipeline, model, given)

    _train(data, tmp_path, validate=validate)
    # Six scenes; what has been learnt once is kept.
    assert sizes == [[6], [3, 3], [2, 2, 2], [2, 2, 2]]
    assert "out of memory: validating in pieces of 2 scenes from here on" in caplog.messages


def test_accumulated_steps_are_measured_on_one_micro_batch(data, tmp_path, caplog):
    _, lines = _printed(data, tmp_path, caplog, more=["train.batch_size=2", "train.accumulation=2"])
    shapes = next(line for line in lines if line.startswith("Shapes: "))
    assert "y [4, 4, 5, 2]" in shapes
    assert "R_pred [2, 16, 16]" in shapes


@pytest.mark.parametrize("preset", ["quick", "small"])
def test_the_first_print_and_validation_hold_less_than_a_step(preset):
    pipeline = Pipeline.default(Config.load(preset, ["data.workers=1"]))
    state, scenes = TrainState.create(pipeline, total_steps=10), 8
    batch = with_proposals(draw_batch(pipeline.config, scenes, 7), pipeline.config)
    # The first step makes the moments, which stay.
    pipeline.train_step(state, batch, pipeline)

    def held(act, *given):
        with Allocations() as seen:
            act(*given)
        return max(seen.bytes)

    step = held(pipeline.train_step, state, batch, pipeline)
    assert held(first_epoch, state, batch, pipeline, scenes) < step
    assert held(pipeline.validate, pipeline, state.best, [batch]) < step


def test_memory_that_runs_out_elsewhere_is_one_error(data, tmp_path, monkeypatch):
    def full(self, index):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried")

    monkeypatch.setattr(SceneDataset, "batch", full)
    with pytest.raises(TrainingError, match=r"epoch 1: out of memory: .*can't allocate memory"):
        _train(data, tmp_path)


def test_weights_that_blow_up_at_once_are_one_error_and_leave_the_log(data, tmp_path):
    with pytest.raises(TrainingError, match=r"step 1, split train: the weights .*; lower train\.learning_rate"):
        _train(data, tmp_path, "train.learning_rate=1e30", "train.warmup_share=0.0")
    assert len(read_log(tmp_path / "log.jsonl")[0]) == 1


def test_a_scene_that_is_not_finite_is_named_with_its_split(data, tmp_path):
    # Three steps, then validation, whose batch is spoilt.
    with pytest.raises(TrainingError, match=r"end of epoch 1, split validation: .* in scenes 0, 1, 2, 3, 4;"):
        _train(data, tmp_path, spoilt=(4,))
    assert len(read_log(tmp_path / "log.jsonl")[0]) == 3


def test_any_error_leaves_the_steps_that_led_to_it(data, tmp_path):
    def validate(*_given):
        raise ValueError("a stage of one's own")

    with pytest.raises(ValueError, match="a stage of one's own"):
        _train(data, tmp_path, "train.checkpoint_steps=0", validate=validate)
    assert len(read_log(tmp_path / "log.jsonl")[0]) == 3


def test_a_run_that_took_no_step_fails_and_leaves_no_weights(data, tmp_path):
    for _ in range(2):
        # Again, it goes on from its last checkpoint, and has nothing more to show.
        with pytest.raises(TrainingError, match="no step changed the weights: all 6 were skipped"):
            _train(data, tmp_path, spoilt=(1, 2, 3, 5, 6, 7))
        assert not (tmp_path / "weights.safetensors").exists()


@pytest.mark.filterwarnings("error")
def test_skipped_steps_are_told_at_the_end_by_their_share(data, tmp_path, caplog):
    _, lines = _printed(data, tmp_path, caplog, spoilt=(1, 2, 3))
    assert lines[-1] == "3 of 6 steps (50 %) were skipped for numbers that are not finite"
    caplog.clear()
    _, lines = _printed(data, tmp_path / "sound", caplog)
    assert not [line for line in lines if "skipped" in line]


def test_a_validation_that_is_never_finite_is_one_error(data, tmp_path):
    def validate(*_given):
        return dict.fromkeys(("loss", "nmse", "capture", "order"), float("nan"))

    with pytest.raises(TrainingError, match="no epoch was validated"):
        _train(data, tmp_path, validate=validate)


def test_a_batch_larger_than_the_data_is_told(data, tmp_path, caplog):
    _, lines = _printed(data, tmp_path, caplog, more=["train.batch_size=7", "train.accumulation=2"])
    assert lines.count("12 scenes are a single step: the batch that is configured, 14, is larger") == 1
    caplog.clear()
    _, lines = _printed(data, tmp_path / "fits", caplog, more=["train.batch_size=6", "train.accumulation=2"])
    assert not [line for line in lines if "single step" in line]


def test_any_seed_that_is_allowed_trains(data, tmp_path):
    assert _train(data, tmp_path, f"seed={2**62}").history
    with pytest.raises(ConfigError, match="seed"):
        Config(seed=2**62 + 1)
