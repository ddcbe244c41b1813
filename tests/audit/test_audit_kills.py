"""Every planted fault is killed by the rule that is predicted, which passes without it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ris_verified.audit.checklist import LINES, checklist_lines
from ris_verified.audit.context import Context, small_config
from ris_verified.audit.evidence import kill_markdown, traceability
from ris_verified.audit.faults import faults
from ris_verified.audit.faults.fault import DataFault, Fault, SourceFault
from ris_verified.audit.prove import Kill, kill_table, prove_one
from ris_verified.audit.rules import rules
from ris_verified.audit.runner import PACKAGE, audit, run_rule
from ris_verified.config import Config
from ris_verified.pipeline import Pipeline

# Figures stated for the reference sizes, and a grid that only resolves there.
REFERENCE = {"RV0402", "RV1203", "RV1204", "RV1301", "RV1302"}
# Of a rule with more faults the suite plants so many, spread over their names; `-m every` plants the others.
SHOWN = 3
PLANTED = [f for f in faults() if isinstance(f, Fault) and f.rule not in REFERENCE]
LARGE = [f for f in faults() if isinstance(f, Fault) and f.rule in REFERENCE]
WRITTEN = [f for f in faults() if isinstance(f, SourceFault | DataFault)]


def spread(given: list[Fault]) -> list[Any]:
    """Return the faults as parameters, marked where they are beyond the share of their rule."""
    made = []
    for rule in sorted({fault.rule for fault in given}):
        mine = [fault for fault in given if fault.rule == rule]
        shown = {len(mine) * i // SHOWN for i in range(SHOWN)} if len(mine) > SHOWN else range(len(mine))
        for place, fault in enumerate(mine):
            marks = () if place in shown else (pytest.mark.every,)
            made.append(pytest.param(fault, id=f"{fault.rule}-{fault.name}", marks=marks))
    return made


@pytest.fixture(scope="module")
def sound() -> Pipeline:
    return Pipeline.default(small_config(Config()))


@pytest.mark.long
def test_audit_of_the_small_pipeline_passes_all_that_applies(sound: Pipeline, tmp_path: Path) -> None:
    (tmp_path / "empty.py").write_text("x = 1\n", encoding="utf-8")
    report = audit(sound, source=tmp_path, ignore=["RV0402"])
    assert {r.status for r in report.results} <= {"pass", "skip"}
    passed = {r.id for r in report.results if r.status == "pass"}
    assert len(passed) >= 50
    # What is killed below passes without its fault.
    assert {fault.rule for fault in PLANTED} <= passed


@pytest.mark.parametrize("fault", spread(PLANTED))
def test_planted_fault_is_killed(fault: Fault, sound: Pipeline) -> None:
    results = run_rule(rules()[fault.rule], Context(fault.plant(sound), "quick", PACKAGE), first=True)
    assert {r.status for r in results} == {"fail"}


@pytest.fixture(scope="module")
def reference() -> Context:
    return Context(Pipeline.default(Config()), "quick", PACKAGE)


@pytest.fixture(scope="module")
def found_at_reference_size() -> dict[str, str]:
    return {}


@pytest.mark.long
@pytest.mark.parametrize("fault", LARGE, ids=lambda fault: f"{fault.rule}-{fault.name}")
def test_fault_at_reference_size_is_killed(
    fault: Fault, reference: Context, found_at_reference_size: dict[str, str]
) -> None:
    kill = prove_one(fault, reference.pipeline, reference, found_at_reference_size, section=False)
    assert kill.killed, kill


@pytest.mark.parametrize("fault", WRITTEN, ids=lambda fault: f"{fault.rule}-{fault.name}")
def test_written_fault_is_killed(fault: SourceFault | DataFault, sound: Pipeline) -> None:
    kill = prove_one(fault, sound, Context(sound, "quick", PACKAGE), {}, section=False)
    assert kill.killed, kill


def test_fault_that_does_no_harm_survives_in_the_table(sound: Pipeline) -> None:
    harmless = Fault("harmless", "RV0104", "nothing", lambda pipeline: pipeline)
    kill = prove_one(harmless, sound, Context(sound, "quick", PACKAGE), {})
    assert not kill.killed
    assert "SURVIVED (pass clean, pass planted)" in kill_table([kill])
    assert "0 of 1" in kill_table([kill])
    assert "**survived**" in kill_markdown([kill])
    assert "1 of 1" not in traceability([kill], "today")


def test_a_crash_is_no_kill() -> None:
    assert not Kill("f", "RV0101", "s", "pass", "error", (), "", 0.0).killed
    assert not Kill("f", "RV0101", "s", "fail", "fail", ("RV0101",), "", 0.0).killed


def test_every_line_has_a_rule_and_every_fault_names_one() -> None:
    assert set(rules()) == set(checklist_lines())
    assert {fault.rule for fault in faults()} <= set(rules())


def test_every_rule_has_a_planted_fault() -> None:
    assert sorted(set(rules()) - {fault.rule for fault in faults()}) == []


def test_most_faults_are_slips_in_stages() -> None:
    assert len(faults()) >= 80
    assert len({fault.name for fault in faults()}) == len(faults())


def test_traceability_lists_every_line_and_admits_the_missing() -> None:
    text = traceability()
    assert all(line in text for line in checklist_lines())
    assert text.count("**not yet**") == len(checklist_lines()) - len(rules())


def test_checklist_has_all_sections() -> None:
    assert len(LINES) == 16
    assert set(LINES) == {name[:4] for name in rules()}
