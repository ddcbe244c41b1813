"""A failure is a failure in every format, whatever its texts hold."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from xml.etree import ElementTree as ET

import pytest

from ris_verified.audit.formats import FORMATS, render
from ris_verified.audit.formats.markdown import LIMIT
from ris_verified.audit.result import Report
from ris_verified.audit.waivers import apply_waivers, parse_waivers


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_tells_go_from_no_go(name: str, report: Report, sound: Report) -> None:
    assert "NO-GO" in render(report, name)
    good = render(sound, name)
    assert "GO" in good
    assert "NO-GO" not in good


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_can_be_written_as_utf8_and_says_how_many_are_waived(name: str, report: Report) -> None:
    text = render(report, name)
    assert text.encode().decode() == text
    told = {"json": '"waived": 1', "junit": 'name="waived" value="1"'}.get(name, "(1 waived)")
    assert told in text


def test_renderers_are_imported_only_when_they_are_needed() -> None:
    code = (
        "import sys, ris_verified.audit.cli; print([m for m in ('jinja2', 'rich', 'torch', 'xml') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


class TestText:
    def test_failures_come_first_and_the_verdict_last(self, report: Report) -> None:
        lines = render(report, "text").splitlines()
        assert lines[0].startswith("ERROR RV0702")
        assert lines[-1].startswith("NO-GO: 2 pass, 3 fail, 1 error, 2 skip (1 waived)")
        assert "margin -1 dB" in render(report, "text")
        assert any(line.startswith("WARN ") and "RV0101" in line for line in lines)

    def test_a_rule_that_fails_at_two_places_is_named_once(self, report: Report) -> None:
        failed = next(r for r in report.results if r.status == "fail" and r.remedy)
        places = [dataclasses.replace(failed, where=where) for where in ("first place", "second place")]
        for name in ("text", "markdown"):
            text = render(dataclasses.replace(report, results=tuple(places)), name)
            assert text.count(failed.title) == text.count(failed.remedy) == 1
            assert "first place" in text
            assert "second place" in text

    def test_a_message_cannot_forge_a_line_or_steer_a_terminal(self, report: Report) -> None:
        text = render(report, "text")
        assert [line for line in text.splitlines() if line.startswith(("GO", "NO-GO"))] == [text.splitlines()[-1]]
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)
        assert "GO: 99 pass `line` é 🚩" in text


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
        assert [r["margin"] for r in tree["results"]] == [-1.0, -1.0, None, -1.0, -1.0, None, None, 1e-6 - 1e-9]
        assert tree["results"][4]["waiver"] == "kept for 0.9"
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
        facts = {p.get("name"): p.get("value") for p in suite.findall("properties/property")}
        assert facts["config_hash"] == "abc123"
        assert facts["python"] == "3"
        assert suite.findtext("system-err") == report.warnings[0]

    def test_names_stay_apart_even_where_a_title_looks_numbered(self, report: Report) -> None:
        first = report.results[0]
        titles = ("t", "t", "t (2)", "t\x00", "t\x01")
        results = tuple(dataclasses.replace(first, title=title, where="") for title in titles)
        suites = ET.fromstring(render(dataclasses.replace(report, results=results), "junit").encode())
        assert len({case.get("name") for case in suites.iter("testcase")}) == len(titles)

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
        assert results[4]["suppressions"][0]["justification"] == "kept for 0.9"
        (invocation,) = run["invocations"]
        assert invocation["executionSuccessful"] is False
        assert [n["message"]["text"] for n in invocation["toolExecutionNotifications"]] == list(report.warnings)

    def test_the_main_requirements_of_the_standard_hold(self, report: Report) -> None:
        tree = json.loads(render(report, "sarif"))
        assert set(tree) == {"$schema", "version", "runs"}
        (run,) = tree["runs"]
        ids = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
        assert len(set(ids)) == len(ids)
        for rule in run["tool"]["driver"]["rules"]:
            assert all(rule[name]["text"] for name in ("shortDescription", "fullDescription", "help"))
            assert "helpUri" not in rule
        for result in run["results"]:
            assert result["level"] in ("none", "note", "warning", "error")
            assert result["kind"] == "fail"
            assert result["message"]["text"]
            (location,) = result["locations"]
            assert len(location) == 1
        prints = [result["partialFingerprints"]["ris-verified/1"] for result in run["results"]]
        assert len(set(prints)) == len(prints)

    @pytest.mark.parametrize(
        ("where", "uri", "line"),
        [
            ("my dir/é.py:3", "my%20dir/%C3%A9.py", 3),
            ("pkg\\a.py:0", "pkg/a.py", 1),
            ("a#b?.pyi:12", "a%23b%3F.pyi", 12),
        ],
    )
    def test_a_file_and_line_become_a_uri_and_a_region(self, where: str, uri: str, line: int, report: Report) -> None:
        results = (dataclasses.replace(report.results[0], where=where),)
        (run,) = json.loads(render(dataclasses.replace(report, results=results), "sarif"))["runs"]
        place = run["results"][0]["locations"][0]["physicalLocation"]
        assert (place["artifactLocation"]["uri"], place["region"]["startLine"]) == (uri, line)

    def test_an_alert_stays_the_same_when_it_is_waived_moves_or_is_measured_anew(self, report: Report) -> None:
        def prints(*results: object) -> list[str]:
            tree = json.loads(render(dataclasses.replace(report, results=results), "sarif"))
            return [r["partialFingerprints"]["ris-verified/1"] for r in tree["runs"][0]["results"]]

        found = report.results[0]
        waived, _ = apply_waivers([found], parse_waivers(["RV0501=old"]))
        moved = dataclasses.replace(found, where="loss/total.py:99", message="message with 3.14")
        assert prints(found) == prints(*waived) == prints(moved)
        assert prints(found) != prints(dataclasses.replace(found, where="loss/other.py:17"))

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
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)

    def test_it_fits_a_comment_and_says_what_is_left_out(self, report: Report) -> None:
        many = report.results + tuple(dataclasses.replace(report.results[-1], where=f"{i}") for i in range(3000))
        text = render(dataclasses.replace(report, results=many), "markdown")
        assert len(text) <= LIMIT + 200
        assert text.startswith("# Audit: NO-GO\n")
        assert re.search(r"^\d+ lines more: see", text, re.MULTILINE)
        assert "`abc123`" in text.splitlines()[-1]
