"""Progress: a bar on a terminal, plain lines elsewhere, both on the one console of the log."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterator

import pytest
from rich.console import Console

from ris_verified.cli import terminal
from ris_verified.cli.terminal import SECONDS_PER_LINE, PlainLines, bar, log_to_terminal, progress


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    return now


class TestPlainLines:
    def test_a_line_every_half_minute_with_rate_and_time_left(self, at: list[float]) -> None:
        lines: list[str] = []
        told = PlainLines("steps", lines.append)
        for step in range(1, 201):
            told(step, 1000, "epoch 1/2")
            at[0] += 0.5
        assert len(lines) == int(200 * 0.5 / SECONDS_PER_LINE)
        assert lines[0] == "steps 61/1000, 2/s, 7:50 left, epoch 1/2"

    def test_what_an_earlier_run_has_done_is_no_speed(self, at: list[float]) -> None:
        lines: list[str] = []
        told = PlainLines("steps", lines.append)
        told(500, 1000, "")
        at[0] += 50
        told(550, 1000, "")
        assert lines == ["steps 550/1000, 1/s, 7:30 left"]

    def test_no_time_is_left_unknown_rather_than_divided_by_zero(self, at: list[float]) -> None:
        lines: list[str] = []
        told = PlainLines("cells", lines.append)
        for _ in range(2):
            told(0, 7200, "")
            at[0] += SECONDS_PER_LINE
        assert lines == ["cells 0/7200, 0/s"]

    def test_hours_are_told(self, at: list[float]) -> None:
        lines: list[str] = []
        told = PlainLines("steps", lines.append)
        told(0, 7261, "")
        at[0] += 100
        told(100, 7361, "")
        assert lines == ["steps 100/7361, 1/s, 2:01:01 left"]


def test_elsewhere_than_on_a_terminal_lines_go_to_standard_error(
    at: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with progress("scenes") as told:
        told(1, 100, "train-[0000000].safetensors")
        at[0] += SECONDS_PER_LINE
        told(31, 100, "train-[0000000].safetensors " + "x" * 200)
    printed = capsys.readouterr()
    assert printed.out == ""
    # Whole, on one line, and no part of it is taken for markup.
    assert printed.err == "scenes 31/100, 1/s, 1:09 left, train-[0000000].safetensors " + "x" * 200 + "\n"


def test_a_narrow_terminal_shows_all_of_the_note_and_the_log_above_it() -> None:
    screen = Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None)
    note = "epoch 12/100, 12345 scenes/s, loss 0.1234, lr 1.0e-03, skipped 12"
    with bar(screen) as shown:
        task = shown.add_task("steps", total=None, note="")
        shown.update(task, completed=1, total=150000, note="")
        shown.update(task, completed=90000, total=150000, note=note)
        screen.print("a line of the log")
        shown.refresh()
    assert isinstance(screen.file, io.StringIO)
    text = re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "", screen.file.getvalue())
    assert note in text
    assert "90000/150000" in text
    assert re.search(r"\d:\d\d:\d\d -?-?[\d:-]+ left", text), "the time left stands before its word, not after it"
    assert text.index("a line of the log") < text.rindex(note)
    assert max(len(line) for line in re.split(r"[\r\n]", text)) <= 80


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    """Yield the library's log and put its handlers back."""
    logger = logging.getLogger("ris_verified")
    before = logger.handlers, logger.level
    yield logger
    logger.handlers, logger.level = before


def test_the_log_and_the_bar_share_one_console(monkeypatch: pytest.MonkeyPatch, log: logging.Logger) -> None:
    shown = Console(file=io.StringIO(), force_terminal=True)
    monkeypatch.setattr(terminal, "console", lambda: shown)
    log_to_terminal()
    (handler,) = log.handlers
    assert vars(handler)["console"] is shown


def test_the_log_of_a_batch_job_breaks_no_line(monkeypatch: pytest.MonkeyPatch, log: logging.Logger) -> None:
    written = io.StringIO()
    monkeypatch.setattr(terminal, "console", lambda: Console(file=written, width=80))
    log_to_terminal()
    log.info("RV1302 %s", "x" * 200)
    assert re.fullmatch(r"\[\d\d:\d\d:\d\d\] RV1302 x{200}\n", written.getvalue())
