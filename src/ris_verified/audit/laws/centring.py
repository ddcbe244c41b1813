"""What RV0706 measures: how much of each source's energy is left when the mean over snapshots is subtracted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ris_verified.audit.context import Context
from ris_verified.audit.laws.stored import chosen, datasets
from ris_verified.audit.rule import Measurement, at_least

if TYPE_CHECKING:
    from torch import Tensor

# How often sound symbols may be called constant.
RARELY = 1e-9
# Sources whose mean share is known to seven spreads or better; the drawn scenes alone have as many.
ENOUGH = 72


def survives_centring(context: Context) -> list[Measurement]:
    """Return mean and least share of energy of the sources of drawn scenes and of stored ones."""
    from ris_verified.covariance.sample import centring_survival

    found = []
    for where, symbols in _symbols(context):
        shares = centring_survival(symbols[..., None])
        n, L = symbols.shape
        least = (RARELY / n) ** (1 / (L - 1))
        text = f"share of symbol energy that centring leaves, {n} sources"
        if n >= ENOUGH:
            found.append(at_least(float(shares.mean()), (L - 1) / (2 * L), f"{text}, mean", where=where))
        found.append(at_least(float(shares.min()), least, f"{text}, the one with least", where=where))
    return found


def _symbols(context: Context) -> Iterator[tuple[str, Tensor]]:
    """Yield where symbols come from and those of every source there, `n x L` complex128."""
    import torch

    from ris_verified.shapes import from_ri

    yield "draw_scene", torch.cat([torch.from_numpy(scene.symbols).mT for scene in context.scenes + context.many])
    for split, dataset in datasets(context).items():
        truth = dataset.truth(chosen(context, dataset))
        yield f"{split} scenes", from_ri(truth.symbols.double()).mT[torch.isfinite(truth.ptr).all(-1)]
