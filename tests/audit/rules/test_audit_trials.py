"""What equal trials leave behind, on the accelerator too."""

from __future__ import annotations

import pytest
import torch

from ris_verified.audit.context import Context, small_config
from ris_verified.audit.drills import TrialRun, accelerator_bytes
from ris_verified.audit.rules import rules
from ris_verified.audit.runner import PACKAGE, run_rule
from ris_verified.config import Config
from ris_verified.pipeline import Pipeline

MIB = 2**20


def _status(accelerator: list[int]) -> set[str]:
    context = Context(Pipeline.default(small_config(Config())), "quick", PACKAGE)
    # As if the trials had run: what is judged is their record.
    vars(context)["trials"] = [TrialRun(1.0, 0, MIB, 3, held) for held in accelerator]
    return {r.status for r in run_rule(rules()["RV0903"], context)}


def test_memory_that_grows_on_the_accelerator_alone_is_found() -> None:
    assert _status([8 * MIB, 9 * MIB, 10 * MIB]) == {"fail"}


@pytest.mark.parametrize("held", [[0, 0, 0], [0, 8 * MIB, 8 * MIB], [8 * MIB, 8 * MIB, 7 * MIB]])
def test_what_the_first_trial_makes_once_is_no_leak(held: list[int]) -> None:
    assert _status(held) == {"pass"}


def test_the_accelerator_is_asked_only_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def allocated(device: torch.device) -> int:
        asked.append(device.type)
        return 5 * MIB

    monkeypatch.setattr(torch.cuda, "memory_allocated", allocated)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert (accelerator_bytes(), asked) == (0, [])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert (accelerator_bytes(), asked) == (5 * MIB, ["cuda"])
