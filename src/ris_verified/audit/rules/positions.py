"""Section O, positions: peaks at the truth, and scores of perfect and imperfect predictions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ris_verified.audit.context import Context
from ris_verified.audit.laws.estimation import any_start, at_edges, refining, require_surface, several_sources
from ris_verified.audit.laws.judging import metric_obeys
from ris_verified.audit.laws.matching import known_cases
from ris_verified.audit.laws.model_laws import heads_agree
from ris_verified.audit.oracle import closed_form, view_grid
from ris_verified.audit.rule import Measurement, at_least, at_most, close, equal, mended, rule
from ris_verified.audit.rules.losses import all_weights

if TYPE_CHECKING:
    from torch import Tensor

    from ris_verified.model.output import ModelOutput

SHIFT = 0.15


@rule(
    "RV1602",
    "The true covariance's spectrum peaks at the truth, everywhere in the view",
    law="for one source at p: spectrum and Newton on a(p)a(p)ᴴ return p, in azimuth, elevation and range",
    why="A sign, a unit or an order of axes that differs in the search shows in some corner of the view only.",
    how="45 positions over the view, covariances from the closed form in NumPy. Spectrum: correlation of the found "
    "with the true steering vector, bound 1/2, inside the main lobe. Newton: the same, bound 1 − 1e-6; distance at "
    "most a hundredth of the range. Then K = 1 … K_MAX sources apart, the others 30 dB below: each has a peak and a "
    "refined position of its own, in its slot. Newton from edges of the view at random covariances: finite, inside "
    "the view, null spectrum (NumPy) not above the start's by more than 1e3 eps·N. Heads: slots of a scene differ, "
    "R_pred is not real, and without the learned residual a slot's factors multiply to the closed form at its own "
    "angles and range, bound 32 eps of the phase; free factors, not of unit modulus, are exempt.",
    remedy="use the one steering convention, conjugates included, in the search; "
    "where that is so, refine estimate.grid_azimuth, grid_elevation and grid_range",
)
def peaks_at_truth(context: Context) -> Sequence[Measurement]:
    """f = 1 − |aᴴâ|²/‖a‖²‖â‖² is minimised to rounding, far below 1e-6 where Newton converges."""
    import numpy as np
    import torch

    require_surface(context)
    p, cfg = context.pipeline, refining(context.config)
    place = [v.numpy() for v in view_grid(context)]
    a = torch.from_numpy(closed_form(context, *place))
    R = a[:, :, None] * a[:, None].conj()
    K = torch.ones(len(R), dtype=torch.int64)
    with torch.no_grad():
        # The grid is searched in single precision, as in an evaluation; Newton refines in double.
        peaks = p.spectrum(R.to(torch.complex64), K, cfg)
        # The law is the stage's: a run that takes fewer or shorter steps has chosen not to arrive.
        steps = {"estimate.newton_iterations": max(10, cfg.estimate.newton_iterations), "estimate.newton_step": 1.0}
        refined = p.newton(R, K, peaks, cfg.replaced(steps))
    found = []
    for name, estimate, bound in (("spectrum", peaks, 0.5), ("newton", refined, 1 - 1e-6)):
        columns = [v[:, 0].double().numpy() for v in (estimate.azimuth, estimate.elevation, estimate.range)]
        other = closed_form(context, *(np.nan_to_num(v, nan=1.0) for v in columns))
        size = np.linalg.norm(other, axis=-1) * a.norm(dim=-1).numpy()
        likeness = np.abs((other.conj() * a.numpy()).sum(-1)) / size
        worst = int(likeness.argmin())
        where = f"{name} at φ = {place[0][worst]:.2f}, θ = {place[1][worst]:.2f}, r = {place[2][worst]:.2f} m"
        found.append(at_least(float(likeness.min()), bound, "|aᴴâ|/‖a‖‖â‖ of the found position", where=where))
    distance = p.match(refined.azimuth, refined.elevation, refined.range, _truth(context)).distance[:, 0]
    relative = distance / view_grid(context)[2]
    found.append(at_most(float(relative.max()), 0.01, "distance over range after Newton", where="newton"))
    return [
        *found,
        *several_sources(context),
        *mended(
            [*at_edges(context), *any_start(context)], "stay in the configured view; keep a step only where it helps"
        ),
        *mended(
            heads_agree(context), "pack the factors of each slot's own angles and range, in evaluation as in training"
        ),
    ]


def _truth(context: Context) -> Tensor:
    import torch

    grid = torch.stack(view_grid(context), -1)
    ptr = torch.full((len(grid), context.config.scene.sources_max, 3), torch.nan, dtype=torch.float64)
    ptr[:, 0] = grid
    return ptr


def perfect(context: Context) -> ModelOutput:
    """Return the output of a network that knows the truth: factors, order, angles and ranges."""
    import torch

    batch, cfg = context.batch, context.config
    present = torch.isfinite(batch.ptr).all(-1)
    place = torch.where(present[..., None], batch.ptr, 1.0).double()
    A = context.pipeline.steering(cfg.array, *place.unbind(-1)).mT * present[:, None]
    ones = torch.ones_like(A)
    flat = [torch.view_as_real(f.to(torch.complex64).contiguous()).flatten(1) for f in (A, ones)]
    logits = torch.full((len(batch), cfg.scene.sources_max), -40.0)
    logits[torch.arange(len(batch)), batch.K - 1] = 40.0
    return dataclasses.replace(
        context.outputs, cov_fact_angle=flat[0], cov_fact_range=flat[1], k_logits=logits,
        angles=place[..., :2].float(), ranges=place[..., 2].float(),
    )  # fmt: skip


@rule(
    "RV1603",
    "A perfect prediction scores perfectly, others in order",
    law="at the truth every loss term is 0, capture 1, matching distance 0, in any order of the sources; constant, "
    "random and shifted predictions score worse; an empty one misses all",
    why="A metric that cannot reach its best, or that depends on an order, ranks networks by chance.",
    how="A perfect output is built from the positions and run through R_pred, loss, capture and matching; then a "
    "constant (I), random factors, sources shifted by 0.15 rad, and no estimate. Bounds: 8 eps·N; strict order. The "
    "metric: each source moved by 3.99 and 4.01 of its own bounds, which differ, and of each coordinate's.",
    remedy="match by the Hungarian method, index errors and bounds by the match, normalise by the truth",
)
def perfect_scores(context: Context) -> Sequence[Measurement]:
    """float32 factors give R_pred to eps·N; positions are copied, so distances are zero but for rounding."""
    import torch

    from ris_verified.contracts import tolerance
    from ris_verified.covariance.capture import subspace_capture

    batch, cfg, out = context.batch, context.config, perfect(context)
    if cfg.scene.power_spread_db == 0 and cfg.covariance.factor_mode == "product":
        R = context.pipeline.predicted_covariance(out.cov_fact_angle, out.cov_fact_range, cfg)
    else:
        R = batch.R_in
    N = cfg.array.elements
    bound = tolerance(torch.float32, N, 8)
    terms = _terms(context, out, R)
    found = [
        at_most(abs(value), bound, f"{name} of a perfect prediction", where="loss") for name, value in terms.items()
    ]
    capture = float(subspace_capture(R.to(torch.complex128), batch.ptr, cfg.array).min())
    found.append(at_least(capture, 1 - 10 * bound, "capture of a perfect prediction", where="subspace_capture"))
    best = sum(terms.values())
    for name, other_out, other in _imperfect(context, out):
        worse = sum(_terms(context, other_out, other).values())
        found.append(
            at_least(worse - best, 100 * bound, f"loss of a {name} prediction above the perfect", where="loss")
        )
        share = float(subspace_capture(other.to(torch.complex128), batch.ptr, cfg.array).mean())
        found.append(at_most(share, 0.9, f"capture of a {name} prediction", where="subspace_capture"))
    return found + _unequal(context) + _matching(context) + metric_obeys(context)


def _terms(context: Context, outputs: ModelOutput, R: Tensor) -> dict[str, float]:
    config = all_weights(context.config)
    result = context.pipeline.loss(outputs, R, context.batch, config, R_blend=R, training=False)
    return {name: float(value) for name, value in result.terms.items()}


def _imperfect(context: Context, out: ModelOutput) -> list[tuple[str, ModelOutput, Tensor]]:
    import torch

    p, cfg, batch = context.pipeline, context.config, context.batch
    generator = torch.Generator().manual_seed(context.seed)
    noise = [torch.randn(f.shape, generator=generator) for f in (out.cov_fact_angle, out.cov_fact_range)]
    random = p.predicted_covariance(noise[0], noise[1], cfg)
    eye = torch.eye(cfg.array.elements, dtype=batch.R_in.dtype).expand_as(batch.R_in)
    ptr = batch.ptr.double()
    ptr = torch.stack([ptr[..., 0] + SHIFT, ptr[..., 1] + SHIFT, ptr[..., 2]], -1)
    present = torch.isfinite(ptr).all(-1)
    A = p.steering(cfg.array, *torch.where(present[..., None], ptr, 1.0).unbind(-1)).mT * present[:, None]
    R = A @ A.mH
    R = (R * (len(A[0]) / torch.diagonal(R, dim1=1, dim2=2).real.sum(-1))[:, None, None]).to(batch.R_in.dtype)
    return [("constant", out, eye), ("random", out, random), ("shifted", out, R)]


def _unequal(context: Context) -> list[Measurement]:
    import torch

    p, cfg = context.pipeline, context.config
    if cfg.covariance.factor_mode != "product" or cfg.scene.sources_max < 2:
        return []
    place = torch.tensor([[0.3, -0.2, 3.0], [-0.4, 0.1, 1.5]], dtype=torch.float64)
    A = p.steering(cfg.array, *place.unbind(-1)).mT * torch.tensor([1.0, 0.1])
    factor = torch.zeros(1, cfg.array.elements, cfg.scene.sources_max, dtype=torch.complex128)
    factor[0, :, :2] = A
    flat = [torch.view_as_real(f.contiguous()).flatten(1) for f in (factor, torch.ones_like(factor))]
    values = torch.linalg.eigvalsh(p.predicted_covariance(flat[0], flat[1], cfg))[0, -2:]
    gram = torch.linalg.eigvalsh(A.mH @ A)
    ratio = float(values[0] / values[1])
    return [close(ratio, float(gram[0] / gram[1]), 1e-9, "eigenvalue ratio of two sources 20 dB apart", where="R_pred")]


def _matching(context: Context) -> list[Measurement]:
    import torch

    match, ptr = context.pipeline.match, context.batch.ptr.double()
    K = torch.isfinite(ptr).all(-1).sum(-1)
    azimuth, elevation, range = ptr.flip(1).unbind(-1)
    scale = float(ptr[torch.isfinite(ptr)].abs().max())
    pairs = match(azimuth, elevation, range, ptr)
    eps = torch.finfo(torch.float64).eps
    matched = pairs.distance[torch.isfinite(pairs.distance)]
    # No pair at all is no distance: the law on misses speaks then.
    worst = float(matched.max()) if matched.numel() else float("inf")
    missed = int((K - torch.isfinite(pairs.distance).sum(-1)).sum())
    moved = match(azimuth + SHIFT, elevation, range, ptr).distance
    none = torch.full_like(azimuth, torch.nan)
    empty = match(none, none, none, ptr)
    return [
        at_most(worst, 64 * eps * scale, "distance of the truth in reverse order", "m", "match"),
        equal(missed, 0, "sources missed by the truth in reverse order", "sources", "match"),
        at_least(float(moved[torch.isfinite(moved)].mean()), 0.01, "distance of shifted estimates", "m", "match"),
        equal(int((empty.estimate_index >= 0).sum()), 0, "matches of no estimate", "sources", "match"),
        equal(empty.misses.tolist(), K.tolist(), "misses of no estimate", "sources", "match"),
        *known_cases(context),
    ]
