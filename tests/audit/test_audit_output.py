"""Colours for a person at a terminal only, and text that any terminal can show."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from ris_verified.audit.output import emit

TEXT = "FAIL  RV0101 β [bold] é 🚩\n      FAIL is only a word here\n\nNO-GO: 1 fail\n"


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)


def on_terminal(monkeypatch: pytest.MonkeyPatch, output: Path | None = None, format: str = "text") -> str:
    # Within the test, not in a fixture: pytest captures anew when the test begins.
    stream = Terminal()
    monkeypatch.setattr(sys, "stdout", stream)
    emit(TEXT, output, format)
    return stream.getvalue()


def test_a_terminal_gets_colours_on_the_status_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = on_terminal(monkeypatch).splitlines()
    assert lines[0] == "\x1b[31mFAIL\x1b[0m  RV0101 β [bold] é 🚩"
    assert lines[1] == "      FAIL is only a word here"
    assert lines[3] == "\x1b[31mNO-GO:\x1b[0m 1 fail"


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert on_terminal(monkeypatch) == TEXT


def test_formats_for_machines_are_never_coloured(monkeypatch: pytest.MonkeyPatch) -> None:
    assert on_terminal(monkeypatch, format="markdown") == TEXT


def test_a_file_is_never_coloured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert on_terminal(monkeypatch, tmp_path / "report.txt") == ""
    assert (tmp_path / "report.txt").read_text(encoding="utf-8") == TEXT


def test_a_pipe_is_not_coloured_even_where_colour_is_forced(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    emit(TEXT, None)
    assert capsys.readouterr().out == TEXT


def test_a_terminal_without_greek_still_gets_its_report(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    emit(TEXT, None)
    sys.stdout.flush()
    assert raw.getvalue().startswith(b"FAIL  RV0101 \\u03b2 [bold]")
    raw.truncate(0)
    raw.seek(0)
    emit(json.dumps("β é 🚩", ensure_ascii=False), None, "json")
    assert json.loads(raw.getvalue()) == "β é 🚩"
