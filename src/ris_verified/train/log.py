"""The training log: one JSON line a step and an epoch, and the curves drawn from it."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ris_verified.errors import DataError
from ris_verified.files import append, atomic_write
from ris_verified.train.state import StepReport

FLUSH = 50


class TrainingLog:
    """Appends to `log.jsonl`; step figures stay on the device until they are flushed.

    Args:
        path: the file; None in a process that does not write.
        step: what a run that goes on has done; later records are dropped, from a killed run, and it is done again.
        finished: epochs of such a run that ended.
        heard: called with the records that were just written; may be None.
    """

    def __init__(
        self,
        path: Path | None,
        heard: Callable[[list[dict[str, Any]]], None] | None = None,
        step: int = 0,
        finished: int = 0,
    ) -> None:
        self.path, self._heard = path, heard
        self._pending: list[tuple[int, StepReport]] = []
        if path:
            kept = _until(path, step, finished) if step else []
            atomic_write(path, "".join(json.dumps(record) + "\n" for record in kept).encode())

    def step(self, number: int, report: StepReport) -> None:
        """Remember one step; every 50th call writes them all."""
        if self.path is None:
            return
        self._pending.append((number, report))
        if len(self._pending) >= FLUSH:
            self.flush()

    def flush(self) -> None:
        """Write what is pending."""
        self._write(*(_line(number, report) for number, report in self._pending))
        self._pending.clear()

    def keep(self) -> None:
        """Write what is pending so that it outlives a crash of the machine, as what counts it does."""
        self.flush()
        if self.path is not None:
            with self.path.open("ab") as file:
                os.fsync(file.fileno())

    def epoch(self, figures: dict[str, Any]) -> None:
        """Write one epoch's figures after the steps that led to it."""
        self.flush()
        self._write({"epoch_end": _readable(figures)})

    def _write(self, *records: dict[str, Any]) -> None:
        if self.path is None:
            return
        append(self.path, "".join(json.dumps(record, allow_nan=False) + "\n" for record in records))
        if self._heard and records:
            self._heard(list(records))


def _until(path: Path, step: int, finished: int) -> list[dict[str, Any]]:
    """Return the records of a killed run's log up to a step; a torn last line is not one."""
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ():
        with contextlib.suppress(json.JSONDecodeError):
            record = json.loads(line)
            if isinstance(record, dict) and (
                record.get("step", step + 1) <= step
                or record.get("epoch_end", {}).get("epoch", finished + 1) <= finished
            ):
                kept.append(record)
    return kept


def require_records(path: Path, step: int, finished: int) -> None:
    """Raise unless a log holds what a run that goes on has done.

    Args:
        path: the log, which may be missing.
        step: the last step of the run's checkpoint.
        finished: epochs that had ended before.

    Raises:
        DataError: steps or epochs are missing.
    """
    kept = _until(path, step, finished)
    steps = [record["step"] for record in kept if "step" in record]
    epochs = [record["epoch_end"]["epoch"] for record in kept if "epoch_end" in record]
    if steps != [*range(1, step + 1)] or epochs != [*range(1, finished + 1)]:
        raise DataError(
            f"holds {len(steps)} steps and {len(epochs)} epochs of the run that is to go on",
            where=str(path),
            expected=f"the {step} steps and {finished} epochs that its checkpoint counts",
            remedy="put the file back, or start over with --fresh",
        )


def _line(number: int, report: StepReport) -> dict[str, Any]:
    return _readable(
        {
            "step": number,
            "loss": float(report.loss),
            "nmse": float(report.nmse),
            "gradient_norm": float(report.gradient_norm),
            "terms": {name: float(value) for name, value in report.terms.items()},
            "learning_rates": report.learning_rates,
            "skipped": report.skipped,
        }
    )


def _readable(figures: dict[str, Any]) -> dict[str, Any]:
    """Return figures with texts for those that are not finite: JSON knows no NaN."""
    return {name: _text(value) for name, value in figures.items()}


def _text(value: Any) -> Any:
    if isinstance(value, dict):
        return _readable(value)
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def read_log(path: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the step records and the epoch records of a log."""
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    steps = [record for record in records if "step" in record]
    return steps, [record["epoch_end"] for record in records if "epoch_end" in record]
