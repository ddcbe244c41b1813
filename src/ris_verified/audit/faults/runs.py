"""Slips in the training run around its steps: resume, schedule, order, choice and bookkeeping."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ris_verified.audit.faults.fault import Fault
from ris_verified.pipeline import Pipeline


def running(change: Callable[[Any], None]) -> Callable[[Pipeline], Pipeline]:
    """Return a plant whose training is this library's with a change to the class that runs it."""

    def plant(pipeline: Pipeline) -> Pipeline:
        from ris_verified.train import loop
        from ris_verified.train.ranks import joined

        def train(given: Pipeline, data: Path, out: Path, **options: Any) -> Any:
            # The faulty loop is a copy: the library's own stays as it is.
            made = type("_Run", (loop._Run,), {})
            change(made)
            named = {"progress": None, "tensorboard": False, "fresh": False, "stop": None}
            settings = {name: options.get(name, value) for name, value in named.items()}
            with torch.random.fork_rng(), joined() as ranks:
                torch.manual_seed(given.config.seed + ranks.index)
                run = made(given, data, out, ranks, **settings)
                return loop._trained(run, data, options.get("curves", True), options.get("judge"))

        return dataclasses.replace(pipeline, train=train)

    return plant


def _after_start(act: Callable[[Any], None]) -> Callable[[Any], None]:
    def change(made: Any) -> None:
        begin = made.__init__

        def __init__(self: Any, *given: Any, **options: Any) -> None:
            begin(self, *given, **options)
            act(self)

        made.__init__ = __init__

    return change


def _average_lost(run: Any) -> None:
    if run.state.step and run.state.ema is not None:
        run.state.ema.module.load_state_dict(run.state.model.state_dict())


def _late_average_lost(run: Any) -> None:
    if run.state.step and run.state.swa is not None:
        run.state.swa.n_averaged.zero_()


def _skips_forgotten(run: Any) -> None:
    run.state.skipped = run.state.consecutive = 0


def _best_forgotten(run: Any) -> None:
    if run.state.step:
        run.at.best = -1.0


def _draws_lost(run: Any) -> None:
    if run.state.step:
        torch.manual_seed(run.pipeline.config.seed)


def _own_optimizer(run: Any) -> None:
    state, cfg = run.state, run.pipeline.config
    if not state.step:
        state.optimizer = torch.optim.AdamW(run.pipeline.parameter_groups(state.model, cfg), fused=True)
        state.scheduler = torch.optim.lr_scheduler.LambdaLR(state.optimizer, state.scheduler.lr_lambdas[0])


