"""Where a number can stop being finite, and what must then happen; measured for RV1403."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ris_verified.audit.context import Context
from ris_verified.audit.plain_step import plain_step, trace_steps
from ris_verified.audit.rule import Measurement, at_least, at_most, equal

if TYPE_CHECKING:
    from torch import Tensor

    from ris_verified.pipeline import Pipeline
    from ris_verified.train.state import TrainState

WHERE = "train_step"


def values(state: TrainState) -> list[Tensor]:
    """Return copies of every tensor that a skipped step must leave alone: weights, averages, moments."""
    kept = [*state.model.parameters()]
    for average in (state.ema, state.swa):
        kept += [] if average is None else list(average.parameters())
    kept += [v for s in state.optimizer.state.values() for v in s.values() if hasattr(v, "clone")]
    return [v.detach().clone() for v in kept]


def changed(before: Sequence[Tensor], after: Sequence[Tensor]) -> int:
    """Return how many tensors differ in a bit."""
    import torch

    if len(before) != len(after):
        return abs(len(before) - len(after))
    return sum(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def scaled(pipeline: Pipeline, factor: float) -> Pipeline:
    """Return a pipeline whose total loss is multiplied by a factor, infinity among them."""

    def loss(*given: Any, **named: Any) -> Any:
        result = pipeline.loss(*given, **named)
        return dataclasses.replace(result, total=result.total * factor)

    return dataclasses.replace(pipeline, loss=loss)


def poisoned(pipeline: Pipeline, where: str) -> Pipeline:
    """Return a pipeline whose loss is NaN, or finite with a NaN gradient.

    Args:
        where: `loss` or `gradient`.
    """

    def loss(outputs: Any, R_hat: Any, batch: Any, cfg: Any, *, R_blend: Any = None, training: bool = True) -> Any:
        result = pipeline.loss(outputs, R_hat, batch, cfg, R_blend=R_blend, training=training)
        if where == "loss":
            return dataclasses.replace(result, total=result.total * float("nan"))
        # √ has slope 1/(2√0) at zero: zero times infinity is NaN in the gradient only.
        broken = (outputs.cov_fact_angle.sum() * 0).abs().sqrt()
        return dataclasses.replace(result, total=result.total + broken)

    return dataclasses.replace(pipeline, loss=loss)


def _poison(value: float) -> Callable[[Tensor], Tensor]:
    return lambda gradient: gradient * value


def single_poisons(context: Context) -> list[Measurement]:
    """Measure that one tensor's NaN or infinite gradient, or an infinite loss, changes nothing and is counted."""
    small, found = context.small.weighted, []
    # Several poisons come in a row: a run's own limit would end the drill.
    pipeline = dataclasses.replace(small.pipeline, config=small.config.replaced({"train.nonfinite_limit": 100}))
    state = small.state()
    for _ in range(2):
        pipeline.train_step(state, small.batch, pipeline)
    named = list(state.model.named_parameters())
    cases = [(f"NaN in the gradient of {named[i][0]} only", named[i][1], math.nan) for i in (0, len(named) // 2, -1)]
    bare = dataclasses.replace(pipeline, config=pipeline.config.replaced({"contracts": False}))
    cases.append((f"infinity in the gradient of {named[-1][0]} only", named[-1][1], math.inf))
    for label, parameter, value in cases:
        handle = parameter.register_hook(_poison(value))
        found += _skipped(label, state, small, pipeline)
        # Contracts are a user's to switch off; the guard is not one of them.
        found += _skipped(f"{label}, contracts off", state, small, bare)
        handle.remove()
    found += _skipped("an infinite loss", state, small, scaled(pipeline, math.inf))
    told = float(scaled(pipeline, math.nan).train_step(state, small.batch, scaled(pipeline, math.nan)).loss)
    found.append(equal(math.isfinite(told), False, f"a NaN loss is reported as a number, {told:g}", where=WHERE))
    handle = state.model.register_forward_hook(
        lambda model, given, out: dataclasses.replace(out, k_logits=out.k_logits * math.nan)
    )
    found += _skipped("NaN order logits", state, small, pipeline)
    handle.remove()
    before = values(state)
    report = scaled(pipeline, 1e4).train_step(state, small.batch, scaled(pipeline, 1e4))
    found.append(equal(report.skipped, False, "a large and finite gradient is clipped, not skipped", where=WHERE))
    return [*found, at_least(float(changed(before, values(state))), 1.0, "tensors moved by it", "tensors", WHERE)]


def _skipped(label: str, state: TrainState, small: Context, pipeline: Pipeline) -> list[Measurement]:
    before, counted = values(state), state.skipped
    report = pipeline.train_step(state, small.batch, pipeline)
    moved = changed(before, values(state))
    return [
        at_most(float(moved), 0.0, f"tensors changed by {label}", "tensors", WHERE),
        equal((report.skipped, state.skipped - counted), (True, 1), f"skipped and counted: {label}", where=WHERE),
    ]


def limit_ends(context: Context) -> list[Measurement]:
    """Measure that a run of NaN comes to an end with a limit of 2, of the loss or of the gradients alone."""
    from ris_verified.errors import TrainingError

    place, found = context.small.with_config(context.small.config.replaced({"train.nonfinite_limit": 2})), []
    for where in ("loss", "gradient"):
        bad, state, outcome = poisoned(place.pipeline, where), context.small.state(), "went on"
        try:
            for _ in range(5):
                bad.train_step(state, context.small.batch, bad)
        except TrainingError:
            outcome = f"stopped at step {state.step}"
        found.append(equal(outcome, "stopped at step 3", f"a run of NaN in the {where} with a limit of 2", where=WHERE))
    return found


def counters(context: Context) -> list[Measurement]:
    """Measure that only consecutive skips stop a run, that all are counted and that the schedule goes on."""
    from ris_verified.errors import TrainingError

    limited = context.small.config.replaced({"train.nonfinite_limit": 2})
    place = context.small.with_config(limited)
    good = place.pipeline
    bad = scaled(good, math.nan)
    state = context.small.state()
    outcome = "went on"
    try:
        for pipeline in (bad, bad, good, bad, bad):
            pipeline.train_step(state, context.small.batch, pipeline)
    except TrainingError:
        outcome = f"stopped at step {state.step}"
    message = "two NaN steps, a good one and two NaN steps, with a limit of 2"
    return [
        equal(outcome, "went on", message, where=WHERE),
        equal(state.skipped, 4, f"skipped steps counted over {message}", where=WHERE),
        equal(int(state.scheduler.last_epoch), 5, f"steps of the schedule over {message}", where=WHERE),
        *_lone_part(context),
    ]


def _lone_part(context: Context) -> list[Measurement]:
    """Measure that a step of two parts is skipped as a whole where the loss of the second one is NaN."""
    small = context.small.with_config(context.small.config.replaced({"train.accumulation": 2}))
    calls: list[int] = []

    def loss(*given: Any, **named: Any) -> Any:
        calls.append(1)
        result = small.pipeline.loss(*given, **named)
        return dataclasses.replace(result, total=result.total * (math.nan if len(calls) == 2 else 1.0))

    bad = dataclasses.replace(small.pipeline, loss=loss)
    return _skipped("a NaN loss in the second of two parts", context.small.state(), context.small, bad)


def left_over(context: Context) -> list[Measurement]:
    """Measure that a step whose second part is NaN leaves nothing of its first part to the next step."""
    import torch

    place = context.small.with_config(context.small.config.replaced({"train.accumulation": 2}))
    vars(place)["model"] = context.small.model
    good = context.small.batch
    half = len(good) // 2
    bad = dataclasses.replace(good, y=torch.cat([good.y[:half] * 2, good.y[half:] * math.nan]))
    after = trace_steps(place, [bad, good], place.pipeline.train_step, 1.0).gradients[-1]
    alone = trace_steps(place, [good], plain_step, 1.0).gradients[0]
    apart = max((float((after[n] - g).abs().max()) if n in after else math.inf for n, g in alone.items()), default=0.0)
    largest = max(float(g.abs().max()) for g in alone.values())
    message = "gradient after a skipped step against that of the batch alone, relative"
    return [at_most(apart / largest, 1e4 * torch.finfo(torch.float32).eps, message, where=WHERE)]


def passed_on(context: Context) -> list[Measurement]:
    """Measure that a broken law is raised, and that no stage turns NaN into a number."""
    import torch

    from ris_verified.errors import InvariantError, RisVerifiedError

    place, outcome = context.small, "swallowed"

    def broken(*given: Any, **named: Any) -> Any:
        raise InvariantError("planted by the audit", where="loss")

    pipeline = dataclasses.replace(place.pipeline, loss=broken)
    try:
        pipeline.train_step(place.state(), place.batch, pipeline)
    except InvariantError:
        outcome = "raised"
    found = [equal(outcome, "raised", "an InvariantError inside a training step", where=WHERE)]
    found.append(equal(_asks(place), "raised", "a training step on a prediction without gradient", where=WHERE))
    b, blended = place.batch, place.blend
    y = torch.cat([b.y[:1] * math.nan, b.y[1:]])
    bad = torch.cat([blended.R[:1] * math.nan, blended.R[1:]])

    def network() -> Tensor:
        with torch.no_grad():
            out = place.model(y, b.H, b.C, b.H_full)
        return torch.cat([v[0].flatten() for v in vars(out).values()])

    def total() -> Tensor:
        made: Tensor = place.pipeline.loss(
            place.outputs, blended.R_pred, b, place.config, R_blend=bad, training=False
        ).total
        return made

    for where, call in (("build_model", network), ("loss", total)):
        try:
            hidden = bool(torch.isfinite(call()).all())
        except (RisVerifiedError, RuntimeError):
            hidden = False  # a refusal hides nothing
        found.append(equal(hidden, False, "a NaN scene gives finite figures", where=where))
    return found


def _asks(place: Context) -> str:
    """The loss asks for a gradient in training only, so the step must say that it trains."""
    from ris_verified.errors import InvariantError

    def severed(outputs: Any, R_hat: Tensor, *given: Any, **named: Any) -> Any:
        made = place.pipeline.loss(outputs, R_hat.detach(), *given, **named)
        return dataclasses.replace(made, total=made.total + 0 * outputs.ranges.sum())

    pipeline = dataclasses.replace(place.pipeline, loss=severed)
    try:
        pipeline.train_step(place.state(), place.batch, pipeline)
    except InvariantError:
        return "raised"
    return "trained"
