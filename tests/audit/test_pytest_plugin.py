"""The audit as pytest items: outcomes, texts, selection, reports, cost and manners."""

from __future__ import annotations

import importlib
import random
import subprocess
import sys
import tomllib
from pathlib import Path
from xml.etree import ElementTree

import pytest

import ris_verified.audit.pytest_items  # noqa: F401
from ris_verified.audit.context import small_config
from ris_verified.audit.rules import rules
from ris_verified.audit.runner import audit as run_audit
from ris_verified.config import Config
from ris_verified.pipeline import Pipeline

pytest_plugins = "pytester"
PLUGIN = "ris_verified.audit.pytest_plugin"
MINE = """
import dataclasses, sys, torch
from pathlib import Path
from ris_verified.audit.context import small_config
from ris_verified.config import Config
from ris_verified.pipeline import Pipeline

sound = Pipeline.default(small_config(Config()).replaced({"train.ema_decay": 0.0}))

def crash(*_):
    raise MemoryError("full")

def half(R_pred, R_samp, cfg):
    return sound.blend(R_pred, R_samp, dataclasses.replace(
        cfg, covariance=dataclasses.replace(cfg.covariance, beta=0.5)))

def counted(cfg, *key):
    with Path("drawn.txt").open("a") as file:
        file.write("drawn\\n")
    return sound.draw_scene(cfg, *key)

def leaky(cfg, *key):
    if not torch.is_inference_mode_enabled():
        sys.kept = torch.inference_mode()
        sys.kept.__enter__()
    return sound.draw_scene(cfg, *key)

bent = dataclasses.replace(sound, inference_blend=half)
crashing = dataclasses.replace(sound, spectrum=crash)
counting = dataclasses.replace(sound, draw_scene=counted)
leaking = dataclasses.replace(sound, draw_scene=leaky)
"""
DEAD_KNOB = """
from dataclasses import dataclass

@dataclass(frozen=True)
class Config:
    dead: int = 1
    used: int = 2

def f(cfg: Config) -> int:
    return cfg.used
"""


@pytest.fixture(scope="module")
def loaded() -> None:
    """Import what an audit imports: pytester forgets modules that a run was the first to import, and NumPy's
    and SciPy's extensions cannot be imported twice."""
    pipeline = Pipeline.default(small_config(Config()))
    report = run_audit(pipeline, select=["RV04", "RV05", "RV08", "RV12", "RV1601"], ignore=["RV0402"])
    assert report.verdict == "GO"


@pytest.fixture
def place(loaded: None, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    # An installed entry point would register the plugin a second time under its own name.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makeini(
        "[pytest]\naddopts = --import-mode=importlib --strict-markers\n"
        "filterwarnings = ignore::pytest.PytestAssertRewriteWarning\n"
    )
    pytester.makepyfile(mine_in_pytest=MINE)
    pytester.mkdir("tree")
    (pytester.path / "tree" / "config.py").write_text(DEAD_KNOB, encoding="utf-8")
    return pytester


def audit(place: pytest.Pytester, name: str, select: str, *more: str) -> pytest.RunResult:
    pipeline = name if name == "default" else f"mine_in_pytest:{name}"
    given = ["-p", PLUGIN, "-p", "no:cacheprovider", "--ris-audit", pipeline, "--ris-audit-select", select]
    return place.runpytest_inprocess(*given, *more)


def test_a_sound_pipeline_passes_item_by_item(place: pytest.Pytester) -> None:
    place.makepyfile(test_own="def test_own(): pass")
    run = audit(place, "sound", "RV0801,RV0802,RV0501,RV0504", "-v")
    run.assert_outcomes(passed=4, skipped=1)
    run.stdout.fnmatch_lines(
        [
            "ris-audit: mine_in_pytest:sound, profile quick",
            "*collected 5 items",
            "test_own.py::test_own PASSED*",
            "ris-audit::RV0501 PASSED*",
            "ris-audit::RV0504 SKIPPED (the pipeline keeps*",
            "ris-audit::RV0801 PASSED*",
            "ris-audit::RV0802 PASSED*",
        ]
    )


