"""RV1402's drill: what a search decides by rounding is not asked of a step that ran out of memory."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ris_verified.audit.context import Context
from ris_verified.audit.rules import memory
from ris_verified.config import Config
from ris_verified.estimate.proposals import propose
from ris_verified.model import network
from ris_verified.pipeline import Pipeline


def test_a_tie_that_a_smaller_batch_decides_otherwise_is_no_alarm(monkeypatch):
    def tied(y, H_full, C, cfg):
        made = propose(y, H_full, C, cfg)
        return made if len(y) == len(context.small.batch) else dataclasses.replace(made, gain=made.gain + 1)

    context = Context(Pipeline.default(Config.load("quick")), "quick", Path(memory.__file__).parent)
    monkeypatch.setattr(network, "propose", tied)
    assert all(found.passed for found in memory._halved(context.small))
