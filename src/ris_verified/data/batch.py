"""A batch of scenes and its eight canonical fields; those of a data folder carry proposals, too."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from ris_verified.errors import InputError
from ris_verified.shapes import require_axes

AXES = {
    "y": "B L M 2", "H": "B L M 2", "C": "B L N 2", "ptr": "B K 3", "K": "B", "R_in": "B N N", "snr": "B",
    "H_full": "B M N 2",
}  # fmt: skip
FIELDS = tuple(AXES)


@dataclass(frozen=True)
class Batch:
    """Scenes as the network and the loss receive them.

    Args:
        y: `B x L x M x 2` float32, measurements.
        H: `B x L x M x 2` float32, H_full c_l of each snapshot.
        C: `B x L x N x 2` float32, codes.
        ptr: `B x K_MAX x 3` float32, azimuth, elevation (rad), range (m); NaN beyond K.
        K: `B` int64, number of sources.
        R_in: `B x N x N` complex64, true covariance, trace N.
        snr: `B` float32, decibels.
        H_full: `B x M x N x 2` float32, channel.
    """

    y: Tensor
    H: Tensor
    C: Tensor
    ptr: Tensor
    K: Tensor
    R_in: Tensor
    snr: Tensor
    H_full: Tensor

    def to(self, device: torch.device | str) -> Self:
        """Return the batch on a device; what is pinned is on its way while the caller goes on."""
        # To processors nothing may be on its way still: who reads it there does not wait.
        moved = {name: value.to(device, non_blocking=value.is_pinned()) for name, value in vars(self).items()}
        return dataclasses.replace(self, **moved)

    def pinned(self) -> Self:
        """Return the batch in memory from which an accelerator copies beside other work."""
        return dataclasses.replace(self, **{name: value.pin_memory() for name, value in vars(self).items()})

    def __len__(self) -> int:
        return len(self.y)

    def split(self, parts: int) -> list[Self]:
        """Return `parts` batches of nearly equal size that hold every scene; some are empty where scenes are fewer."""
        pieces = {name: value.tensor_split(parts) for name, value in vars(self).items()}
        return [type(self)(**{name: piece[i] for name, piece in pieces.items()}) for i in range(parts)]


@dataclass(frozen=True)
class ProposedBatch(Batch):
    """Scenes and what `estimate.proposals.propose` makes of them, as a data folder holds them.

    Args:
        proposals: `B x K_MAX x 11` float32, packed.
    """

    proposals: Tensor


def unpack(batch: Batch | Mapping[str, Any] | Sequence[Any], device: torch.device | str = "cpu") -> Batch:
    """Read a batch given as `Batch`, mapping or sequence of the eight fields, onto a device.

    Args:
        batch: names as in `FIELDS` (a mapping may hold more), or exactly the eight in that order.
        device: where to.

    Returns:
        A `Batch`.

    Raises:
        InputError: a field is missing or is no tensor.
        ShapeError: the fields' axes do not agree.
    """
    if isinstance(batch, Batch):
        require_axes("batch", AXES, vars(batch))
        return batch.to(device)
    named = _named(batch)
    for name in FIELDS:
        if not isinstance(named.get(name), Tensor):
            raise InputError(
                "missing" if name not in named else f"is a {type(named[name]).__name__}",
                where=f"batch.{name}",
                expected=f"tensors {', '.join(FIELDS)}",
            )
    fields: dict[str, Tensor] = {name: named[name] for name in FIELDS}
    require_axes("batch", AXES, fields)
    return Batch(**fields).to(device)


def _named(batch: Mapping[str, Any] | Sequence[Any]) -> Mapping[str, Any]:
    if isinstance(batch, Mapping):
        return batch
    # A tensor could be taken for a sequence of its rows.
    if not isinstance(batch, Sequence) or len(batch) > len(FIELDS):
        raise InputError(
            f"is a {type(batch).__name__}" + (f" of {len(batch)}" if isinstance(batch, Sequence) else ""),
            where="batch",
            expected=f"a Batch, a mapping or a sequence of {', '.join(FIELDS)}",
        )
    return dict(zip(FIELDS, batch, strict=False))
