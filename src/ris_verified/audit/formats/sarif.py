"""SARIF 2.1.0, as code scanning reads it."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from typing import Any
from urllib.parse import quote

from ris_verified.audit.result import Report, Result, encodable
from ris_verified.audit.rule import Rule
from ris_verified.audit.rules import rules

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
PLACE = re.compile(r"^(?P<file>.+\.pyi?):(?P<line>\d+)$")
LEVELS = {"blocker": "error", "warning": "warning", "info": "note"}


def render(report: Report) -> str:
    """Return one run: a rule for every id, a result for every failure, waived ones suppressed.

    Args:
        report: what an audit found. A failed blocker and a check that crashed are errors, a failed
            warning is a warning; what passed or did not apply has no result, as is usual.
    """
    ids = sorted({result.id for result in report.results})
    shown = [r for r in report.results if r.status in ("fail", "error") or r.waiver]
    seen: Counter[str] = Counter()
    run: dict[str, Any] = {
        "tool": {"driver": {"name": "ris-verified", "rules": [_rule(id, report) for id in ids]}},
        "originalUriBaseIds": {"SRCROOT": {"description": {"text": "the folder given to --source"}}},
        "invocations": [
            {
                "executionSuccessful": all(r.status != "error" for r in report.results),
                "toolExecutionNotifications": [{"level": "warning", "message": {"text": w}} for w in report.warnings],
            }
        ],
        "properties": {
            "verdict": report.verdict,
            "profile": report.profile,
            "config_hash": report.config_hash,
            "environment": report.environment,
            "counts": report.counts,
        },
        "results": [_result(result, ids.index(result.id), seen) for result in shown],
    }
    tree = {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}
    return encodable(json.dumps(tree, indent=2, ensure_ascii=False, allow_nan=False)) + "\n"


def _rule(id: str, report: Report) -> dict[str, Any]:
    item: Rule | None = rules().get(id)
    if item is None:
        title = next(result.title for result in report.results if result.id == id)
        return {"id": id, "shortDescription": {"text": title}}
    return {
        "id": id,
        "shortDescription": {"text": item.title},
        "fullDescription": {"text": item.law},
        "help": {"text": f"{item.why}\n\n{item.how}\n\nRemedy: {item.remedy}"},
        "defaultConfiguration": {"level": LEVELS[item.severity]},
        "properties": {"tags": [item.section, item.profile, item.severity]},
    }


def _result(result: Result, index: int, seen: Counter[str]) -> dict[str, Any]:
    level = "error" if result.status == "error" else LEVELS[result.severity]
    text = f"{result.message} [{result.figures}]" if result.figures else result.message
    found: dict[str, Any] = {
        "ruleId": result.id,
        "ruleIndex": index,
        "level": level,
        "kind": "fail",
        "message": {"text": f"{text}\nRemedy: {result.remedy}" if result.remedy else text},
        "locations": [_location(result.where)],
        "partialFingerprints": {"ris-verified/1": _fingerprint(result, seen)},
    }
    if result.waiver:
        found["suppressions"] = [{"kind": "external", "justification": result.waiver}]
    return found


def _location(where: str) -> dict[str, Any]:
    place = PLACE.match(where.replace("\\", "/"))
    if place is None:
        return {"logicalLocations": [{"name": where or "pipeline", "kind": "member"}]}
    artifact = {"uri": quote(place["file"], errors="surrogatepass"), "uriBaseId": "SRCROOT"}
    region = {"startLine": max(1, int(place["line"]))}
    return {"physicalLocation": {"artifactLocation": artifact, "region": region}}


def _fingerprint(result: Result, seen: Counter[str]) -> str:
    # Without the line, so that code above may grow and shrink, and without the message, which figures and
    # waivers change: an alert that is waived stays the same alert.
    place = PLACE.match(result.where.replace("\\", "/"))
    text = "\0".join((result.id, place["file"] if place else result.where))
    seen[text] += 1
    return f"{hashlib.sha256(text.encode('utf-8', 'backslashreplace')).hexdigest()[:32]}:{seen[text]}"
