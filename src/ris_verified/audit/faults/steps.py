"""Slips in the training step."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch

from ris_verified.audit.faults.fault import Fault
from ris_verified.pipeline import Pipeline
from ris_verified.train.state import StepReport


def _stepping(change: Callable[..., StepReport]) -> Callable[[Pipeline], Pipeline]:
    def plant(pipeline: Pipeline) -> Pipeline:
        def step(state: Any, batch: Any, pipe: Any) -> StepReport:
            return change(pipeline.train_step, state, batch, pipe)

        return dataclasses.replace(pipeline, train_step=step)

    return plant


def _result(pipe: Pipeline, state: Any, batch: Any) -> Any:
    outputs, blended = pipe.forward(state.model, batch)
    return pipe.loss(outputs, blended.R_pred, batch, pipe.config, R_blend=blended.R, training=True)


def _unguarded(f: Any, state: Any, batch: Any, pipe: Any) -> StepReport:
    rates = state.rates()
    state.optimizer.zero_grad()
    result = _result(pipe, state, batch)
    result.total.backward()
    norm = torch.nn.utils.clip_grad_norm_(state.model.parameters(), pipe.config.train.clip_norm)
    state.optimizer.step()
    state.step += 1
    state.scheduler.step()
    state.update_averages(pipe.config.train)
    return StepReport(result.total.detach(), result.terms, result.nmse, norm, rates, False)


def _twice(f: Any, state: Any, batch: Any, pipe: Any) -> StepReport:
    f(state, batch, pipe)
    second: StepReport = f(state, batch, pipe)
    return second


def _micro_steps(f: Any, state: Any, batch: Any, pipe: Any) -> StepReport:
    whole = dataclasses.replace(pipe.config, train=dataclasses.replace(pipe.config.train, accumulation=1))
    reports = [
        f(state, part, dataclasses.replace(pipe, config=whole)) for part in batch.split(pipe.config.train.accumulation)
    ]
    last: StepReport = reports[-1]
    return last


def _schedule_twice(f: Any, state: Any, batch: Any, pipe: Any) -> StepReport:
    report: StepReport = f(state, batch, pipe)
    state.scheduler.step()
    return report


def _rate_after(f: Any, state: Any, batch: Any, pipe: Any) -> StepReport:
    report: StepReport = f(state, batch, pipe)
    return dataclasses.replace(report, learning_rates=state.rates())


def _no_step(f: Any, state: Any, batch: Any, pipe: Any) -> StepReport:
    state.optimizer.zero_grad()
    result = _result(pipe, state, batch)
    result.total.backward()
    norm = torch.nn.utils.clip_grad_norm_(state.model.parameters(), pipe.config.train.clip_norm)
    return StepReport(result.total.detach(), result.terms, result.nmse, norm, state.rates(), False)


def _shared_average(f: Any, state: Any, batch: Any, pipe: Any) -> StepReport:
    report: StepReport = f(state, batch, pipe)
    for averaged, live in zip(state.ema.module.parameters(), state.model.parameters(), strict=True):
        averaged.data = live.data
    return report


def _cleared(f: Any, state: Any, batch: Any, pipe: Any) -> StepReport:
    if state.step and state.step % 16 == 0:
        state.optimizer.state.clear()
    made: StepReport = f(state, batch, pipe)
    return made


def _guarded_by_contracts(f: Any, state: Any, batch: Any, pipe: Any) -> StepReport:
    report: StepReport = f(state, batch, pipe) if pipe.config.contracts else _unguarded(f, state, batch, pipe)
    return report


def _zero_told(f: Any, state: Any, batch: Any, pipe: Any) -> StepReport:
    report: StepReport = f(state, batch, pipe)
    none = torch.zeros_like(report.loss)
    return dataclasses.replace(report, loss=none, nmse=none) if report.skipped else report


def _part_forgiven(f: Any, state: Any, batch: Any, pipe: Any) -> StepReport:
    def loss(outputs: Any, *given: Any, **named: Any) -> Any:
        result = pipe.loss(outputs, *given, **named)
        whole = pipe.config.train.accumulation == 1 or bool(torch.isfinite(result.total))
        return result if whole else dataclasses.replace(result, total=outputs.k_logits.sum() * 0)

    report: StepReport = f(state, batch, dataclasses.replace(pipe, loss=loss))
    return report


def _losses_counted(f: Any, state: Any, batch: Any, pipe: Any) -> StepReport:
    before = state.consecutive
    report: StepReport = f(state, batch, pipe)
    if report.skipped and report.terms:
        state.consecutive = before
    return report


FAULTS = (
    Fault("nan_part_forgiven", "RV1403", "one part of an accumulated batch is passed over", _stepping(_part_forgiven)),
    Fault("limit_of_losses_only", "RV1403", "NaN gradients go on to the end", _stepping(_losses_counted)),
    Fault("skipped_step_told_as_zero", "RV1403", "in the log a failure is a perfect step", _stepping(_zero_told)),
    Fault("guard_taken_for_a_contract", "RV1403", "without contracts one NaN destroys the weights",
          _stepping(_guarded_by_contracts)),
    Fault("moments_cleared", "RV1604", "memory is freed at every sixteenth step", _stepping(_cleared)),
    Fault("unguarded_step", "RV1403", "clipping spreads a NaN", _stepping(_unguarded)),
    Fault("two_steps_a_batch", "RV1606", "a retry that always runs", _stepping(_twice)),
    Fault("step_a_micro_batch", "RV1606", "accumulation steps every part", _stepping(_micro_steps)),
    Fault("schedule_twice", "RV1606", "the trainer steps the schedule too", _stepping(_schedule_twice)),
    Fault("rate_of_the_next_step", "RV1308", "rates are read after the schedule", _stepping(_rate_after)),
    Fault("no_optimiser_step", "RV1201", "backward and no step", _stepping(_no_step)),
    Fault("average_shares_storage", "RV0504", "the average is a view", _stepping(_shared_average)),
)  # fmt: skip
