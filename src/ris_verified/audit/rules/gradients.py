"""Section 05: where gradients flow and where they must not."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ris_verified.audit.context import Context
from ris_verified.audit.laws.blends import blend_slopes
from ris_verified.audit.laws.model_slopes import output_slopes
from ris_verified.audit.rule import Measurement, NotApplicable, at_least, at_most, equal, mended, rule
from ris_verified.audit.rules.names import clean
from ris_verified.audit.static.graph import forward_breaks, forward_functions, loss_breaks, loss_functions
from ris_verified.audit.static.steps import step_slips
from ris_verified.audit.static.syntax import SourceFile, read_file

if TYPE_CHECKING:
    from torch import Tensor

    from ris_verified.data.batch import Batch
    from ris_verified.model.output import ModelOutput


def _total(context: Context, outputs: ModelOutput, R_samp: Tensor, batch: Batch) -> Tensor:
    pipeline, cfg = context.pipeline, context.config
    R_pred = pipeline.predicted_covariance(outputs.cov_fact_angle, outputs.cov_fact_range, cfg)
    blended = pipeline.blend(R_pred, R_samp, cfg)
    return pipeline.loss(outputs, R_pred, batch, cfg, R_blend=blended.R, training=True).total


@rule(
    "RV0501",
    "No gradient passes through R_samp",
    law="∂loss/∂R_samp = 0 and ∂R_samp/∂y = 0; the gradient is that of a constant R_samp",
    why="The network would learn to move the data instead of its prediction.",
    how="R_samp is handed to the blend as a leaf that takes gradients, y to the sample covariance likewise; the "
    "gradient in the factors is compared with that for a constant. Bound: 0 exactly, the same operations run.",
    remedy="detach R_samp in the blend and compute it without a graph",
)
def sample_isolated(context: Context) -> Sequence[Measurement]:
    """A severed graph gives None, and equal operations give equal bits."""
    import torch

    outputs, batch = context.leaves(), context.batch
    y = batch.y.clone().requires_grad_()
    traced = context.pipeline.sample_covariance(y, batch.H_full, batch.C, context.config)
    constant = traced.detach()
    leaf = constant.clone().requires_grad_()
    factors = [outputs.cov_fact_angle, outputs.cov_fact_range]
    total = _total(context, outputs, leaf, batch)
    through = torch.autograd.grad(total, leaf, allow_unused=True, retain_graph=True)[0]
    live = _slopes(total, factors)
    fixed = _slopes(_total(context, outputs, constant, batch), factors)
    apart = max(float((a - b).abs().max()) for a, b in zip(live, fixed, strict=True))
    return [
        at_most(0.0 if through is None else float(through.abs().max()), 0.0, "|∂loss/∂R_samp|", where="blend"),
        equal(traced.requires_grad, False, "R_samp asks for a gradient in y", where="sample_covariance"),
        at_most(apart, 0.0, "gradient against that for a constant R_samp", where="factors"),
    ]


def _slopes(total: Tensor, factors: list[Tensor]) -> list[Tensor]:
    import torch

    # A factor that the loss does not reach has the slope zero; RV0502 says so.
    given = torch.autograd.grad(total, factors, allow_unused=True)
    return [torch.zeros_like(f) if g is None else g for f, g in zip(factors, given, strict=True)]


LIVE = "keep the output differentiable in the weights: no rounding, no hook and no backward of its own on the way"


@rule(
    "RV0502",
    "Gradient passes through R_pred, times 1 − β",
    law="∂R_raw/∂t = (1 − β) ∂R_pred/∂t; the loss reaches both factors and the backbone",
    why="A blend without gradient trains nothing, and a wrong factor changes every rate unseen.",
    how="In float64, along a random direction t of both factors: autograd of ⟨W, R_raw⟩ and ⟨W, R_blend⟩ and "
    "central differences, h = eps^⅓; bound 1e3 h² of the slope's size (the third derivative of a normalised product is "
    "of order one per unit of the factors). Then |∂loss/∂θ| > 0 in the backbone, and for each output of the network "
    "the slope along its own gradient in the weights against central differences, bound a fiftieth in two of six "
    "scenes.",
    remedy="blend as (1 − β) R_pred + β R_samp.detach() and keep the model's graph",
)
def predicted_live(context: Context) -> Sequence[Measurement]:
    """Truncation h²|f'''|/6 and rounding eps/h are both of order h² = eps^⅔."""
    return [*blend_slopes(context), *_reaches(context), *mended(output_slopes(context), LIVE)]


def _reaches(context: Context) -> list[Measurement]:
    import torch

    outputs, blended = context.pipeline.forward(context.model, context.batch)
    loss = context.pipeline.loss(
        outputs, blended.R_pred, context.batch, context.config, R_blend=blended.R, training=blended.R_pred.requires_grad
    )
    heads = [outputs.cov_fact_angle, outputs.cov_fact_range]
    parameters = [p for g in context.groups if g["name"] == "backbone" for p in g["params"]]
    targets = [v for v in (*heads, *parameters) if v.requires_grad]
    given = torch.autograd.grad(loss.total, targets, allow_unused=True) if loss.total.requires_grad else ()
    norms = {id(v): 0.0 if g is None else float(g.norm()) for v, g in zip(targets, given, strict=False)}
    backbone = sum(norms.get(id(p), 0.0) for p in parameters)
    tiny = torch.finfo(torch.float32).tiny
    return [
        at_least(norms.get(id(heads[0]), 0.0), tiny, "gradient of the loss in the factor", where="cov_fact_angle"),
        at_least(norms.get(id(heads[1]), 0.0), tiny, "gradient of the loss in the factor", where="cov_fact_range"),
        at_least(backbone, tiny, "gradient of the loss in the backbone", where="backbone"),
    ]


@rule(
    "RV0503",
    "The forward and the loss never leave the graph",
    law="no detach, no_grad, .data, .item, NumPy or write in place in `forward` or what it calls in its file; none "
    "on the way to the value that a loss returns; no number on the way to `backward`, no step on cleared gradients",
    why="One detach in the middle of the network freezes everything before it, and the loss still falls.",
    how="Syntax trees of every class with a `forward` in the source, and of the pipeline's own modules wherever they "
    "are defined, followed through methods and functions of the same file; functions, classes and files that are "
    "called a loss, followed from what they return: values for logs and the constants that a loss compares with may "
    "be detached, and (f(x) - x).detach() that is added to x. So may what only gives indices or counts, a statistic "
    "kept in a buffer, and what a loss multiplies its terms with under the name of a weight. Tensors that a function "
    "made itself may be written. Functions that call `backward`: what it is called on, and what stands between "
    "zero_grad, backward and step. Bound: none.",
    remedy="stay in torch operations on live tensors; write x = x + y instead of x += y",
    needs="source",
)
def forward_in_graph(context: Context) -> Sequence[Measurement]:
    """Bound 0 is exact: statements are counted."""
    found: dict[str, Measurement] = {}
    for file in [*(file for file, _ in context.tree.parsed), *_model_files(context)]:
        forward = forward_functions(file)
        slips = [item for function in forward for item in forward_breaks(function, file)]
        for function in loss_functions(file):
            if function not in forward:
                slips += loss_breaks(function, file)
        slips += step_slips(file)
        for line, message in slips:
            found.setdefault(file.at(line), Measurement(1.0, 0.0, False, message, where=file.at(line)))
    return list(found.values()) or [clean(context, "no forward and no loss leaves the graph")]


def _model_files(context: Context) -> list[SourceFile]:
    if context.stages is None:
        return []
    paths = set()
    for module in context.model.modules():
        if not type(module).__module__.startswith("torch."):
            path = inspect.getsourcefile(type(module))
            paths |= {Path(path)} if path and Path(path).exists() else set()
    return [read_file(path, path.parent) for path in paths if not path.is_relative_to(context.source)]


@rule(
    "RV0504",
    "Averages hold no graph, validation changes nothing",
    law="EMA and SWA weights have no graph and updating them moves no live weight; validation leaves requires_grad "
    "and mode",
    why="An average that shares storage or graph with the live weights trains, or leaks memory, unseen.",
    how="One train step on the small model with the averages that are configured, the last of a run so that SWA has "
    "begun, then an update of the averages and a validation. Bound: 0 changes.",
    remedy="average detached copies under no_grad; restore the mode after validation",
)
def averages_apart(context: Context) -> Sequence[Measurement]:
    """Counts of tensors: no tolerance."""
    import torch

    small = context.small
    pipeline, state = small.pipeline, small.state(total_steps=1)
    pipeline.train_step(state, small.batch, pipeline)
    averages = {n: kept for n, kept in (("ema", state.ema), ("swa", state.swa)) if kept is not None}
    if not averages:
        raise NotApplicable("the pipeline keeps no average")
    live = [p.detach().clone() for p in state.model.parameters()]
    asked = [p.requires_grad for p in state.model.parameters()]
    state.update_averages(small.config.train)
    pipeline.validate(pipeline, state.model, [small.batch])
    moved = sum(not torch.equal(a, b.detach()) for a, b in zip(live, state.model.parameters(), strict=True))
    own, found = {p.data_ptr() for p in state.model.parameters()}, []
    for name, kept in averages.items():
        tied = sum(p.grad_fn is not None or p.data_ptr() in own for p in kept.parameters())
        message = "averaged weights with a graph or shared storage"
        found.append(at_most(float(tied), 0.0, message, "tensors", name))
    return [
        at_most(float(moved), 0.0, "live weights moved by averaging and validation", "tensors", "model"),
        *found,
        equal([p.requires_grad for p in state.model.parameters()] == asked, True, "requires_grad is as before"),
        equal(state.model.training, True, "training mode is as before validation"),
    ]


@rule(
    "RV0505",
    "The loss asks for a gradient in training only",
    law="loss(R_hat without gradient) raises in training and not in evaluation",
    why="A detached prediction trains for hours without learning; a check that also fires in validation stops the run.",
    how="The loss is called with a constant R_hat in both modes.",
    remedy="raise an InvariantError in training where R_hat.requires_grad is false",
)
def loss_asks(context: Context) -> Sequence[Measurement]:
    """Raises or not: no tolerance."""
    from ris_verified.errors import InvariantError

    def call(training: bool) -> str:
        b = context.blend
        try:
            context.pipeline.loss(
                context.outputs, b.R_pred, context.batch, context.config, R_blend=b.R, training=training
            )
        except InvariantError:
            return "raises"
        return "returns"

    return [
        equal(call(training=True), "raises", "in training with a constant R_hat the loss", where="loss"),
        equal(call(training=False), "returns", "in evaluation with a constant R_hat the loss", where="loss"),
    ]


@rule(
    "RV0506",
    "Logged values are detached",
    law="no tensor of a step report or of the loss terms has a graph",
    why="Every logged step would keep its whole graph: memory grows until the run dies.",
    how="The report of one small train step and the terms of one loss are searched for graphs. Bound: 0.",
    remedy="detach what is logged",
)
def logs_detached(context: Context) -> Sequence[Measurement]:
    """Counts of tensors: no tolerance."""
    small = context.small
    report = small.pipeline.train_step(small.state(), small.batch, small.pipeline)
    outputs, blended = small.pipeline.forward(small.model, small.batch)
    result = small.pipeline.loss(outputs, blended.R_pred, small.batch, small.config, R_blend=blended.R, training=True)
    logged = {"loss": report.loss, "nmse": report.nmse, "gradient_norm": report.gradient_norm, **report.terms}
    logged |= {f"term {name}": value for name, value in result.terms.items()} | {"loss.nmse": result.nmse}
    held = [name for name, value in logged.items() if value.requires_grad]
    return [at_most(float(len(held)), 0.0, "logged values that hold a graph", "tensors", ", ".join(held))]
