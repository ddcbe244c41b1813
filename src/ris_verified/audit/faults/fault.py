"""What a planted fault is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from ris_verified.pipeline import Pipeline


@dataclass(frozen=True)
class Fault:
    """A slip in one stage of a pipeline.

    Args:
        name: of the fault.
        rule: the rule that must fail on it.
        story: how it comes about.
        plant: makes the faulty pipeline from a sound one.
    """

    name: str
    rule: str
    story: str
    plant: Callable[[Pipeline], Pipeline]


@dataclass(frozen=True)
class SourceFault:
    """A slip in source code.

    Args:
        name, rule, story: as for `Fault`.
        files: text of each file of a small source tree.
    """

    name: str
    rule: str
    story: str
    files: Mapping[str, str]

    def write(self, folder: Path) -> None:
        """Write the tree into a folder."""
        for name, text in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")


@dataclass(frozen=True)
class DataFault:
    """Damage to a folder of stored scenes.

    Args:
        name, rule, story: as for `Fault`.
        damage: changes a sound folder.
    """

    name: str
    rule: str
    story: str
    damage: Callable[[Path], None]


def finite_only(values: Tensor) -> Tensor:
    """Return values with zeros for what is not finite, the slip that many planted faults share."""
    kept = values.new_zeros(values.shape)
    there = values.isfinite()
    kept[there] = values[there]
    return kept


AnyFault = Fault | SourceFault | DataFault


def staged(stage: str, change: Callable[..., Any]) -> Callable[[Pipeline], Pipeline]:
    """Return a plant that puts a function (sound stage, arguments…) in place of a stage."""

    def plant(pipeline: Pipeline) -> Pipeline:
        sound = vars(pipeline)[stage]
        changed: dict[str, Any] = {stage: lambda *given, **named: change(sound, *given, **named)}
        return dataclasses.replace(pipeline, **changed)

    return plant


def conjugated(z: Tensor) -> Tensor:
    """Return z*, of complex numbers or of pairs on the last axis."""
    return z.conj().resolve_conj() if z.is_complex() else z * z.new_tensor([1.0, -1.0])
