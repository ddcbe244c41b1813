"""What RV1003 measures on unpacked batches: each field as it was given and as it was drawn."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from ris_verified.audit.context import Context
from ris_verified.audit.rule import Measurement, equal

if TYPE_CHECKING:
    from torch import Tensor

    from ris_verified.data.batch import Batch


def same_field(value: Any, wanted: Any, name: str, kind: str) -> Measurement:
    """Return that one unpacked field is what was given, to the bit, the dtype and the device."""
    if (value.shape, value.dtype, value.device) != (wanted.shape, wanted.dtype, wanted.device):
        text = f"{value.dtype} {list(value.shape)} on {value.device}"
        return equal(text, f"{wanted.dtype} {list(wanted.shape)} on {wanted.device}", f"{name} from {kind}", "", name)
    return equal(same_bits(value, wanted), True, f"{name} unpacked from {kind} is what was given", where=name)


def proposals_kept(context: Context, given: Batch) -> list[Measurement]:
    """Return that proposals stored with the scenes stay what they were, where the stage keeps them."""
    from ris_verified.data.batch import ProposedBatch
    from ris_verified.data.dataset import with_proposals

    proposed = with_proposals(given, context.config)
    made = context.pipeline.unpack(proposed, "cpu")
    if not isinstance(made, ProposedBatch):
        return []
    return [
        same_field(vars(made)[name], value, name, "a Batch with proposals") for name, value in vars(proposed).items()
    ]


def as_drawn(context: Context, batch: Batch) -> list[Measurement]:
    """Return that counts, positions, SNR and codes of a batch are those of the drawn scenes."""
    import numpy as np

    wrong = {"K": 0, "ptr": 0, "snr": 0, "C": 0}
    for i, scene in enumerate(context.scenes):
        place = np.stack([scene.azimuth, scene.elevation, scene.range], -1)
        kept = batch.ptr[i].numpy()
        wrong["K"] += int(batch.K[i]) != len(place)
        wrong["ptr"] += not (
            np.array_equal(kept[: len(place)], place.astype(np.float32)) and np.isnan(kept[len(place) :]).all()
        )
        wrong["snr"] += float(batch.snr[i]) != float(np.float32(scene.snr_db))
        codes = np.stack([scene.codes.real, scene.codes.imag], -1)
        wrong["C"] += float(np.abs(batch.C[i].numpy() - codes).max()) > 1e-6
    return [
        equal(count, 0, f"scenes whose {name} is not the drawn one", "scenes", name) for name, count in wrong.items()
    ]


def missing_kept(context: Context, given: Batch) -> list[Measurement]:
    """Return that NaN and infinity in a measurement stay what they are, or are refused."""
    import torch

    from ris_verified.errors import RisVerifiedError

    y = given.y.clone()
    y.view(-1)[:2] = torch.tensor([torch.nan, torch.inf])
    try:
        made = context.pipeline.unpack(dataclasses.replace(given, y=y), "cpu")
    except RisVerifiedError:
        return []
    return [equal(same_bits(made.y, y), True, "NaN and infinity in y are kept", where="y")]


def refusals(context: Context, fields: dict[str, Any]) -> list[Measurement]:
    """Return that a dict without one of the fields raises an error that names it."""
    from ris_verified.errors import RisVerifiedError

    found = []
    for name in fields:
        try:
            context.pipeline.unpack({k: v for k, v in fields.items() if k != name}, "cpu")
            found.append(equal("accepted", "an error", f"a dict without {name}", where=name))
        except (RisVerifiedError, KeyError, TypeError) as error:
            found.append(equal(name in str(error), True, f"the error on a dict without {name} names it", where=name))
    return found


def moves(context: Context, given: Batch) -> list[Measurement]:
    """Return that every field goes to the device that is asked for."""
    try:
        moved = vars(context.pipeline.unpack(given, "meta"))
    except (NotImplementedError, RuntimeError):
        # A stage that looks at values cannot run without them.
        return []
    left = [name for name, value in moved.items() if value.device.type != "meta"]
    return [equal(left, [], "fields left off the device that is asked for", where="unpack")]


def same_bits(value: Tensor, wanted: Tensor) -> bool:
    """Whether two tensors of one shape hold the same numbers, NaN where NaN."""
    import torch

    return value.shape == wanted.shape and torch.equal(*(torch.nan_to_num(v, nan=-7.0) for v in (value, wanted)))
