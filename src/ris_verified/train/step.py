"""One optimiser step, guarded against non-finite numbers before they can spread."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ris_verified.config import Config, TrainConfig
from ris_verified.data.batch import Batch
from ris_verified.errors import DivergedError, TrainingError
from ris_verified.loss.total import LossResult
from ris_verified.model.call import outputs_of
from ris_verified.model.output import ModelOutput
from ris_verified.pipeline import Pipeline
from ris_verified.train.room import no_room, out_of_memory, release
from ris_verified.train.state import StepReport, TrainState, autocast_dtype

logger = logging.getLogger(__name__)

CLIP_GUARD = 1e-6  # torch divides by norm + 1e-6


def batch_loss(pipeline: Pipeline, state: TrainState, batch: Batch) -> LossResult | None:
    """Run the pipeline's forward under autocast and its loss on R_blend in full precision.

    Args:
        pipeline: the stages.
        state: gives the model.
        batch: on the model's device.

    Returns:
        The `LossResult` with its graph, or None where an output, a covariance or the loss is not finite.
    """
    device = batch.y.device
    dtype = autocast_dtype(pipeline.config, device)
    with torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None):
        outputs = outputs_of(state.replica, batch)
    # Before stages of one's own meet NaN, on which they may raise anything.
    if not _finite(outputs.cov_fact_angle, outputs.cov_fact_range):
        return None
    try:
        blended = pipeline.covariances(outputs, batch)
    except DivergedError:
        # Finite factors can overflow on the way.
        return None
    result = pipeline.loss(
        outputs, blended.R_pred, batch, pipeline.config, R_blend=blended.R, training=state.model.training
    )
    if not _finite(result.total):
        return None
    if state.ranks.count > 1:
        result = replace(result, total=result.total + _unreached(outputs, pipeline.config))
    return result


def _unreached(outputs: ModelOutput, cfg: Config) -> Tensor | float:
    """Return zero, through every output: processes wait for the gradients of all weights, loss weights of 0 or not."""
    if all(vars(cfg.loss).values()):
        return 0.0
    return torch.stack([0 * value.sum() for value in vars(outputs).values()]).sum()


def _finite(*tensors: Tensor) -> bool:
    return bool(torch.stack([torch.isfinite(tensor).all() for tensor in tensors]).all())


def train_step(state: TrainState, batch: Batch, pipeline: Pipeline) -> StepReport:
    """Accumulate gradients over `train.accumulation` parts of the batch and step once.

    The order is: loss finite? gradient finite? clip, optimiser, averages. A non-finite number at
    either question leaves weights, optimiser state and averages as they were; the schedule goes on.

    Args:
        state: changed in place.
        batch: the scenes of one step, or this process's share of them, on the model's device.
        pipeline: the stages.

    Returns:
        A `StepReport`, the same in every process.

    Raises:
        TrainingError: more than `train.nonfinite_limit` steps in a row were skipped, or memory runs out
            with a single scene.
    """
    rates = state.rates()
    results = _accumulate(state, batch, pipeline)
    skipped, norm = results is None, torch.tensor(torch.nan)
    if results is not None:
        # Asked more than once.
        norm = gradient_norm(state).cpu()
        skipped = not bool(torch.isfinite(norm))
    if not skipped:
        update(state, norm, pipeline.config.train)
    _count(state, skipped)
    report = _report(state, results, norm, rates, skipped)
    if state.consecutive > pipeline.config.train.nonfinite_limit:
        raise SkippedError(state, report, pipeline.config.train.nonfinite_limit)
    return report


def _report(
    state: TrainState,
    results: list[tuple[float, LossResult]] | None,
    norm: Tensor,
    rates: dict[str, float],
    skipped: bool,
) -> StepReport:
    if results is None:
        return StepReport(norm, {}, norm, norm, rates, skipped)
    names = list(results[0][1].terms)
    figures = [_weighted(results, lambda r: r.total.detach()), _weighted(results, lambda r: r.nmse)]
    figures += [_weighted(results, _term(name)) for name in names]
    loss, nmse, *terms = state.ranks.sum(torch.stack(figures)).unbind()
    return StepReport(loss, dict(zip(names, terms, strict=True)), nmse, norm, rates, skipped)


def micro_batch(state: TrainState, train: TrainConfig, scenes: int) -> int:
    """Return the largest number of scenes that a step of this process holds at once.

    Args:
        state: says into how many parts memory has forced a step.
        train: reads `accumulation`.
        scenes: of the step in this process.
    """
    return -(-scenes // min(max(state.parts, train.accumulation), scenes))


def _accumulate(state: TrainState, batch: Batch, pipeline: Pipeline) -> list[tuple[float, LossResult]] | None:
    """Halve the micro-batch until the step fits; the effective batch stays."""
    ranks = state.ranks
    scenes = ranks.total(len(batch), batch.y.device)
    while True:
        # The same number of parts in every process, or they would wait for each other.
        parts = min(max(state.parts, pipeline.config.train.accumulation), scenes // ranks.count)
        state.optimizer.zero_grad(set_to_none=True)
        try:
            return _gradients_of(state, batch.split(parts), pipeline, scenes)
        except (RuntimeError, OSError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            # One process cannot halve alone.
            if parts == len(batch) or ranks.count > 1:
                where = f"step {state.step + 1}, rank {ranks.index}, {-(-len(batch) // parts)} scenes at once"
                raise no_room(str(error), where, "one scene, or on several processes one micro-batch") from error
            state.parts = min(2 * parts, len(batch))
        logger.warning("out of memory: micro-batches of %d scenes from here on", -(-len(batch) // state.parts))
        release()


def _gradients_of(
    state: TrainState, parts: list[Batch], pipeline: Pipeline, scenes: int
) -> list[tuple[float, LossResult]] | None:
    results, ranks = [], state.ranks
    for number, part in enumerate(parts, 1):
        # Before the forward pass, in which processes already wait for each other.
        if not ranks.all(_finite(part.y, part.H_full, part.C), part.y.device):
            return None
        with _gathering(state.replica, last=number == len(parts)):
            result = batch_loss(pipeline, state, part)
            if not ranks.all(result is not None, part.y.device) or result is None:
                return None
            share = len(part) / scenes
            # Averaged over the processes, the shares add to one.
            (result.total * (share * ranks.count)).backward()
        results.append((share, result))
    return results


def _gathering(replica: nn.Module, *, last: bool) -> contextlib.AbstractContextManager[None]:
    if last or not isinstance(replica, DistributedDataParallel):
        return contextlib.nullcontext()
    waiting: contextlib.AbstractContextManager[None] = replica.no_sync()
    return waiting


def _gradients(state: TrainState) -> list[nn.Parameter]:
    return [p for group in state.optimizer.param_groups for p in group["params"] if p.grad is not None]


def gradient_norm(state: TrainState) -> Tensor:
    """Return the norm of all gradients as one vector."""
    gradients = [p.grad for p in _gradients(state) if p.grad is not None]
    # Row by row and then of the rows' norms: a reduction to one number takes twice the time on processors.
    return torch.nn.utils.get_total_norm([torch.linalg.vector_norm(gradient, dim=-1) for gradient in gradients])


def update(state: TrainState, norm: Tensor, train: TrainConfig) -> None:
    """Clip to `train.clip_norm`, step the optimiser and fold the weights into the averages.

    Args:
        state: changed in place; its gradients are finite.
        norm: of `gradient_norm`; no device is read where it lies on the CPU.
        train: reads `clip_norm` and `swa_share`.
    """
    # Below the limit the gradients would be multiplied by one, a pass over all of them.
    if bool(norm + CLIP_GUARD > train.clip_norm):
        torch.nn.utils.clip_grads_with_norm_(_gradients(state), train.clip_norm, norm)
    state.optimizer.step()
    state.update_averages(train)


def _term(name: str) -> Callable[[LossResult], Tensor]:
    return lambda result: result.terms[name]


def _weighted(results: list[tuple[float, LossResult]], pick: Callable[[LossResult], Tensor]) -> Tensor:
    return torch.stack([share * pick(result) for share, result in results]).sum()


def _count(state: TrainState, skipped: bool) -> None:
    state.step += 1
    # torch means those who call the two in the wrong order; the rate goes on without a step that was skipped.
    with _without_order_warning() if skipped else contextlib.nullcontext():
        state.scheduler.step()
    state.skipped += skipped
    state.consecutive = state.consecutive + 1 if skipped else 0


@contextlib.contextmanager
def _without_order_warning() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Detected call of .lr_scheduler.step", UserWarning)
        yield


class SkippedError(TrainingError):
    """More steps in a row were skipped than are allowed.

    Args:
        state: after the last of them.
        report: of the last one.
        limit: how many are allowed.
    """

    def __init__(self, state: TrainState, report: StepReport, limit: int) -> None:
        self.report = report
        super().__init__(
            f"{state.consecutive} steps in a row had a non-finite loss or gradient",
            where=f"step {state.step}",
            expected=f"at most train.nonfinite_limit = {limit}",
            remedy="weights are those of the last good step; lower the learning rate or check the data",
        )
