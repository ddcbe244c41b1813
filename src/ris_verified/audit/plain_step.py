"""A plain training step, and a trace of what any training step does, seen from outside."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ris_verified.audit.context import Context
    from ris_verified.config import Config
    from ris_verified.data.batch import Batch
    from ris_verified.pipeline import Pipeline
    from ris_verified.train.state import StepReport, TrainState

Step = Callable[["TrainState", "Batch", "Pipeline"], "StepReport"]
# Of a drill, and of one that is as long as counters in a step may take to show.
STEPS, LONG = 3, 20


@dataclass
class Trace:
    """What a run of training steps did; one entry a step.

    Args:
        reports: as returned.
        gradients: by name, as the optimiser found them; empty where it was not called.
        calls: how often the optimiser was called.
        rates: of each group inside the optimiser.
        weights, averages, tail: live, EMA and SWA weights by name after the step.
        sizes: scenes in each call of the network.
        modes: training modes of the network at each call and after the step.
        autocast: whether the network was called under autocast.
        counters: `state.step` and the schedule's last epoch.
    """

    reports: list[StepReport] = field(default_factory=list)
    gradients: list[dict[str, Tensor]] = field(default_factory=list)
    calls: list[int] = field(default_factory=list)
    rates: list[dict[str, float]] = field(default_factory=list)
    weights: list[dict[str, Tensor]] = field(default_factory=list)
    averages: list[dict[str, Tensor]] = field(default_factory=list)
    tail: list[dict[str, Tensor]] = field(default_factory=list)
    sizes: list[list[int]] = field(default_factory=list)
    modes: list[set[bool]] = field(default_factory=list)
    autocast: list[bool] = field(default_factory=list)
    counters: list[tuple[int, int]] = field(default_factory=list)


def plain_step(state: TrainState, batch: Batch, pipeline: Pipeline) -> StepReport:
    """Take one step as the configuration declares it, without guards, mixed precision or compilation.

    g = Σ_i (B_i/B) ∇loss(part_i); g ← g min(1, clip/‖g‖); optimiser, averages, schedule.
    """
    import torch

    from ris_verified.train.state import StepReport

    cfg = pipeline.config
    rates = state.rates()
    for p in state.model.parameters():
        p.grad = None
    parts = batch.split(min(cfg.train.accumulation, len(batch)))
    results = []
    for part in parts:
        outputs, blended = pipeline.forward(state.model, part)
        result = pipeline.loss(outputs, blended.R_pred, part, cfg, R_blend=blended.R, training=True)
        (result.total * (len(part) / len(batch))).backward()
        results.append((len(part) / len(batch), result))
    gradients = [p.grad for p in state.model.parameters() if p.grad is not None]
    norm = torch.stack([g.double().square().sum() for g in gradients]).sum().sqrt().float()
    for g in gradients:
        g.mul_(float((cfg.train.clip_norm / norm).clamp(max=1.0)))
    state.optimizer.step()
    state.update_averages(cfg.train)
    state.step += 1
    state.scheduler.step()
    terms = {n: torch.stack([s * r.terms[n] for s, r in results]).sum() for n in results[0][1].terms}
    loss = torch.stack([s * r.total.detach() for s, r in results]).sum()
    return StepReport(loss, terms, torch.stack([s * r.nmse for s, r in results]).sum(), norm, rates, False)


def descent_state(context: Context, total_steps: int, faster: float) -> TrainState:
    """Return a state with momentum descent in place of Adam: its steps are linear in the gradient.

    Adam divides by the gradient's size, so that it hides a wrong scale and magnifies rounding.

    Args:
        context: small.
        total_steps: of the schedule.
        faster: factor on the rates, so that steps stand far above the rounding of float32 weights.
    """
    import torch

    from ris_verified.train.schedule import rate_factor

    state, train = context.state(total_steps), context.config.train
    groups = [
        {"name": g["name"], "params": g["params"], "lr": faster * g["initial_lr"]} for g in state.optimizer.param_groups
    ]
    optimizer = torch.optim.SGD(groups, momentum=0.9, weight_decay=train.weight_decay)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_factor(step, total_steps, train))
    return dataclasses.replace(state, optimizer=optimizer, scheduler=scheduler)


def _named(module: nn.Module | None) -> dict[str, Tensor]:
    if module is None:
        return {}
    return {name: p.detach().clone() for name, p in module.named_parameters()}


def trace_steps(context: Context, batches: Sequence[Batch], step: Step, faster: float) -> Trace:
    """Run a training step over batches and note what it did.

    Args:
        context: whose pipeline, model and configuration are used; small.
        batches: one a step.
        step: `plain_step` or the pipeline's own.
        faster: as for `descent_state`.

    Returns:
        A `Trace`.
    """
    import torch

    torch.manual_seed(context.seed)
    made, state = Trace(), descent_state(context, len(batches), faster)
    names = {id(p): name for name, p in state.model.named_parameters()}

    def seen(optimizer: Any, *_: Any) -> None:
        made.calls[-1] += 1
        made.rates[-1] = {g["name"]: float(g["lr"]) for g in optimizer.param_groups}
        listed = [p for g in optimizer.param_groups for p in g["params"] if p.grad is not None]
        made.gradients[-1] = {names.get(id(p), "?"): p.grad.detach().clone() for p in listed}

    def entered(model: nn.Module, given: Sequence[Any], *_: Any) -> None:
        made.sizes[-1].append(len(given[0]) if given else 0)
        made.modes[-1].update(part.training for part in model.modules())
        made.autocast.append(torch.is_autocast_enabled("cpu"))

    state.optimizer.register_step_pre_hook(seen)
    state.model.register_forward_pre_hook(entered)
    for batch in batches:
        made.calls.append(0)
        made.rates.append({})
        made.gradients.append({})
        made.sizes.append([])
        made.modes.append(set())
        made.reports.append(step(state, batch, context.pipeline))
        made.modes[-1].update(part.training for part in state.model.modules())
        made.weights.append(_named(state.model))
        made.averages.append(_named(None if state.ema is None else state.ema.module))
        made.tail.append(_named(None if state.swa is None else state.swa.module))
        made.counters.append((state.step, int(state.scheduler.last_epoch)))
    return made


def step_gradients(state: TrainState, step: Callable[[], StepReport]) -> tuple[StepReport, dict[str, Tensor]]:
    """Take a step and return its report and the gradients by name, as the optimiser met them.

    What a step does with gradients afterwards is its own affair. One that moves weights without the optimiser is
    asked for what it left.
    """
    found: dict[str, Tensor] = {}

    def seen(*_: Any) -> None:
        named = state.model.named_parameters()
        found.update({name: p.grad.detach().clone() for name, p in named if p.grad is not None})

    hook = state.optimizer.register_step_pre_hook(seen)
    report = step()
    hook.remove()
    left = {name: p.grad for name, p in state.model.named_parameters() if p.grad is not None}
    return report, found or left


@dataclass(frozen=True)
class Drill:
    """The pipeline's step beside the plain one, under one set of declared values.

    Args:
        name: of the drill.
        config: it ran with.
        start: weights before the first step.
        own: the pipeline's.
        plain: written in `plain_step`.
    """

    name: str
    config: Config
    start: dict[str, Tensor]
    own: Trace
    plain: Trace


def drills(context: Context) -> list[Drill]:
    """Run both steps over changing batches: clipped, in unequal parts and averaged; none of these; and for long.

    Args:
        context: small.

    Returns:
        Three drills.
    """
    scenes = [*context.scenes[-5:], *context.draw(5, key=12)]
    both = [context.as_batch(scenes[:5]), context.as_batch(scenes[5:])]
    settings = (
        ("accumulated, clipped and averaged", STEPS, 1e3, {
            "accumulation": 2, "clip_norm": 0.01, "ema_decay": 0.1, "swa_share": 0.5, "warmup_share": 0.5,
        }),
        ("plain", STEPS, 30.0, {
            "accumulation": 1, "clip_norm": 1e6, "ema_decay": 0.0, "swa_share": 0.0, "warmup_share": 0.5,
        }),
        ("long", LONG, 1.0, {
            "accumulation": 1, "clip_norm": 1e6, "ema_decay": 0.5, "swa_share": 0.5, "warmup_share": 0.5,
        }),
    )  # fmt: skip
    found = []
    for name, steps, faster, values in settings:
        batches = [both[i % 2] for i in range(steps)]
        config = context.config.replaced({f"train.{key}": value for key, value in values.items()})
        place = context.with_config(config)
        vars(place)["model"] = context.model
        own = trace_steps(place, batches, place.pipeline.train_step, faster)
        plain = trace_steps(place, batches, plain_step, faster)
        found.append(Drill(name, config, _named(context.model), own, plain))
    return found
