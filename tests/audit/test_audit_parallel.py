"""Rules in a copy of the process: the same results in the same order, and a copy that dies is an error."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from ris_verified.audit.context import small_config
from ris_verified.audit.parallel import elsewhere
from ris_verified.audit.result import Result
from ris_verified.audit.rule import Rule
from ris_verified.audit.rules import rules
from ris_verified.audit.runner import audit
from ris_verified.config import Config
from ris_verified.pipeline import Pipeline

SELECTED = ["RV0801", "RV0904", "RV1101", "RV1404", "RV1606"]


def judged(item: Rule) -> list[Result]:
    return [Result(item.id, item.title, "pass", item.severity, float("nan"), 1.0, "m", "é", "w", "", 0.5, -1.0)]


def test_two_processes_find_what_one_finds(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n", encoding="utf-8")
    pipeline = Pipeline.default(small_config(Config()))
    reports = [audit(pipeline, select=SELECTED, source=tmp_path, processes=n) for n in (1, 2)]
    one, two = ([(r.id, r.status, r.measured, r.bound, r.message) for r in report.results] for report in reports)
    assert one == two
    assert [r.id for r in reports[1].results] == SELECTED
    assert {r.apart for r in map(rules().__getitem__, SELECTED)} == {True, False}


def test_results_come_back_as_they_were() -> None:
    items = [rules()["RV0801"], rules()["RV0802"]]
    with elsewhere(items, judged) as wait:
        found = wait()
    assert [(r.id, r.unit, r.message, r.margin) for r in found] == [(i.id, "m", "é", -1.0) for i in items]
    assert all(r.measured != r.measured for r in found)


def test_a_copy_that_dies_is_an_error_for_each_of_its_rules() -> None:
    def dying(item: Rule) -> list[Result]:
        os._exit(7)

    items = [rules()["RV0801"], rules()["RV0802"]]
    with elsewhere(items, dying) as wait:
        found = wait()
    assert [(r.id, r.status) for r in found] == [("RV0801", "error"), ("RV0802", "error")]
    assert all(r.stops for r in found)


def _children() -> set[str]:
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        # A process may end while it is looked at.
        with suppress(OSError):
            # After the name, which may hold blanks and brackets, come state and parent.
            if int(path.read_text().rpartition(")")[2].split()[1]) == os.getpid():
                found.add(path.parent.name)
    return found


def test_ctrl_c_while_it_waits_is_an_interrupt() -> None:
    def interrupting(item: Rule) -> list[Result]:
        os.kill(os.getppid(), signal.SIGINT)
        while True:
            os.sched_yield()

    before = _children()
    # A shell has what it runs in the background ignore Ctrl-C.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), elsewhere([rules()["RV0801"]], interrupting) as wait:
            wait()
    finally:
        signal.signal(signal.SIGINT, handler)
    assert _children() == before


def test_a_caller_that_raises_leaves_no_process_behind() -> None:
    def slow(item: Rule) -> list[Result]:
        while True:
            os.sched_yield()

    before = _children()
    with pytest.raises(ZeroDivisionError), elsewhere([rules()["RV0801"]], slow):
        raise ZeroDivisionError
    # Other tests of this process may have left a fork server.
    assert _children() == before
