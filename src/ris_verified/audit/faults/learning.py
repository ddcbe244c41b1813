"""Slips in model, groups and loss."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ris_verified.audit.faults.fault import Fault, conjugated
from ris_verified.pipeline import Pipeline


def modelling(change: Callable[[nn.Module, Any], nn.Module | None]) -> Callable[[Pipeline], Pipeline]:
    """Return a plant that changes the built network."""

    def plant(pipeline: Pipeline) -> Pipeline:
        def build(cfg: Any) -> nn.Module:
            model = pipeline.build_model(cfg)
            return change(model, cfg) or model

        return dataclasses.replace(pipeline, build_model=build)

    return plant


def _frozen(model: nn.Module, cfg: Any) -> None:
    next(model.parameters()).requires_grad_(False)


def _unused(model: nn.Module, cfg: Any) -> None:
    next(iter(m for n, m in model.named_children() if n == "head")).register_parameter(
        "unused", nn.Parameter(torch.ones(3))
    )


def _cut(model: nn.Module, cfg: Any) -> None:
    backbone = next(m for n, m in model.named_children() if n == "backbone")
    backbone.register_forward_hook(
        lambda m, i, out: out.detach() if isinstance(out, Tensor) else tuple(o.detach() for o in out)
    )


def _hooked(change: Callable[[Any], Any]) -> Callable[[nn.Module, Any], None]:
    def add(model: nn.Module, cfg: Any) -> None:
        model.register_forward_hook(lambda m, i, out: change(out))

    return add


def _blind(model: nn.Module, cfg: Any) -> None:
    def constant_channel(m: nn.Module, given: Any) -> Any:
        y, H, C, H_full = given
        return y, H, C, torch.ones_like(H_full)

    model.register_forward_pre_hook(constant_channel)


def _fed(place: int, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[nn.Module, Any], None]:
    def spoil(model: nn.Module, cfg: Any) -> None:
        def hook(m: nn.Module, given: Any) -> Any:
            return (*given[:place], change(given[place]), *given[place + 1 :])

        model.register_forward_pre_hook(hook)

    return spoil


def _truncated(out: Any) -> Any:
    return dataclasses.replace(out, cov_fact_angle=out.cov_fact_angle[:, :-2])


def _slim(pipeline: Pipeline) -> Pipeline:
    def build(cfg: Any) -> nn.Module:
        # Networks from elsewhere may know one width only.
        slim = dataclasses.replace(cfg.model, width=64, head_width=64)
        return pipeline.build_model(dataclasses.replace(cfg, model=slim))

    return dataclasses.replace(pipeline, build_model=build)


def _unsaved_state(pipeline: Pipeline) -> Pipeline:
    count = itertools.count()

    def build(cfg: Any) -> nn.Module:
        model, offset = pipeline.build_model(cfg), 0.01 * next(count)
        model.register_forward_hook(lambda m, i, out: dataclasses.replace(out, ranges=out.ranges + offset))
        return model

    return dataclasses.replace(pipeline, build_model=build)


def grouping(change: Callable[[list[dict[str, Any]], Any], list[dict[str, Any]]]) -> Callable[[Pipeline], Pipeline]:
    """Return a plant that changes the optimiser's groups."""

    def plant(pipeline: Pipeline) -> Pipeline:
        def groups(model: nn.Module, cfg: Any) -> list[dict[str, Any]]:
            return change(pipeline.parameter_groups(model, cfg), cfg)

        return dataclasses.replace(pipeline, parameter_groups=groups)

    return plant


def _one_rate(groups: list[dict[str, Any]], cfg: Any) -> list[dict[str, Any]]:
    return [{**g, "lr": cfg.train.learning_rate} for g in groups]


def _last_lost(groups: list[dict[str, Any]], cfg: Any) -> list[dict[str, Any]]:
    return [{**g, "params": g["params"][:-1]} for g in groups]


def _rate_tenfold(groups: list[dict[str, Any]], cfg: Any) -> list[dict[str, Any]]:
    return [{**g, "lr": 10 * g["lr"]} for g in groups]


