"""The runner: statuses, verdicts, selection, and leaving everything as it was."""

from __future__ import annotations

import dataclasses
import functools
import json
import random
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

import ris_verified.audit as package
from ris_verified.audit.context import Context, small_config
from ris_verified.audit.result import Report, Result, verdict
from ris_verified.audit.rule import Measurement, NotApplicable, Rule, at_least, at_most, close, equal, mended, rule
from ris_verified.audit.rules import rules
from ris_verified.audit.runner import MEND, PACKAGE, audit, choose, run_rule
from ris_verified.config import Config
from ris_verified.contracts import tolerance
from ris_verified.errors import AuditError, ShapeError
from ris_verified.pipeline import Pipeline


def made(check: object, severity: str = "blocker") -> Rule:
    build = rule("RV9999", "t", law="l", why="w", how="h", remedy="r", severity=severity)  # type: ignore[arg-type]
    return build(check)  # type: ignore[arg-type]


CONTEXT = Context(None, "quick", PACKAGE)
GOOD, BAD = Measurement(1.0, 2.0, True, "good"), Measurement(3.0, 2.0, False, "bad")


def raising(error: BaseException) -> object:
    def check(_: Context) -> Sequence[Measurement]:
        raise error

    return check


@pytest.mark.parametrize(
    ("check", "statuses"),
    [
        (lambda _: GOOD, ["pass"]),
        (lambda _: [GOOD, GOOD], ["pass"]),
        (lambda _: [GOOD, BAD, BAD], ["fail", "fail"]),
        (lambda _: [], ["error"]),
        (raising(NotApplicable("no data")), ["skip"]),
        (raising(ZeroDivisionError("oops")), ["error"]),
        (raising(SystemExit(0)), ["error"]),
        (raising(ShapeError("wrong", where="y")), ["fail"]),
    ],
)
def test_status_of_every_outcome(check: object, statuses: list[str]) -> None:
    results = run_rule(made(check), CONTEXT)
    assert [r.status for r in results] == statuses
    assert all(r.remedy == {"fail": "r", "error": MEND}.get(r.status, "") for r in results)


class Panic(BaseException):
    """As extensions in other languages raise it; it cannot even say what it is."""

    def __str__(self) -> str:
        raise ValueError


@pytest.mark.parametrize("error", [KeyError("beta"), Panic(), GeneratorExit(), SystemExit(0)])
def test_a_crash_says_what_was_raised_and_where(error: BaseException) -> None:
    (result,) = run_rule(made(raising(error)), CONTEXT)
    assert result.status == "error"
    assert result.message.startswith(f"the check could not finish: {type(error).__name__}: ")
    assert Path(__file__).name in result.where
    assert result.where.endswith(", check")


def test_a_crash_inside_the_audit_is_placed_where_it_was_led_to() -> None:
    (result,) = run_rule(made(lambda _: at_most("no number", 1.0, "m")), CONTEXT)  # type: ignore[arg-type]
    assert result.status == "error"
    assert Path(__file__).name in result.where


def test_a_crash_beneath_a_user_s_stage_names_both() -> None:
    def check(_: Context) -> None:
        tolerance(torch.int64, 3)

    (result,) = run_rule(made(check), CONTEXT)
    mine, _, beneath = result.where.partition(" → ")
    assert Path(__file__).name in mine
    assert mine.endswith(", check")
    assert beneath.split(":")[0].endswith("contracts.py")


def test_a_crash_through_the_standard_library_is_not_its_own() -> None:
    def check(_: Context) -> None:
        functools.reduce(lambda a, b: tolerance(torch.int64, b), [1, 2])

    (result,) = run_rule(made(check), CONTEXT)
    assert Path(__file__).name in result.where.partition(" → ")[0]
    (result,) = run_rule(made(lambda _: statistics.mean([tolerance])), CONTEXT)  # type: ignore[list-item]
    assert Path(__file__).name in result.where.partition(" → ")[0]


def test_a_crash_on_nothing_hints_at_a_stage_without_a_return() -> None:
    (result,) = run_rule(made(lambda _: None.R), CONTEXT)  # type: ignore[attr-defined]
    assert result.message.endswith("a stage may return nothing")


def test_a_failure_may_have_a_remedy_of_its_own() -> None:
    found = [*mended([BAD], "other"), *mended(mended([BAD], "first"), "second"), BAD]
    assert [r.remedy for r in run_rule(made(lambda _: found), CONTEXT)] == ["other", "first", "r"]


def test_an_interrupt_ends_the_audit() -> None:
    with pytest.raises(KeyboardInterrupt):
        run_rule(made(raising(KeyboardInterrupt())), CONTEXT)


def test_the_first_failure_is_enough_where_no_more_is_asked_for() -> None:
    def check(_: Context) -> Iterator[Measurement]:
        yield from (GOOD, BAD)
        raise ZeroDivisionError

    assert [r.status for r in run_rule(made(check), CONTEXT)] == ["error"]
    assert [r.status for r in run_rule(made(check), CONTEXT, first=True)] == ["fail"]


