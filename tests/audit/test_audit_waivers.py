"""Waivers: what they cover, that they say so, and that idle ones are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from ris_verified.audit.result import Result
from ris_verified.audit.runner import audit
from ris_verified.audit.waivers import Waiver, apply_waivers, parse_waivers
from ris_verified.errors import AuditError


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for name in ("one.py", "two.py"):
        (tmp_path / name).write_text("def f(cfg):\n    return getattr(cfg, 'hybrid_beta', 0.3)\n", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("text", "waivers"),
    [
        ("RV0101", [Waiver("RV0101", "", "")]),
        ("RV01,RV02=old, and kept", [Waiver("RV01", "", "old, and kept"), Waiver("RV02", "", "old, and kept")]),
        ("RV0101@a/b.py:3=a=b", [Waiver("RV0101", "a/b.py:3", "a=b")]),
        (" RV0101 @ a.py , = b ", [Waiver("RV0101", "a.py", "b")]),
        ("", []),
    ],
)
def test_written_forms(text: str, waivers: list[Waiver]) -> None:
    assert parse_waivers([text]) == waivers


@pytest.mark.parametrize(
    "text",
    ["RV0199=never was", "@config.py=everything there", "=a reason alone", ",=x", "R=all", "RV=all", "RV0=ten"],
)
def test_a_waiver_that_names_no_rule_is_a_usage_error(text: str) -> None:
    with pytest.raises(AuditError, match="matches no rule"):
        parse_waivers([text])


def test_an_empty_place_is_a_usage_error() -> None:
    with pytest.raises(AuditError, match="has no place"):
        parse_waivers(["RV0101@=a shell variable that was not set"])


@pytest.mark.parametrize(
    ("place", "where", "meant"),
    [
        ("config.py", "config.py:31", True),
        ("config.py", "pkg/config.py:31", True),
        ("pkg/config.py:31", "src/pkg/config.py:31", True),
        ("pkg", "pkg/config.py:31", True),
        ("pkg/", "src/pkg/config.py:31", True),
        ("R_samp", "shard-0 R_samp", True),
        ("blend", "blend.proof", True),
        ("config.py:3", "config.py:31", False),
        ("config.py", "my-config.py:31", False),
        ("config.py", "other.config.py:31", False),
        ("config.py", "config.pyi:31", False),
        ("R_samp", "R_sample", False),
        ("config.p", "config.py:31", False),
        ("c.*", "config.py:31", False),
        ("config.py", "", False),
    ],
)
def test_a_place_is_meant_as_a_whole(place: str, where: str, meant: bool) -> None:
    failure = Result("RV0101", "t", "fail", "blocker", 1.0, 0.0, "", "m", where, "r", 0.1)
    assert Waiver("RV0101", place, "x").covers(failure) is meant


def test_a_rule_that_could_not_measure_does_not_make_its_waiver_idle() -> None:
    skipped = Result("RV1001", "t", "skip", "blocker", "", "", "", "no --data folder", "", "", 0.1)
    assert apply_waivers([skipped], parse_waivers(["RV1001=until the data are drawn again"])) == ((skipped,), ())


def test_a_waived_failure_is_a_skip_that_keeps_its_figures(source: Path) -> None:
    report = audit(None, source=source, select=["RV0101"], ignore=["RV0101=the port is not finished"])
    assert report.verdict == "NO-GO"  # nothing is left that was measured
    assert {(r.status, r.waiver) for r in report.results} == {("skip", "the port is not finished")}
    assert all(r.message.startswith("waived: the port is not finished; fail at ") for r in report.results)
    assert all("hybrid_beta" in r.message and "bound 0" in r.message for r in report.results)
    assert {(r.measured, r.bound, r.margin) for r in report.results} == {(1.0, 0.0, -1.0)}
    assert report.warnings == ()
    assert "2 waived" in report.counts


def test_a_place_limits_a_waiver(source: Path) -> None:
    report = audit(None, source=source, select=["RV0101", "RV0201"], ignore=["RV0101@two.py=old"])
    assert [(r.where, r.status) for r in report.results if r.id == "RV0101"] == [
        ("one.py:2", "fail"),
        ("two.py:2", "skip"),
    ]
    assert report.verdict == "NO-GO"
    both = audit(None, source=source, select=["RV0101", "RV0201"], ignore=["RV0101@two.py=old", "RV0101@one.py=old"])
    assert both.verdict == "GO"


def test_an_idle_waiver_and_one_without_reason_are_named(source: Path) -> None:
    report = audit(
        None, source=source, select=["RV0101", "RV0201"], ignore=["RV0101", "RV0201=was needed", "RV1607=not run"]
    )
    assert len(report.warnings) == 2
    assert "RV0101 gives no reason" in report.warnings[0]
    assert "RV0201 matches nothing any more" in report.warnings[1]