def _longer_schedule(run: Any) -> None:
    if not run.state.step:
        factor = run.state.scheduler.lr_lambdas[0]
        accumulation = run.pipeline.config.train.accumulation
        run.state.scheduler = torch.optim.lr_scheduler.LambdaLR(
            run.state.optimizer, lambda step: factor(step // accumulation)
        )


def _rounded_down(run: Any) -> None:
    run.steps = max(1, run.scenes // run.batch)


def _every_scene(run: Any) -> None:
    run.scenes = len(run.training)
    run.steps = -(-run.scenes // run.batch)


def _batches(change: Callable[[Any, Any, Tensor, int, int], tuple[Tensor, int]]) -> Callable[[Any], None]:
    def alter(made: Any) -> None:
        sound = made._batches

        def _batches(self: Any, dataset: Any, order: Tensor, size: int, skip: int = 0) -> Any:
            order, skip = change(self, dataset, order, size, skip)
            return sound(self, dataset, order, size, skip)

        made._batches = _batches

    return alter


def _unshuffled(run: Any, dataset: Any, order: Tensor, size: int, skip: int) -> tuple[Tensor, int]:
    return order.sort().values, skip


def _epoch_again(run: Any, dataset: Any, order: Tensor, size: int, skip: int) -> tuple[Tensor, int]:
    return order, 0


def _easy_only(run: Any, dataset: Any, order: Tensor, size: int, skip: int) -> tuple[Tensor, int]:
    if dataset is not run.training or run.state.step >= run.steps:
        return order, skip
    # As many scenes as before, the crowded ones replaced by one with fewest sources.
    return order[dataset.source_counts()[order].argmin()].expand_as(order), skip


def _validate_all(run: Any, dataset: Any, order: Tensor, size: int, skip: int) -> tuple[Tensor, int]:
    return (torch.arange(len(dataset)) if dataset is run.validation else order), skip


def _first_validated(run: Any, dataset: Any, order: Tensor, size: int, skip: int) -> tuple[Tensor, int]:
    return (order[:size] if dataset is run.validation else order), skip


def _no_curriculum(run: Any, dataset: Any, order: Tensor, size: int, skip: int) -> tuple[Tensor, int]:
    if dataset is not run.training:
        return order, skip
    generator = torch.Generator().manual_seed(run.state.step)
    return order[torch.randperm(len(order), generator=generator)], skip


def _live_validated(made: Any) -> None:
    def _validated(self: Any) -> Any:
        order = torch.arange(min(self.pipeline.config.data.validation_scenes, len(self.validation)))
        average = self.state.model if self.state.ema is None else self.state.ema.module
        return self.pipeline.validate(self.pipeline, average, self._batches(self.validation, order, 128))

    made._validated = _validated


def _skipped_counted(made: Any) -> None:
    sound = made.epoch

    def epoch(self: Any, number: int) -> Any:
        record = sound(self, number)
        return {**record, "train": record["train"] * (1 - 1 / self.steps) if number == 0 else record["train"]}

    made.epoch = epoch


def _validating(change: Callable[[Any, Any, nn.Module, Any], dict[str, float]]) -> Callable[[Pipeline], Pipeline]:
    def plant(pipeline: Pipeline) -> Pipeline:
        sound = pipeline.validate
        return dataclasses.replace(pipeline, validate=lambda p, model, batches: change(sound, p, model, batches))

    return plant


def _first_batches(sound: Any, pipeline: Any, model: nn.Module, batches: Any) -> dict[str, float]:
    figures: dict[str, float] = sound(pipeline, model, islice(batches, 32))
    return figures


def _finite_batches(sound: Any, pipeline: Any, model: nn.Module, batches: Any) -> dict[str, float]:
    kept = [batch for batch in batches if math.isfinite(sound(pipeline, model, [batch])["loss"])]
    figures: dict[str, float] = sound(pipeline, model, kept)
    return figures


def _first_truth(pipeline: Pipeline) -> Pipeline:
    seen: dict[int, Tensor] = {}

    def validate(given: Any, model: nn.Module, batches: Any) -> dict[str, float]:
        kept = []
        for number, batch in enumerate(batches):
            ptr = seen.setdefault(number, batch.ptr)
            kept.append(dataclasses.replace(batch, ptr=ptr) if ptr.shape == batch.ptr.shape else batch)
        return pipeline.validate(given, model, kept)

    return dataclasses.replace(pipeline, validate=validate)


class _Told(nn.Module):
    """A network whose head hears the largest number of sources of the batch."""

    def __init__(self, body: nn.Module, most: int) -> None:
        super().__init__()
        self.body, self.most = body, most

    def forward(self, *given: Tensor) -> Any:
        out = self.body(*given)
        k = out.k_logits.clone()
        k[:, self.most :] = -torch.inf
        return dataclasses.replace(out, k_logits=k)


def _most_told(sound: Any, pipeline: Any, model: nn.Module, batches: Any) -> dict[str, float]:
    kept = list(batches)
    most = max(int(batch.K.max()) for batch in kept)
    figures: dict[str, float] = sound(pipeline, model, kept)
    return {**figures, "order": sound(pipeline, _Told(model, most), kept)["order"]}


FAULTS = (
    Fault("average_lost_on_resume", "RV1605", "the average begins anew", running(_after_start(_average_lost))),
    Fault("late_average_lost_on_resume", "RV1605", "SWA holds only what came after the kill",
          running(_after_start(_late_average_lost))),
    Fault("skips_forgotten_on_resume", "RV1605", "fewer skipped steps are told than there were",
          running(_after_start(_skips_forgotten))),
    Fault("best_forgotten_on_resume", "RV1605", "the first epoch after a kill is the best",
          running(_after_start(_best_forgotten))),
    Fault("random_state_lost_on_resume", "RV1605", "dropout draws what it drew before",
          running(_after_start(_draws_lost))),
    Fault("epoch_repeated_on_resume", "RV1605", "scenes of the epoch are shown twice",
          running(_batches(_epoch_again))),
    Fault("optimizer_of_its_own", "RV1605", "the configured weight decay is not there",
          running(_after_start(_own_optimizer))),
    Fault("schedule_too_long", "RV1605", "counted in micro-batches", running(_after_start(_longer_schedule))),
    Fault("steps_rounded_down", "RV1605", "the rest of an epoch is shown in the next",
          running(_after_start(_rounded_down))),
    Fault("every_scene_of_the_folder", "RV1605", "a tenth of the data is all of it",
          running(_after_start(_every_scene))),
    Fault("order_of_the_folder", "RV1605", "the same order in every epoch", running(_batches(_unshuffled))),
    Fault("easy_scene_only", "RV1605", "the curriculum leaves scenes out", running(_batches(_easy_only))),
    Fault("validation_of_all", "RV1605", "other scenes than the configuration asks for",
          running(_batches(_validate_all))),
    Fault("one_batch_validated", "RV1605", "scenes beyond the first batch are never read",
          running(_batches(_first_validated))),
    Fault("no_curriculum", "RV1605", "the configured curriculum is shuffled away", running(_batches(_no_curriculum))),
    Fault("average_before_swa", "RV1605", "the EMA is validated, SWA is saved", running(_live_validated)),
    Fault("skipped_step_in_the_mean", "RV1605", "a step that was not taken counts as a loss of zero",
          running(_skipped_counted)),
    Fault("first_batches_validated", "RV1608", "a limit from a debugging session", _validating(_first_batches)),
    Fault("finite_batches_validated", "RV1608", "diverged scenes are left out", _validating(_finite_batches)),
    Fault("truth_of_the_first_call", "RV1608", "a cache by number of the batch", _first_truth),
    Fault("order_hears_the_most", "RV1608", "logits are cut at the batch's largest K", _validating(_most_told)),
)  # fmt: skip
