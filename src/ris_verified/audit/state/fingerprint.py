"""Proves by hash that what runs inside leaves the process and the pipeline as it found them."""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from ris_verified.audit.result import Result
from ris_verified.audit.state.held import Part
from ris_verified.audit.state.process import process_parts, remove_empty_compiler_folder
from ris_verified.audit.state.reach import Reach

ID = "RV0000"


class State:
    """Everything that an audit could disturb, hashed and remembered.

    Args:
        pipeline: what is walked for modules, tensors, optimisers and generators; None for the process alone.
    """

    def __init__(self, pipeline: object = None) -> None:
        self._reach = Reach(pipeline, "pipeline") if pipeline is not None else None
        self.parts: list[Part] = [*process_parts(), *(self._reach.parts if self._reach else ())]
        self._before = self._states()

    @property
    def digest(self) -> str:
        """SHA-256 of all parts as they were found."""
        return hashlib.sha256(b"".join(self._before)).hexdigest()

    @property
    def left_out(self) -> int:
        """How many objects were too many or too large to remember."""
        return self._reach.left_out if self._reach else 0

    def _states(self) -> list[bytes]:
        number = self._reach.number if self._reach else _no_number
        return [hashlib.sha256(part.name.encode() + b"\0" + part.state(number)).digest() for part in self.parts]

    def changed(self) -> list[Part]:
        """Return the parts whose hash is no longer that which was found."""
        return [part for part, was, now in zip(self.parts, self._before, self._states(), strict=True) if was != now]

    def restore(self) -> tuple[str, ...]:
        """Put back what changed.

        Returns:
            Names of the parts whose hash still differs.
        """
        disturbed = self.changed()
        if not disturbed:
            return ()
        for part in disturbed:
            try:
                part.put_back()
            except (RuntimeError, ValueError, TypeError, AttributeError, OSError):
                continue  # the hash below tells
        return tuple(dict.fromkeys(part.name for part in self.changed()))


def _no_number(value: object) -> int | None:
    return None


class Found:
    """What `as_found` knows once its block is left.

    Args:
        state: as taken at the beginning.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self.changed: tuple[str, ...] = ()

    def settle(self) -> None:
        """Put back what was disturbed and note what could not be."""
        self.changed = self._state.restore()

    @property
    def summary(self) -> str:
        """One line for a report's environment."""
        outcome = f"{len(self.changed)} parts changed" if self.changed else "as found"
        missing = f", {self._state.left_out} objects left out" if self._state.left_out else ""
        return f"{outcome}, {len(self._state.parts)} parts, sha256 {self._state.digest[:16]}{missing}"

    def results(self) -> tuple[Result, ...]:
        """Return nothing where all is as it was, else one error that names what is not."""
        if not self.changed:
            return ()
        shown = ", ".join(self.changed[:5]) + (", …" if len(self.changed) > 5 else "")
        return (
            Result(
                ID, "The audit leaves everything as it found it", "error", "blocker", float(len(self.changed)), 0.0,
                "parts", "the audit changed what it could not put back", shown,
                "start a new process before anything else runs on this pipeline, and report the rule", 0.0,
            ),
        )  # fmt: skip


@contextmanager
def as_found(pipeline: object = None) -> Iterator[Found]:
    """Leave the process and everything that hangs on a pipeline as they were when the block began.

    Args:
        pipeline: see `State`.

    Yields:
        A `Found`; after the block `changed` names what could not be put back.
    """
    found, began = Found(State(pipeline)), time.time()
    try:
        with warnings.catch_warnings():
            yield found
    finally:
        remove_empty_compiler_folder(began)
        found.settle()
