"""Gradients of the loss against differences, and what the loss may read; measured for RV0602, RV0604 and RV1604."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

from ris_verified.audit.context import Context
from ris_verified.audit.laws.loss_bench import Bench, separated
from ris_verified.audit.oracle import same_bits
from ris_verified.audit.rule import Measurement, at_least, at_most, close, equal

if TYPE_CHECKING:
    from torch import Tensor

WHERE = "loss"
UNREAD = ("y", "H", "C", "H_full", "snr")


def scene_slopes(context: Context) -> list[Measurement]:
    """Measure that every term pulls at every scene, the position terms at a slot of every source (RV0602).

    The eigengap is left out: it is zero where the gap is wide enough. Bound: the smallest normal float32.
    """
    import torch

    bench, found = Bench(context.small), []
    tiny = torch.finfo(torch.float32).tiny
    for name in (f.name for f in dataclasses.fields(bench.config.loss) if f.name != "eigengap"):
        leaves = {n: v.clone().requires_grad_() for n, v in vars(bench.outputs).items()}
        outputs = dataclasses.replace(bench.outputs, **leaves)
        R = context.small.pipeline.covariances(outputs, bench.batch).R
        total = bench.evaluate(outputs, R, bench.batch, name).total
        given = torch.autograd.grad(total, list(leaves.values()), allow_unused=True) if total.requires_grad else ()
        reached = torch.zeros(len(bench.K))
        for slope in given:
            reached += 0.0 if slope is None else slope.flatten(1).norm(dim=1)
        least = int(reached.argmin())
        message = f"gradient in the outputs of the scene that has least, K = {bench.K[least]}"
        found.append(at_least(float(reached[least]), tiny, message, where=f"loss.{name}"))
        if name in ("angle", "range") and len(given) == len(leaves):
            slope = given[list(leaves).index(f"{name}s")]
            pulled = [] if slope is None else (slope.flatten(2).norm(dim=-1) if slope.ndim > 2 else slope.abs())
            count = [int((row > 0).sum()) for row in pulled]
            least = min((a - b for a, b in zip(count, bench.K, strict=False)), default=-1)
            message = "slots with a gradient less sources, in the scene that has least"
            found.append(at_least(float(least), 0.0, message, where=f"loss.{name}"))
    return found


def _best(slope: float, value: Callable[[float], float], message: str, where: str) -> Measurement:
    """Compare a slope with central differences of three widths; the nearest counts.

    A narrow one may be lost in the rounding of a loss that works in float32 inside (eps·5/h = 6e-5 at
    h = 1e-2), a wide one in truncation, and any may straddle a kink: the bound is 1e-4 and a hundredth.
    """
    differences = [(value(h) - value(-h)) / (2 * h) for h in (1e-2, 1e-3, 6e-6)]
    nearest = min(differences, key=lambda d: abs(d - slope))
    return close(slope, nearest, 1e-4 + 0.01 * abs(nearest), message, where=where)


def output_slopes(context: Context) -> list[Measurement]:
    """Measure that in training each output and R_blend get the loss's own derivative, and a finite one (RV0604)."""
    import torch

    bench = Bench(context.small)
    pipeline, generator = context.small.pipeline, torch.Generator().manual_seed(context.seed)
    batch = dataclasses.replace(bench.batch, R_in=bench.batch.R_in.to(torch.complex128), ptr=bench.batch.ptr.double())
    base = {n: vars(bench.outputs)[n].double() for n in ("angles", "ranges", "k_logits")}
    base["R_blend"] = separated(bench.R)
    found = []
    for name, start in base.items():
        step = torch.randn(start.shape, generator=generator, dtype=start.dtype)
        step = (step + step.mH) / 2 if name == "R_blend" else step * (start.abs().mean() if name == "ranges" else 1.0)

        def total(t: Tensor, name: str = name, step: Tensor = step) -> Tensor:
            given = {n: v + t * step if n == name else v for n, v in base.items()}
            R = given.pop("R_blend")
            hat = R if R.requires_grad else R.clone().requires_grad_()
            outputs = dataclasses.replace(bench.outputs, **given)
            made: Tensor = pipeline.loss(outputs, hat, batch, bench.config, R_blend=R, training=True).total
            return made

        t = torch.zeros((), dtype=torch.float64, requires_grad=True)
        there = total(t)
        slope = torch.autograd.grad(there, t, allow_unused=True)[0] if there.requires_grad else None
        value = lambda h, total=total: float(total(torch.tensor(h, dtype=torch.float64)).detach())  # noqa: E731
        message = "slope of the loss in training, autograd and difference"
        found.append(_best(0.0 if slope is None else float(slope), value, message, name))
    return [*found, *_finite_at_truth(bench)]


def _finite_at_truth(bench: Bench) -> list[Measurement]:
    """Slots that sit on the sources, as a network that has learned puts them, must not make a NaN."""
    import torch

    ptr = bench.batch.ptr
    place = torch.where(torch.isfinite(ptr), ptr, torch.ones_like(ptr))
    angles, ranges = place[..., :2].clone().requires_grad_(), place[..., 2].clone().requires_grad_()
    outputs = dataclasses.replace(bench.outputs, angles=angles, ranges=ranges)
    total = bench.evaluate(outputs, bench.R, bench.batch).total
    given = torch.autograd.grad(total, (angles, ranges), allow_unused=True) if total.requires_grad else ()
    bad = sum(int((~torch.isfinite(g)).sum()) for g in given if g is not None)
    return [at_most(float(bad), 0.0, "entries of the gradient that are not finite, slots on the sources", where=WHERE)]


def unread_fields(context: Context) -> list[Measurement]:
    """Measure that the loss reads outputs and truth only, changes neither, and repeats itself (RV1604)."""

    bench = Bench(context.small)
    batch = bench.batch
    kept = {n: v.clone() for n, v in (*vars(batch).items(), *vars(bench.outputs).items())}
    base = float(bench.evaluate(bench.outputs, bench.R, batch).total)
    again = float(bench.evaluate(bench.outputs, bench.R, batch).total)
    found = [equal(again, base, "the loss of the same call a second time", where=WHERE)]
    for name in UNREAD:
        other = dataclasses.replace(batch, **{name: 0.1 - 1.5 * vars(batch)[name]})
        value = float(bench.evaluate(bench.outputs, bench.R, other).total)
        found.append(equal(value, base, f"the loss with another {name} in the batch", where=WHERE))
    held = {**vars(batch), **vars(bench.outputs)}
    changed = [n for n, v in kept.items() if not same_bits(v, held[n])]
    return [*found, equal(changed, [], "tensors that the loss changed in place", where=WHERE)]
