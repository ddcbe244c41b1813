"""Section 07: shapes, packing and the laws of the covariances."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ris_verified.audit.context import Context
from ris_verified.audit.laws.centring import survives_centring
from ris_verified.audit.laws.contracts_asked import questions
from ris_verified.audit.laws.known import predicted_of_known, sample_formula, sample_of_missing
from ris_verified.audit.oracle import numerical_rank
from ris_verified.audit.rule import Measurement, NotApplicable, at_least, at_most, equal, mended, rule

if TYPE_CHECKING:
    pass

FAR = 100.0  # metres: there the mirror image's steering vector is the complex conjugate


@rule(
    "RV0701",
    "The factors are [B, N·K_MAX·2], real",
    law="cov_fact_angle, cov_fact_range ∈ ℝ^(B × N·K_MAX·2); k_logits, ranges ∈ ℝ^(B × K_MAX); "
    "angles ∈ ℝ^(B × K_MAX × 2)",
    why="A factor of another layout still multiplies to something Hermitian, and a loss broadcasts whatever it can.",
    how="Shape and dtype of the model's outputs on drawn scenes, at the configured sizes and at the small ones.",
    remedy="flatten factors as element, source, (re, im); one logit, one pair of angles and one range for each slot",
)
def factor_shapes(context: Context) -> Sequence[Measurement]:
    """Integers: no tolerance."""
    found = []
    for name, place in (("", context), (" at the small sizes", context.small)):
        B, K, N = len(place.batch), place.config.scene.sources_max, place.config.array.elements
        factor = [B, N * K * 2]
        wanted = {"cov_fact_angle": factor, "cov_fact_range": factor, "k_logits": [B, K], "angles": [B, K, 2],
                  "ranges": [B, K]}  # fmt: skip
        for field, shape in wanted.items():
            value = vars(place.outputs)[field]
            found.append(equal(list(value.shape), shape, f"shape{name}", where=field))
            found.append(equal(value.is_floating_point(), True, "real floating point", where=field))
    return found


@rule(
    "RV0702",
    "Shapes and dtypes of the batch",
    law="y, H [B, L, M, 2], H_full [B, M, N, 2], C [B, L, N, 2], float32; H = H_full c_l",
    why="L = M at the reference sizes: a transposed y passes every shape check there and nowhere else.",
    how="Shapes and dtypes at the reference sizes and on the small panel with L ≠ M ≠ N; H against H_full c_l, bound "
    "8 eps·N of its largest entry.",
    remedy="stack snapshots first, antennas second",
)
def batch_shapes(context: Context) -> Sequence[Measurement]:
    """A sum of N float32 products has relative error at most eps·N."""
    import torch

    from ris_verified.shapes import from_ri

    found = []
    for name, place in (("reference", context), ("small", context.small)):
        cfg, batch = place.config, place.batch
        B, L, M, N = len(batch), cfg.scene.snapshots, cfg.scene.antennas, cfg.array.elements
        wanted = {"y": [B, L, M, 2], "H": [B, L, M, 2], "H_full": [B, M, N, 2], "C": [B, L, N, 2]}
        for field, shape in wanted.items():
            value = vars(batch)[field]
            found.append(equal(list(value.shape), shape, f"shape at the {name} sizes", where=field))
            found.append(equal(value.dtype, torch.float32, f"dtype at the {name} sizes", where=field))
    if not all(m.passed for m in found):
        return found
    H, C, H_full = (from_ri(vars(context.batch)[n].double()) for n in ("H", "C", "H_full"))
    error = float((H - C @ H_full.mT).abs().max() / H.abs().max())
    bound = 8 * torch.finfo(torch.float32).eps * H_full.shape[-1]
    return [*found, at_most(error, bound, "H against H_full c_l", where="H")]


@rule(
    "RV0703",
    "One interleaving of real and imaginary parts",
    law="from_ri(to_ri(z)) = z exactly; data, factors and covariance use the same order",
    why="Real parts first and imaginary parts after gives the same shape and another matrix.",
    how="Round trip on random numbers; y and H_full of the batch against the scenes' complex arrays; R_pred of "
    "two random factors packed as [N, K_MAX, (re, im)], in both precisions, against the formula of each factor_mode,"
    " bound 8 eps·N relative.",
    remedy="use to_ri and from_ri everywhere",
)
def interleaving(context: Context) -> Sequence[Measurement]:
    """Packing moves bits: bound 0 after rounding to float32; the product has N-term sums."""
    import numpy as np
    import torch

    from ris_verified.shapes import from_ri, to_ri

    cfg, batch = context.config, context.batch
    generator = torch.Generator().manual_seed(context.seed)
    N, K = cfg.array.elements, cfg.scene.sources_max
    z = torch.randn(2, N, K, generator=generator, dtype=torch.complex64)
    found = [equal(torch.equal(from_ri(to_ri(z)), z), True, "round trip is exact", where="to_ri")]
    for name in ("y", "H_full"):
        pairs = [np.stack([vars(s)[name].real, vars(s)[name].imag], -1) for s in context.scenes]
        error = float(np.abs(vars(batch)[name].numpy() - np.stack(pairs).astype(np.float32)).max())
        found.append(at_most(error, 0.0, "batch against the scenes' (re, im) pairs", where=name))
    formula = "combine the factors as covariance.factor_mode says, element by element, and scale to trace N exactly"
    return [*found, *mended(predicted_of_known(context), formula)]


@rule(
    "RV0704",
    "R_pred is Hermitian, positive, of rank ≤ K_MAX and trace N",
    law="R = Rᴴ ⪰ 0, rank R ≤ K_MAX, tr R = N, and a source is told from its mirror image",
    why="A real symmetric R_pred gives a source and its mirror image the same matrix.",
    how="R_pred of the model's factors: largest entry of R − Rᴴ and smallest eigenvalue, bound 8 eps·N of trace N; "
    "rank above 4 eps·N. Mirror: for a one-source factor, the correlation of R_pred with the steering vector of"
    " (−φ, −θ) is below that with (φ, θ).",
    remedy='use factor_mode = "product" with complex factors',
)
def predicted_laws(context: Context) -> Sequence[Measurement]:
    """An N-term float32 sum has relative error eps·N; eigenvalues move by at most the error's norm."""
    import torch

    from ris_verified.contracts import tolerance

    R, cfg = context.blend.R_pred, context.config
    N, K = cfg.array.elements, cfg.scene.sources_max
    bound = tolerance(R.dtype, N, 8)
    smallest = float(torch.linalg.eigvalsh(R.to(torch.complex128))[:, 0].min())
    trace = torch.diagonal(R, dim1=1, dim2=2).real.double().sum(-1)
    rank_limit = 2 * K if cfg.covariance.factor_mode == "sum" else K
    return [
        equal(list(R.shape), [len(context.batch), N, N], "shape", where="R_pred"),
        equal(R.is_complex(), True, "complex", where="R_pred"),
        at_most(float((R - R.mH).abs().max()), bound * N / K, "largest entry of R − Rᴴ", where="R_pred"),
        at_least(smallest, -bound * N, "smallest eigenvalue", where="R_pred"),
        at_most(float(numerical_rank(R)), float(rank_limit), "rank", where="R_pred"),
        at_most(float(((trace - N).abs() / N).max()), 1e-5, "|tr − N|/N", where="R_pred"),
        _mirror(context),
    ]