def test_a_failure_shows_law_figures_place_and_remedy_and_no_traceback(place: pytest.Pytester) -> None:
    run = audit(place, "bent", "RV0802,RV0801")
    run.assert_outcomes(passed=1, failed=1)
    item = rules()["RV0802"]
    run.stdout.fnmatch_lines(
        [
            "*_ RV0802 Training and inference agree _*",
            f"  law       {item.law}",
            "  where     R_blend",
            "  measured  0.*",
            "  bound     1e-06",
            f"  remedy    {item.remedy}",
            "FAILED ris-audit::RV0802 - Failed: RV0802 *",
        ]
    )
    run.stdout.no_fnmatch_line("*Traceback*")
    run.stdout.no_fnmatch_line("*pytest_items.py*")


def test_a_check_that_crashes_fails_and_says_so(place: pytest.Pytester) -> None:
    run = audit(place, "crashing", "RV1202,RV0801")
    run.assert_outcomes(passed=1, failed=1)
    run.stdout.fnmatch_lines(["RV1202 *: the check crashed: the check could not finish: *Error: full*"])


def test_a_warning_is_shown_and_does_not_fail_the_run(place: pytest.Pytester) -> None:
    given = ["-p", PLUGIN, "--ris-audit-source", "tree", "--ris-audit-select", "RV0102"]
    run = place.runpytest_inprocess(*given)
    run.assert_outcomes(passed=1, warnings=1)
    assert run.ret == 0
    run.stdout.fnmatch_lines(["*AuditWarning: RV0102 *Config.dead is defined and never read*", "*remedy*"])
    strict = place.runpytest_inprocess(*given, "-W", "error::ris_verified.audit.pytest_plugin.AuditWarning")
    strict.assert_outcomes(failed=1)
    strict.stdout.no_fnmatch_line("*During handling*")


def test_nothing_is_imported_for_an_audit_of_source_only(place: pytest.Pytester) -> None:
    place.makepyfile(test_own="import sys\ndef test_own(): assert 'torch' not in sys.modules")
    run = place.runpytest_subprocess("-p", PLUGIN, "--ris-audit-source", "tree")
    assert run.ret == 0
    assert run.parseoutcomes()["passed"] > 5


def test_selection_by_keyword_by_id_and_by_option(place: pytest.Pytester) -> None:
    place.makepyfile(test_own="def test_own(): pass")
    audit(place, "sound", "RV08", "-k", "RV0801 or (Training and not ris-audit)").assert_outcomes(
        passed=1, deselected=5
    )
    audit(place, "sound", "RV08", "ris-audit::RV0804").assert_outcomes(passed=1)
    waived = ("--ris-audit-ignore", "RV0803=the blend is being rewritten")
    audit(place, "bent", "RV0803,RV0804", "ris-audit", *waived).assert_outcomes(passed=1, skipped=1)
    assert audit(place, "sound", "RV08", "ris-audit::RV9999").ret == pytest.ExitCode.USAGE_ERROR


def test_collect_only_lists_ids_and_titles(place: pytest.Pytester) -> None:
    run = audit(place, "default", "RV08", "--collect-only")
    run.stdout.fnmatch_lines(
        ["<AuditNode ris-audit>", "  <AuditItem RV0801 Every covariance has trace N>", "*5 tests collected*"]
    )
    quiet = audit(place, "default", "RV08", "--collect-only", "-q")
    quiet.stdout.fnmatch_lines(["ris-audit::RV0801", "ris-audit::RV0802"])


def test_the_run_stops_at_the_first_failure_when_asked(place: pytest.Pytester) -> None:
    run = audit(place, "bent", "RV0802,RV0803,RV0804", "-x")
    run.assert_outcomes(failed=1)
    run.stdout.fnmatch_lines(["*stopping after 1 failures*"])


def test_a_failure_is_run_again_by_last_failed(place: pytest.Pytester) -> None:
    given = ["-p", PLUGIN, "--ris-audit", "mine_in_pytest:bent", "--ris-audit-select", "RV0801,RV0802"]
    place.runpytest_inprocess(*given).assert_outcomes(passed=1, failed=1)
    place.runpytest_inprocess(*given, "--lf").assert_outcomes(failed=1, deselected=1)


