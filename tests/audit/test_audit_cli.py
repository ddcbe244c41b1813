"""The options and exit codes of `ris-verified audit`."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ris_verified.audit.cli import add_arguments, run
from ris_verified.audit.faults import faults
from ris_verified.audit.formats import FORMATS
from ris_verified.audit.rules import rules


def call(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args(arguments))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "a.py").write_text("def f(cfg):\n    return getattr(cfg, 'hybrid_beta', 0.3)\n", encoding="utf-8")
    return folder


def test_list_and_explain_do_not_import_torch() -> None:
    code = (
        "import argparse, sys\nfrom ris_verified.audit.cli import add_arguments, run\n"
        "p = argparse.ArgumentParser(); add_arguments(p)\n"
        "codes = run(p.parse_args(['--list'])), run(p.parse_args(['--explain', 'RV0101']))\n"
        "sys.exit(9 if 'torch' in sys.modules else sum(codes))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "RV0101" in done.stdout
    assert "Why:" in done.stdout


def test_source_alone_exits_1_on_a_finding_and_names_the_line(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--source", str(source)) == 1
    assert "a.py:2" in capsys.readouterr().out


def test_source_alone_exits_0_when_clean(source: Path) -> None:
    (source / "a.py").write_text("x = 1\n", encoding="utf-8")
    assert call("--source", str(source), "--select", "RV1101,RV0201") == 0


def test_json_goes_to_the_output_file(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "report.json"
    assert call("--source", str(source), "--format", "json", "--output", str(target)) == 1
    assert json.loads(target.read_text(encoding="utf-8"))["verdict"] == "NO-GO"
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ("--explain", "RV9999"),
        ("--explain", "RV0101", "RV9999"),
        ("--explain", ""),
        ("--list", "--format", "sarif"),
        ("--source", ".", "--ignore", "@a.py=everything there"),
        ("--source", ".", "--ignore", "RV0199=never was"),
        ("--prove", "--select", "RV0105", "--ignore", "RV0199=never was"),
        ("--select", "nothing", "--source", "."),
        ("--source", "absent-folder"),
        ("--pipeline", "no_colon"),
        ("--pipeline", "absent_module_xyz:pipeline"),
        ("--pipeline", "json:absent"),
        ("--pipeline", "json:dumps.x"),
        ("--pipeline", "./json:dumps"),
        ("--pipeline", ".json:dumps"),
        ("--source", ".", "--select", "RV0801"),
        ("--pipeline", "json:__name__"),
        ("--pipeline", "json:a", "--set", "seed=1"),
        ("--set", "covariance.betta=1"),
        ("--config", "absent.toml"),
        ("--data", "absent-folder"),
    ],
)
def test_wrong_usage_exits_2_with_one_line(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "expected" in error


def test_an_unknown_format_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        call("--format", "yaml")
    assert stopped.value.code == 2
    assert "sarif" in capsys.readouterr().err


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_written_where_it_is_told(name: str, source: Path, tmp_path: Path) -> None:
    target = tmp_path / f"report.{name}"
    assert call("--source", str(source), "--format", name, "--output", str(target)) == 1
    assert "NO-GO" in target.read_text(encoding="utf-8")


def test_waivers_with_reason_and_place_come_from_the_command_line(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--source", str(source), "--select", "RV0101,RV0201", "--format", "json"]
    assert call(*asked, "--ignore", "RV0101@a.py:2=the port is not finished", "--ignore", "RV0201") == 0
    tree = json.loads(capsys.readouterr().out)
    assert [(r["status"], r["waiver"]) for r in tree["results"]] == [("skip", "the port is not finished"), ("pass", "")]
    assert (tree["verdict"], tree["waived"]) == ("GO", 1)
    assert ["RV0201 matches nothing any more" in text for text in tree["warnings"]] == [True]
    assert call(*asked, "--ignore", "RV0101@b.py=elsewhere") == 1


@pytest.mark.parametrize(
    ("options", "code"),
    [([], 0), (["--strict"], 1), (["--strict", "--ignore", "RV0102@config.py:6=old", "--select", "RV0201"], 0)],
)
def test_a_warning_stops_a_strict_job_only(
    options: list[str], code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "from dataclasses import dataclass\n\n\n@dataclass\nclass Config:\n    dead: float = 0.1\n"
    (tmp_path / "config.py").write_text(text, encoding="utf-8")
    assert call("--source", str(tmp_path), "--select", "RV0102", *options) == code
    assert capsys.readouterr().out.rstrip().splitlines()[-1].startswith("GO")


def test_the_catalogue_is_json_and_explain_takes_several(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--list", "--format", "json") == 0
    assert {item["id"] for item in json.loads(capsys.readouterr().out)} == set(rules())
    for given in (["rv0101,RV0803"], ["RV0101", "RV0803"]):
        assert call("--explain", *given) == 0
        heads = [line[:6] for line in capsys.readouterr().out.splitlines() if line.startswith("RV")]
        assert heads == ["RV0101", "RV0803"]


@pytest.mark.parametrize(
    ("code", "exit_code", "said"),
    [
        ("x = 1\nraise ZeroDivisionError('at\\nimport')", 3, ["ZeroDivisionError: at import", "line 2"]),
        ("import absent_thing_xyz", 3, ["ModuleNotFoundError", "absent_thing_xyz", "line 1"]),
        ("x = 1\ndef g(: pass", 3, ["SyntaxError", "line 2"]),
        ("import sys\nsys.exit(0)", 3, ["SystemExit: 0", "line 2"]),
        ("class Odd(BaseException): pass\nraise Odd('x')", 3, ["Odd: x", "line 2"]),
        ("def f():\n    x = [1]\n    return x[5]\n", 3, ["IndexError", "line 3"]),
        ("def f():\n    raise SystemExit(0)\n", 3, ["SystemExit: 0", "line 2"]),
        ("def g():\n    return 3\n", 2, ["no attribute 'f'"]),
        ("def f(config):\n    return config\n", 2, ["without arguments"]),
        ("def f():\n    return 3\n", 2, ["is a int"]),
        ("f = None", 2, ["is a NoneType"]),
        (
            "import dataclasses, ris_verified as rv\nf = dataclasses.replace(rv.Pipeline.default(), config={})\n",
            2,
            ["a dict"],
        ),
    ],
)
def test_a_module_that_cannot_give_a_pipeline_is_one_clear_error(
    code: str,
    exit_code: int,
    said: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = f"broken_{abs(hash(code))}"
    (tmp_path / f"{name}.py").write_text(code, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert call("--pipeline", f"{name}:f") == exit_code
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "Traceback" not in error
    assert all(text in error for text in [name, *said]), error


def test_a_pipeline_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (
        "import dataclasses\nfrom ris_verified.audit.context import small_config\n"
        "from ris_verified.config import Config\nfrom ris_verified.pipeline import Pipeline\n"
        "def build():\n    return Pipeline.default(small_config(Config()))\n"
        "def doubled(array, *rest):\n    return 2 * sound.element_positions(array, *rest)\n"
        "sound = build()\nbent = dataclasses.replace(sound, element_positions=doubled)\n"
    )
    (tmp_path / "mine_for_audit.py").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert call("--pipeline", "mine_for_audit:build", "--select", "RV0801") == 0
    assert call("--pipeline", "mine_for_audit:bent", "--select", "RV1601") == 1
    assert "element_positions" in capsys.readouterr().out


def test_prove_exits_0_when_all_are_killed_and_2_for_an_unknown_rule(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--prove", "--select", "RV0105") == 0
    counted = re.search(r"(\d+) of (\d+) faults killed", capsys.readouterr().out)
    assert counted is not None
    assert counted[1] == counted[2] == str(sum(fault.rule == "RV0105" for fault in faults()))
    assert call("--prove", "--select", "RV0199") == 2


@pytest.mark.parametrize("name", ["json", "markdown", "html"])
def test_the_proof_comes_in_the_formats_that_have_a_kill_table(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--prove", "--select", "RV0105", "--format", name, "--ignore", "RV0105=was needed"]
    assert call(*asked) == 0
    text = capsys.readouterr().out
    assert "matches nothing any more" in text
    planted = [fault.name for fault in faults() if fault.rule == "RV0105"]
    assert all(fault in text for fault in planted)
    if name == "json":
        kills = json.loads(text)["kills"]
        assert [(kill["fault"], kill["status"]) for kill in kills] == [(fault, "fail") for fault in planted]


@pytest.mark.parametrize("content", [None, "x = 1 +\n"])
def test_a_source_that_holds_nothing_to_read_is_no_go(
    content: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content:
        (tmp_path / "torn.py").write_text(content, encoding="utf-8")
    assert call("--source", str(tmp_path)) == 1
    printed = capsys.readouterr().out
    assert "NO-GO: 0 pass" in printed
    assert "PASS" not in printed


def test_a_study_of_two_objectives_is_audited_too() -> None:
    assert call("--set", "hpo.timed=true", "--select", "RV0903,RV0904,RV0906") == 0


@pytest.mark.parametrize(
    "arguments", [("--pipeline", ""), ("--list", "--output", "."), ("--data", __file__), ("--source", __file__)]
)
def test_what_is_nothing_or_of_another_kind_is_wrong_usage(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*arguments) == 2
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1
    assert "internal" not in printed.err
    assert printed.out == ""


def test_a_preset_is_asked_for_as_by_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--preset", "small", "--select", "RV0103") == 0
    with pytest.raises(SystemExit):
        call("--preset", "small", "--config", "quick")
    assert "not allowed with argument" in capsys.readouterr().err