def _mirror(context: Context) -> Measurement:
    import torch

    cfg = context.config
    place = torch.tensor([[0.4, 0.2, FAR], [-0.4, -0.2, FAR]], dtype=torch.float64)
    a = context.pipeline.steering(cfg.array, *place.unbind(-1))
    factor = torch.zeros(1, cfg.array.elements, cfg.scene.sources_max, dtype=torch.complex128)
    factor[0, :, 0] = a[0]
    ones = torch.ones_like(factor)
    flat = [torch.stack([f.real, f.imag], -1).reshape(1, -1) for f in (factor, ones)]
    R = context.pipeline.predicted_covariance(flat[0], flat[1], cfg)[0]
    power = ((a.conj() @ R) * a).sum(-1).real
    message = f'power at the mirror image over power at the source (factor_mode = "{cfg.covariance.factor_mode}")'
    return at_most(float(power[1] / power[0]), 0.5, message, where="R_pred")


@rule(
    "RV0705",
    "R_samp is the ridge solution's covariance",
    law="x̂ = (ΦᴴΦ + αI)⁻¹Φᴴy, α = ridge·(tr G/N + 1e-12), centred; R_samp ∝ X̂ᵀX̂*, rank ≤ L − 1, trace N",
    why="A conjugate on the wrong side still gives a Hermitian positive matrix: of the mirrored scene.",
    how="Both stages, at the reference and at the small size, at the configured ridge and at three times it, in float64"
    " and float32, against the N × N normal equations solved here in float64 by another path. Bound: cond·eps with "
    "cond ≤ N/ridge + 1, eps of the returned precision; rank above 4 eps·N at most L − 1. A scene of NaN has none.",
    remedy="R_samp = Σ x̂_l x̂_lᴴ, conjugate on the second factor, snapshots centred, complex64",
)
def sample_laws(context: Context) -> Sequence[Measurement]:
    """λmax(G)/α ≤ tr G/(ridge tr G/N) = N/ridge bounds the condition number of G + αI."""
    import torch

    from ris_verified.contracts import tolerance

    found = [m for place in (context, context.small) for m in sample_formula(place)] + sample_of_missing(context)
    cfg, b = context.config, context.batch
    R = context.pipeline.sample_covariance(b.y, b.H_full, b.C, cfg)
    N = cfg.array.elements
    limit = cfg.scene.snapshots - (1 if cfg.covariance.centre else 0)
    trace = torch.diagonal(R, dim1=1, dim2=2).real.double().sum(-1)
    return [
        *found,
        equal(R.dtype, torch.complex64, "dtype", where="R_samp"),
        at_most(float((R - R.mH).abs().max()), tolerance(R.dtype, N, 8) * N, "largest entry of R − Rᴴ", where="R_samp"),
        at_most(float(numerical_rank(R)), float(limit), "rank", where="R_samp"),
        at_most(float(((trace - N).abs() / N).max()), 1e-5, "|tr − N|/N", where="R_samp"),
    ]


