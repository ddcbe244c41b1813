"""Identities of the loss, scene by scene; measured for RV0603."""

from __future__ import annotations

import dataclasses
import itertools
from typing import TYPE_CHECKING

from ris_verified.audit.context import Context
from ris_verified.audit.laws.loss_bench import Bench, rounding
from ris_verified.audit.laws.position_laws import slots, sources
from ris_verified.audit.rule import Measurement, at_least, at_most, close, mended

if TYPE_CHECKING:
    from ris_verified.loss.total import LossResult

WHERE = "loss"


def loss_laws(context: Context) -> list[Measurement]:
    """Measure all identities at the small size."""
    bench = Bench(context.small)
    each = "average over the scenes; a term of one scene reads that scene only"
    formula = "‖R − R_true‖²_F/‖R_true‖²_F of each scene, unclamped"
    places = "assign slots to sources one to one, by all three coordinates, and average over the true ones"
    return [
        *mended(_additive(bench), each), *mended(_closed_form(bench), formula), *_ends(bench), *_close(bench),
        *mended([*slots(bench), *sources(bench)], places),
    ]  # fmt: skip


def _figures(result: LossResult) -> dict[str, float]:
    return {
        "total": float(result.total),
        "logged NMSE": float(result.nmse),
        **{n: float(v) for n, v in result.terms.items()},
    }


def _additive(bench: Bench) -> list[Measurement]:
    """The loss of B scenes is the mean of the losses of one, so no scene weighs on another's."""
    whole = _figures(bench.evaluate(bench.outputs, bench.R, bench.batch))
    single = [_figures(bench.evaluate(*bench.row(i))) for i in range(len(bench.K))]
    found = []
    for name, value in whole.items():
        mean = sum(s.get(name, float("nan")) for s in single) / len(single)
        bound = rounding(bench.R) * max(1.0, abs(mean))
        found.append(
            close(value, mean, bound, f"{name} of {len(single)} scenes against the mean over each alone", where=WHERE)
        )
    return found


def _closed_form(bench: Bench) -> list[Measurement]:
    """NMSE = ‖R − R_true‖²_F/‖R_true‖²_F of each scene, in NumPy."""
    import numpy as np

    found = []
    for i, K in enumerate(bench.K):
        outputs, R, batch = bench.row(i)
        wanted = float(np.sum(np.abs(R.numpy() - batch.R_in.numpy()) ** 2) / np.sum(np.abs(batch.R_in.numpy()) ** 2))
        result = bench.evaluate(outputs, R, batch, "covariance")
        for name, value in (("covariance", float(result.terms["covariance"])), ("logged NMSE", float(result.nmse))):
            bound = rounding(R) * max(1.0, wanted)
            found.append(close(value, wanted, bound, f"{name} against ‖R − R_true‖²/‖R_true‖², K = {K}", where=WHERE))
    return found


def _ends(bench: Bench) -> list[Measurement]:
    """For every K: alignment 0 at the truth, 1 across, growing between; order 0 for the right K only."""
    import torch

    found, N = [], bench.R.shape[-1]
    for i, K in enumerate(bench.K):
        outputs, _, batch = bench.row(i)
        truth = batch.R_in
        values, vectors = torch.linalg.eigh(truth.to(torch.complex128))
        U = vectors[..., -K:] if float(values[0, -K]) > 1e-6 * N else vectors[..., -1:]
        across = ((torch.eye(N) - U @ U.mH) * (N / (N - U.shape[-1]))).to(truth.dtype)
        if U.shape[-1] == K:
            steps = [(1 - s) * truth + s * across for s in (0.0, 0.25, 0.5, 0.75, 1.0)]
            curve = [float(bench.evaluate(outputs, R, batch, "alignment").terms["alignment"]) for R in steps]
            rise = min(b - a for a, b in itertools.pairwise(curve))
            found.append(close(curve[0], 0.0, 1e-4, f"alignment at the truth, K = {K}", where="alignment"))
            found.append(close(curve[-1], 1.0, 1e-4, f"alignment at its complement, K = {K}", where="alignment"))
            found.append(
                at_least(rise, 1e-4, f"rise of alignment from truth to complement, K = {K}", where="alignment")
            )
            gap = float(bench.evaluate(outputs, across, batch, "eigengap").terms["eigengap"])
            found.append(at_least(gap, 1e-3, f"eigengap at the truth's complement, K = {K}", where="eigengap"))
        most = outputs.k_logits.shape[1]
        for k in range(most):
            logits = torch.full((1, most), -20.0)
            logits[0, k] = 20.0
            made = dataclasses.replace(outputs, k_logits=logits)
            value = float(bench.evaluate(made, truth, batch, "order").terms["order"])
            message = f"order for {K} sources with the logits on {k + 1}"
            right = close(value, 0.0, 1e-4, message, where="order")
            one = right if k + 1 == K else at_least(value, 0.1, message, where="order")
            found += mended([one], "cross-entropy of k_logits with the class K − 1")
    return found


def _close(bench: Bench) -> list[Measurement]:
    """Two sources within one lobe span two dimensions: their own covariance has no alignment left."""
    import torch

    if bench.most < 2:
        return []
    outputs, _, batch = bench.row(0)
    place = torch.tensor([[0.2, -0.1, 2.0], [0.23, -0.1, 2.0]], dtype=torch.float64)
    array = bench.context.config.array
    A = bench.context.pipeline.steering(array, *place.unbind(-1)).mT
    R = A @ A.mH
    R = (R * (len(R) / torch.diagonal(R).real.sum()))[None].to(batch.R_in.dtype)
    ptr = torch.full_like(batch.ptr, torch.nan)
    ptr[0, :2] = place.to(ptr.dtype)
    truth = dataclasses.replace(batch, ptr=ptr, K=torch.full_like(batch.K, 2), R_in=R)
    value = float(bench.evaluate(outputs, R, truth, "alignment").terms["alignment"])
    return [close(value, 0.0, 1e-3, "alignment at the truth, two sources 0.03 rad apart", where="alignment")]


def left_out_alone(context: Context) -> list[Measurement]:
    """Return that a weight of zero takes its own term away: the others and the logged error stay; for RV0602."""
    names = [field.name for field in dataclasses.fields(context.config.loss)]
    whole, found = _weighted(context, dict.fromkeys(names, 1.0)), []
    scale = max(1.0, *(abs(value) for value in whole.values()))
    for name in names:
        figures = _weighted(context, {n: float(n != name) for n in names})
        kept = {n: v for n, v in whole.items() if n not in (name, "total")}
        apart = max(abs(figures.get(n, float("inf")) - v) for n, v in kept.items())
        text = f"change of the other terms and the logged NMSE with loss.{name} = 0"
        found.append(at_most(apart, 8 * rounding(context.blend.R) * scale, text, where=WHERE))
    return found


def _weighted(context: Context, weights: dict[str, float]) -> dict[str, float]:
    config, b = context.config.replaced({f"loss.{name}": value for name, value in weights.items()}), context.blend
    made = context.pipeline.loss(context.outputs, b.R_pred, context.batch, config, R_blend=b.R, training=False)
    return _figures(made)
