"""TensorBoard events of a run, written from the records of its log; the package is an extra."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ris_verified.errors import InputError
from ris_verified.train.portrait import Portrait, capture_figure, spectrum_figure

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FOLDER = "tensorboard"
REMEDY = "pip install tensorboard"


def writer_class() -> type[SummaryWriter]:
    """Return torch's writer of TensorBoard events.

    Raises:
        InputError: the package `tensorboard` is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InputError(
            f"tensorboard cannot be imported: {error}", where="--tensorboard", expected="the extra", remedy=REMEDY
        ) from error
    return SummaryWriter


class Board:
    """Events in `OUT/tensorboard`: scalars a step and an epoch, figures an epoch.

    Args:
        folder: of the run.

    Raises:
        InputError: the package `tensorboard` is not installed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._writer_class = folder / FOLDER, writer_class()
        self._writer: SummaryWriter | None = None

    def hear(self, records: list[dict[str, Any]]) -> None:
        """Write records of `log.jsonl` as they come, those of an epoch among them.

        What an earlier run has written from the first of these steps on is purged: a run that goes on from
        a checkpoint repeats the steps after it.
        """
        told = [
            (record["step"], _step_scalars(record))
            if "step" in record
            else (record["epoch_end"]["step"], _epoch_scalars(record["epoch_end"]))
            for record in records
        ]
        writer = self._open(told[0][0])
        for step, values in told:
            _write(writer, values, step)
        writer.flush()

    def figures(self, step: int, seen: Portrait) -> None:
        """Draw the spectrum of one scene and the capture by number of sources."""
        held = {f"capture/{k} sources": figures["R_blend"] for k, figures in seen.capture.items()}
        writer = self._open(step)
        _write(writer, held, step)
        writer.add_figure("spectrum", spectrum_figure(seen), step)
        writer.add_figure("capture by sources", capture_figure(seen), step)
        writer.flush()

    def close(self) -> None:
        """Write what is pending and close the file."""
        if self._writer:
            self._writer.close()

    def _open(self, step: int) -> SummaryWriter:
        if self._writer is None:
            self._writer = self._writer_class(str(self._folder), purge_step=step)
        return self._writer


def _write(writer: SummaryWriter, values: Mapping[str, float], step: int) -> None:
    # One event with all values takes a tenth of the time of a call of `add_scalar` for each.
    from tensorboard.compat.proto.summary_pb2 import Summary

    pairs = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
    # The writer has opened its file when it was made.
    writer.file_writer.add_summary(Summary(value=pairs), step)  # type: ignore[attr-defined]


def _step_scalars(record: Mapping[str, Any]) -> dict[str, float]:
    # A skipped step's figures are the texts of numbers that are not finite.
    named = {f"step/{name}": float(record[name]) for name in ("loss", "nmse", "gradient_norm", "skipped")}
    terms = {f"term/{name}": float(value) for name, value in record["terms"].items()}
    return {**named, **terms, **{f"rate/{name}": value for name, value in record["learning_rates"].items()}}


def _epoch_scalars(record: Mapping[str, Any]) -> dict[str, float]:
    validated = {f"validation/{name}": float(value) for name, value in record["validation"].items()}
    return {"epoch/train loss": float(record["train"]), "epoch/skipped so far": record["skipped"], **validated}
