"""Memory of a training step: what is predicted is what a step takes."""

from __future__ import annotations

import dataclasses

import pytest

from ris_verified.audit.context import small_config
from ris_verified.config import Config
from ris_verified.pipeline import Pipeline
from ris_verified.train.memory import peak_memory, step_bytes
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
