"""Slips in the public entry: what it hands to the stages, and what it makes of their results."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ris_verified.audit.faults.fault import Fault, conjugated, staged
from ris_verified.covariance.blend import Blend
from ris_verified.estimate.result import Estimates, Peaks
from ris_verified.pipeline import Pipeline


@dataclass(frozen=True)
class Call:
    """One call of `localize`, apart from the measurement.

    Args:
        cfg, order, model: as `localize` takes them.
        pipeline: whose stages are asked for.
        sound: the pipeline that the slip was planted into.
    """

    cfg: Any
    order: Any
    model: Any
    pipeline: Pipeline
    sound: Pipeline


def _called(change: Callable[[Call], Call]) -> Callable[[Pipeline], Pipeline]:
    """Return a plant that localises as in another call."""

    def plant(pipeline: Pipeline) -> Pipeline:
        def localize(
            y: Any, H_full: Any, C: Any, cfg: Any, order: Any = None, model: Any = None, pipeline: Any = None
        ) -> Estimates:
            call = change(Call(cfg, order, model, pipeline or sound, sound))
            return sound.localize(y, H_full, C, call.cfg, order=call.order, model=call.model, pipeline=call.pipeline)

        sound = pipeline
        return dataclasses.replace(pipeline, localize=localize)

    return plant


def _returned(change: Callable[[Estimates], dict[str, Tensor]]) -> Callable[[Pipeline], Pipeline]:
    """Return a plant that changes fields of the result."""

    def plant(pipeline: Pipeline) -> Pipeline:
        def localize(*given: Any, **named: Any) -> Estimates:
            found = pipeline.localize(*given, **named)
            return dataclasses.replace(found, **change(found))  # type: ignore[arg-type]

        return dataclasses.replace(pipeline, localize=localize)

    return plant


class _Around(nn.Module):
    """A network inside another one that changes what goes in or comes out."""

    def __init__(self, inner: nn.Module, change: Callable[..., Any]) -> None:
        super().__init__()
        self.inner, self.change = inner, change

    def forward(self, *given: Tensor) -> Any:
        return self.change(self.inner, *given)


def _modelled(change: Callable[..., Any]) -> Callable[[Pipeline], Pipeline]:
    """Return a plant that calls a function (model, y, H, C, H_full) in place of the model."""
    return _called(lambda call: dataclasses.replace(call, model=call.model and _Around(call.model, change)))


def _restless(model: nn.Module, *given: Tensor) -> Any:
    # `localize` gives the mode back afterwards, so only the network itself can tell.
    return model.train()(*given)


def _one_off(model: nn.Module, *given: Tensor) -> Any:
    outputs = model(*given)
    return dataclasses.replace(outputs, k_logits=outputs.k_logits.roll(-1, 1))


def _prediction_searched(call: Call) -> Call:
    pipe, made = call.pipeline, []

    def blend(P: Tensor, S: Tensor, cfg: Any) -> Blend:
        made.append(pipe.inference_blend(P, S, cfg))
        return made[-1]

    def spectrum(R: Tensor, K: Tensor, cfg: Any) -> Peaks:
        return pipe.spectrum(made[-1].R_pred, K, cfg)

    return dataclasses.replace(call, pipeline=dataclasses.replace(pipe, inference_blend=blend, spectrum=spectrum))


def _codes_conjugated(call: Call) -> Call:
    pipe = call.pipeline

    def mle(peaks: Peaks, y: Tensor, H_full: Tensor, C: Tensor, cfg: Any) -> Estimates:
        return pipe.mle(peaks, y, H_full, conjugated(C), cfg)

    return dataclasses.replace(call, pipeline=dataclasses.replace(pipe, mle=mle))


def _unrefined(call: Call) -> Call:
    return dataclasses.replace(call, cfg=call.cfg.replaced({"estimate.newton_nearfield": False}))


FAULTS = (
    Fault("microvolts_are_zero", "RV0301", "what is below 1e-5 is taken for noise, in whatever unit",
          staged("localize", lambda f, y, *given, **named: f(torch.where(y.abs() < 1e-5, 0, y), *given, **named))),
    Fault("localized_with_angles_swapped", "RV0301", "azimuth and elevation change places on the way out",
          _returned(lambda e: {"azimuth": e.elevation, "elevation": e.azimuth})),
    Fault("localized_in_degrees", "RV0301", "angles are converted for the reader",
          _returned(lambda e: {n: vars(e)[n] * (180 / math.pi) for n in ("azimuth", "elevation")})),
    Fault("localized_in_inverse_range", "RV0301", "1/r is never turned back into metres",
          _returned(lambda e: {"range": 1 / e.range})),
    Fault("localized_with_order_off_by_one", "RV0301", "the first entry of the K head stands for one source",
          _modelled(_one_off)),
    Fault("localized_by_other_stages", "RV0301", "the given pipeline is ignored",
          _called(lambda call: dataclasses.replace(call, pipeline=call.sound))),
    Fault("localized_in_the_prediction", "RV0301", "R_pred is searched in place of the blend",
          _called(_prediction_searched)),
    Fault("localized_with_dropout", "RV0301", "the network is left in training mode", _modelled(_restless)),
    Fault("localized_with_conjugate_codes", "RV0301", "NF-MLE is handed c*", _called(_codes_conjugated)),
    Fault("network_with_conjugate_codes", "RV0301", "the network is handed c*",
          _modelled(lambda f, y, H, C, H_full: f(y, H, conjugated(C), H_full))),
    Fault("localized_without_newton", "RV0301", "Newton's refinement is never run", _called(_unrefined)),
    Fault("localized_without_known_order", "RV0301", "a known order is estimated all the same",
          _called(lambda call: dataclasses.replace(call, order=None))),
)  # fmt: skip
