"""The evidence: worker processes find what one process finds, and what they find is written down."""

from __future__ import annotations

from pathlib import Path

import pytest

from ris_verified.audit import evidence
from ris_verified.audit.alarms import Alarm
from ris_verified.audit.context import small_config
from ris_verified.config import Config


@pytest.mark.long
def test_workers_kill_what_one_process_kills_in_the_same_order() -> None:
    config = small_config(Config())
    tasks = [(config, rule) for rule in ("RV0801", "RV0501")]
    apart = [kill for found in evidence._map(evidence._proved, tasks, 2, "rules") for kill in found]
    together = [kill for task in tasks for kill in evidence._proved(task)]
    assert [(k.fault, k.clean, k.status, k.killed_by) for k in apart] == [
        (k.fault, k.clean, k.status, k.killed_by) for k in together
    ]
    assert {k.rule for k in apart} == {"RV0801", "RV0501"}


def test_an_alarm_is_written_with_its_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def raised(work: object, tasks: list[tuple[Config, str]], workers: int, what: str) -> list[list[Alarm]]:
        assert [config.seed for config, _ in tasks] == [0, 1, 0]
        return [[], [Alarm(tasks[1][1], "RV0601", "fail", "moves")], []]

    monkeypatch.setattr(evidence, "_map", raised)
    assert evidence.write_alarms(tmp_path, Config(), "reference", 2, 1, workers=1) == 1
    text = (tmp_path / "false_alarms.md").read_text(encoding="utf-8")
    assert "2 seeds of the configuration `reference` and 1 configurations" in text
    assert "| seed 1 | RV0601 | fail | moves |" in text