def losing(change: Callable[..., Any]) -> Callable[[Pipeline], Pipeline]:
    """Return a plant that wraps the loss; `change` gets the loss and its arguments."""

    def plant(pipeline: Pipeline) -> Pipeline:
        def loss(
            outputs: Any, R_hat: Tensor, batch: Any, cfg: Any, *, R_blend: Any = None, training: bool = True
        ) -> Any:
            return change(pipeline.loss, outputs, R_hat, batch, cfg, R_blend, training)

        return dataclasses.replace(pipeline, loss=loss)

    return plant


def _reads_hat(f: Any, o: Any, R: Tensor, b: Any, cfg: Any, blend: Any, t: bool) -> Any:
    return f(o, R, b, cfg, R_blend=None, training=t)


def _logs_hat(f: Any, o: Any, R: Tensor, b: Any, cfg: Any, blend: Any, t: bool) -> Any:
    logged = f(o, R, b, cfg, R_blend=None, training=False).nmse
    return dataclasses.replace(f(o, R, b, cfg, R_blend=blend, training=t), nmse=logged)


def _validates_hat(f: Any, o: Any, R: Tensor, b: Any, cfg: Any, blend: Any, t: bool) -> Any:
    return f(o, R, b, cfg, R_blend=blend if t else R, training=t)


def _constant_term(f: Any, o: Any, R: Tensor, b: Any, cfg: Any, blend: Any, t: bool) -> Any:
    made = f(o, R, b, cfg, R_blend=blend, training=t)
    weight = cfg.loss.alignment
    if not weight:
        return made
    # The loss is linear in its weights: leave the term out of the graph and add its value.
    rest = {n: v for n, v in vars(cfg.loss).items() if n != "alignment"}
    value = weight * made.terms["alignment"]
    if not any(rest.values()):
        return dataclasses.replace(made, total=value + 0 * made.total)
    without = dataclasses.replace(cfg, loss=dataclasses.replace(cfg.loss, alignment=0.0))
    return dataclasses.replace(made, total=f(o, R, b, without, R_blend=blend, training=t).total + value)


def _dropped_term(f: Any, o: Any, R: Tensor, b: Any, cfg: Any, blend: Any, t: bool) -> Any:
    made = f(o, R, b, cfg, R_blend=blend, training=t)
    return dataclasses.replace(made, total=made.total - cfg.loss.order * made.terms.get("order", 0.0))


def _shifted_truth(f: Any, o: Any, R: Tensor, b: Any, cfg: Any, blend: Any, t: bool) -> Any:
    eye = torch.eye(R.shape[-1], dtype=b.R_in.dtype)
    return f(o, R, dataclasses.replace(b, R_in=b.R_in + eye), cfg, R_blend=blend, training=t)


def _index_matched(f: Any, o: Any, R: Tensor, b: Any, cfg: Any, blend: Any, t: bool) -> Any:
    made = f(o, R, b, cfg, R_blend=blend, training=t)
    if "angle" not in made.terms:
        return made
    gap = (o.angles - b.ptr[..., :2]).abs().nanmean()
    change = cfg.loss.angle * (gap - made.terms["angle"])
    return dataclasses.replace(made, total=made.total + change, terms={**made.terms, "angle": gap.detach()})


def _eigenvectors(f: Any, o: Any, R: Tensor, b: Any, cfg: Any, blend: Any, t: bool) -> Any:
    made = f(o, R, b, cfg, R_blend=blend, training=t)
    vectors = torch.linalg.eigh(R if blend is None else blend)[1]
    return dataclasses.replace(made, total=made.total + 1e-9 * vectors[..., 0].abs().square().pow(2).sum())


def _wrong_output(f: Any, o: Any, R: Tensor, b: Any, cfg: Any, blend: Any, t: bool) -> Any:
    mixed = dataclasses.replace(
        o, k_logits=o.k_logits + o.ranges.mean(-1, keepdim=True) * torch.arange(o.k_logits.shape[1])
    )
    return f(mixed, R, b, cfg, R_blend=blend, training=t)


def _live_terms(f: Any, o: Any, R: Tensor, b: Any, cfg: Any, blend: Any, t: bool) -> Any:
    made = f(o, R, b, cfg, R_blend=blend, training=t)
    return dataclasses.replace(made, terms={n: v + 0 * made.total for n, v in made.terms.items()})


