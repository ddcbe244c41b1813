"""The package's own tools, and its modules imported one by one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ris_verified.audit.runner import PACKAGE, audit
from ris_verified.audit.static import tools


def test_only_the_own_checkout_is_judged_by_tools(tmp_path: Path) -> None:
    assert tools.checkout(tmp_path) is None
    root = tools.checkout(PACKAGE)
    assert root is None or (root / "pyproject.toml").is_file()


def test_a_missing_tool_is_a_finding(tmp_path: Path) -> None:
    (found,) = tools.tool_findings(tmp_path, {"lint": ("no-such-linter", "check")})
    assert found[0] == "lint"
    assert "not installed" in found[1]


def test_the_exit_status_of_a_tool_decides(tmp_path: Path) -> None:
    python = Path(sys.executable).name
    commands = {
        "clean": (python, "-c", "print('fine')"),
        "dirty": (python, "-c", "print('a.py:1: wrong'); raise SystemExit(1)"),
    }
    assert list(tools.tool_findings(tmp_path, commands)) == [("dirty", "exit status 1: a.py:1: wrong")]


def test_a_tool_that_stands_still_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "SECONDS", 0.5)
    command = (Path(sys.executable).name, "-c", "import time; time.sleep(30)")
    (found,) = tools.tool_findings(tmp_path, {"slow": command})
    assert "stopped after" in found[1]


def test_modules_are_imported_alone(tmp_path: Path) -> None:
    package = tmp_path / "lonely"
    package.mkdir()
    (package / "__init__.py").write_text("", encoding="utf-8")
    (package / "first.py").write_text("import sys\nsys.loaded_first = True\n", encoding="utf-8")
    (package / "second.py").write_text("import sys\nprint(sys.loaded_first)\n", encoding="utf-8")
    found = dict(tools.standalone(package))
    assert list(found) == ["lonely.second"]
    assert "AttributeError" in found["lonely.second"]


def test_a_foreign_tree_is_never_imported_in_the_full_profile(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    (tmp_path / "evil.py").write_text(f"open({str(mark)!r}, 'w').close()\n", encoding="utf-8")
    audit(None, "full", source=tmp_path)
    assert not mark.exists()
