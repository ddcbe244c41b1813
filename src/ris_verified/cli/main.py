"""The entry point `ris-verified`."""

from __future__ import annotations

import argparse
import errno
import io
import os
import sys
from collections.abc import Callable, Sequence

from ris_verified.audit import cli as audit
from ris_verified.cli import launch, localize, stages, study
from ris_verified.errors import InvariantError, NoGoError, RisVerifiedError, StoppedError, StorageError, TrainingError
from ris_verified.heap import keep_freed_memory

Command = tuple[str, Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace], int]]
COMMANDS: dict[str, Command] = {
    "launch": ("generate, audit, train, evaluate and report", launch.add_arguments, launch.run),
    "audit": ("measure a pipeline, a source tree or data against the checklist", audit.add_arguments, audit.run),
    "generate": ("draw scenes into a data folder", stages.add_generate, stages.run_generate),
    "train": ("train on a data folder", stages.add_train, stages.run_train),
    "evaluate": ("judge weights on unseen scenes", stages.add_evaluate, stages.run_evaluate),
    "localize": ("find the sources of a measurement file", localize.add_arguments, localize.run),
    "hpo": ("search hyper-parameters by localisation", study.add_hpo, study.run_hpo),
    "report": ("write the page of a run again", stages.add_report, stages.run_report),
}
# Commands that go on where they were stopped.
RESUMED = {"launch", "generate", "train", "hpo"}
NO_GO, USAGE, INTERNAL, INTERRUPTED, PIPE_CLOSED = 1, 2, 3, 130, 141
# As a shell says of a process that a signal ended: 143 for SIGTERM.
SIGNALLED = 128


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; torch is not imported."""
    parser = argparse.ArgumentParser(prog="ris-verified", description="Near-field localisation through a RIS, audited.")
    parser.add_argument("--traceback", action="store_true", help="show where an internal error came from")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (text, add, _) in COMMANDS.items():
        add(commands.add_parser(name, help=text, description=text))
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; where it is the process's own, memory that it frees is kept for what comes next.

    Args:
        argv: arguments, those of the process where None.

    Returns:
        0 GO, 1 NO-GO or findings, 2 wrong usage or input, 3 a run or a storage that failed or an internal error,
        130 interrupted, 141 standard output was closed, 128 and its number where a signal ended a training.
    """
    if argv is None:
        keep_freed_memory()
        if sys.stdout is None:
            # Closed by the caller, who wants the exit status only.
            sys.stdout = io.StringIO()
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                # What a terminal of another encoding has no letter for must not end the command.
                stream.reconfigure(errors="backslashreplace")
    try:
        args = build_parser().parse_args(argv)
    except SystemExit as stop:
        return int(stop.code or 0)
    try:
        return COMMANDS[args.command][2](args)
    except NoGoError as error:
        return _fail(error, NO_GO)
    except StoppedError as stop:
        return _fail(stop, SIGNALLED + stop.number)
    except (StorageError, TrainingError, InvariantError) as error:
        # Nothing that the caller wrote is wrong.
        return _fail(error, INTERNAL)
    except RisVerifiedError as error:
        return _fail(error, USAGE)
    except KeyboardInterrupt:
        return _interrupted(args.command)
    except BrokenPipeError:
        # The reader of a pipe has left; a flush at exit must not complain once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except Exception as error:
        if _from_interrupt(error):
            return _interrupted(args.command)
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            return _fail(f"no room for the output: {error.filename or 'standard output'}", INTERNAL)
        if args.traceback:
            raise
        return _fail(f"internal: {type(error).__name__}: {error} (--traceback shows where)", INTERNAL)


def _interrupted(command: str) -> int:
    kept = "; what was complete is kept, run the same command again to go on" if command in RESUMED else ""
    return _fail(f"interrupted{kept}", INTERRUPTED)


def _from_interrupt(error: BaseException | None) -> bool:
    # Libraries that are being imported turn Ctrl-C into errors of their own.
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _fail(error: object, code: int) -> int:
    sys.stderr.write(f"error: {error}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
