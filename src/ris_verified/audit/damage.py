"""Damaging stored scenes on purpose, in temporary folders only."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ris_verified.audit.context import Context


def damage_file(kind: str, split: str = "") -> Callable[[Path], str]:
    """Return a function that damages one shard of a folder and returns the shard's name.

    The last one: who looks at the first alone must not be excused.

    Args:
        kind: `flipped bit`, `truncated`, `missing` or `foreign`.
        split: whose shard; of any where it is not given.
    """

    def damage(folder: Path) -> str:
        shard = sorted(folder.glob(f"{split}*.safetensors"))[-1]
        content = bytearray(shard.read_bytes())
        if kind == "flipped bit":
            content[len(content) // 2] ^= 1
            shard.write_bytes(bytes(content))
        elif kind == "truncated":
            shard.write_bytes(bytes(content[:-7]))
        elif kind == "missing":
            shard.unlink()
        else:
            shard = folder / "train-9999999.safetensors"
            shard.write_bytes(bytes(content))
        return shard.name

    return damage


DAMAGE = ("flipped bit", "truncated", "missing", "foreign")


def tiny_data(context: Context, folder: Path) -> None:
    """Generate a data folder of six scenes at the small size."""
    from ris_verified.data.generate import generate

    sizes = dataclasses.replace(
        context.small.config.data, train_scenes=4, validation_scenes=1, test_scenes=1, shard_scenes=2, workers=1
    )
    generate(dataclasses.replace(context.small.config, data=sizes), folder)
