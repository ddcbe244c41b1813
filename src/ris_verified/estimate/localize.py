"""From measurements to positions: the public entry."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ris_verified.config import Config
from ris_verified.errors import InputError, ShapeError
from ris_verified.estimate.result import Estimates
from ris_verified.estimate.search import estimate_order, greedy_search
from ris_verified.mode import evaluating
from ris_verified.shapes import as_complex, describe, require_finite, to_ri

if TYPE_CHECKING:
    from ris_verified.covariance.blend import Blend
    from ris_verified.pipeline import Pipeline

# Powers of two by which measurements may differ from those that a model was trained with.
USUAL = 10
Array = Tensor | NDArray[np.generic]


def localize(
    y: Array,
    H_full: Array,
    C: Array,
    cfg: Config,
    order: int | Tensor | None = None,
    model: nn.Module | None = None,
    pipeline: Pipeline | None = None,
) -> Estimates:
    """Find every source's azimuth, elevation and range, with the covariance of the estimate.

    Without a model: greedy matched-field search, order by the marginal likelihood, NF-MLE. With a
    model: spectrum of R_blend, near-field Newton and NF-MLE as `cfg.estimate` has them on; the order
    comes from nested fits, which take longer than all the rest, or from the K head where
    `estimate.order_criterion` is `"model"` or `"auto"`.

    Args:
        y: `B x L x M` complex, or with a last axis of 2; one scene without B is accepted.
        H_full: `B x M x N` complex, or with a last axis of 2.
        C: `B x L x N` complex, or with a last axis of 2.
        cfg: configuration; its array and scene sizes must be those of the measurement.
        order: number of sources, one or `B`, where it is known.
        model: trained weights, from `load_model`; the measurement goes to their device.
        pipeline: whose inference stages to run; the library's own by default.

    Returns:
        `Estimates`, `B x K_MAX`, NaN beyond the order.

    Raises:
        ShapeError: the axes do not agree with each other or with the configuration, or there is no scene.
        NonFiniteError: NaN or infinity; names argument and batch index.
        InputError: `order` is not between 1 and K_MAX, or asks for the K head without a model; y, H_full or C of a
            scene is zero throughout.
    """
    from ris_verified.pipeline import Pipeline

    stages = pipeline or Pipeline.default(cfg)
    data = _checked(y, H_full, C, cfg, _device(model))
    K = _known(order, data[0], cfg)
    if model is None:
        if cfg.estimate.order_criterion == "model":
            raise InputError(
                "needs a model", where="estimate.order_criterion", expected="marginal, auto, bic or aicc, or a model"
            )
        # The library's own order falls out of the search; another one is asked first.
        if K is None and stages.order is not estimate_order:
            K = stages.order(*data, cfg)
        return stages.mle(greedy_search(*data, K, cfg), *data, cfg)
    blended, head = _covariances(stages, model, data, cfg)
    if K is None:
        K = head if cfg.estimate.order_criterion in ("model", "auto") else stages.order(*data, cfg)
    # The network is as exact as single precision, and NF-MLE goes on in that of the data.
    peaks = stages.spectrum(blended.R, K, cfg)
    if cfg.estimate.newton_nearfield:
        peaks = stages.newton(blended.R, K, peaks, cfg)
    return replace(stages.mle(peaks, *data, cfg), blend=blended)


@torch.no_grad()
def _covariances(stages: Pipeline, model: nn.Module, data: tuple[Tensor, ...], cfg: Config) -> tuple[Blend, Tensor]:
    y, H_full, C = (to_ri(value).float() for value in data)
    H = to_ri(torch.einsum("bmn,bln->blm", data[1], data[2])).float()
    with evaluating(model):
        outputs, blended = replace(stages, config=cfg).infer(model, y, H, C, H_full)
    return blended, outputs.k_logits.argmax(-1) + 1


def _device(model: nn.Module | None) -> torch.device | None:
    """Return where a model is; None where there is none, or it has no weights."""
    weight = None if model is None else next(model.parameters(), None)
    return None if weight is None else weight.device


def _checked(
    y: Array, H_full: Array, C: Array, cfg: Config, device: torch.device | None
) -> tuple[Tensor, Tensor, Tensor]:
    given = {"y": (y, "B L M"), "H_full": (H_full, "B M N"), "C": (C, "B L N")}
    tensors = {name: value if isinstance(value, Tensor) else _tensor(value, name) for name, (value, _) in given.items()}
    if tensors["y"].ndim == (2 if tensors["y"].is_complex() else 3):
        tensors = {name: t[None] for name, t in tensors.items()}
    done = {
        name: as_complex(t.detach(), name, given[name][1]).to(device, torch.complex128) for name, t in tensors.items()
    }
    # One of the three that stands out is the wrong one.
    B, L, M, N = (
        Counter(map(len, done.values())).most_common(1)[0][0],
        cfg.scene.snapshots,
        cfg.scene.antennas,
        cfg.array.elements,
    )
    for name, shape in {"y": (B, L, M), "H_full": (B, M, N), "C": (B, L, N)}.items():
        if tuple(done[name].shape) != shape or not B:
            raise ShapeError(
                describe(done[name]),
                where=name,
                expected=f"{given[name][1].replace(' ', ' x ')} = {list(shape)}",
                remedy="set scene.snapshots, scene.antennas and array.horizontal/vertical to the measurement's sizes",
            )
        require_finite(done[name], name)
        _require_energy(done[name], name)
    # A Tikhonov weight is in the channel's units.
    kept = ("C", "H_full") if cfg.estimate.mle_ridge else ("C",)
    y, H_full, C = (value if name in kept else _of_usual_size(value) for name, value in done.items())
    return y, H_full, C


def _of_usual_size(value: Tensor) -> Tensor:
    """Scale scenes that are far from it to entries of about one, by a power of two: what is found stays the same.

    The search runs in single precision, where squares of the gains of a real channel may vanish.
    """
    size = torch.linalg.vector_norm(value, dim=(1, 2)) / value[0].numel() ** 0.5
    exponent = torch.frexp(size).exponent
    shift = torch.where(exponent.abs() > USUAL, -exponent, 0)
    return value * torch.ldexp(torch.ones_like(size), shift)[:, None, None]


def _require_energy(value: Tensor, name: str) -> None:
    empty = torch.nonzero((value == 0).flatten(1).all(1))[:, 0]
    if len(empty):
        raise InputError(
            "is zero throughout",
            where=f"{name}[{int(empty[0])}]",
            expected="a measurement with energy",
            remedy="drop this scene",
        )


def _tensor(value: NDArray[np.generic], name: str) -> Tensor:
    array = np.asarray(value)
    if array.dtype.kind not in "fc":
        raise ShapeError(f"dtype {array.dtype}", where=name, expected="real or complex floating point numbers")
    return torch.from_numpy(np.array(array, dtype=np.complex128 if array.dtype.kind == "c" else np.float64))


def _known(order: int | Tensor | None, y: Tensor, cfg: Config) -> Tensor | None:
    if order is None:
        return None
    most, B = cfg.scene.sources_max, len(y)
    several = "an integer " if B == 1 else f"one integer, or {B}, "
    wrong = InputError(f"{order!r}", where="order", expected=f"{several}between 1 and {most}")
    try:
        K = torch.as_tensor(order)
    except (TypeError, ValueError, RuntimeError) as error:
        raise wrong from error
    if K.is_floating_point() or K.is_complex() or K.shape not in ((), (B,)) or int(K.min()) < 1 or int(K.max()) > most:
        raise wrong
    return K.expand(B).long().to(y.device)
