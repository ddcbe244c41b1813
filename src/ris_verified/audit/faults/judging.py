"""Slips in what judges: metric, bound, score, validation, loop, localisation and memory."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ris_verified.audit.faults.fault import Fault, staged
from ris_verified.pipeline import Pipeline


def _own_config(plant: Callable[[Pipeline], Pipeline]) -> Callable[[Pipeline], Pipeline]:
    """Return the plant on a copy of the configuration, for slips that write to it."""
    return lambda pipeline: plant(dataclasses.replace(pipeline, config=copy.deepcopy(pipeline.config)))


def _index_matched(f: Any, pipe: Pipeline, estimate: Any, ptr: Tensor, crb: Tensor) -> Any:
    def paired(azimuth: Tensor, elevation: Tensor, range: Tensor, truth: Tensor) -> Any:
        pairs = pipe.match(azimuth, elevation, range, truth)
        there = torch.isfinite(truth).all(-1) & torch.isfinite(azimuth)
        index = torch.arange(truth.shape[1]).expand(truth.shape[:2])
        return dataclasses.replace(pairs, estimate_index=torch.where(there, index, -1))

    return f(dataclasses.replace(pipe, match=paired), estimate, ptr, crb)


def _misses_forgiven(f: Any, pipe: Pipeline, estimate: Any, ptr: Tensor, crb: Tensor) -> Any:
    result = f(pipe, estimate, ptr, crb)
    within = (result.over_bound <= 4) | result.over_bound.isnan()
    return dataclasses.replace(result, found=within.all(-1))


def _loss_as_score(f: Any, pipe: Pipeline, model: Any, batches: Any) -> float:
    return float(pipe.validate(pipe, model, batches)["nmse"])


def _found_only(f: Any, pipe: Pipeline, model: Any, batches: Any) -> float:
    def match(azimuth: Tensor, elevation: Tensor, range: Tensor, ptr: Tensor) -> Any:
        pairs = pipe.match(azimuth, elevation, range, ptr)
        return dataclasses.replace(pairs, distance=pairs.distance.masked_fill(pairs.estimate_index < 0, 0))

    return float(f(dataclasses.replace(pipe, match=match), model, batches))


def _score_of_prediction(f: Any, pipe: Pipeline, model: Any, batches: Any) -> float:
    def blend(P: Tensor, S: Tensor, cfg: Any) -> Any:
        mixed = pipe.inference_blend(P, S, cfg)
        return dataclasses.replace(mixed, R=mixed.R_pred)

    return float(f(dataclasses.replace(pipe, inference_blend=blend), model, batches))


def _capture_of_prediction(f: Any, pipe: Pipeline, model: Any, batches: Any) -> dict[str, float]:
    def blend(P: Tensor, S: Tensor, cfg: Any) -> Any:
        mixed = pipe.blend(P, S, cfg)
        return dataclasses.replace(mixed, R=mixed.R_pred)

    figures: dict[str, float] = f(dataclasses.replace(pipe, blend=blend), model, batches)
    return figures


def _bare_localisation(f: Any, *given: Any, **named: Any) -> Any:
    return dataclasses.replace(f(*given, **named), blend=None)


def _writing_localisation(f: Any, y: Any, H_full: Any, C: Any, cfg: Any, *rest: Any, **named: Any) -> Any:
    found = f(y, H_full, C, cfg, *rest, **named)
    # The slip of the original: results are handed on through the configuration.
    _bend(cfg.covariance, "beta", cfg.covariance.beta * 0.999)
    return found


def _bend(section: object, name: str, value: object) -> None:
    object.__setattr__(section, name, value)


def _last_epoch_saved(f: Any, pipe: Pipeline, *given: Any, **named: Any) -> Any:
    from ris_verified.train.weights import save_model

    result = f(pipe, *given, **named)
    save_model(pipe.build_model(pipe.config), pipe.config, result.weights)
    return result


def _worst_kept(f: Any, pipe: Pipeline, *given: Any, **named: Any) -> Any:
    def validate(inner: Pipeline, model: Any, batches: Any) -> dict[str, float]:
        figures = pipe.validate(inner, model, batches)
        return {**figures, "capture": -figures["capture"], "order": -figures["order"]}

    result = f(dataclasses.replace(pipe, validate=validate), *given, **named)
    for record in result.history:
        record["validation"]["capture"] *= -1
        record["validation"]["order"] *= -1
    return result


def _order_uncounted(f: Any, pipe: Pipeline, *given: Any, **named: Any) -> Any:
    def validate(inner: Pipeline, model: Any, batches: Any) -> dict[str, float]:
        return {**pipe.validate(inner, model, batches), "order": 0.0}

    return f(dataclasses.replace(pipe, validate=validate), *given, **named)


def _judged_from_zero(f: Any, *given: Any, judge: Any = None, **named: Any) -> Any:
    return f(*given, judge=judge and (lambda model, epoch: judge(model, epoch - 1)), **named)


def _parts_added(f: Any, state: Any, batch: Any, pipe: Pipeline) -> Any:
    def loss(outputs: Any, R_hat: Any, part: Any, *rest: Any, **named: Any) -> Any:
        result = pipe.loss(outputs, R_hat, part, *rest, **named)
        return dataclasses.replace(result, total=result.total * (len(batch) / len(part)))

    return f(state, batch, dataclasses.replace(pipe, loss=loss))


def _rest_dropped(f: Any, state: Any, batch: Any, pipe: Pipeline) -> Any:
    class TooMany(Exception):
        pass

    def loss(*given: Any, **named: Any) -> Any:
        try:
            return pipe.loss(*given, **named)
        except torch.OutOfMemoryError as error:
            raise TooMany from error

    try:
        return f(state, batch, dataclasses.replace(pipe, loss=loss))
    except TooMany:
        return _rest_dropped(f, state, batch.split(2)[0], pipe)


def _peak(change: Callable[[Any], Any]) -> Callable[[Pipeline], Pipeline]:
    return staged("peak_memory", lambda f, *given: change(f(*given)))


def _in_proportion(f: Any, pipe: Pipeline, scenes: int, *rest: Any) -> Any:
    four = f(pipe, 4, *rest)
    return dataclasses.replace(four, step=four.step * scenes // 4)


def _whole(pipeline: Pipeline) -> Pipeline:
    return dataclasses.replace(pipeline, config=pipeline.config.replaced({"train.accumulation": 1}))


def _unaveraged(pipeline: Pipeline) -> Pipeline:
    config = pipeline.config.replaced({"train.ema_decay": 0.0, "train.swa_share": 0.0})
    return dataclasses.replace(pipeline, config=config)


def _live_weights_judged(pipeline: Pipeline) -> Pipeline:
    def train(given: Pipeline, data: Any, out: Any, *, judge: Any = None, **options: Any) -> Any:
        live: list[Any] = []

        def step(state: Any, batch: Any, pipe: Pipeline) -> Any:
            live.append(state.model)
            return given.train_step(state, batch, pipe)

        def judged(model: Any, epoch: int) -> bool:
            return bool(judge(live[-1], epoch))

        watched = dataclasses.replace(given, train_step=step)
        return pipeline.train(watched, data, out, judge=judge and judged, **options)

    return dataclasses.replace(pipeline, train=train)


def _nested_fits_for_auto(f: Any, *data: Any, model: Any = None, **named: Any) -> Any:
    *measured, cfg = data
    if model is not None and cfg.estimate.order_criterion == "auto":
        cfg = cfg.replaced({"estimate.order_criterion": "marginal"})
    return f(*measured, cfg, model=model, **named)


def _head_asked_all_the_same(f: Any, *data: Any, order: Any = None, model: Any = None, **named: Any) -> Any:
    counts = model is not None and data[-1].estimate.order_criterion in ("model", "auto")
    return f(*data, order=None if counts else order, model=model, **named)


FAULTS = (
    Fault("head_over_a_known_order", "RV0301", "who knows the order is asked again",
          staged("localize", _head_asked_all_the_same)),
    Fault("live_weights_judged", "RV1605", "other weights end the run than those that are kept", _live_weights_judged),
    Fault("nested_fits_for_auto", "RV0301", "with a model, auto is the K head",
          staged("localize", _nested_fits_for_auto)),
    Fault("localisation_without_proof", "RV0301", "the blend is dropped on the way out",
          staged("localize", _bare_localisation)),
    Fault("localisation_writes_config", "RV0301", "results travel through the configuration",
          _own_config(staged("localize", _writing_localisation))),
    Fault("bound_of_half_the_noise", "RV1204", "σ² a real dimension where a complex one is meant",
          staged("bound", lambda f, a, e, r, s, H, C, noise, cfg: f(a, e, r, s, H, C, noise / 2, cfg))),
    Fault("bound_of_unit_amplitude", "RV1204", "near sources are told by their amplitude, too",
          staged("bound", lambda f, *given: f(*given[:-1], given[-1].replaced({"array.amplitude": "unit"})))),
    Fault("bound_with_known_symbols", "RV1204", "the nuisance symbols are taken for known",
          staged("bound", lambda f, a, e, r, s, H, C, noise, cfg: f(a, e, r, s, H, C, noise, cfg) * 0.9)),
    Fault("forecast_without_moments", "RV1402", "only the weights are counted",
          _peak(lambda m: dataclasses.replace(m, held=m.held // 4))),
    Fault("forecast_in_proportion", "RV1402", "four scenes, times a quarter of the batch",
          staged("peak_memory", _in_proportion)),
    Fault("forecast_of_one_scene", "RV1402", "the batch is forgotten",
          staged("peak_memory", lambda f, pipe, scenes, *rest: f(pipe, 1, *rest))),
    Fault("averages_not_counted", "RV1402", "EMA and SWA came after the prediction",
          staged("peak_memory", lambda f, pipe, *rest: f(_unaveraged(pipe), *rest))),
    Fault("parts_not_counted", "RV1402", "the whole batch is taken for one part",
          staged("peak_memory", lambda f, pipe, *rest: f(_whole(pipe), *rest))),
    Fault("halves_are_added", "RV1402", "each part's mean counts in full", staged("train_step", _parts_added)),
    Fault("halves_are_dropped", "RV1402", "what has no room is left out", staged("train_step", _rest_dropped)),
    Fault("metric_by_index", "RV1603", "estimate k is taken for source k", staged("metric", _index_matched)),
    Fault("metric_forgives_misses", "RV1603", "a NaN error is zero", staged("metric", _misses_forgiven)),
    Fault("weights_of_another_model", "RV1605", "what is saved is not what was validated",
          staged("train", _last_epoch_saved)),
    Fault("judged_from_zero", "RV1605", "epochs are counted as a list is", staged("train", _judged_from_zero)),
    Fault("worst_epoch_kept", "RV1605", "the comparison has the wrong sign", staged("train", _worst_kept)),
    Fault("kept_by_capture_alone", "RV1605", "a head that counts badly is kept", staged("train", _order_uncounted)),
    Fault("score_is_covariance_error", "RV1608", "NMSE is at hand and falls nicely", staged("score", _loss_as_score)),
    Fault("score_of_found_sources", "RV1608", "what is missed has no error", staged("score", _found_only)),
    Fault("score_of_the_prediction", "RV1608", "the score searches R_pred, the launch R_blend",
          staged("score", _score_of_prediction)),
    Fault("score_upside_down", "RV1608", "higher is better somewhere else",
          staged("score", lambda f, *given: 1 - f(*given))),
    Fault("capture_of_the_prediction", "RV1608", "the validated capture is not that of what is deployed",
          staged("validate", _capture_of_prediction)),
)  # fmt: skip