def _never_asks(f: Any, o: Any, R: Tensor, b: Any, cfg: Any, blend: Any, t: bool) -> Any:
    return f(o, R, b, cfg, R_blend=blend, training=False)


def _always_asks(f: Any, o: Any, R: Tensor, b: Any, cfg: Any, blend: Any, t: bool) -> Any:
    return f(o, R, b, cfg, R_blend=blend, training=True)


def _uphill(f: Any, o: Any, R: Tensor, b: Any, cfg: Any, blend: Any, t: bool) -> Any:
    made = f(o, R, b, cfg, R_blend=blend, training=t)
    return dataclasses.replace(made, total=2 * made.total.detach() - made.total)


FAULTS = (
    Fault("frozen_parameter", "RV0401", "fine-tuning code was left in", modelling(_frozen)),
    Fault("parameter_in_no_group", "RV0401", "the last tensor of each group is lost", grouping(_last_lost)),
    Fault("parameter_twice", "RV0401", "the head's filter matches the backbone too",
          grouping(lambda g, c: [{**g[0], "params": [*g[0]["params"], g[1]["params"][0]]}, g[1]])),
    Fault("slim_head", "RV0402", "the head of an ablation", _slim),
    Fault("one_rate", "RV0403", "the multiplier is not applied", grouping(_one_rate)),
    Fault("tenfold_rate", "RV1301", "a rate tuned for another batch size", grouping(_rate_tenfold)),
    Fault("parameter_without_use", "RV0404", "a branch that was removed from the forward", modelling(_unused)),
    Fault("backbone_detached", "RV0502", "features are cached", modelling(_cut)),
    Fault("truncated_factor", "RV0701", "K_MAX − 1 columns", modelling(_hooked(_truncated))),
    Fault("channel_ignored", "RV1006", "the network gets no channel", modelling(_blind)),
    Fault("codes_conjugated_for_the_network", "RV1006", "an adapter conjugates C", modelling(_fed(2, conjugated))),
    Fault("channel_conjugated_for_the_network", "RV1006", "an adapter conjugates H", modelling(_fed(3, conjugated))),
    Fault("snapshots_shifted_for_the_network", "RV1006", "y is one snapshot late",
          modelling(_fed(0, lambda y: y.roll(1, 1)))),
    Fault("antennas_reversed_for_the_network", "RV1006", "antennas count from the other end",
          modelling(_fed(0, lambda y: y.flip(2)))),
    Fault("state_not_saved", "RV1605", "an offset lives outside the state", _unsaved_state),
    Fault("loss_reads_prediction", "RV0601", "R_blend is computed and not used", losing(_reads_hat)),
    Fault("log_reads_prediction", "RV0601", "the log shows another matrix", losing(_logs_hat)),
    Fault("validation_reads_prediction", "RV0805", "validation judges R_pred", losing(_validates_hat)),
    Fault("term_without_gradient", "RV0602", "a term is taken from .item()", losing(_constant_term)),
    Fault("term_not_added", "RV0602", "a term is logged and not added", losing(_dropped_term)),
    Fault("truth_with_noise_floor", "RV0603", "R_true gets a noise floor", losing(_shifted_truth)),
    Fault("index_matched_loss", "RV0603", "slot i is compared with source i", losing(_index_matched)),
    Fault("eigenvector_loss", "RV0604", "a term differentiates eigenvectors", losing(_eigenvectors)),
    Fault("order_reads_ranges", "RV1604", "a broadcast adds ranges to the logits", losing(_wrong_output)),
    Fault("live_terms_logged", "RV0506", "terms keep their graph", losing(_live_terms)),
    Fault("loss_never_asks", "RV0505", "the check was removed", losing(_never_asks)),
    Fault("loss_always_asks", "RV0505", "validation raises", losing(_always_asks)),
    Fault("uphill", "RV1405", "the sign of the loss", losing(_uphill)),
    Fault("rate_of_zero", "RV1203", "the schedule multiplies by a millionth",
          grouping(lambda g, c: [{**x, "lr": 1e-6 * x["lr"]} for x in g])),
)  # fmt: skip
