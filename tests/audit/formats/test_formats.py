"""A failure is a failure in every format, whatever its texts hold."""

from __future__ import annotations

import html
import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest

from ris_verified.audit.formats import FORMATS, render
from ris_verified.audit.formats.html import position
from ris_verified.audit.result import Report, Result


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_tells_go_from_no_go(name: str, report: Report, sound: Report) -> None:
    assert "NO-GO" in render(report, name)
    good = render(sound, name)
    assert "GO" in good
    assert "NO-GO" not in good


class TestText:
    def test_failures_come_first_and_the_verdict_last(self, report: Report) -> None:
        lines = render(report, "text").splitlines()
        assert lines[0].startswith("ERROR RV0702")
        assert lines[-1].startswith("NO-GO: 2 pass, 3 fail, 1 error, 2 skip (1 waived)")
        assert "margin -1 dB" in render(report, "text")
        assert any(line.startswith("WARN ") and "RV0101" in line for line in lines)


class TestJson:
    def test_a_failure_is_a_failure_and_every_key_is_there(self, report: Report) -> None:
        tree = json.loads(render(report, "json"))
        assert tree["schema"] == "ris-verified-audit/1"
        assert [r["status"] for r in tree["results"]] == [r.status for r in report.results]
        documented = {
            "id",
            "title",
            "status",
            "severity",
            "measured",
            "bound",
            "unit",
            "message",
            "where",
            "remedy",
            "seconds",
        }
        assert documented | {"margin", "waiver"} == set(tree["results"][0])
        assert tree["results"][0]["margin"] == -1.0
        assert tree["results"][6]["measured"] == "nan"
        assert tree["warnings"] == list(report.warnings)
        assert [kill["fault"] for kill in tree["kills"]] == ["swapped_beta", "harmless"]


class TestJunit:
    def test_counts_and_tags_agree_with_the_results(self, report: Report) -> None:
        suite = ET.fromstring(render(report, "junit").encode()).find("testsuite")
        assert suite is not None
        assert (suite.get("tests"), suite.get("failures"), suite.get("errors"), suite.get("skipped")) == (
            "8",
            "3",
            "1",
            "2",
        )
        cases = suite.findall("testcase")
        assert len({(case.get("classname"), case.get("name")) for case in cases}) == len(report.results)
        for case, result in zip(cases, report.results, strict=True):
            tags = {"pass": [], "fail": ["failure"], "error": ["error"], "skip": ["skipped"]}[result.status]
            assert [child.tag for child in case if child.tag != "system-out"] == tags
        failure = cases[0].find("failure")
        assert failure is not None
        assert "remedy of RV0501" in (failure.text or "")
        warned = cases[3].find("failure")
        assert warned is not None
        assert warned.get("type") == "warning"
        assert "<script>" in (warned.text or "")

    def test_a_sound_report_has_no_failure(self, sound: Report) -> None:
        suite = ET.fromstring(render(sound, "junit").encode()).find("testsuite")
        assert suite is not None
        assert not list(suite.iter("failure")) + list(suite.iter("error"))


class TestSarif:
    def test_levels_places_and_suppressions(self, report: Report) -> None:
        tree = json.loads(render(report, "sarif"))
        (run,) = tree["runs"]
        assert tree["version"] == "2.1.0"
        rules, results = run["tool"]["driver"]["rules"], run["results"]
        assert all(rules[r["ruleIndex"]]["id"] == r["ruleId"] for r in results)
        assert [(r["ruleId"], r["level"]) for r in results] == [
            ("RV0501", "error"), ("RV0501", "error"), ("RV0702", "error"), ("RV0102", "warning"), ("RV0803", "error"),
        ]  # fmt: skip
        place = results[0]["locations"][0]["physicalLocation"]
        assert place == {
            "artifactLocation": {"uri": "loss/total.py", "uriBaseId": "SRCROOT"}, "region": {"startLine": 17},
        }  # fmt: skip
        assert "logicalLocations" in results[2]["locations"][0]
        assert [bool(r.get("suppressions")) for r in results] == [False, False, False, False, True]
        assert run["invocations"][0]["executionSuccessful"] is False

    def test_a_sound_report_has_rules_and_no_results(self, sound: Report) -> None:
        (run,) = json.loads(render(sound, "sarif"))["runs"]
        assert run["results"] == []
        assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == ["RV0801", "RV0802"]
        assert run["invocations"][0]["executionSuccessful"] is True


class TestMarkdown:
    def test_failures_before_measurements_in_tables_that_hold(self, report: Report) -> None:
        text = render(report, "markdown")
        assert text.startswith("# Audit: NO-GO\n")
        assert text.index("**FAIL RV0501") < text.index("## What was measured")
        assert "**survived**" in text
        assert "<script>" not in text.replace("\\<script\\>", "")
        tables = [line for line in text.splitlines() if line.startswith("|")]
        widths = [len(re.findall(r"(?<!\\)\|", line)) for line in tables]
        assert set(widths) == {5, 7}


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]


class TestHtml:
    def test_one_file_without_scripts_failures_first(self, report: Report) -> None:
        text = render(report, "html")
        page = _Page()
        page.feed(text)
        assert "script" not in page.tags
        assert page.links == []
        assert page.tags.count("article") == len({r.id for r in report.results if r.status in ("fail", "error")})
        assert text.count("<dt>Found</dt>") == sum(r.status in ("fail", "error") for r in report.results)
        assert text.index("NO-GO") < text.index("What failed") < text.index("What was measured")
        assert html.escape("remedy of RV0501") in text
        assert "SURVIVED" in text
        assert "abc123" in text
        assert report.warnings[0] in text

    def test_a_sound_report_shows_no_failure(self, sound: Report) -> None:
        page = _Page()
        page.feed(render(sound, "html"))
        assert "article" not in page.tags

    def test_position_is_the_middle_at_the_bound(self, report: Report) -> None:
        def at(measured: float | str, bound: float | str) -> float | None:
            values = {**vars(report.results[0]), "measured": measured, "bound": bound}
            return position(Result(**values))

        assert at(2.0, 2.0) == 50
        assert at(0.0, 2.0) == 0
        assert at(1e9, 2.0) == 100
        assert at(0.2, 2.0) == pytest.approx(50 - 50 / 3)
        assert [at("text", 1.0), at(1.0, "0.3 ± 0"), at(1.0, 0.0), at(float("nan"), 1.0), at(-1.0, 1.0)] == [None] * 5
