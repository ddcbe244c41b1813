"""Exit codes, one line of error, and a parser that does not wait for torch."""

from __future__ import annotations

import argparse
import subprocess
import sys

import pytest

from ris_verified.cli import main as module
from ris_verified.cli.main import COMMANDS, build_parser, main
from ris_verified.errors import (
    AuditError,
    ConfigError,
    DataError,
    InvariantError,
    NoGoError,
    RisVerifiedError,
    ShapeError,
    StorageError,
    TrainingError,
)


def test_the_parser_needs_no_torch() -> None:
    code = (
        "import sys; from ris_verified.cli.main import build_parser; build_parser().format_help(); "
        "sys.exit(sum(name in sys.modules for name in ('torch', 'numpy', 'scipy', 'optuna', 'matplotlib')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert f"ris-verified {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["nosuch"],
        ["localize"],
        ["generate", "--nosuch"],
        ["generate", "--part", "0x2"],
        ["generate", "--out", ""],
        ["localize", ""],
        ["audit", "--source", ""],
        ["audit", "--config", ""],
        ["generate", "--config", "", "--out", "data"],
        ["hpo", "--workers", "0"],
        ["launch", "--out", "run", "--ignore-audit", " "],
        ["hpo", "--workers", "-1"],
    ],
)
def test_wrong_usage_is_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    assert "usage:" in capsys.readouterr().err


def raising(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def run(args: argparse.Namespace) -> int:
        raise error

    text, add, _ = COMMANDS["report"]
    monkeypatch.setitem(module.COMMANDS, "report", (text, add, run))


def interrupted_import() -> BaseException:
    try:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            # As libraries do that wrap whatever stops their import.
            raise ImportError("interrupted") from None
    except ImportError as error:
        return error


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_only_what_goes_on_is_said_to_go_on(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(args: argparse.Namespace) -> int:
        raise KeyboardInterrupt

    for name, (text, _, _) in list(COMMANDS.items()):
        monkeypatch.setitem(module.COMMANDS, name, (text, lambda parser: None, run))
    assert main([command]) == 130
    goes_on = command in ("launch", "generate", "train", "hpo")
    assert ("run the same command again" in capsys.readouterr().err) == goes_on


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NoGoError("NO-GO: RV0801"), 1),
        (AuditError("no such folder"), 2),
        (ConfigError("wrong", where="seed"), 2),
        (DataError("gone"), 2),
        (ShapeError("odd"), 2),
        (StorageError("disk full"), 3),
        (KeyError("surprise"), 3),
        (MemoryError("no room"), 3),
        (KeyboardInterrupt(), 130),
        (interrupted_import(), 130),
    ],
)
def test_each_error_has_its_code_and_one_line(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raising(monkeypatch, error)
    assert main(["report", "nowhere"]) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    assert str(error) in printed.err


def test_an_internal_error_names_its_type_and_can_be_traced(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raising(monkeypatch, ZeroDivisionError("here"))
    assert main(["report", "nowhere"]) == 3
    assert "ZeroDivisionError: here (--traceback" in capsys.readouterr().err
    with pytest.raises(ZeroDivisionError, match="here"):
        main(["--traceback", "report", "nowhere"])


def test_a_closed_pipe_is_no_internal_error() -> None:
    code = "import sys; from ris_verified.cli.main import main; sys.exit(main(['audit', '--list']))"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait() in (0, 141)
    assert b"Traceback" not in errors
    assert b"error" not in errors


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="redirects as a Linux shell does")
@pytest.mark.parametrize(("to", "code", "said"), [("&-", 0, ""), ("/dev/full", 3, "error: no room for the output")])
def test_an_output_that_takes_nothing(to: str, code: int, said: str) -> None:
    done = subprocess.run(
        f"{sys.executable} -m ris_verified audit --list >{to}", shell=True, check=False, capture_output=True, text=True
    )
    assert done.returncode == code
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == bool(said)


@pytest.mark.parametrize(
    ("option", "other", "value"),
    [("--n_trials", "--n-trials", "50"), ("--epochs_per_trial", "--epochs-per-trial", "12")],
)
def test_options_of_hpo_take_underscores_and_hyphens(option: str, other: str, value: str) -> None:
    parse = build_parser().parse_args
    assert parse(["hpo", option, value]) == parse(["hpo", other, value])


def test_hpo_is_a_module_of_its_own() -> None:
    command = [sys.executable, "-m", "ris_verified.hpo", "--n_trials", "50", "--epochs_per_trial", "12", "--space"]
    done = subprocess.run([*command, "nosuch"], check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert "invalid choice: 'nosuch'" in done.stderr


def test_the_package_is_a_command_too() -> None:
    done = subprocess.run([sys.executable, "-m", "ris_verified", "--help"], check=False, capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.startswith("usage: ris-verified")


def test_only_a_process_of_its_own_is_told_to_keep_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[bool] = []
    monkeypatch.setattr(module, "keep_freed_memory", lambda: told.append(True))
    main(["audit", "--list"])
    assert not told
    monkeypatch.setattr(sys, "argv", ["ris-verified", "audit", "--list"])
    assert main() == 0
    assert told == [True]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (TrainingError("21 steps in a row had a non-finite loss", where="step 21"), 3),
        (InvariantError("trace is not N", where="R_pred[0]"), 3),
        (StorageError("no room", where="log.jsonl"), 3),
        (DataError("is missing", where="manifest.json"), 2),
        (NoGoError("the audit says NO-GO"), 1),
    ],
)
def test_the_exit_status_tells_a_wrong_call_from_a_run_that_failed(
    error: RisVerifiedError, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(args: object) -> int:
        raise error

    text, add, _ = COMMANDS["report"]
    monkeypatch.setitem(COMMANDS, "report", (text, add, fail))
    assert main(["report", "somewhere"]) == code
    assert str(error) in capsys.readouterr().err
