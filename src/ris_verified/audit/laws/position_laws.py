"""Identities of the position terms, source by source; measured for RV0603."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ris_verified.audit.laws.loss_bench import Bench, rounding
from ris_verified.audit.rule import Measurement, at_least, at_most, close

if TYPE_CHECKING:
    from torch import Tensor

SHIFT = 0.1
FAR = 1.3  # radians from the view's middle: no slot put there is near a source
WHERE = "loss"


def _spread(bench: Bench, K: int) -> Tensor:
    """Return K positions so far apart that no shift of these laws changes the assignment."""
    import torch

    ptr = torch.full((bench.most, 3), torch.nan)
    for k in range(K):
        ptr[k] = torch.tensor([1.2 * (k + 0.5) / K - 0.6, 0.3 * (-1) ** k, 1.0 + 0.7 * k])
    return ptr


def _perfect(ptr: Tensor, turn: int, junk: float) -> tuple[Tensor, Tensor]:
    """Return slots at the true positions, turned by some places, the others far away."""
    import torch

    here = torch.isfinite(ptr).all(-1)
    far = torch.tensor([junk, -junk, 9.0])
    place = torch.where(here[:, None], ptr, far).roll(turn, 0)
    return place[:, :2].clone(), place[:, 2].clone()


def slots(bench: Bench) -> list[Measurement]:
    """Slots at the truth cost nothing in any order and wherever the slots in excess are."""
    found = _behind(bench)
    for K in bench.orders:
        ptr = _spread(bench, K)
        for turn, junk in ((0, FAR), (1, -FAR), (2, FAR)):
            turned, stretched = bench.positions(*_perfect(ptr, turn, junk), ptr)
            message = f"of slots at the truth turned by {turn}, {len(ptr) - K} more far away, K = {K}"
            found.append(at_most(turned, rounding(bench.R), f"angle term {message}", where="angle"))
            found.append(at_most(stretched, rounding(bench.R), f"range term {message}", where="range"))
    return found


def _behind(bench: Bench) -> list[Measurement]:
    """Two sources in one direction are told apart by their range."""
    import torch

    if bench.most < 2:
        return []
    ptr, found = torch.full((bench.most, 3), torch.nan), []
    ptr[:2] = torch.tensor([[0.2, -0.1, 1.0], [0.2, -0.1, 6.0]])
    for turn in (0, 1):
        angles, ranges = _perfect(ptr, 0, FAR)
        ranges[:2] = ranges[:2].roll(turn)
        turned, stretched = bench.positions(angles, ranges, ptr)
        message = f"of slots at two sources behind each other, turned by {turn}"
        found.append(at_most(turned, rounding(bench.R), f"angle term {message}", where="angle"))
        found.append(at_most(stretched, rounding(bench.R), f"range term {message}", where="range"))
    return found


def sources(bench: Bench) -> list[Measurement]:
    """Each coordinate of each source counts, once, with the same weight for every K."""

    found = []
    for K in bench.orders:
        ptr = _spread(bench, K)
        for source in range(K):
            angles, ranges = _perfect(ptr, 0, FAR)
            for axis, name in enumerate(("azimuth", "elevation")):
                moved = angles.clone()
                moved[source, axis] += SHIFT
                turned, stretched = bench.positions(moved, ranges, ptr)
                message = f"{name} of source {source + 1} of {K} off by {SHIFT} rad"
                found.append(at_least(turned, SHIFT**2 / 10 / K, f"angle term, {message}", where="angle"))
                found.append(at_most(turned, 10 * SHIFT, f"angle term, {message}", where="angle"))
                found.append(at_most(stretched, rounding(bench.R), f"range term, {message}", where="range"))
            moved = ranges.clone()
            moved[source] *= 1.25
            turned, stretched = bench.positions(angles, moved, ptr)
            message = f"range of source {source + 1} of {K} off by a quarter"
            found.append(at_least(stretched, 1e-6, f"range term, {message}", where="range"))
            found.append(at_most(turned, rounding(bench.R), f"angle term, {message}", where="angle"))
    most = bench.most
    return found + _alike(bench, most) + ([*_one_to_one(bench, most), _cheapest(bench, most)] if most > 1 else [])


def _alike(bench: Bench, most: int) -> list[Measurement]:
    """K sources at one place, each missed by the same, cost what one of them costs: a mean over the true ones."""
    import torch

    one = torch.tensor([0.2, -0.1, 2.0])
    costs = []
    for K in (1, most):
        ptr = torch.full((most, 3), torch.nan)
        ptr[:K] = one
        angles, ranges = _perfect(ptr, 0, FAR)
        angles[:K, 0] += SHIFT
        ranges[:K] *= 1.25
        costs.append(bench.positions(angles, ranges, ptr))
    return [
        close(many, single, rounding(bench.R) * max(1.0, single), f"{name} term of {most} sources as far off as one",
              where=name)
        for name, single, many in zip(("angle", "range"), *costs, strict=True)
    ]  # fmt: skip


def _one_to_one(bench: Bench, most: int) -> list[Measurement]:
    """A slot serves one source, in angle and range together."""
    import torch

    two = torch.full((most, 3), torch.nan)
    two[:2] = torch.tensor([[0.4, 0.1, 1.0], [-0.3, -0.2, 4.0]])
    angles, ranges = _perfect(two, 0, FAR)
    ranges[:2] = ranges[:2].flip(0)
    crossed = sum(bench.positions(angles, ranges, two))
    same = two.clone()
    same[1] = same[0]
    angles, ranges = _perfect(same, 0, FAR)
    angles[1:], ranges[1:] = torch.tensor([FAR, FAR]), 9.0
    shared = sum(bench.positions(angles, ranges, same))
    return [
        at_least(crossed, 1e-3, "angle and range terms of two sources with their ranges exchanged", where=WHERE),
        at_least(shared, 1e-3, "angle and range terms of two sources at one place with one slot there", where=WHERE),
    ]


def _cheapest(bench: Bench, most: int) -> Measurement:
    """All pairs together are cheapest: the nearest pair taken first leaves the other two far apart, by any measure."""
    import torch

    def cost(sources: list[float], estimates: list[float]) -> float:
        ptr = torch.full((most, 3), torch.nan)
        ptr[: len(sources)] = torch.tensor([[azimuth, -0.1, 2.0] for azimuth in sources])
        angles, ranges = _perfect(ptr, 0, FAR)
        angles[: len(estimates), 0] = torch.tensor(estimates)
        return bench.positions(angles, ranges, ptr)[0]

    each = (cost([0.0], [-0.2]) + cost([0.25], [0.11])) / 2
    both = cost([0.0, 0.25], [0.11, -0.2])
    text = "angle term of two sources whose nearest slot is one, against the mean of the cheapest pairs"
    return close(both, each, rounding(bench.R) * max(1.0, each), text, where="angle")
