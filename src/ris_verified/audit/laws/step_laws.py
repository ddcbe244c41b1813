"""What a training step must do with batch, gradient, weights and report; measured for RV1604, RV1605 and RV1606."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ris_verified.audit.context import Context
from ris_verified.audit.oracle import same_bits
from ris_verified.audit.plain_step import Drill, trace_steps
from ris_verified.audit.rule import Measurement, at_most, close, equal

if TYPE_CHECKING:
    from torch import Tensor

WHERE = "train_step"


def rounding() -> float:
    """Return the bound on two float32 gradients of one function: sums of up to 10⁴ terms in another order."""
    import torch

    return 1e4 * torch.finfo(torch.float32).eps


def _norm(tensors: dict[str, Tensor]) -> float:
    return math.sqrt(sum(float(v.double().square().sum()) for v in tensors.values()))


def _minus(a: dict[str, Tensor], b: dict[str, Tensor], scale: float = 1.0) -> dict[str, Tensor]:
    import torch

    made = {}
    for name in {**a, **b}:
        one = a.get(name, torch.zeros_like(b[name]) if name in b else None)
        other = b.get(name, torch.zeros_like(a[name]) if name in a else None)
        made[name] = one.double() - scale * other.double()  # type: ignore[union-attr]
    return made


def _apart(own: Sequence[dict[str, Tensor]], plain: Sequence[dict[str, Tensor]], start: dict[str, Tensor]) -> float:
    """Return the largest ‖own − plain‖ over how far the plain weights are from the start."""
    import torch

    worst = 0.0
    for a, b in zip(own, plain, strict=True):
        if a.keys() != b.keys():
            return math.inf
        # A weight of size |w| moves in multiples of eps |w|: that much is rounding however small the step.
        grain = 4 * torch.finfo(torch.float32).eps * _norm(b)
        way = _norm(_minus(b, {n: start[n] for n in b})) if b else 0.0
        ratio = max(0.0, _norm(_minus(a, b)) - grain) / way if way else 0.0
        worst = max(worst, ratio if ratio == ratio else math.inf)
    return worst


def _turned(drill: Drill) -> float:
    """Return the largest distance between the two gradients' directions."""
    worst = 0.0
    for a, b in zip(drill.own.gradients, drill.plain.gradients, strict=True):
        size, wanted = _norm(a), _norm(b)
        angle = _norm(_minus({n: v / size for n, v in a.items()}, b, 1 / wanted)) if size and wanted else math.inf
        worst = max(worst, angle if angle == angle else math.inf)
    return worst


