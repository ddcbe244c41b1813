"""A report with one result of every kind and hostile texts."""

from __future__ import annotations

import pytest

from ris_verified.audit.prove import Kill
from ris_verified.audit.result import Report, Result, verdict

# Markup of every format, a forged verdict, colour codes, a direction override, and half a surrogate pair.
HOSTILE = '<script>alert("x")</script> | a ]]> & \x00\x1b[31m\r\nGO: 99 pass `line` é 🚩 \u202e \x85 \udc80'


def result(id: str, status: str, severity: str = "blocker", **changes: object) -> Result:
    values: dict[str, object] = {
        "id": id, "title": f"title of {id}", "status": status, "severity": severity, "measured": 3.0, "bound": 2.0,
        "unit": "dB", "message": f"message of {id}", "where": "",
        "remedy": f"remedy of {id}" if status != "pass" else "", "seconds": 0.25, "margin": -1.0,
    }  # fmt: skip
    return Result(**{**values, **changes})  # type: ignore[arg-type]


RESULTS = (
    result("RV0501", "fail", where="loss/total.py:17"),
    result("RV0501", "fail", where="loss/total.py:17"),
    result("RV0702", "error", measured="ZeroDivisionError", bound="", margin=None),
    result("RV0102", "fail", "warning", where="config.py:3", message=HOSTILE),
    result("RV0803", "skip", waiver="kept for 0.9", message="waived: kept for 0.9; fail at blend: β 0.7"),
    result("RV1001", "skip", measured="", bound="", margin=None, message="no --data folder"),
    result("RV0801", "pass", measured=float("nan"), margin=float("inf")),
    result("RV0802", "pass", measured=1e-9, bound=1e-6, margin=1e-6 - 1e-9),
)
WARNINGS = ("the waiver RV0101 matches nothing any more: remove it",)
KILLS = (
    Kill("swapped_beta", "RV0803", "β on the wrong side", "pass", "fail", ("RV0803",), "β 0.7", 1.0),
    Kill("harmless", "RV0104", "nothing", "pass", "pass", (), "fine", 1.0),
)


@pytest.fixture
def report() -> Report:
    return Report(verdict(RESULTS), "quick", "abc123", {"python": "3", "note": HOSTILE}, 12.5, RESULTS, WARNINGS, KILLS)


@pytest.fixture
def sound() -> Report:
    good = RESULTS[-2:]
    return Report(verdict(good), "quick", "abc123", {"python": "3"}, 12.5, good)
