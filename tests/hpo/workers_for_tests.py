"""Studies with trivial objectives, run in processes of their own that a drill may kill."""

from __future__ import annotations

import itertools
import os
import resource
import signal
import time
from pathlib import Path
from typing import Any

from ris_verified.config import Config
from ris_verified.errors import StorageError
from ris_verified.hpo import server
from ris_verified.hpo.study import run_study

VERDICT = {"verdict": "GO", "waiver": ""}


def config(trials: int) -> Config:
    return Config.load(overrides=[f"hpo.trials={trials}", "hpo.space=narrow", "hpo.epochs_per_trial=3"])


def rate(values: dict[str, Any], number: int) -> float:
    return float(values["train.learning_rate"]) + number * 1e-9


def slow(values: dict[str, Any], number: int, report: Any) -> float:
    for epoch in range(1, 4):
        time.sleep(0.01)
        report(epoch, rate(values, number) / epoch)
    return rate(values, number)


def work(where: str, trials: int) -> None:
    """Be a worker whose silence is noticed after a second."""
    server.HEARTBEAT = 1
    run_study(config(trials), slow, where, VERDICT, judged=True)


def hold(where: str, trials: int, held: str) -> None:
    """Be a worker that stops in its third trial, says so by a file, and waits to be killed."""
    server.HEARTBEAT = 1
    calls = itertools.count()

    def objective(values: dict[str, Any], number: int) -> float:
        if next(calls) == 2:
            Path(held).touch()
            time.sleep(600)
        return rate(values, number)

    run_study(config(trials), objective, where, VERDICT)


def work_without_space(where: str, trials: int, file: str, room: int) -> None:
    """Be a worker whose disk is full `room` bytes from now; ends with 7 where the study says so."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limit = os.path.getsize(file) + room
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        run_study(config(trials), rate, where, VERDICT)
    except StorageError as error:
        os._exit(7 if where in str(error) else 1)


HOARD: list[bytearray] = []


def hoard(values: dict[str, Any], number: int, report: Any) -> float:
    """Keep 64 MiB for ever."""
    HOARD.append(bytearray(b"x") * 2**26)
    return slow(values, number, report)


def tidy(values: dict[str, Any], number: int, report: Any) -> float:
    """Leave no file, however it ends."""
    file = Path(values["file"])
    file.touch()
    try:
        report(1, 0.5)
        file.write_text("went on")
        return 0.5
    finally:
        if not file.read_text():
            file.unlink()


def doomed(values: dict[str, Any], number: int, report: Any = None) -> float:
    """Raise in the first trial, be killed in the second as by a system without memory, end well in the third."""
    if number == 0:
        raise MemoryError("no room")
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return rate(values, number)


def without_room(full: str, values: dict[str, Any], number: int, report: Any = None) -> float:
    """Find no room to write while a file of this name exists, in all trials but the first."""
    if number and Path(full).exists():
        raise StorageError("cannot write 12 bytes: No space left", where="weights", remedy="make room")
    return rate(values, number)


def endless(values: dict[str, Any], number: int, report: Any = None) -> float:
    """Write down the process and stay."""
    Path(values["file"]).write_text(str(os.getpid()))
    time.sleep(600)
    return 0.0


def work_on_one_endless(file: str) -> None:
    """Be a worker with an endless trial."""
    from ris_verified.hpo.apart import apart

    apart(endless)({"file": file}, 0)


def help_for_ever(file: str) -> None:
    """Be a helper that writes down its process and stays."""
    from ris_verified.hpo.apart import follow

    follow()
    Path(file).write_text(str(os.getpid()))
    time.sleep(600)


def lead_an_endless_helper(file: str) -> None:
    """Be a worker with one helper."""
    from ris_verified.hpo.fleet import helpers

    with helpers(1, help_for_ever, file):
        time.sleep(600)
