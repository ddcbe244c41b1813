"""A trial in a process of its own: it gives everything back, and what kills it kills nothing else."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import optuna
import torch

from ris_verified.errors import StorageError, TrainingError
from ris_verified.heap import keep_freed_memory
from ris_verified.hpo.objective import Report

logger = logging.getLogger(__name__)
# Seconds that a pruned trial has to tidy its folder.
GRACE = 5.0
Value = float | tuple[float, float]


def apart(objective: Callable[..., Value]) -> Callable[..., Value]:
    """Return an objective whose trials each run in a new process, with as many threads as this one.

    No allocator and no cache of compiled kernels gives all of a trial back to a process that lives on.

    Args:
        objective: values, trial number and report → score; picklable, for the process starts afresh.

    Returns:
        The same objective. It raises `TrainingError` where the trial raised, or its process was killed, and
        `StorageError` where the trial could not write.
    """

    def run(values: dict[str, Any], number: int, report: Report | None = None) -> Value:
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        given = (there, torch.get_num_threads(), report is not None, objective, values, number)
        process = context.Process(target=_trial, args=given, name=f"trial {number}")
        process.start()
        there.close()
        try:
            return _heard(here, process, number, report)
        finally:
            here.close()
            # Without the pipe it ends at its next report.
            process.join(GRACE)
            process.kill()
            process.join()

    return run


def _heard(here: Connection, process: Any, number: int, report: Report | None) -> Value:
    while True:
        try:
            kind, content = here.recv()
        except (EOFError, ConnectionError):
            process.join()
            raise TrainingError(
                f"its process ended with exit status {process.exitcode}",
                where=f"trial {number}",
                expected="a score",
                remedy="-9 is a kill, mostly by a system out of memory: fewer workers, a smaller batch or model",
            ) from None
        if kind == "score":
            score: Value = content
            return score
        if kind == "error":
            remedy = "the log in the trial's folder says how far it came"
            raise TrainingError(content, where=f"trial {number}", expected="a score", remedy=remedy)
        if kind == "storage":
            raise StorageError(content, where=f"trial {number}")
        logger.info("trial %d, epoch %d: %.4f m", number, *content)
        if report:
            report(*content)
        here.send(None)


def _trial(
    pipe: Connection, threads: int, judged: bool, objective: Callable[..., Value], values: dict[str, Any], number: int
) -> None:
    """Be the process of one trial."""
    # The worker is told to stop, and it ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    follow()
    torch.set_num_threads(threads)
    keep_freed_memory()
    try:
        pipe.send(("score", objective(values, number, *([_reporter(pipe)] if judged else []))))
    except optuna.TrialPruned:
        return
    except StorageError as error:
        pipe.send(("storage", str(error)))
    except Exception as error:  # noqa: BLE001 - told to the worker, which fails this trial and goes on
        pipe.send(("error", f"{type(error).__name__}: {error}"))


def follow() -> None:
    """Let this process end with the one that started it, even where that is killed."""
    threading.Thread(target=_follow, daemon=True).start()


def _follow() -> None:
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
    os._exit(1)


def _reporter(pipe: Connection) -> Report:
    def report(epoch: int, score: float) -> None:
        try:
            pipe.send(("report", (epoch, score)))
            pipe.recv()
        except (EOFError, ConnectionError):
            raise optuna.TrialPruned from None

    return report
