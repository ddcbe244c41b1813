"""Memory of a training step: what is predicted is what a step takes."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from ris_verified.audit.context import small_config
from ris_verified.config import Config
from ris_verified.pipeline import Pipeline
from ris_verified.train.memory import _left_in_groups, free_memory, peak_memory, step_bytes
from ris_verified.train.state import TrainState


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return Pipeline.default(small_config(Config()))


@pytest.mark.parametrize("scenes", [3, 16, 40])
@pytest.mark.parametrize("parts", [1, 2, 3])
def test_peak_is_that_of_a_step_of_this_size(pipeline: Pipeline, scenes: int, parts: int) -> None:
    config = pipeline.config.replaced({"train.accumulation": parts})
    pipeline = dataclasses.replace(pipeline, config=config)
    state = TrainState.create(pipeline, total_steps=3)
    step_bytes(pipeline, state, 2)
    peak, told = max(step_bytes(pipeline, state, scenes)), peak_memory(pipeline, scenes).step
    # Parts of unequal size are of the mean size to the forecast.
    assert told == (peak if scenes % parts == 0 or scenes < 16 else pytest.approx(peak, rel=0.02))


def test_a_large_network_whose_first_step_begins_the_average() -> None:
    # The first update of an average copies: other operations than the second, while weights outweigh two scenes.
    pipeline = Pipeline.default(Config())
    state = TrainState.create(pipeline, total_steps=3)
    for _ in range(2):
        peak = max(step_bytes(pipeline, state, 24))
    # Of what comes before the network only the peak is extended.
    assert peak_memory(pipeline, 24).step == pytest.approx(peak, rel=0.05)


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_an_average_of_the_tail_does_not_part_the_steps_that_are_compared(pipeline: Pipeline, share: float) -> None:
    pipeline = dataclasses.replace(pipeline, config=pipeline.config.replaced({"train.swa_share": share}))
    state = TrainState.create(pipeline, total_steps=100)
    step_bytes(pipeline, state, 2)
    assert peak_memory(pipeline, 16).step == max(step_bytes(pipeline, state, 16))


def test_held_is_weights_average_and_two_moments(pipeline: Pipeline) -> None:
    model = pipeline.build_model(pipeline.config)
    weights = sum(p.nbytes for p in model.parameters())
    buffers = sum(b.nbytes for b in model.buffers())
    held = peak_memory(pipeline, 8).held
    counters = held - (4 * weights + 2 * buffers)  # AdamW's step numbers, the average's count
    assert 0 < counters <= 16 * (1 + len(list(model.parameters())))


def test_free_memory_is_below_what_the_machine_has() -> None:
    assert 0 < free_memory() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _group(folder: Path, limit: str, used: int, cached: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in {"max": limit, "current": f"{used}", "stat": f"anon 1\ninactive_file {cached}"}.items():
        (folder / f"memory.{name}").write_text(f"{content}\n")


def test_every_group_around_this_process_limits_it_and_cached_files_do_not(tmp_path: Path) -> None:
    _group(tmp_path / "job" / "step", "max", 5 * 2**30, 0)
    _group(tmp_path / "job", f"{16 * 2**30}", 13 * 2**30, 12 * 2**30)
    own = tmp_path / "own"
    own.write_text("0::/job/step\n")
    assert list(_left_in_groups(own, tmp_path)) == [15 * 2**30]


def test_groups_of_the_first_version_are_asked_by_controller(tmp_path: Path) -> None:
    folder = tmp_path / "memory" / "job"
    folder.mkdir(parents=True)
    (folder / "memory.limit_in_bytes").write_text("4096\n")
    (folder / "memory.usage_in_bytes").write_text("2048\n")
    (folder / "memory.stat").write_text("total_inactive_file 1024\n")
    own = tmp_path / "own"
    own.write_text("5:cpu,cpuacct:/job\n4:memory:/job\n")
    assert list(_left_in_groups(own, tmp_path)) == [3072]


def test_a_system_that_does_not_tell_what_is_free_tells_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {name: number for name, number in os.sysconf_names.items() if name != "SC_AVPHYS_PAGES"}
    monkeypatch.setattr(os, "sysconf_names", known)
    assert free_memory() > 0