@rule(
    "RV0706",
    "Centring leaves the signal",
    law="Σ‖x_l − x̄‖²/Σ‖x_l‖² is near (L − 1)/L for varying symbols, and centring is off for constant ones",
    why="Mean-centring removes a pilot that does not vary: R_samp is then noise only.",
    how="Share of each source's energy that centring leaves, in drawn scenes and with --data in up to 256 stored ones "
    "of each split; 0 for symbols that do not vary. Bounds: half of (L − 1)/L for the mean, and for the least of n "
    "sources the share that Gaussian symbols undercut once in 1e9 times, (1e-9/n)^(1/(L − 1)).",
    remedy="set covariance.centre = false and use the joint least squares, or vary the symbols",
)
def centring(context: Context) -> Sequence[Measurement]:
    """Shares are Beta(L − 1, 1): mean (L − 1)/L with spread of at most 0.29/√72 (L = 2), P(share < s) = s^(L − 1)."""
    if not context.config.covariance.centre:
        raise NotApplicable("centring is off")
    return survives_centring(context)


@rule(
    "RV0707",
    "Shape contracts are on at every stage boundary",
    law="a wrong shape raises one RisVerifiedError that names it and the expected one",
    why="Broadcasting turns a wrong shape into a wrong number.",
    how="Every stage that takes tensors, the network too, is called with one tensor of an axis too many or of an axis "
    "too long by one, some 190 calls. The error must be of `ris_verified.errors` and name the given shape and, in "
    "figures or by the axes' names, the expected one.",
    remedy="put the stage behind `ris_verified.shapes.shaped`, or call `require_axes` first",
)
def contracts_on(context: Context) -> Sequence[Measurement]:
    """Raises or not: no tolerance."""
    import torch

    cfg = context.config
    with torch.no_grad():
        found = [question.answer() for question in questions(context)]
    config_contracts = dataclasses.asdict(cfg).get("contracts")
    on = equal(config_contracts, True, "config.contracts", where="config")
    return [*found, *mended([on], "set contracts = true: they are switched off in a measured run only")]
