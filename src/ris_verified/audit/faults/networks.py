"""Slips in the network and its groups that only its own laws show: neighbours, state, layout, graph."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ris_verified.audit.faults.fault import Fault, finite_only
from ris_verified.audit.faults.learning import modelling
from ris_verified.pipeline import Pipeline

Plant = Callable[[Pipeline], Pipeline]


class Scaled(torch.autograd.Function):
    """The identity with a factor on its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        """Return a copy of x."""
        ctx.factor = factor
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Return the gradient times the factor."""
        return gradient * ctx.factor, None


def scaled(x: Tensor, factor: float) -> Tensor:
    """Return x, with a factor on its gradient."""
    made: Tensor = Scaled.apply(x, factor)  # type: ignore[no-untyped-call]
    return made


def outputs(**changes: Callable[[Tensor], Tensor]) -> Plant:
    """Return a plant that changes the named outputs of the network."""

    def change(model: nn.Module, cfg: Any) -> None:
        model.register_forward_hook(
            lambda m, i, out: dataclasses.replace(out, **{n: f(vars(out)[n]) for n, f in changes.items()})
        )

    return modelling(change)


def _factors(change: Callable[[Tensor], Tensor]) -> Plant:
    """Change both factors as `B x N x K_MAX x 2`."""

    def plant(model: nn.Module, cfg: Any) -> None:
        shape = (cfg.array.elements, cfg.scene.sources_max, 2)

        def flat(f: Tensor) -> Tensor:
            return change(f.unflatten(-1, shape)).flatten(1)

        model.register_forward_hook(
            lambda m, i, out: dataclasses.replace(
                out, cov_fact_angle=flat(out.cov_fact_angle), cov_fact_range=flat(out.cov_fact_range)
            )
        )

    return modelling(plant)


def _given(change: Callable[[Any], Any]) -> Plant:
    def add(model: nn.Module, cfg: Any) -> None:
        model.register_forward_pre_hook(lambda m, i: change(i))

    return modelling(add)


def _inside(path: str, change: Callable[[Any], Any]) -> Plant:
    def add(model: nn.Module, cfg: Any) -> None:
        model.get_submodule(path).register_forward_hook(lambda m, i, out: change(out))

    return modelling(add)


def built(section: str, **fixed: Any) -> Plant:
    """Return a plant whose network is built with fixed values in one section."""

    def plant(pipeline: Pipeline) -> Pipeline:
        def build(cfg: Any) -> nn.Module:
            part = dataclasses.replace(vars(cfg)[section], **fixed)
            return pipeline.build_model(dataclasses.replace(cfg, **{section: part}))

        return dataclasses.replace(pipeline, build_model=build)

    return plant


def _seeded(seed: Callable[[], int]) -> Plant:
    def plant(pipeline: Pipeline) -> Pipeline:
        return dataclasses.replace(
            pipeline, build_model=lambda cfg: pipeline.build_model(dataclasses.replace(cfg, seed=seed()))
        )

    return plant


def _remembered(pipeline: Pipeline) -> Pipeline:
    made: dict[str, nn.Module] = {}
    return dataclasses.replace(
        pipeline, build_model=lambda cfg: made.setdefault(cfg.digest(), pipeline.build_model(cfg))
    )


def _dead(model: nn.Module, cfg: Any) -> None:
    count: Any = model.get_submodule("head.count")
    count[1] = nn.ReLU()
    nn.init.constant_(count[0].bias, -1e3)


def _loose_tensor(model: nn.Module, cfg: Any) -> None:
    scale = torch.ones(cfg.scene.sources_max, requires_grad=True)
    model.register_forward_hook(lambda m, i, out: dataclasses.replace(out, k_logits=out.k_logits * scale))


def _loose_layer(model: nn.Module, cfg: Any) -> None:
    layers = [nn.Linear(cfg.scene.sources_max, cfg.scene.sources_max)]
    model.register_forward_hook(lambda m, i, out: dataclasses.replace(out, k_logits=layers[0](out.k_logits)))


def _tied(model: nn.Module, cfg: Any) -> None:
    model.head.norm.weight = model.backbone.encoder.norm.weight  # type: ignore[union-attr]


def _counting(model: nn.Module, cfg: Any) -> None:
    model.register_buffer("calls", torch.zeros(()))

    def drift(m: Any, i: Any, out: Any) -> Any:
        m.calls += 1
        return dataclasses.replace(out, ranges=out.ranges * (1 + 1e-3 * m.calls))

    model.register_forward_hook(drift)


def _reads_beta(model: nn.Module, cfg: Any) -> None:
    model.register_forward_hook(
        lambda m, i, out: dataclasses.replace(out, ranges=out.ranges * (1 + 0.1 * cfg.covariance.beta))
    )


def _all_finite(model: nn.Module, cfg: Any) -> None:
    model.register_forward_hook(
        lambda m, i, out: dataclasses.replace(out, **{n: finite_only(v) for n, v in vars(out).items()})
    )


def _standardised(x: Tensor) -> Tensor:
    made: Tensor = (x - x.mean((0, 2, 3), keepdim=True)) / (x.std((0, 2, 3), keepdim=True) + 1e-5)
    return made


def _reseeded(given: Any) -> Any:
    torch.manual_seed(0)
    return given


def _first_of_batch(name: int) -> Callable[[Any], Any]:
    return lambda i: tuple(v[:1].expand_as(v) if n == name else v for n, v in enumerate(i))


def _blocks(f: Tensor) -> Tensor:
    flat = f.flatten(1)
    return torch.cat([flat[:, 0::2], flat[:, 1::2]], 1).reshape(f.shape)


_seeds = itertools.count(1)


def _last_count_masked(model: nn.Module, cfg: Any) -> None:
    def masked(module: nn.Module, given: Any, made: Any) -> Any:
        if module.training:
            return made
        k = made.k_logits.clone()
        k[:, -1] -= 20
        return dataclasses.replace(made, k_logits=k)

    model.register_forward_hook(masked)


FAULTS = (
    Fault("last_count_never_in_evaluation", "RV0802", "a mask of the last class stays on in evaluation",
          modelling(_last_count_masked)),
    Fault("angles_detached", "RV0502", "angles are copied for the log", outputs(angles=Tensor.detach)),
    Fault("ranges_saturated", "RV0502", "a clamp in centimetres", outputs(ranges=lambda r: r.clamp(max=0.01))),
    Fault("factor_gradient_scaled", "RV0502", "a gradient is damped on its way",
          outputs(cov_fact_angle=lambda f: scaled(f, 1e-3))),
    Fault("dead_layer", "RV0404", "a ReLU that never opens; weight decay still moves it", modelling(_dead)),
    Fault("vanishing_logits", "RV0404", "a temperature of 1e-12", outputs(k_logits=lambda k: 1e-12 * k)),
    Fault("tensor_not_registered", "RV0401", "a scale is a plain tensor", modelling(_loose_tensor)),
    Fault("layer_in_a_list", "RV0401", "layers are kept in a list", modelling(_loose_layer)),
    Fault("tied_across_groups", "RV0401", "head and backbone share a norm", modelling(_tied)),
    Fault("logits_centred_on_batch", "RV1604", "the mean is over the wrong axis",
          outputs(k_logits=lambda k: k - k.mean(0, keepdim=True))),
    Fault("batch_statistics", "RV1604", "a norm over the batch, in evaluation too",
          _inside("backbone.stem", _standardised)),
    Fault("place_in_batch", "RV1604", "an index is broadcast over scenes",
          outputs(ranges=lambda r: r * (1 + 2e-3 * torch.arange(len(r))[:, None]))),
    Fault("batch_size_enters", "RV1604", "a sum over scenes in place of a mean",
          outputs(angles=lambda a: a * (1 + 2e-3 * len(a)))),
    Fault("last_scene_copied", "RV1604", "an off-by-one in a gather",
          outputs(ranges=lambda r: torch.cat([r[:-1], r[-2:-1]]) if len(r) > 1 else r)),
    Fault("codes_ignored", "RV1604", "the codes are taken for ones",
          _given(lambda i: (i[0], torch.ones_like(i[1]), torch.ones_like(i[2]), i[3]))),
    Fault("channel_of_first_scene", "RV1604", "a channel is broadcast", _given(_first_of_batch(3))),
    Fault("network_reads_beta", "RV1604", "β scales the ranges", modelling(_reads_beta)),
    Fault("dropout_not_built", "RV1604", "dropout stays zero", built("model", dropout=0.0)),
    Fault("heads_not_built", "RV1604", "the number of heads is a constant", built("model", heads=2)),
    Fault("layers_not_built", "RV1604", "the number of layers is a constant", built("model", layers=1)),
    Fault("dropout_in_evaluation", "RV1605", "functional dropout without its mode",
          _inside("backbone.stem", lambda x: nn.functional.dropout(x, 0.1, training=True))),
    Fault("state_in_forward", "RV1605", "a counter drifts the ranges", modelling(_counting)),
    Fault("reseeds_in_forward", "RV1605", "the same dropout mask in every step",
          _given(_reseeded)),
    Fault("seed_ignored", "RV1605", "every build draws other weights", _seeded(lambda: next(_seeds))),
    Fault("seed_constant", "RV1605", "every seed draws the same weights", _seeded(lambda: 0)),
    Fault("builds_share_weights", "RV1605", "builds are cached", _remembered),
    Fault("half_precision_factors", "RV1602", "factors pass through float16",
          _factors(lambda f: f.half().float())),
    Fault("real_network_factors", "RV1602", "imaginary parts are dropped",
          _factors(lambda f: f * torch.tensor([1.0, 0.0]))),
    Fault("conjugate_factors", "RV1602", "the other time convention",
          _factors(lambda f: f * torch.tensor([1.0, -1.0]))),
    Fault("sources_before_elements", "RV1602", "[K_MAX, N] in place of [N, K_MAX]",
          _factors(lambda f: f.transpose(1, 2))),
    Fault("real_block_then_imaginary", "RV1602", "real parts first", _factors(_blocks)),
    Fault("factor_columns_collapsed", "RV1602", "slot 0 for every source",
          _factors(lambda f: f[:, :, :1].expand_as(f))),
    Fault("angles_in_degrees", "RV1602", "units of people", outputs(angles=torch.rad2deg)),
    Fault("elevation_first", "RV1602", "the other order of the angles", outputs(angles=lambda a: a.flip(-1))),
    Fault("inverse_ranges", "RV1602", "1/r is returned", outputs(ranges=torch.reciprocal)),
    Fault("slots_collapsed", "RV1602", "all slots are the first",
          outputs(angles=lambda a: a[:, :1].expand_as(a), ranges=lambda r: r[:, :1].expand_as(r))),
    Fault("nan_to_zero_in_network", "RV1403", "nan_to_num on the outputs", modelling(_all_finite)),
)  # fmt: skip
