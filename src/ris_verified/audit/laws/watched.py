"""A pipeline and a model that do as before and keep a record of it."""

from __future__ import annotations

import copy
import dataclasses
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ris_verified.pipeline import Pipeline

COVARIANCES = ("inference_predicted_covariance", "inference_sample_covariance", "inference_blend")
WATCHED = (*COVARIANCES, "spectrum", "newton", "mle")
INPUTS = ("y", "H", "C", "H_full")


@dataclass
class Seen:
    """What happened while `localize` ran.

    Args:
        calls: stage → arguments and result of each call.
        inputs: of each call of the model, by name.
        outputs: of each call of the model.
        modes: of the model's parts, at each call.
    """

    calls: dict[str, list[tuple[tuple[Any, ...], Any]]] = field(default_factory=dict)
    inputs: list[dict[str, Tensor]] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)
    modes: list[list[bool]] = field(default_factory=list)

    def given(self, stage: str, index: int, name: str = "") -> Tensor:
        """Return an argument of a stage, or a field of it, over all calls: scenes may come in parts."""
        return joined([call[0][index] for call in self.calls[stage]], name)

    def result(self, stage: str, name: str = "") -> Tensor:
        """Return the result of a stage, or a field of it, over all calls."""
        return joined([call[1] for call in self.calls[stage]], name)


def watched_stages(pipeline: Pipeline, seen: Seen, orders: tuple[int, ...]) -> Pipeline:
    """Return a pipeline whose stages do as before and are seen; its order is told, not fitted.

    Args:
        pipeline: whose stages are watched.
        seen: takes what they get and give.
        orders: what the order stage says of one scene after the other.
    """
    import torch

    def watched(name: str, stage: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            if named:
                given = inspect.signature(stage).bind(*given, **named).args
            kept = tuple(_kept(value) for value in given)
            result = stage(*given)
            seen.calls.setdefault(name, []).append((kept, _kept(result)))
            return result

        return call

    told = _dealt(orders)
    changed: dict[str, Any] = {name: watched(name, vars(pipeline)[name]) for name in WATCHED}
    return dataclasses.replace(
        pipeline, order=lambda y, *_, **__: torch.tensor(told(len(y)), device=y.device), **changed
    )


def watched_model(model: nn.Module, seen: Seen, orders: tuple[int, ...]) -> nn.Module:
    """Return a copy of a model, in training mode, that is seen and whose K head is told.

    Args:
        model: stays as it is.
        seen: takes what the copy gets, gives and is like meanwhile.
        orders: what the K head says of one scene after the other.
    """
    import torch

    told = _dealt(orders)

    def before(module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        seen.inputs.append({n: _kept(v) for n, v in {**dict(zip(INPUTS, given, strict=False)), **named}.items()})
        seen.modes.append(modes_of(module))

    def after(module: nn.Module, given: tuple[Any, ...], outputs: Any) -> Any:
        logits = torch.zeros_like(outputs.k_logits)
        logits[torch.arange(len(logits)), torch.tensor(told(len(logits))) - 1] = 1
        seen.outputs.append(_kept(outputs))
        return dataclasses.replace(outputs, k_logits=logits)

    watched = copy.deepcopy(model).train()
    watched.register_forward_pre_hook(before, with_kwargs=True)
    watched.register_forward_hook(after)
    return watched


def _dealt(values: tuple[int, ...]) -> Callable[[int], list[int]]:
    """Return a function that gives the next so many of the values, from the first again after the last."""
    at = 0

    def deal(count: int) -> list[int]:
        nonlocal at
        at += count
        return [values[i % len(values)] for i in range(at - count, at)]

    return deal


def modes_of(model: nn.Module | None) -> list[bool]:
    """Return of every part whether it trains."""
    return [] if model is None else [part.training for part in model.modules()]


def joined(values: list[Any], name: str = "") -> Tensor:
    """Return what was seen in several calls, or a field of it, as one batch."""
    import torch

    return torch.cat([vars(value)[name] if name else value for value in values])


def _kept(value: Any) -> Any:
    """Return a copy of a tensor, or of a record of tensors, that later writing in place does not reach."""
    import torch

    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        tensors = {name: _kept(v) for name, v in vars(value).items() if isinstance(v, torch.Tensor)}
        fields = {item.name for item in dataclasses.fields(value)}
        return dataclasses.replace(value, **{name: v for name, v in tensors.items() if name in fields})
    return value
