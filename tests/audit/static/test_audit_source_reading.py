"""Files that a parser, a walk or an analysis might stumble over."""

from __future__ import annotations

import ast
import gc
from pathlib import Path

import pytest

from ris_verified.audit.runner import audit
from ris_verified.audit.static.index import Index
from ris_verified.audit.static.syntax import read_tree


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfx = 1\n",
        b"# -*- coding: latin-1 -*-\nx = '\xe9'\n",
        b"x = 1\n\x0cdef f():\n    return x\n",
        b"",
        b"\r\nx = 1\r\n",
        b"x = 1",
        b"x = '\\d'\n",
    ],
)
def test_unusual_files_that_python_accepts(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.py").write_bytes(content)
    assert [file.error for file in read_tree(tmp_path).files] == [""]


@pytest.mark.parametrize(
    "content",
    [
        b"x = '\xe9'\n",
        b"# coding: no-such-codec\nx = 1\n",
        b"x = 1\x00\n",
        b"print 'two'\n",
        b"def f(:\n",
        b"x = " + b"(" * 5000 + b")" * 5000 + b"\n",
        b"x = " + b"-" * 200_000 + b"1\n",
        b"\tx = 1\n",
    ],
)
def test_files_that_cannot_be_parsed_are_reported_with_the_rest_read(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.py").write_bytes(content)
    (tmp_path / "good.py").write_text("def f():\n    return missing\n", encoding="utf-8")
    report = audit(None, source=tmp_path)
    failed = {(r.id, r.where.split(":")[0]) for r in report.results if r.status == "fail"}
    assert {("RV1101", "bad.py"), ("RV0201", "good.py")} <= failed
    assert not [r for r in report.results if r.status == "error"]


def test_deep_trees_crash_no_rule(tmp_path: Path) -> None:
    chain = "x = 1\n" + "".join(f"{'if' if i == 0 else 'elif'} x == {i}:\n    y = {i}\n" for i in range(1500))
    (tmp_path / "chain.py").write_text(chain, encoding="utf-8")
    (tmp_path / "sum.py").write_text("cfg = x = 1\ny = " + " + ".join(["x"] * 3000) + "\n", encoding="utf-8")
    assert not [r for r in audit(None, source=tmp_path).results if r.status == "error"]


def test_links_caches_and_hidden_folders(tmp_path: Path) -> None:
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "a.py").write_text("x = 1\n", encoding="utf-8")
    (tmp_path / "pkg" / "loop").symlink_to(tmp_path)
    (tmp_path / "broken.py").symlink_to(tmp_path / "nowhere.py")
    (tmp_path / "folder.py").mkdir()
    for name in (".venv", "__pycache__", "site-packages", "build"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "b.py").write_text("def (\n", encoding="utf-8")
    files = {file.name: bool(file.error) for file in read_tree(tmp_path).files}
    assert files == {"broken.py": True, "pkg/a.py": False}


def test_the_collector_of_cycles_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n", encoding="utf-8")
    assert gc.isenabled()
    audit(None, source=tmp_path)
    assert gc.isenabled()


def test_the_index_holds_what_a_walk_finds() -> None:
    text = "import a\nclass C:\n    def f(self, x=lambda y: {**y, 1: 2}, *, k=None):\n        global G\n"
    text += "        try:\n            pass\n"
    tree = ast.parse(f"{text}        except (A, B) as e:\n            match x:\n                case C(k=1): del x\n")
    plain = ast.expr_context | ast.operator | ast.alias | ast.cmpop
    expected = sorted(type(n).__name__ for n in ast.walk(tree) if not isinstance(n, plain))
    index = Index(tree)
    assert sorted(type(n).__name__ for n in index.nodes) == expected
    (function,) = index.functions
    assert {id(n) for n in index.below(function)} == {id(n) for n in ast.walk(function) if not isinstance(n, plain)}
