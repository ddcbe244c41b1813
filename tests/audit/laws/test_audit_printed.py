"""What a training says is heard, whatever way it says it, and nothing else of the process changes."""

from __future__ import annotations

import dataclasses
import logging
import sys

import pytest

from ris_verified.audit.context import Context, small_config
from ris_verified.audit.faults.runs import running
from ris_verified.audit.laws.heard import listening
from ris_verified.audit.laws.printed import BLOCK
from ris_verified.audit.rules import rules
from ris_verified.audit.runner import PACKAGE, run_rule
from ris_verified.config import Config
from ris_verified.errors import InvariantError
from ris_verified.pipeline import Pipeline

PRINTED = ("RV0302", "RV1301", "RV1302", "RV1303", "RV1304", "RV1307", "RV1308")


def _judged(pipeline: Pipeline, **options) -> dict[str, set[str]]:
    context = Context(pipeline, "quick", PACKAGE, **options)
    return {name: {r.status for r in run_rule(rules()[name], context)} for name in PRINTED}


def _sound() -> Pipeline:
    return Pipeline.default(small_config(Config()))


@pytest.mark.parametrize("change", [{}, {"covariance.factor_mode": "sum"}, {"covariance.factor_mode": "real"},
                                    {"scene.symbols": "constant", "covariance.centre": False}])  # fmt: skip
def test_what_a_sound_training_says_is_true(change) -> None:
    found = _judged(Pipeline.default(small_config(Config()).replaced(change)), seed=1)
    assert {name for name, status in found.items() if status != {"pass"}} <= {"RV1307"}
    # In that mode R_pred has a rank beyond the rule's bound.
    assert found["RV1307"] == ({"skip"} if change.get("covariance.factor_mode") == "sum" else {"pass"})


def test_lines_may_be_printed_to_standard_output_and_bear_a_time() -> None:
    def change(made) -> None:
        made._print = lambda self, *lines: [print("12:00:01 INFO", line) for line in lines]  # noqa: T201

    assert set().union(*_judged(running(change)(_sound())).values()) == {"pass"}


def test_lines_may_come_from_a_logger_of_one_s_own() -> None:
    def change(made) -> None:
        made._print = lambda self, *lines: [logging.getLogger("theirs.train").info("%s", line) for line in lines]

    assert set().union(*_judged(running(change)(_sound())).values()) == {"pass"}


@pytest.mark.parametrize("start", BLOCK[::3])
def test_a_line_that_is_said_otherwise_is_named(start) -> None:
    def change(made) -> None:
        sound = made._print
        made._print = lambda self, *lines: sound(self, *(line.replace(start, "Figures ") for line in lines))

    context = Context(running(change)(_sound()), "quick", PACKAGE)
    found = [r for r in run_rule(rules()["RV0302"], context) if r.status != "pass"]
    assert f"the training says a line that begins {start!r}" in [r.message for r in found]
    assert {(r.status, r.where) for r in found} == {("fail", "train")}
    assert "printout.py" in found[0].remedy


def test_a_training_may_refuse_a_blend_whose_identities_are_broken() -> None:
    def change(made) -> None:
        sound = made._first

        def _first(self, batch):
            figures = sound(self, batch)
            if not figures.identities:
                raise InvariantError("norm identities are broken", where="blend")
            return figures

        made._first = _first

    assert _judged(running(change)(_sound()))["RV0302"] == {"pass"}


def test_who_listens_leaves_loggers_as_they_were() -> None:
    root, package = logging.getLogger(), logging.getLogger("ris_verified")
    before = [(x.handlers, x.level, x.propagate) for x in (root, package)], logging.root.manager.disable, sys.stdout
    heard: list[str] = []

    def speak() -> None:
        with listening(heard.append):
            package.info("a %s", "line\nand another")
            print("printed", 1)  # noqa: T201
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        speak()
    assert heard == ["a line", "and another", "printed 1"]
    after = [(x.handlers, x.level, x.propagate) for x in (root, package)], logging.root.manager.disable, sys.stdout
    assert after == before


def test_a_training_that_takes_no_step_by_the_stage_is_one_clear_failure() -> None:
    sound = _sound()

    def train(pipeline, data, out, **options):
        return sound.train(dataclasses.replace(sound, config=pipeline.config), data, out, **options)

    found = _judged(dataclasses.replace(sound, train=train))
    assert found["RV1301"] == found["RV1308"] == {"fail"}
