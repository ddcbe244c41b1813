"""One optimiser step, guarded against non-finite numbers before they can spread."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ris_verified.data.batch import Batch
from ris_verified.errors import TrainingError
from ris_verified.loss.total import LossResult
from ris_verified.pipeline import Pipeline
from ris_verified.train.state import StepReport, TrainState, autocast_dtype


def batch_loss(pipeline: Pipeline, state: TrainState, batch: Batch) -> LossResult:
    """Run the pipeline's forward under autocast and its loss on R_blend in full precision.

    Args:
        pipeline: the stages.
        state: gives the model.
        batch: on the model's device.

    Returns:
        The `LossResult`, with its graph.
    """
    device = batch.y.device
    dtype = autocast_dtype(pipeline.config, device)
    with torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None):
        outputs = state.model(batch.y, batch.H, batch.C, batch.H_full)
    blended = pipeline.covariances(outputs, batch)
    return pipeline.loss(
        outputs, blended.R_pred, batch, pipeline.config, R_blend=blended.R, training=state.model.training
    )


def train_step(state: TrainState, batch: Batch, pipeline: Pipeline) -> StepReport:
    """Accumulate gradients over `train.accumulation` parts of the batch and step once.

    The order is: loss finite? gradient finite? clip, optimiser, averages. A non-finite number at
    either question leaves weights, optimiser state and averages as they were; the schedule goes on.

    Args:
        state: changed in place.
        batch: the scenes of one step, on the model's device.
        pipeline: the stages.

    Returns:
        A `StepReport`.

    Raises:
        TrainingError: more than `train.nonfinite_limit` steps in a row were skipped.
    """
    train = pipeline.config.train
    rates = state.rates()
    state.optimizer.zero_grad(set_to_none=True)
    parts = batch.split(min(train.accumulation, len(batch)))
    results = []
    for part in parts:
        result = batch_loss(pipeline, state, part)
        share = len(part) / len(batch)
        if bool(torch.isfinite(result.total)):
            (result.total * share).backward()
        results.append((share, result))
    loss = _weighted(results, lambda result: result.total.detach())
    parameters = [p for group in state.optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    skipped = not bool(torch.isfinite(loss) & torch.isfinite(norm))
    if not skipped:
        torch.nn.utils.clip_grads_with_norm_(parameters, train.clip_norm, norm)
        state.optimizer.step()
    state.step += 1
    state.scheduler.step()
    _count(state, skipped, train.nonfinite_limit)
    if not skipped:
        state.update_averages(train)
    terms = {name: _weighted(results, _term(name)) for name in results[0][1].terms}
    return StepReport(loss, terms, _weighted(results, lambda r: r.nmse), norm, rates, skipped)


def _term(name: str) -> Callable[[LossResult], Tensor]:
    return lambda result: result.terms[name]


def _weighted(results: list[tuple[float, LossResult]], pick: Callable[[LossResult], Tensor]) -> Tensor:
    return torch.stack([share * pick(result) for share, result in results]).sum()


def _count(state: TrainState, skipped: bool, limit: int) -> None:
    state.skipped += skipped
    state.consecutive = state.consecutive + 1 if skipped else 0
    if state.consecutive > limit:
        raise TrainingError(
            f"{state.consecutive} steps in a row had a non-finite loss or gradient",
            where=f"step {state.step}",
            expected=f"at most train.nonfinite_limit = {limit}",
            remedy="weights are those of the last good step; lower the learning rate or check the data",
        )
