"""Slips inside the training step: batch, gradient, clipping, averages, counters and report."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ris_verified.audit.faults.fault import Fault
from ris_verified.errors import RisVerifiedError, TrainingError
from ris_verified.pipeline import Pipeline
from ris_verified.train.state import StepReport, autocast_dtype

Parameters = Sequence[nn.Parameter]
Norm = Callable[[Parameters, Any, Tensor], Any]


def _clip(parameters: Parameters, train: Any, norm: Tensor) -> None:
    torch.nn.utils.clip_grads_with_norm_(parameters, train.clip_norm, norm)


def _shares(parts: Sequence[Any], batch: Any) -> list[float]:
    return [len(part) / len(batch) for part in parts]


def _cut(batch: Any, train: Any) -> list[Any]:
    parts: list[Any] = batch.split(min(train.accumulation, len(batch)))
    return parts


def _count(state: Any, bad: bool, train: Any) -> None:
    state.skipped += bad
    state.consecutive = state.consecutive + 1 if bad else 0
    if state.consecutive > train.nonfinite_limit:
        raise TrainingError("too many", where=f"step {state.step}")


@dataclass(frozen=True)
class Pass:
    """A training step with one part exchanged.

    Args:
        batch: what is trained on.
        truth: what the loss compares with.
        parts: batch, train → micro-batches.
        shares: their weights.
        clears: state → whether gradients of the step before are dropped.
        autocast: declared precision → the one used.
        evaluating: the network's mode in the step.
        training: what the loss is told.
        bad: parameters, norm → whether to skip.
        clip: parameters, train, norm.
        optimise: state.
        average: state, train.
        skipped: state, train; what else happens in a skipped step.
        count: state, bad, train.
        report: the report and its step's results → the report.
    """

    batch: Callable[[Any], Any] = lambda batch: batch
    truth: Callable[[Any], Any] = lambda batch: batch
    parts: Callable[[Any, Any], list[Any]] = _cut
    shares: Callable[[Sequence[Any], Any], list[float]] = _shares
    clears: Callable[[Any], bool] = lambda state: True
    autocast: Callable[[Any], Any] = lambda declared: declared
    evaluating: bool = False
    training: bool = True
    bad: Callable[[Parameters, Tensor], bool] = lambda parameters, norm: not bool(torch.isfinite(norm))
    clip: Norm = _clip
    optimise: Callable[[Any], Any] = lambda state: state.optimizer.step()
    average: Callable[[Any, Any], Any] = lambda state, train: state.update_averages(train)
    skipped: Callable[[Any, Any], Any] = lambda state, train: None
    count: Callable[[Any, bool, Any], None] = _count
    report: Callable[[StepReport, list[Any], Any], StepReport] = lambda report, results, state: report

    def __call__(self, pipeline: Pipeline) -> Pipeline:
        """Plant it."""
        return dataclasses.replace(pipeline, train_step=self.step)

    def step(self, state: Any, batch: Any, pipe: Any) -> StepReport:
        """Take one step."""
        train, rates = pipe.config.train, state.rates()
        if self.clears(state):
            state.optimizer.zero_grad()
        batch = self.batch(batch)
        parts = self.parts(batch, train)
        results, shares = [], self.shares(parts, batch)
        for part, share in zip(parts, shares, strict=True):
            result = self._loss(state, part, pipe)
            if result is None:
                break
            (result.total * share).backward()
            results.append(result)
        listed = [p for g in state.optimizer.param_groups for p in g["params"] if p.grad is not None]
        bad, norm = len(results) < len(parts), torch.tensor(torch.nan)
        if not bad:
            norm = torch.nn.utils.get_total_norm([p.grad for p in listed if p.grad is not None])
            bad = self.bad(listed, norm)
        self._finish(state, listed, norm, bad, train)
        if len(results) < len(parts):
            return StepReport(norm, {}, norm, norm, rates, bad)
        picked = zip(shares, results, strict=True)
        loss = torch.stack([s * r.total.detach() for s, r in picked]).sum()
        terms = {n: sum(s * r.terms[n] for s, r in zip(shares, results, strict=True)) for n in results[0].terms}
        nmse = torch.stack([s * r.nmse for s, r in zip(shares, results, strict=True)]).sum()
        return self.report(StepReport(loss, terms, nmse, norm, rates, bad), results, state)

    def _loss(self, state: Any, part: Any, pipe: Any) -> Any:
        if not bool(torch.isfinite(part.y).all()):
            return None
        dtype = self.autocast(autocast_dtype(pipe.config, part.y.device))
        state.model.train(not self.evaluating)
        with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
            outputs = state.model(part.y, part.H, part.C, part.H_full)
        state.model.train()
        blended = pipe.covariances(outputs, part)
        truth = self.truth(part)
        result = pipe.loss(outputs, blended.R_pred, truth, pipe.config, R_blend=blended.R, training=self.training)
        return result if bool(torch.isfinite(result.total)) else None

    def _finish(self, state: Any, listed: Parameters, norm: Tensor, bad: bool, train: Any) -> None:
        if bad:
            self.skipped(state, train)
        else:
            self.clip(listed, train, norm)
            self.optimise(state)
            self.average(state, train)
        state.step += 1
        state.scheduler.step()
        self.count(state, bad, train)


def _each(parameters: Parameters, train: Any, norm: Tensor) -> None:
    for p in parameters:
        torch.nn.utils.clip_grad_norm_([p], train.clip_norm)


def _forgetful(state: Any) -> None:
    state.optimizer.state.clear()
    state.optimizer.step()


def _never_reset(state: Any, bad: bool, train: Any) -> None:
    state.skipped += bad
    state.consecutive += bad
    if state.consecutive > train.nonfinite_limit:
        raise TrainingError("too many", where=f"step {state.step}")


def _decays(state: Any, train: Any) -> None:
    for p in state.model.parameters():
        p.grad = torch.zeros_like(p)
    state.optimizer.step()


def _whole(batch: Any, train: Any) -> list[Any]:
    count = min(train.accumulation, len(batch))
    size = len(batch) // count
    rows = {n: v[: size * count] for n, v in vars(batch).items()}
    parts: list[Any] = dataclasses.replace(batch, **rows).split(count)
    return parts


def _last(report: StepReport, results: list[Any], state: Any) -> StepReport:
    return dataclasses.replace(report, loss=results[-1].total.detach())


def _of_head(report: StepReport, results: list[Any], state: Any) -> StepReport:
    head = [p.grad for p in state.optimizer.param_groups[1]["params"]]
    return dataclasses.replace(report, gradient_norm=torch.nn.utils.get_total_norm(head))


def _twice(state: Any, train: Any) -> None:
    state.update_averages(train)
    state.update_averages(train)


def _swallowing(pipeline: Pipeline) -> Pipeline:
    def step(state: Any, batch: Any, pipe: Any) -> StepReport:
        rates, nothing = state.rates(), torch.tensor(torch.nan)
        try:
            return pipeline.train_step(state, batch, pipe)
        except TrainingError:
            raise
        except RisVerifiedError:
            return StepReport(nothing, {}, nothing, nothing, rates, True)

    return dataclasses.replace(pipeline, train_step=step)


def _without_contracts(pipeline: Pipeline) -> Pipeline:
    def step(state: Any, batch: Any, pipe: Any) -> StepReport:
        lax = dataclasses.replace(pipe.config, contracts=False)
        return pipeline.train_step(state, batch, dataclasses.replace(pipe, config=lax))

    return dataclasses.replace(pipeline, train_step=step)


def _rolled(batch: Any) -> Any:
    return dataclasses.replace(batch, ptr=batch.ptr.roll(1, 0), K=batch.K.roll(1, 0), R_in=batch.R_in.roll(1, 0))


FAULTS = (
    Fault("gradients_pile_up", "RV1606", "zero_grad is missing", Pass(clears=lambda s: False)),
    Fault("half_of_the_batch", "RV1606", "one micro-batch is enough", Pass(batch=lambda b: b.split(2)[0])),
    Fault("truth_of_another_scene", "RV1606", "labels are shuffled", Pass(truth=_rolled)),
    Fault("rest_of_the_batch_dropped", "RV1606", "a floor division", Pass(parts=_whole)),
    Fault("unequal_parts_weigh_the_same", "RV1606", "a mean of means",
          Pass(shares=lambda parts, b: [1 / len(parts)] * len(parts))),
    Fault("accumulation_not_used", "RV1606", "the whole batch at once", Pass(parts=lambda b, t: [b])),
    Fault("parts_summed", "RV1604", "no division by the parts", Pass(shares=lambda parts, b: [1.0] * len(parts))),
    Fault("never_clipped", "RV1604", "clipping is missing", Pass(clip=lambda p, t, n: None)),
    Fault("clipped_to_one", "RV1604", "the norm is a constant",
          Pass(clip=lambda p, t, n: torch.nn.utils.clip_grads_with_norm_(p, 1.0, n))),
    Fault("clipped_by_tensor", "RV1604", "each tensor has its own norm", Pass(clip=_each)),
    Fault("clipped_by_value", "RV1604", "entries are clipped",
          Pass(clip=lambda p, t, n: torch.nn.utils.clip_grad_value_(p, t.clip_norm))),
    Fault("momentum_forgotten", "RV1604", "the optimiser's state is cleared", Pass(optimise=_forgetful)),
    Fault("averaged_twice", "RV1604", "the trainer averages too", Pass(average=_twice)),
    Fault("never_averaged", "RV1604", "the average keeps its start", Pass(average=lambda s, t: None)),
    Fault("trains_in_evaluation_mode", "RV1604", "eval() of the validation stays", Pass(evaluating=True)),
    Fault("precision_ignored", "RV1604", "no autocast", Pass(autocast=lambda d: None)),
    Fault("precision_lowered", "RV1604", "autocast is always on", Pass(autocast=lambda d: torch.bfloat16)),
    Fault("contracts_off_in_training", "RV1604", "switched off for speed", _without_contracts),
    Fault("loss_of_the_last_part", "RV1605", "the last micro-batch is reported", Pass(report=_last)),
    Fault("norm_of_the_head_only", "RV1605", "a loop keeps its last value", Pass(report=_of_head)),
    Fault("nonfinite_first_tensor_only", "RV1403", "one tensor stands for all",
          Pass(bad=lambda p, n: not bool(torch.isfinite(p[0].grad).all()))),  # type: ignore[arg-type]
    Fault("infinity_passes", "RV1403", "isnan in place of isfinite", Pass(bad=lambda p, n: bool(torch.isnan(n)))),
    Fault("large_gradients_skipped", "RV1403", "a threshold on the norm", Pass(bad=lambda p, n: not bool(n < 2.0))),
    Fault("average_moves_on_skip", "RV1403", "the EMA follows a skipped step",
          Pass(skipped=lambda s, t: s.update_averages(t))),
    Fault("decay_on_skip", "RV1403", "zero gradients and a step", Pass(skipped=_decays)),
    Fault("skips_never_forgotten", "RV1403", "the counter is not reset", Pass(count=_never_reset)),
    Fault("gradients_left_by_a_skip", "RV1403", "zero_grad comes after a step, and a skip has none",
          Pass(clears=lambda s: s.consecutive == 0)),
    Fault("step_does_not_say_that_it_trains", "RV1403", "training=False is copied from validation",
          Pass(training=False)),
    Fault("errors_swallowed", "RV1403", "every error is a skip", _swallowing),
)  # fmt: skip
