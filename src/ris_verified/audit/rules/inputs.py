"""Section 10: what the network receives."""

from __future__ import annotations

from collections.abc import Sequence

from ris_verified.audit.context import Context
from ris_verified.audit.laws.inputs import read_as_given
from ris_verified.audit.rule import Measurement, at_least, rule


@rule(
    "RV1006",
    "The inputs determine the answer",
    law="the network's output depends on H_full beyond H c_l: ∂factors/∂H_full ≠ 0 with y, H, C fixed; it reads its "
    "inputs as they are",
    why="H_l = H c_l has M numbers a snapshot and does not determine the M × N channel: without it no network can "
    "localise.",
    how="H_full is exchanged between scenes while y, H and C stay; relative change of the factors. Then y likewise."
    " Bound: a thousand roundings, 1e3 eps. Then the untrained small network is given conjugated codes, channel and "
    "measurements, shifted snapshots, antennas and elements in reverse: with none of them may it capture more of the "
    "true subspace than with what is true. Bound: 0.15, what chance may do.",
    remedy="feed H_full, or features made from it, to the network, and all inputs as the batch has them",
)
def inputs_matter(context: Context) -> Sequence[Measurement]:
    """A network that does not read an input repeats its output to the bit."""
    import torch

    b, model = context.batch, context.model
    bound = 1e3 * torch.finfo(torch.float32).eps
    found = []
    with torch.no_grad():
        base = model(b.y, b.H, b.C, b.H_full).cov_fact_angle
        for name in ("H_full", "y"):
            given = [vars(b)[n].roll(1, 0) if n == name else vars(b)[n] for n in ("y", "H", "C", "H_full")]
            other = model(*given).cov_fact_angle
            change = float((other - base).norm() / base.norm())
            found.append(at_least(change, bound, "change of the factors with this input alone", where=name))
    return found + read_as_given(context.small)
