"""Section 06: what the loss reads and its exact values."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ris_verified.audit.context import Context
from ris_verified.audit.laws.loss_bench import separated
from ris_verified.audit.laws.loss_laws import left_out_alone, loss_laws
from ris_verified.audit.laws.loss_slopes import output_slopes, scene_slopes
from ris_verified.audit.rule import Measurement, at_least, at_most, close, equal, rule

if TYPE_CHECKING:
    from torch import Tensor

    from ris_verified.config import Config
    from ris_verified.loss.total import LossResult
    from ris_verified.model.output import ModelOutput

COVARIANCE_TERMS = ("covariance", "alignment", "eigengap")


def with_weights(config: Config, **weights: float) -> Config:
    """Return the configuration with exactly these loss weights, all others zero."""
    named = {f.name: weights.get(f.name, 0.0) for f in dataclasses.fields(config.loss)}
    return dataclasses.replace(config, loss=dataclasses.replace(config.loss, **named))


def all_weights(config: Config) -> Config:
    """Return the configuration with every loss weight one."""
    return with_weights(config, **{f.name: 1.0 for f in dataclasses.fields(config.loss)})


def _evaluate(context: Context, R_hat: Tensor, R_blend: Tensor | None, config: Config) -> LossResult:
    return context.pipeline.loss(context.outputs, R_hat, context.batch, config, R_blend=R_blend, training=False)


def _figures(result: LossResult) -> dict[str, float]:
    found = {name: float(value) for name, value in result.terms.items() if name in COVARIANCE_TERMS}
    return {**found, "logged NMSE": float(result.nmse)}


@rule(
    "RV0601",
    "The covariance terms read R_blend where it is given",
    law="term(R_hat, R_blend) = term(R_blend) and term(R_hat, None) = term(R_hat), for NMSE, eigengap and alignment",
    why="A term that still reads R_hat optimises and logs another matrix than the one that localises.",
    how="Each term and the logged NMSE, for two different matrices, with and without R_blend. Bound: equal to 8 eps·N "
    "(the same operations on the same numbers), and different from the value for R_samp or (R_samp + I)/2.",
    remedy="let R = R_hat where R_blend is None, else R_blend, in every term",
)
def terms_read_blend(context: Context) -> Sequence[Measurement]:
    """Same input, same operations: any difference is rounding of reordered sums over N entries."""
    import torch

    config = all_weights(context.config)
    other = context.blend.R_samp
    given = context.blend.R
    with_blend = _figures(_evaluate(context, other, given, config))
    alone = _figures(_evaluate(context, given, None, config))
    # Two matrices may share one term's value: a third, half of it noise, differs there.
    noisy = 0.5 * (other + torch.eye(other.shape[-1], dtype=other.dtype, device=other.device))
    others = [_figures(_evaluate(context, R, None, config)) for R in (other, noisy)]
    found = []
    for name in alone:
        bound = _rounding(given) * max(1.0, abs(alone[name]))
        found.append(close(with_blend[name], alone[name], bound, f"{name} with R_blend against its value at R_blend"))
        apart = max(abs(figures[name] - alone[name]) for figures in others)
        found.append(at_least(apart, 10 * bound, f"{name} moves when R_hat moves and no R_blend is given", where=name))
    return found


def _rounding(R: Tensor) -> float:
    from ris_verified.contracts import tolerance

    return tolerance(R.dtype, R.shape[-1], 8)


@rule(
    "RV0602",
    "Each weighted term gives a gradient, each other none",
    law="w_t > 0 ⟹ ∂loss/∂outputs ≠ 0; w_t = 0 ⟹ the term adds nothing",
    why="A term whose gradient is zero is a number in the log, not a goal.",
    how="For each term alone with weight one: the norm of the gradient in the model's outputs, with R_blend blended "
    "from them, of the batch and of each of scenes with 1 … K_MAX sources, the position terms at a slot of every "
    "source. Then the total is compared with the weighted sum of all terms, for usual and for small weights, and each "
    "weight is put to zero: the other terms and the logged NMSE stay.",
    remedy="compute the term from live tensors, and skip it where its weight is zero",
)
def terms_have_gradient(context: Context) -> Sequence[Measurement]:
    """Smallest normal float32 separates a gradient from none; the sum has one rounding a term."""
    import torch

    tiny, found = torch.finfo(torch.float32).tiny, []
    names = [f.name for f in dataclasses.fields(context.config.loss)]
    one = context.config.scene.sources_max == 1
    for name in (n for n in names if not (one and n == "order")):  # one class is certain: its term is zero
        result, leaves = _live(context, with_weights(context.config, **{name: 1.0}))
        given = torch.autograd.grad(result.total, leaves, allow_unused=True) if result.total.requires_grad else ()
        norm = sum(float(g.norm()) for g in given if g is not None)
        found.append(at_least(norm, tiny, "gradient of the term in the outputs", where=f"loss.{name}"))
        extra = set(result.terms) - {name}
        found.append(at_most(float(len(extra)), 0.0, f"terms of weight zero beside {name}", where=", ".join(extra)))
    for least, label in ((0.5, "weights from 0.5"), (5e-3, "small weights")):
        weights = {name: least * (1 + 2 * i) for i, name in enumerate(names)}
        result, _ = _live(context, with_weights(context.config, **weights))
        total = sum(weights[name] * float(result.terms.get(name, float("nan"))) for name in names)
        bound = 8 * torch.finfo(torch.float32).eps * len(names) * max(1.0, abs(total))
        text = f"total against the weighted sum of all terms, {label}"
        found.append(close(float(result.total.detach()), total, bound, text, where="loss"))
    return [*found, *left_out_alone(context), *scene_slopes(context)]


def _live(context: Context, config: Config) -> tuple[LossResult, list[Tensor]]:
    outputs: ModelOutput = context.leaves()
    blended = context.blended(outputs)
    result = context.pipeline.loss(outputs, blended.R_pred, context.batch, config, R_blend=blended.R, training=True)
    return result, list(vars(outputs).values())


@rule(
    "RV0603",
    "Exact values of the loss",
    law="NMSE(R, R) = 0, NMSE(0, R) = 1; alignment 0 at the truth, 1 at its orthogonal complement; order and phase of "
    "the sources do not matter; the loss of B scenes is the mean of the losses of each, position terms are means over "
    "the true sources under a one-to-one assignment",
    why="A term that is not zero at the truth pulls away from it.",
    how="The loss at R_true, at 0 and at N(I − UUᴴ)/(N − K), U the span of the true steering vectors. Bounds: NMSE "
    "(eps·N)², alignment 8 eps·N, of the matrices' precision; permuting the sources changes nothing beyond 8 eps·N. "
    "At the small size, scene by scene for K = 1 … K_MAX: NMSE against its formula in NumPy; the loss of B scenes "
    "against the mean of single ones; order zero for the right K only; slots at the truth cost nothing in any order; "
    "azimuth, elevation and range of each source count, in radians, once, and as a mean over the true sources.",
    remedy="normalise each term by its value for the truth",
)
def exact_values(context: Context) -> Sequence[Measurement]:
    """Entries of float32 matrices of trace N carry relative error eps; sums have N terms."""
    import torch

    batch, config = context.batch, all_weights(context.config)
    truth = batch.R_in
    bound = _rounding(truth)
    at_truth = _figures(_evaluate(context, truth, None, config))
    missing = sorted(set(COVARIANCE_TERMS) - at_truth.keys())
    if missing:
        return [equal(missing, [], "terms that the loss does not return with training = False", where="loss")]
    at_zero = _evaluate(context, torch.zeros_like(truth), None, with_weights(context.config, covariance=1.0))
    across = _evaluate(context, _complement(context), None, with_weights(context.config, alignment=1.0))
    found = [
        at_most(at_truth["covariance"], bound**2, "NMSE(R, R)"),
        close(float(at_zero.terms["covariance"]), 1.0, bound, "NMSE(0, R)"),
        at_most(abs(at_truth["alignment"]), bound, "alignment at the truth"),
        at_most(at_truth["eigengap"], bound, "eigengap at the truth"),
        close(float(across.terms["alignment"]), 1.0, bound, "alignment at the orthogonal complement"),
    ]
    turned = dataclasses.replace(batch, ptr=_reversed_sources(batch.ptr))
    for name, value in _terms(context, batch, config).items():
        other = _terms(context, turned, config)[name]
        found.append(close(other, value, bound * max(1.0, abs(value)), f"{name} with the sources in reverse order"))
    return found + loss_laws(context)


def _terms(context: Context, batch: object, config: Config) -> dict[str, float]:
    b = context.blend
    result = context.pipeline.loss(context.outputs, b.R_pred, batch, config, R_blend=b.R, training=False)
    return {name: float(value) for name, value in result.terms.items()}


def _reversed_sources(ptr: Tensor) -> Tensor:
    import torch

    present = torch.isfinite(ptr).all(-1)
    turned = ptr.clone()
    for row, here in enumerate(present):
        turned[row, here] = ptr[row, here].flip(0)
    return turned


def _complement(context: Context) -> Tensor:
    import torch

    rows = []
    for scene in context.scenes:
        place = [torch.from_numpy(v) for v in (scene.azimuth, scene.elevation, scene.range)]
        A = context.pipeline.steering(context.config.array, *place).mT
        N, K = A.shape
        Q = torch.linalg.qr(A)[0]
        rows.append((torch.eye(N, dtype=Q.dtype) - Q @ Q.mH) * (N / (N - K)))
    return torch.stack(rows).to(context.batch.R_in.dtype)


@rule(
    "RV0604",
    "Gradients are finite at degenerate matrices",
    law="∂loss/∂R is finite for repeated eigenvalues, rank one and K = K_MAX, and equals a finite difference",
    why="1/(λ_i − λ_j) is infinite at a repeated eigenvalue: one such scene makes every weight NaN.",
    how="The gradient of all terms at R = I, at a rank-one R, at R_true and with the slots on the sources, all "
    "entries counted; in float64 the slope at R_blend, its eigenvalues moved apart, against a central difference, "
    "h = eps^⅓, bound 1e3 h² of the slope's size. In training mode the slope in each output and in such an R_blend "
    "against differences of three widths, bound a hundredth.",
    remedy="use projectors on the true subspace instead of eigenvectors of R",
)
def finite_gradients(context: Context) -> Sequence[Measurement]:
    """Truncation and rounding of a central difference are both of order eps^⅔."""
    import torch

    N, dtype = context.batch.R_in.shape[-1], context.batch.R_in.dtype
    one = torch.ones(N, 1, dtype=dtype)
    cases = {
        "R = I": torch.eye(N, dtype=dtype).expand_as(context.batch.R_in),
        "rank one": (one @ one.mH).expand_as(context.batch.R_in),
        "R = R_true": context.batch.R_in,
    }
    config, found = all_weights(context.config), []
    for name, R in cases.items():
        leaf = R.clone().requires_grad_()
        total = context.pipeline.loss(context.outputs, leaf, context.batch, config, R_blend=leaf, training=True).total
        (slope,) = torch.autograd.grad(total, leaf)
        bad = int((~torch.isfinite(torch.view_as_real(slope))).sum())
        found.append(at_most(float(bad), 0.0, "entries of the gradient that are not finite", where=name))
    return [*found, _against_difference(context, config), *output_slopes(context)]


def _against_difference(context: Context, config: Config) -> Measurement:
    import torch

    batch = dataclasses.replace(
        context.batch, R_in=context.batch.R_in.to(torch.complex128), ptr=context.batch.ptr.double()
    )
    generator = torch.Generator().manual_seed(context.seed)
    start = separated(context.blend.R)
    step = torch.randn(start.shape, generator=generator, dtype=torch.complex128)
    step = (step + step.mH) / 2
    # As exact as the batch: terms may be added in the precision of the outputs.
    outputs = dataclasses.replace(context.outputs, **{n: v.double() for n, v in vars(context.outputs).items()})

    def total(t: Tensor | float) -> Tensor:
        R = start + t * step
        return context.pipeline.loss(outputs, R, batch, config, R_blend=R, training=False).total

    t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    value = total(t)
    (slope,) = torch.autograd.grad(value, t)
    h = torch.finfo(value.dtype).eps ** (1 / 3)
    difference = float(total(h) - total(-h)) / (2 * h)
    bound = 1e3 * h**2 * max(1.0, abs(difference))
    return close(float(slope), difference, bound, "slope of the loss in R, autograd and difference")
