"""JUnit XML, as continuous integration collects it."""

from __future__ import annotations

import re
from collections import Counter
from xml.etree import ElementTree as ET

from ris_verified.audit.result import Report, Result

# What XML 1.0 cannot hold, escaped or not.
FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
TAGS = {"fail": "failure", "error": "error", "skip": "skipped"}


def render(report: Report) -> str:
    """Return one test suite with a test case for every result.

    Args:
        report: what an audit found; a failed warning is a failure too, its type says `warning`.
    """
    suites = ET.Element("testsuites")
    counts = Counter(result.status for result in report.results)
    suite = ET.SubElement(
        suites, "testsuite", name="ris-verified audit", tests=str(len(report.results)), failures=str(counts["fail"]),
        errors=str(counts["error"]), skipped=str(counts["skip"]), time=f"{report.seconds:.3f}",
    )  # fmt: skip
    properties = ET.SubElement(suite, "properties")
    facts = {"verdict": report.verdict, "profile": report.profile, "config_hash": report.config_hash}
    facts["waived"] = str(report.waived)
    for name, value in {**facts, **report.environment}.items():
        ET.SubElement(properties, "property", name=_clean(name), value=_clean(value))
    seen: set[str] = set()
    for result in report.results:
        _case(suite, result, seen)
    if report.warnings:
        ET.SubElement(suite, "system-err").text = _clean("\n".join(report.warnings))
    ET.indent(suites)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(suites, encoding="unicode") + "\n"


def _unique(name: str, seen: set[str]) -> str:
    # Collectors keep one case of a name, and would drop a failure behind a pass.
    free = next(n for n in (name, *(f"{name} ({i})" for i in range(2, len(seen) + 3))) if n not in seen)
    seen.add(free)
    return free


def _case(suite: ET.Element, result: Result, seen: set[str]) -> None:
    name = _clean(f"{result.id} {result.title}" + (f" at {result.where}" if result.where else ""))
    case = ET.SubElement(
        suite, "testcase", classname=f"ris_verified.audit.{result.id[:4]}", name=_unique(name, seen),
        time=f"{result.seconds:.3f}",
    )  # fmt: skip
    if result.status in TAGS:
        note = ET.SubElement(case, TAGS[result.status], message=_clean(result.message))
        if result.status != "skip":
            note.set("type", result.severity)
            lines = [result.message, result.figures, f"at {result.where}", f"remedy: {result.remedy}"]
            note.text = _clean("\n".join(line for line in lines if line))
    elif result.figures:
        ET.SubElement(case, "system-out").text = _clean(f"{result.message}: {result.figures}")


def _clean(text: str) -> str:
    return FORBIDDEN.sub("\ufffd", text)