def test_junit_holds_title_figures_and_failure(place: pytest.Pytester) -> None:
    audit(place, "bent", "RV0801,RV0802,RV0504", "--junitxml", "report.xml")
    suite = ElementTree.parse(place.path / "report.xml").getroot()[0]
    assert {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": "3", "failures": "1", "errors": "0", "skipped": "1",
    }  # fmt: skip
    cases = {case.get("name"): case for case in suite}
    assert {case.get("classname") for case in suite} == {"ris-audit"}
    properties = {p.get("name"): p.get("value") for p in cases["RV0802"].iter("property")}
    assert properties["title"] == "Training and inference agree"
    assert properties["bound"] == "1e-06"
    failure = cases["RV0802"].find("failure")
    assert failure is not None
    assert rules()["RV0802"].remedy in (failure.text or "")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--ris-audit", "mine_in_pytest:absent"], "--ris-audit mine_in_pytest: has no attribute 'absent'*"),
        (["--ris-audit", "absent_module_xyz:p"], "--ris-audit absent_module_xyz: cannot be imported*"),
        (["--ris-audit", "no_colon"], "--ris-audit: 'no_colon'; expected MODULE:ATTR*"),
        (["--ris-audit", "mine_in_pytest:crash"], "*MemoryError: full*"),
        (["--ris-audit", "torn:p"], "*SyntaxError*"),
        (["--ris-audit-source", "tree", "--ris-audit-select", "RV77"], "*'RV77' matches no rule*"),
        (["--ris-audit-source", "absent"], "--ris-audit-source: no such folder: absent"),
    ],
)
def test_wrong_usage_is_one_line(place: pytest.Pytester, given: list[str], said: str) -> None:
    place.makepyfile(torn="def f(:\n")
    run = place.runpytest_inprocess("-p", PLUGIN, *given)
    assert run.ret == pytest.ExitCode.USAGE_ERROR
    lines = [line for line in run.stderr.lines if line]
    assert len(lines) == 1
    run.stderr.fnmatch_lines([f"ERROR: {said}"])


def test_the_items_of_one_process_share_their_evidence(place: pytest.Pytester) -> None:
    drawn = place.path / "drawn.txt"
    audit(place, "counting", "RV0801").assert_outcomes(passed=1)
    alone = len(drawn.read_text().splitlines())
    drawn.unlink()
    audit(place, "counting", "RV0801,RV0803,RV0501").assert_outcomes(passed=3)
    assert len(drawn.read_text().splitlines()) == alone


def test_workers_of_xdist_share_the_items(place: pytest.Pytester) -> None:
    given = ["-p", PLUGIN, "-p", "xdist", "-n", "2", "--ris-audit", "mine_in_pytest:bent", "--ris-audit-select", "RV08"]
    run = place.runpytest_subprocess(*given, "ris-audit::RV0801", "ris-audit::RV0802")
    run.assert_outcomes(passed=1, failed=1)
    run.stdout.fnmatch_lines(["*remedy    call the same function in both*", "FAILED ris-audit::RV0802*"])


def test_the_process_is_left_as_it_was(place: pytest.Pytester) -> None:
    random.seed(11)
    before = random.getstate()
    audit(place, "sound", "RV0801,RV0404").assert_outcomes(passed=2)
    assert random.getstate() == before


def test_what_an_audit_leaves_changed_is_an_error(place: pytest.Pytester) -> None:
    try:
        run = audit(place, "leaking", "RV1601")
    finally:
        vars(sys).pop("kept").__exit__(None, None, None)
    assert run.parseoutcomes()["errors"] == 1
    run.stdout.fnmatch_lines(["RV0000 The audit leaves everything as it found it: *", "  where     inference mode"])


def test_without_the_option_nothing_is_imported(place: pytest.Pytester) -> None:
    place.makepyfile(
        test_own="import sys\ndef test_own():\n"
        "    heavy = {'torch', 'numpy', 'ris_verified.audit.pytest_items', 'ris_verified.audit.runner'}\n"
        "    assert 'ris_verified.audit.pytest_plugin' in sys.modules\n    assert not heavy & set(sys.modules)\n"
    )
    place.runpytest_subprocess("-p", PLUGIN).assert_outcomes(passed=1)


def test_importing_the_plugin_takes_milliseconds() -> None:
    code = "import pytest, time; t = time.process_time(); import ris_verified.audit.pytest_plugin as p\n"
    done = subprocess.run(
        [sys.executable, "-c", code + "print(time.process_time() - t)"], capture_output=True, text=True, timeout=60
    )
    assert float(done.stdout) < 0.1, done.stderr


def test_the_entry_point_is_declared_and_loads() -> None:
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    assert tomllib.loads(text)["project"]["entry-points"]["pytest11"] == {"ris-audit": PLUGIN}
    assert importlib.import_module(PLUGIN).pytest_addoption
