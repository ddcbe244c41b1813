"""The guide tells the truth: its examples run, its commands exist, its table is that of `Pipeline`."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import importlib.util
import re
import shlex
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from ris_verified.audit.pytest_plugin import pytest_addoption
from ris_verified.audit.rules import rules
from ris_verified.cli.main import build_parser, main
from ris_verified.pipeline import Pipeline

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "guide"
EXAMPLES = GUIDE / "examples"
PAGES = sorted(GUIDE.glob("*.md"))
HOOKS = ROOT / ".pre-commit-hooks.yaml"
MODULES = ("numpy_pipeline", "torch_pipeline", "their_music", "their_network")


def fenced(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(text: str, program: str) -> list[list[str]]:
    """Return the arguments of every call of a program in a page, in fences, YAML and inline code."""
    pieces = [
        line
        for block in re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        for line in block.split("\n")
    ]
    pieces += re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    found = []
    for piece in pieces:
        called = re.match(rf"(?:\$ |[\s-]*(?:run: )?(?:python -m )?){program} (.*)", piece)
        if called:
            words = shlex.split(called[1], comments=True)
            ends = [words.index(sign) for sign in ("||", ">", "|") if sign in words]
            found.append(words[: min(ends)] if ends else words)
    return found


CALLS = [
    (page.name, shlex.join(words)) for page in PAGES for words in commands(page.read_text("utf-8"), "ris-verified")
]


@pytest.fixture
def beside(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.chdir(EXAMPLES)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    forget(monkeypatch)
    return monkeypatch


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)


def test_the_guide_has_commands_to_check() -> None:
    assert len(CALLS) >= 12
    assert {name for name, _ in CALLS} == {page.name for page in PAGES}


@pytest.mark.parametrize(("page", "call"), CALLS)
def test_every_command_in_the_guide_is_one(page: str, call: str) -> None:
    args = build_parser().parse_args(shlex.split(call))
    # Commands other than `audit` name no rules.
    named = [text for option in ("select", "ignore", "explain") for text in vars(args).get(option) or []]
    ids = [part.partition("=")[0] for text in named for part in text.split(",") if part.startswith("RV")]
    assert all(any(known.startswith(name) for known in rules()) for name in ids), f"{page}: {call}"


def test_every_pytest_option_in_the_guide_is_one() -> None:
    known = set()

    class Group:
        def addoption(self, name: str, **_: object) -> None:
            known.add(name)

    pytest_addoption(argparse.Namespace(getgroup=lambda *_: Group()))  # type: ignore[arg-type]
    text = "\n".join(page.read_text("utf-8") for page in PAGES)
    assert set(re.findall(r"(--ris-audit[\w-]*)", text)) <= known
    assert commands((GUIDE / "ci.md").read_text("utf-8"), "pytest")


def test_yaml_in_the_guide_and_the_hooks_parse() -> None:
    blocks = [block for page in PAGES for block in fenced(page.read_text("utf-8"), "yaml")]
    assert len(blocks) == 3
    parsed = [yaml.safe_load(block) for block in blocks]
    hooks = {hook["id"]: hook for hook in yaml.safe_load(HOOKS.read_text("utf-8"))}
    assert set(hooks) == {"ris-verified-source", "ris-verified-audit"}
    assert {hook["id"] for hook in parsed[0]["repos"][0]["hooks"]} == set(hooks)
    for hook in [*hooks.values(), *parsed[0]["repos"][0]["hooks"]]:
        entry = hooks[hook["id"]]["entry"].split()
        assert entry[0] == "ris-verified"
        build_parser().parse_args([*entry[1:], *hook["args"]])
    assert all(hook["pass_filenames"] is False for hook in hooks.values())
    assert hooks["ris-verified-audit"]["stages"] == ["pre-push"]


def stages() -> ModuleType:
    spec = importlib.util.spec_from_file_location("stages_of_the_guide", GUIDE / "stages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_of_stages_is_that_of_the_pipeline() -> None:
    module, guide = stages(), (GUIDE / "bring_your_pipeline.md").read_text("utf-8")
    assert module.written(guide) == guide, "run: python docs/guide/stages.py"
    names = re.findall(r"^\| `(\w+)` \|", module.table(), re.MULTILINE)
    assert names == [field.name for field in dataclasses.fields(Pipeline)]
    assert "not described" not in guide


def test_pasted_results_name_rules_by_their_titles() -> None:
    text = "\n".join(page.read_text("utf-8") for page in PAGES)
    pasted = re.findall(r"^(?:PASS|FAIL|SKIP)\s+(RV\d{4}) (.*)$", text, re.MULTILINE)
    assert len(pasted) >= 14
    assert all(rest.startswith(rules()[name].title) for name, rest in pasted)


def code_lines(path: Path) -> int:
    text, left_out = path.read_text("utf-8"), set[int]()
    for node in ast.parse(text).body:
        documents = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if documents or isinstance(node, ast.Import | ast.ImportFrom):
            left_out |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return sum(bool(line.strip()) and number not in left_out for number, line in enumerate(text.split("\n"), 1))


@pytest.mark.parametrize(("name", "count"), [("numpy_pipeline.py", "23 lines"), ("torch_pipeline.py", "29 lines")])
def test_wrappers_are_as_short_as_the_guide_says(name: str, count: str) -> None:
    assert f"{code_lines(EXAMPLES / name)} lines" == count
    assert count in (GUIDE / "bring_your_pipeline.md").read_text("utf-8")


@pytest.mark.long
@pytest.mark.parametrize(
    ("pipeline", "select"),
    [
        ("numpy_pipeline:pipeline", "RV0202,RV05,RV07,RV08,RV1202,RV1602,RV1604"),
        ("torch_pipeline:pipeline", "RV0202,RV04,RV05,RV06,RV0701,RV08,RV1006,RV13,RV1405,RV1603,RV1604,RV1605"),
    ],
)
def test_the_examples_are_go(
    pipeline: str, select: str, beside: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["audit", "--pipeline", pipeline, "--select", select, "--source", "."])
    out = capsys.readouterr().out
    assert code == 0, out
    assert "FAIL" not in out


def test_the_slip_of_the_guide_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    theirs = tmp_path / "examples" / "their_music.py"
    sound, slip = "R = X.T @ X.conj()", "R = X.conj().T @ X"
    text = theirs.read_text("utf-8")
    assert text.count(sound) == 1
    theirs.write_text(text.replace(sound, slip), "utf-8")
    monkeypatch.chdir(theirs.parent)
    monkeypatch.syspath_prepend(str(theirs.parent))
    forget(monkeypatch)
    assert main(["audit", "--pipeline", "numpy_pipeline:pipeline", "--select", "RV0704,RV0705"]) == 1
    out = capsys.readouterr().out
    assert out.startswith("FAIL  RV0705")
    guide = (GUIDE / "bring_your_pipeline.md").read_text("utf-8")
    assert sound in guide
    assert slip in guide


@pytest.mark.every
@pytest.mark.parametrize("name", ["numpy_pipeline", "torch_pipeline"])
def test_faults_planted_into_the_examples_are_killed(
    name: str, beside: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", "--prove", "--pipeline", f"{name}:pipeline", "--select", "RV08"]) == 0
    assert "SURVIVED" not in capsys.readouterr().out
