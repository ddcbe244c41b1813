"""Gradients are asked for where they are used: what a step does with them afterwards is its own affair."""

from __future__ import annotations

import dataclasses

import pytest

from ris_verified.audit.context import Context, small_config
from ris_verified.audit.rules import rules
from ris_verified.audit.runner import PACKAGE, run_rule
from ris_verified.config import Config
from ris_verified.pipeline import Pipeline


@pytest.mark.parametrize("rule", ["RV0404", "RV1402"])
def test_a_step_may_clear_its_gradients_afterwards(rule: str) -> None:
    sound = Pipeline.default(small_config(Config()))

    def step(state, batch, pipeline):
        report = sound.train_step(state, batch, pipeline)
        state.optimizer.zero_grad(set_to_none=True)
        return report

    context = Context(dataclasses.replace(sound, train_step=step), "quick", PACKAGE)
    assert {r.status for r in run_rule(rules()[rule], context)} == {"pass"}
