"""Slips in the figures that choose: metric, bound, score and validation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ris_verified.audit.faults.fault import Fault, staged
from ris_verified.mode import evaluating
from ris_verified.pipeline import Pipeline


def _of_another(order: Callable[[Any, Any, Tensor, Tensor], Tensor]) -> Callable[[Pipeline], Pipeline]:
    """Return a plant whose metric divides by the bounds that `order` (pipeline, estimate, truth, variances) picks."""

    def metric(f: Any, pipe: Pipeline, estimate: Any, ptr: Tensor, crb: Tensor) -> Any:
        variance = torch.diagonal(crb, dim1=-2, dim2=-1).unflatten(-1, (-1, 3))
        picked = order(pipe, estimate, ptr, variance)
        return f(pipe, estimate, ptr, torch.diag_embed(picked.flatten(1)))

    return staged("metric", metric)


def _slot(pipe: Any, estimate: Any, ptr: Tensor, variance: Tensor) -> Tensor:
    index = pipe.match(estimate.azimuth, estimate.elevation, estimate.range, ptr.double()).estimate_index
    return variance.gather(1, index.clamp_min(0)[..., None].expand(-1, -1, 3))


def _within(bounds: float) -> Callable[[Pipeline], Pipeline]:
    def metric(f: Any, pipe: Pipeline, estimate: Any, ptr: Tensor, crb: Tensor) -> Any:
        result = f(pipe, estimate, ptr, crb)
        near = (result.over_bound <= bounds) | ~torch.isfinite(ptr).all(-1)
        return dataclasses.replace(result, found=near.all(-1))

    return staged("metric", metric)


def _loosely(f: Any, *given: Any) -> Any:
    result = f(*given)
    return dataclasses.replace(result, found_strictly=result.found)


def _mean_noise(f: Any, *given: Any) -> Any:
    *rest, noise, cfg = given
    return f(*rest, float(torch.as_tensor(noise, dtype=torch.float64).mean()), cfg)


def _first_batch(f: Any, pipe: Pipeline, model: nn.Module, batches: Any) -> Any:
    return f(pipe, model, list(batches)[:1])


def _mean_of_scores(f: Any, pipe: Pipeline, model: nn.Module, batches: Any) -> float:
    each = [float(f(pipe, model, [batch])) for batch in batches]
    return sum(each) / len(each)


def _mean_of_figures(f: Any, pipe: Pipeline, model: nn.Module, batches: Any) -> dict[str, float]:
    each = [f(pipe, model, [batch]) for batch in batches]
    return {name: sum(figures[name] for figures in each) / len(each) for name in each[0]}


def _with_order(choose: Callable[[Any, Any, Pipeline], Tensor]) -> Callable[[Pipeline], Pipeline]:
    """Return a plant whose score searches for `choose` (K of the head, batch, pipeline) sources."""

    def score(f: Any, pipe: Pipeline, model: nn.Module, batches: Any) -> float:
        total, count = 0.0, 0
        for batch in batches:

            def spectrum(R: Tensor, K: Tensor, cfg: Any, now: Any = batch) -> Any:
                return pipe.spectrum(R, choose(K, now, pipe), cfg)

            stages = dataclasses.replace(pipe, spectrum=spectrum)
            sources = int(torch.isfinite(batch.ptr).all(-1).sum())
            total, count = total + float(f(stages, model, [batch])) * sources, count + sources
        return total / count

    return staged("score", score)


def _estimating(**changes: Any) -> Callable[[Pipeline], Pipeline]:
    def score(f: Any, pipe: Pipeline, *rest: Any) -> Any:
        estimate = dataclasses.replace(pipe.config.estimate, **changes)
        return f(dataclasses.replace(pipe, config=dataclasses.replace(pipe.config, estimate=estimate)), *rest)

    return staged("score", score)


def _conjugate_codes(f: Any, pipe: Pipeline, *rest: Any) -> Any:
    return f(dataclasses.replace(pipe, mle=lambda p, y, H, C, cfg: pipe.mle(p, y, H, C.conj(), cfg)), *rest)


def _newton_dropped(f: Any, pipe: Pipeline, *rest: Any) -> Any:
    def newton(R: Tensor, K: Tensor, peaks: Any, cfg: Any) -> Any:
        pipe.newton(R, K, peaks, cfg)
        return peaks

    return f(dataclasses.replace(pipe, newton=newton), *rest)


def _newton_with_mle(f: Any, pipe: Pipeline, *rest: Any) -> Any:
    estimate = dataclasses.replace(pipe.config.estimate, newton_nearfield=pipe.config.estimate.mle)
    return f(dataclasses.replace(pipe, config=dataclasses.replace(pipe.config, estimate=estimate)), *rest)


def _dropping(f: Any, pipe: Pipeline, model: nn.Module, batches: Any) -> Any:
    class Live(nn.Module):
        """Puts the wrapped model back into training mode before every call."""

        def forward(self, *given: Tensor) -> Any:
            model.train()
            return model(*given)

    return f(pipe, Live(), batches)


def _left_evaluating(f: Any, pipe: Pipeline, model: nn.Module, batches: Any) -> Any:
    result = f(pipe, model, batches)
    model.eval()
    return result


def _nearly_right(f: Any, pipe: Pipeline, model: nn.Module, batches: Any) -> dict[str, float]:
    held = list(batches)
    figures: dict[str, float] = f(pipe, model, held)
    with evaluating(model):
        off = [pipe.forward(model, batch)[0].k_logits.argmax(-1) + 1 - batch.K for batch in held]
    return {**figures, "order": float((torch.cat(off).abs() <= 1).double().mean())}


def _root(f: Any, *given: Any) -> dict[str, float]:
    figures = f(*given)
    return {**figures, "nmse": figures["nmse"] ** 0.5}


METRICS = (
    Fault("bound_of_the_matched_slot", "RV1603", "bounds are gathered by the estimate's index", _of_another(_slot)),
    Fault("bound_of_the_first_source", "RV1603", "one bound for a whole scene",
          _of_another(lambda pipe, estimate, ptr, v: v[:, :1].expand_as(v))),
    Fault("bound_of_the_first_scene", "RV1603", "one bound for a whole batch",
          _of_another(lambda pipe, estimate, ptr, v: v[:1].expand_as(v))),
    Fault("found_within_4_9_bounds", "RV1603", "a looser limit", _within(4.9)),
    Fault("found_within_3_5_bounds", "RV1603", "a tighter limit", _within(3.5)),
    Fault("found_strictly_is_found", "RV1603", "position alone decides", staged("metric", _loosely)),
    Fault("bound_of_the_mean_noise", "RV1204", "one noise variance for a whole batch", staged("bound", _mean_noise)),
)  # fmt: skip
SCORES = (
    Fault("score_of_the_first_batch", "RV1608", "a return inside the loop", staged("score", _first_batch)),
    Fault("score_is_a_mean_of_means", "RV1608", "batches count the same, whatever they hold",
          staged("score", _mean_of_scores)),
    Fault("score_with_the_true_order", "RV1608", "K is at hand in the batch", _with_order(lambda K, b, p: b.K)),
    Fault("score_with_the_largest_order", "RV1608", "always K_MAX",
          _with_order(lambda K, b, p: torch.full_like(K, p.config.scene.sources_max))),
    Fault("score_without_newton", "RV1608", "the flag is not read", _estimating(newton_nearfield=False)),
    Fault("score_with_newton_always", "RV1608", "the flag is not read", _estimating(newton_nearfield=True)),
    Fault("score_drops_newton", "RV1608", "Newton's result is never assigned", staged("score", _newton_dropped)),
    Fault("score_with_newton_by_mle", "RV1608", "one flag is read for two", staged("score", _newton_with_mle)),
    Fault("score_without_mle", "RV1608", "the flag is not read", _estimating(mle=False)),
    Fault("score_with_conjugate_codes", "RV1608", "the MLE of the score has a sign of its own",
          staged("score", _conjugate_codes)),
    Fault("score_with_dropout", "RV1608", "the model is scored in training mode", staged("score", _dropping)),
    Fault("score_leaves_evaluation_mode", "RV1608", "the mode is not given back", staged("score", _left_evaluating)),
)  # fmt: skip
VALIDATIONS = (
    Fault("validation_of_the_first_batch", "RV1608", "a return inside the loop", staged("validate", _first_batch)),
    Fault("validation_is_a_mean_of_means", "RV1608", "batches count the same, whatever they hold",
          staged("validate", _mean_of_figures)),
    Fault("order_right_to_one", "RV1608", "one source more or less counts as right",
          staged("validate", _nearly_right)),
    Fault("root_of_the_nmse", "RV1608", "the logged error is a root", staged("validate", _root)),
    Fault("validation_with_dropout", "RV1608", "the model is validated in training mode",
          staged("validate", _dropping)),
    Fault("validation_leaves_evaluation_mode", "RV1608", "the mode is not given back",
          staged("validate", _left_evaluating)),
)  # fmt: skip
FAULTS = (*METRICS, *SCORES, *VALIDATIONS)