def batch_laws(context: Context) -> list[Measurement]:
    """Measure that every scene of this batch, and no other, makes one step of the schedule (RV1606)."""
    found = []
    for drill in context.drills:
        parts = drill.config.train.accumulation
        told = f"({drill.name}: {parts} parts of 5 scenes)"
        found.append(equal(drill.own.calls, drill.plain.calls, f"optimiser steps for each batch {told}", where=WHERE))
        found.append(equal(drill.own.rates, drill.plain.rates, f"rates inside the optimiser {told}", where=WHERE))
        found.append(equal(drill.own.counters, drill.plain.counters, f"state.step and schedule {told}", where=WHERE))
        message = f"direction of the gradient at the optimiser against that of the mean loss of the batch {told}"
        found.append(at_most(_turned(drill), rounding(), message, where=WHERE))
        largest = max((max(sizes, default=0) for sizes in drill.own.sizes), default=0)
        found.append(at_most(float(largest), float(-(-5 // parts)), f"scenes held at once {told}", "scenes", WHERE))
    return found


def update_laws(context: Context) -> list[Measurement]:
    """Measure that clip_norm, ema_decay, swa_share, precision and contracts act as declared (RV1604)."""
    found = []
    # A part may be kept in evaluation on purpose: what counts is what the network makes of `train()`.
    model = copy.deepcopy(context.small.model).train()
    wanted = sorted({part.training for part in model.modules()})
    for drill in context.drills:
        clip = drill.config.train.clip_norm
        sizes = [(_norm(a), _norm(b)) for a, b in zip(drill.own.gradients, drill.plain.gradients, strict=True)]
        worst = max((abs(a - b) / b if b else math.inf) for a, b in sizes)
        message = f"norm of the gradient at the optimiser against min(norm, train.clip_norm = {clip:g}), relative"
        found.append(at_most(worst, rounding(), f"{message} ({drill.name})", where=WHERE))
        for name in ("weights", "averages", "tail"):
            own, plain = vars(drill.own)[name], vars(drill.plain)[name]
            label = {"weights": "live", "averages": "EMA", "tail": "SWA"}[name]
            message = f"{label} weights against those of a plain step, share of the way ({drill.name})"
            found.append(at_most(_apart(own, plain, drill.start), 10 * rounding(), message, where=WHERE))
        modes = sorted({mode for modes in drill.own.modes for mode in modes})
        found.append(equal(modes, wanted, "training modes of the network in and after the step", where=WHERE))
    return [*found, *_precision(context), *_handed_on(context)]


def _precision(context: Context) -> list[Measurement]:
    place = context.small
    made = {}
    for name in ("float32", "bfloat16"):
        lowered = place.with_config(place.config.replaced({"train.precision": name}))
        vars(lowered)["model"] = place.model
        made[name] = trace_steps(lowered, [place.batch], lowered.pipeline.train_step, 1.0)
    plain, low = made["float32"], made["bfloat16"]
    differs = float(plain.reports[0].loss) != float(low.reports[0].loss)
    return [
        equal(
            any(plain.autocast), False, "the network runs under autocast with train.precision = float32", where=WHERE
        ),
        equal(any(low.autocast) or differs, True, "train.precision = bfloat16 reaches the network", where=WHERE),
    ]


def _handed_on(context: Context) -> list[Measurement]:
    """Watch the stages inside one step: each must run, with the step's own configuration."""
    place = context.small
    seen: dict[str, bool] = {}

    def watched(name: str, stage: Callable[..., Any]) -> Callable[..., Any]:
        def run(*given: Any, **named: Any) -> Any:
            configs = [v for v in (*given, *named.values()) if type(v) is type(place.config)]
            blended = name != "loss" or named.get("R_blend") is not None
            seen[name] = seen.get(name, True) and configs == [place.config] and blended
            return stage(*given, **named)

        return run

    names = ("predicted_covariance", "sample_covariance", "blend", "loss")
    stages: dict[str, Any] = {n: watched(n, vars(place.pipeline)[n]) for n in names}
    pipeline = dataclasses.replace(place.pipeline, **stages)
    batch = place.batch
    before = {n: v.clone() for n, v in vars(batch).items()}
    pipeline.train_step(place.state(), batch, pipeline)
    changed = sorted(n for n, v in vars(batch).items() if not same_bits(v, before[n]))
    missing = sorted(n for n in names if not seen.get(n, False))
    return [
        equal(missing, [], "stages that the step did not run with its configuration, the loss on R_blend", where=WHERE),
        equal(changed, [], "fields of the batch that the step changed", where=WHERE),
    ]


def report_laws(context: Context) -> list[Measurement]:
    """Measure that a step reports what it did: mean loss, terms, NMSE, norm before clipping, rates (RV1605)."""
    found = []
    for drill in context.drills:
        for own, plain in zip(drill.own.reports, drill.plain.reports, strict=True):
            named = {"loss": plain.loss, "nmse": plain.nmse, "gradient_norm": plain.gradient_norm}
            for name, value in named.items():
                wanted = float(value)
                message = f"reported {name} against that of the whole batch ({drill.name})"
                found.append(close(float(vars(own)[name]), wanted, rounding() * abs(wanted), message, where=name))
            found.append(equal(sorted(own.terms), sorted(plain.terms), "terms reported", where=WHERE))
            for name in own.terms.keys() & plain.terms.keys():
                wanted = float(plain.terms[name])
                message = f"reported term against that of the whole batch ({drill.name})"
                bound = rounding() * max(abs(wanted), abs(float(plain.loss)))
                found.append(close(float(own.terms[name]), wanted, bound, message, where=name))
            used = {name: float(rate) for name, rate in own.learning_rates.items()}
            found.append(equal(used, plain.learning_rates, f"rates reported ({drill.name})", where="learning_rates"))
    return found
