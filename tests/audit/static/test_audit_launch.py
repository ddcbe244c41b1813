"""Ways to write a command that refuses a NO-GO, and ways that only look like it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ris_verified.audit.context import Context
from ris_verified.audit.faults.launches import command
from ris_verified.audit.rules import rules
from ris_verified.audit.runner import PACKAGE, run_rule

START = "study.optimize(args.n_trials)\n"
GATE = """
class NoGo(Exception):
    pass

def gate(pipeline, waiver=""):
    report = audit(pipeline)
    if report.verdict == "GO":
        return report
    if waiver:
        log.warning("ignored: %s", waiver)
        return report
    raise NoGo("NO-GO")
"""
ALLOWED = """
def allowed(pipeline, args):
    report = audit(pipeline)
    return report.verdict == "GO" or bool(args.ignore_audit)
"""
REFUSE = """
def refuse(report):
    log.error("NO-GO")
    sys.exit(1)
"""
STUDY = """
def run_study(cfg, objective, verdict):
    if verdict["verdict"] == "NO-GO" and not verdict.get("waiver"):
        raise RuntimeError("NO-GO")
    study = make(cfg)
    while True:
        trial = study.ask()
        objective(trial)
"""
KEPT = STUDY.replace('raise RuntimeError("NO-GO")', 'log.warning("NO-GO")')
CLASS = """
class Launch:
    def __init__(self, pipeline):
        self.report = audit(pipeline)

    def check(self):
        if self.report.verdict != "GO":
            raise SystemExit(1)

    def run(self, study, args):
        self.report = audit(study)
        self.check()
        study.optimize(args.n_trials)
"""
CONTEXT = """
from contextlib import contextmanager

@contextmanager
def gated(pipeline):
    if audit(pipeline).verdict != "GO":
        raise RuntimeError("NO-GO")
    yield