def result(status: str, severity: str = "blocker", measured: float | str = 1.0) -> Result:
    return Result("RV0000", "t", status, severity, measured, 2.0, "", "m", "", "", 0.1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ([], "NO-GO"),
        (["skip"], "NO-GO"),
        (["pass"], "GO"),
        (["pass", "skip"], "GO"),
        (["pass", "fail"], "NO-GO"),
        (["pass", "error"], "NO-GO"),
    ],
)
def test_verdict(results: list[str], expected: str) -> None:
    assert verdict(tuple(result(status) for status in results)) == expected


def test_a_warning_does_not_stop_a_launch_but_a_crash_of_its_check_does() -> None:
    assert verdict((result("pass"), result("fail", "warning"))) == "GO"
    assert verdict((result("pass"), result("error", "warning"))) == "NO-GO"


def test_json_has_finite_numbers_only_and_the_stated_keys() -> None:
    report = Report("GO", "quick", "abc", {"python": "3"}, 1.0, (result("pass", measured=float("nan")), result("fail")))
    tree = json.loads(report.to_json(), parse_constant=lambda text: pytest.fail(f"{text} in JSON"))
    assert list(tree) == [
        "schema",
        "verdict",
        "profile",
        "config_hash",
        "environment",
        "seconds",
        "results",
        "warnings",
        "waived",
    ]
    assert tree["schema"] == "ris-verified-audit/1"
    assert tree["results"][0]["measured"] == "nan"
    assert list(tree["results"][1]) == [f.name for f in dataclasses.fields(Result)]


@pytest.mark.parametrize("compare", [at_most, at_least])
def test_nan_never_passes(compare: object) -> None:
    assert not compare(float("nan"), 1.0, "m").passed  # type: ignore[operator]
    assert not close(float("nan"), 1.0, 1.0, "m").passed


@pytest.mark.parametrize(
    ("measurement", "margin"),
    [
        (at_most(3.0, 2.0, "m"), -1.0),
        (at_least(3.0, 2.0, "m"), 1.0),
        (close(3.0, 2.5, 1.0, "m"), 0.5),
        (equal("a", "a", "m"), None),
        (Measurement(3.0, 2.0, False, "m"), -1.0),
        (Measurement(3.0, 2.0, True, "m"), 1.0),
        (Measurement("Error", "no error", False, "m"), None),
    ],
)
def test_every_comparison_of_numbers_states_its_margin(measurement: Measurement, margin: float | None) -> None:
    assert measurement.margin == margin
    assert run_rule(made(lambda _: measurement), CONTEXT)[0].margin == margin


def test_a_rule_that_passes_shows_what_came_nearest_to_its_bound() -> None:
    near, roomy = at_least(1.1, 1.0, "near"), at_least(900.0, 1.0, "roomy")
    (shown,) = run_rule(made(lambda _: [roomy, near, at_most(0.5, 1.0, "half")]), CONTEXT)
    assert shown.message == "near"


def test_selection_by_beginning_and_by_profile() -> None:
    assert {r.section for r in choose(["RV08"], "quick")} == {"RV08"}
    assert "RV1203" not in {r.id for r in choose([], "quick")}
    assert "RV1203" in {r.id for r in choose([], "full")}
    assert [r.id for r in choose(["RV1203"], "quick")] == ["RV1203"]
    assert {r.needs for r in choose([], "quick", ("source",))} == {"source"}


@pytest.mark.parametrize(
    "arguments",
    [
        {"select": ["RV77"]},
        {"ignore": ["x"]},
        {"source": "absent"},
        {"data": "absent"},
        {"profile": "slow"},
        {"select": ["RV0801"]},
    ],
)
def test_wrong_usage_is_one_audit_error(arguments: dict[str, object]) -> None:
    with pytest.raises(AuditError):
        audit(None, **arguments)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def sound() -> Pipeline:
    return Pipeline.default(small_config(Config()))


def test_nothing_is_disturbed(sound: Pipeline) -> None:
    model = sound.build_model(sound.config).train()
    shared = dataclasses.replace(sound, build_model=lambda cfg: model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    report = audit(shared, select=["RV04", "RV05", "RV12", "RV1403"], ignore=["RV0402"])
    # RV0402 asks for the sizes of the reference model, RV1204 for a panel that resolves two sources.
    assert {r.id for r in report.results if r.status == "fail"} <= {"RV1204"}
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert model.training
    assert states[0] == random.getstate()
    assert np.array_equal(states[1], np.random.get_state()[1])
    assert torch.equal(states[2], torch.get_rng_state())
    assert torch.is_grad_enabled()


def test_a_stage_that_crashes_is_an_error_and_the_rest_still_runs(sound: Pipeline) -> None:
    def broken(*_: object) -> object:
        raise MemoryError("full")

    report = audit(dataclasses.replace(sound, spectrum=broken), select=["RV1202", "RV0801"])  # type: ignore[arg-type]
    assert {r.id: r.status for r in report.results} == {"RV0801": "pass", "RV1202": "error"}
    assert report.verdict == "NO-GO"


def test_the_package_itself_can_be_called(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n", encoding="utf-8")
    report = package(None, source=tmp_path, select=["RV1101"])  # type: ignore[operator]
    assert report.verdict == "GO"


def test_every_rule_is_explained_and_numbered() -> None:
    for name, item in rules().items():
        assert name == item.id
        assert all([item.title, item.law, item.why, item.how, item.remedy, item.check.__doc__])
        assert item.source.endswith(item.id)
