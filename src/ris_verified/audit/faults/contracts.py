"""Slips in what stages refuse: wrong axes that are cut, stretched or swallowed, and errors that name nothing."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ris_verified.audit.faults.fault import Fault, staged
from ris_verified.data.batch import FIELDS, Batch
from ris_verified.errors import InputError, RisVerifiedError, ShapeError
from ris_verified.pipeline import Pipeline


def _resized(value: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return a tensor of a shape, its first numbers as far as they go."""
    flat = value.flatten()
    count = torch.Size(shape).numel()
    return flat.repeat(count // len(flat) + 1)[:count].view(shape)


def _cut(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Return tensors with as many scenes as the shortest."""
    scenes = min(len(value) for value in tensors)
    return tuple(value[:scenes] for value in tensors)


def _any_panel(sound: Any, R: Tensor, K: Tensor, cfg: Any) -> Any:
    N = cfg.array.elements
    return sound(_resized(R, (len(K), N, N)), K, cfg)


def _any_places(sound: Any, array: Any, *places: Tensor) -> Any:
    tensors = [torch.as_tensor(place) for place in places]
    return sound(array, *(_cut(*tensors) if all(t.ndim for t in tensors) else tensors))


def _common_scenes(sound: Any, *given: Any) -> Any:
    kept = iter(_cut(*(value for value in given if isinstance(value, Tensor))))
    return sound(*(next(kept) if isinstance(value, Tensor) else value for value in given))


def _truth_is_cut(sound: Any, outputs: Any, R_hat: Tensor, batch: Batch, cfg: Any, **options: Any) -> Any:
    kept = {name: value[: len(R_hat)] for name, value in vars(batch).items()}
    return sound(outputs, R_hat, dataclasses.replace(batch, **kept), cfg, **options)


def _by_name(sound: Any, batch: Any, device: Any = "cpu") -> Batch:
    if not isinstance(batch, Batch | dict):
        made: Batch = sound(batch, device)
        return made
    fields = batch if isinstance(batch, dict) else vars(batch)
    if missing := [name for name in FIELDS if name not in fields]:
        raise InputError("missing", where=f"batch.{missing[0]}")
    return Batch(**{name: fields[name] for name in FIELDS}).to(device)


def _refusal_is_no_answer(sound: Any, peaks: Any, *given: Any) -> Any:
    try:
        return sound(peaks, *given)
    except RisVerifiedError:
        return peaks


def _without_names(sound: Any, *given: Any, **named: Any) -> Any:
    try:
        return sound(*given, **named)
    except ShapeError as error:
        raise ShapeError("wrong shape", where="input", expected="another shape") from error


def _given_only(sound: Any, *given: Any) -> Any:
    try:
        return sound(*given)
    except ShapeError as error:
        raise ShapeError(error.what, where=error.where, expected="shapes that fit") from error


def _torch_tells(sound: Any, R: Tensor, K: Tensor, *given: Any) -> Any:
    try:
        return sound(R, K, *given)
    except ShapeError as error:
        raise RuntimeError(f"size of tensor {list(R.shape)} must match the size of tensor {list(K.shape)}") from error


class _Stretched(nn.Module):
    """A network that takes the channel and the codes for as many scenes and elements as it needs."""

    def __init__(self, body: nn.Module, elements: int) -> None:
        super().__init__()
        self.body, self.elements = body, elements

    def forward(self, y: Tensor, H: Tensor, C: Tensor, H_full: Tensor, *more: Tensor) -> Any:
        B, L, M = y.shape[:3]
        C, H_full = _resized(C, (B, L, self.elements, 2)), _resized(H_full, (B, M, self.elements, 2))
        return self.body(y, H, C, H_full, *more)


def _stretching(pipeline: Pipeline) -> Pipeline:
    build: Callable[..., nn.Module] = pipeline.build_model
    return dataclasses.replace(pipeline, build_model=lambda cfg: _Stretched(build(cfg), cfg.array.elements))


def _bent(section: str, **values: Any) -> Callable[[Pipeline], Pipeline]:
    """Return a plant that writes fields of a finished configuration, of its top where no section is named."""

    def plant(pipeline: Pipeline) -> Pipeline:
        config = copy.deepcopy(pipeline.config)
        for name, value in values.items():
            object.__setattr__(vars(config)[section] if section else config, name, value)
        return dataclasses.replace(pipeline, config=config)

    return plant


FAULTS = (
    Fault("as_many_sources_as_antennas", "RV0104", "each section is sound, and no snapshot determines its symbols",
          lambda pipeline: _bent("scene", sources_max=pipeline.config.scene.antennas)(pipeline)),
    Fault("seed_below_zero", "RV0104", "a worker's number is subtracted", _bent("", seed=-1)),
    Fault("contracts_of_a_word", "RV0104", "`\"false\"` is true", _bent("", contracts="false")),
    Fault("heads_of_none", "RV0104", "a field is written after construction", _bent("model", heads=0)),
    Fault("spectrum_of_any_panel", "RV0707", "R is reshaped to the panel's size", staged("spectrum", _any_panel)),
    Fault("places_cut_to_the_shortest", "RV0707", "`zip` without strict", staged("steering", _any_places)),
    Fault("places_cut_at_inference", "RV0707", "`zip` without strict", staged("inference_steering", _any_places)),
    Fault("pairs_of_common_scenes", "RV0707", "`zip` over scenes", staged("match", _common_scenes)),
    Fault("bound_of_common_scenes", "RV0707", "`zip` over scenes", staged("bound", _common_scenes)),
    Fault("errors_of_common_scenes", "RV0707", "`zip` over scenes", staged("metric", _common_scenes)),
    Fault("loss_of_common_scenes", "RV0707", "the truth is cut to the outputs", staged("loss", _truth_is_cut)),
    Fault("fields_unpacked_unseen", "RV0707", "y and H_full may be exchanged", staged("unpack", _by_name)),
    Fault("refusal_of_the_likelihood_swallowed", "RV0707", "`except: return peaks`",
          staged("mle", _refusal_is_no_answer)),
    Fault("order_of_common_scenes", "RV0707", "`zip` over scenes", staged("order", _common_scenes)),
    Fault("error_that_names_nothing", "RV0707", "wrapped, and the shapes are lost", staged("localize", _without_names)),
    Fault("error_that_names_one_shape", "RV0707", "what would fit is not said", staged("inference_blend", _given_only)),
    Fault("error_of_torch_itself", "RV0707", "the contract is left to the first product",
          staged("newton", _torch_tells)),
    Fault("network_takes_any_channel", "RV0707", "codes and channel are reshaped to fit", _stretching),
)  # fmt: skip