"""
SOUND = {
    "branch": ('if audit(pipeline).verdict == "GO":\n    ' + START,),
    "early return": ('if audit(pipeline).verdict != "GO":\n    return 1\n' + START,),
    "raise": ('report = audit(pipeline)\nif report.verdict == "NO-GO":\n    raise SystemExit("NO-GO")\n' + START,),
    "exit": ('if audit(pipeline).verdict != "GO":\n    sys.exit(1)\n' + START,),
    "exit by or": ('audit(pipeline).verdict == "GO" or sys.exit(1)\n' + START,),
    "variable": ('go = audit(pipeline).verdict == "GO"\nif not go:\n    return\n' + START,),
    "lower case": ('if audit(pipeline).verdict.lower().startswith("no"):\n    return\n' + START,),
    "waiver": ('v = audit(pipeline).verdict\nif v != "GO" and not args.ignore_audit:\n    return\n' + START,),
    "stored refusal": (
        'v = audit(pipeline).verdict\nrefuse = v != "GO" and not args.force\nif refuse:\n    return\n' + START,
    ),
    "waiver in words": (
        'v = audit(pipeline).verdict\nif v != "GO":\n    if args.waiver is None:\n        return\n' + START,
    ),
    "audit off": ("if not args.skip_audit:\n    gate(pipeline)\n" + START, GATE),
    "no audit where off": ("if args.skip_audit:\n    log.warning('off')\nelse:\n    gate(pipeline)\n" + START, GATE),
    "helper": ("gate(pipeline, args.ignore_audit)\n" + START, GATE),
    "helper's answer": ("if not allowed(pipeline, args):\n    return 1\n" + START, ALLOWED),
    "helper that exits": (
        'report = audit(pipeline)\nif report.verdict != "GO":\n    refuse(report)\n' + START, REFUSE,
    ),
    "nested helper": (
        'report = audit(pipeline)\ndef check():\n    if report.verdict != "GO":\n        raise SystemExit(1)\ncheck()\n'
        + START,
    ),
    "told by the error": ("try:\n    gate(pipeline)\nexcept NoGo as e:\n    log.info(e)\n    return 1\n" + START, GATE),
    "another error caught": ("try:\n    gate(pipeline)\nexcept OSError:\n    log.error('disk')\n" + START, GATE),
    "raised again": ("try:\n    gate(pipeline)\nexcept Exception:\n    log.error('no')\n    raise\n" + START, GATE),
    "within": ("with open('log'):\n    gate(pipeline)\n    " + START, GATE),
    "context": ("with gated(pipeline):\n    " + START, CONTEXT),
    "else": ("try:\n    gate(pipeline)\nexcept NoGo:\n    log.error('no')\nelse:\n    " + START, GATE),
    "match": (
        'match audit(pipeline).verdict:\n    case "GO":\n        ' + START + "    case _:\n        return 1\n",
    ),
    "choice of the text": ('ok = True if audit(pipeline).verdict == "GO" else False\nif ok:\n    ' + START,),
    "kept by or": ('v = audit(pipeline).verdict or "none"\nif v == "NO-GO":\n    return\n' + START,),
    "until it is GO": ('while audit(pipeline).verdict != "GO":\n    input("mend it")\n' + START,),
    "handed to a thread": ('gate(pipeline)\ndef job():\n    ' + START + "Thread(target=job).start()\n", GATE),
    "the stage refuses": (
        'report = audit(pipeline)\nrun_study(args, len, {"verdict": report.verdict, "waiver": ""})\n', STUDY,
    ),
    "the stage of another package": (
        'report = audit(pipeline)\npipeline.run_study(args, len, {"verdict": report.verdict})\n',
    ),
    "class": ("Launch(pipeline).run(study, args)\n", CLASS),
}  # fmt: skip
UNSOUND = {
    "the stage only keeps it": (
        'report = audit(pipeline)\nrun_study(args, len, {"verdict": report.verdict, "waiver": ""})\n', KEPT,
    ),
    "another package's stage is not told": ("report = audit(pipeline)\npipeline.run_study(args, len)\n",),
    "suppressed": ("with suppress(NoGo):\n    gate(pipeline)\n" + START, GATE),
    "helper with a hole": ("gate(pipeline)\n" + START, GATE.replace('raise NoGo("NO-GO")', "return report")),
    "answer turned": ("if allowed(pipeline, args):\n    return 1\n" + START, ALLOWED),
    "case of both": ('match audit(pipeline).verdict:\n    case "GO" | "NO-GO":\n        ' + START,),
    "constant": ('DEBUG = True\nif DEBUG or audit(pipeline).verdict == "GO":\n    ' + START,),
    "told and on": ('report = audit(pipeline)\nif report.verdict:\n    ' + START,),
    "in the handler": ("try:\n    gate(pipeline)\nexcept NoGo:\n    " + START, GATE),
    "in the end": ("try:\n    gate(pipeline)\nfinally:\n    " + START, GATE),
    "in a thread": ("def job():\n    " + START + "Thread(target=job).start()\ngate(pipeline)\n", GATE),
}  # fmt: skip


def _found(folder: Path):
    return run_rule(rules()["RV1501"], Context(None, "quick", folder))


def _written(folder: Path, written: tuple[str, ...]):
    for name, text in command(*written).items():
        (folder / name).parent.mkdir()
        (folder / name).write_text(text, encoding="utf-8")
    return _found(folder)


@pytest.mark.parametrize("way", SOUND)
def test_a_command_may_refuse_in_many_ways(tmp_path: Path, way: str) -> None:
    assert [(r.status, r.message) for r in _written(tmp_path, SOUND[way]) if r.status != "pass"] == []


@pytest.mark.parametrize("way", UNSOUND)
def test_a_study_that_starts_all_the_same_is_named(tmp_path: Path, way: str) -> None:
    failed = [r for r in _written(tmp_path, UNSOUND[way]) if r.status != "pass"]
    assert [r.message for r in failed] == ["starts of the study that a NO-GO reaches"]
    assert failed[0].where.startswith("hpo/__main__.py:")


def test_a_source_without_a_study_is_told_so(tmp_path: Path) -> None:
    messages = [r.message for r in _written(tmp_path, ("gate(pipeline)\n", GATE)) if r.status == "fail"]
    assert messages == ["a call that starts the study: run_study, or optimize or ask of a study"]


# The study asks once more what the command has asked.
OWN = (
    ("cli/common.py", "    raise NoGoError(", "    return report or NoGoError("),
    ("hpo/study.py", "    _require_go(verdict)", "    str(verdict)"),
)


@pytest.mark.parametrize("broken", [0, 1, 2])
def test_our_own_command_is_followed_to_its_gates(tmp_path: Path, broken: int) -> None:
    for part in ("cli", "hpo"):
        shutil.copytree(PACKAGE / part, tmp_path / "ris_verified" / part)
    for name, sound, slip in OWN[:broken]:
        file = tmp_path / "ris_verified" / name
        text = file.read_text(encoding="utf-8")
        assert text.count(sound) == 1
        file.write_text(text.replace(sound, slip), encoding="utf-8")
    assert {r.status for r in _found(tmp_path)} == ({"fail"} if broken == len(OWN) else {"pass"})
