"""What RV0803 and RV0502 measure on blends: of known matrices and of the scenes, with proof and gradients."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from ris_verified.audit.context import Context
from ris_verified.audit.laws.known import normalised, random_covariances
from ris_verified.audit.oracle import relative
from ris_verified.audit.rule import Measurement, at_most, close, equal

if TYPE_CHECKING:
    from torch import Tensor

    from ris_verified.config import Config
    from ris_verified.covariance.blend import Blend, BlendProof

LOADING = 1e-3  # checklist


def blend_of_scenes(context: Context, name: str, blended: Blend) -> list[Measurement]:
    """Return one blend of the drawn scenes against the formula of its own matrices."""
    import torch

    from ris_verified.contracts import tolerance

    cfg, c128 = context.config.covariance, torch.complex128
    P, S, raw, R = (vars(blended)[n].to(c128) for n in ("R_pred", "R_samp", "R_raw", "R"))
    N = R.shape[-1]
    bound = tolerance(blended.R.dtype, N, 8)
    mixed = (1 - cfg.beta) * P + cfg.beta * S
    mixed = (mixed + mixed.mH) / 2
    mixed = mixed * (N / torch.diagonal(mixed, dim1=1, dim2=2).real.sum(-1))[:, None, None]
    wanted = (mixed + cfg.loading * torch.eye(N, dtype=c128)) / (1 + cfg.loading)
    apart = S - P
    beta = (apart.conj() * (raw - P)).real.sum((1, 2)) / apart.abs().square().sum((1, 2))
    smallest = torch.linalg.eigvalsh(R)[:, 0].mean().item()
    epsilon = smallest / (1 - smallest) if smallest < 1 else float("inf")
    found = [
        at_most(relative(R, wanted), bound, "distance from the formula, relative", where=name),
        close(beta.mean().item(), cfg.beta, bound, "β measured on the blend", where=name),
    ]
    # On a panel so small that the snapshots fill it, R_raw is not singular and its smallest eigenvalue says nothing.
    slots = context.config.scene.sources_max * (2 if cfg.factor_mode == "sum" else 1)
    if slots + context.config.scene.snapshots < N:
        found.append(close(epsilon, LOADING, bound, "ε measured as the smallest eigenvalue", where=name))
    return found


def blend_of_known(context: Context, name: str) -> list[Measurement]:
    """Return one blend stage's answer to known matrices, at the configured, at other and at zero β, and its proof.

    Args:
        context: the evidence.
        name: `blend` or `inference_blend`.
    """
    config = context.config
    other = dataclasses.replace(config.covariance, beta=0.45, loading=4e-3)
    low = context.config.scene.snapshots
    P = random_covariances(context, 1, config.scene.sources_max)
    S = random_covariances(context, 2, low)
    stage = vars(context.pipeline)[name]
    first = stage(P, S, config)
    found = _formula(first, P, S, config, name)
    second = stage(S, P, dataclasses.replace(config, covariance=other))
    found += _formula(second, S, P, dataclasses.replace(config, covariance=other), name)
    # Zero is a value like any other, and false.
    for field in ("beta", "loading"):
        none = config.replaced({f"covariance.{field}": 0.0})
        found += _formula(stage(P, S, none), P, S, none, name)
    found += _proof(first.proof, first, name) + _proof(second.proof, second, name)
    broken = dataclasses.replace(first, R_raw=first.R_raw + 0.01 * (first.R_samp - first.R_pred))
    found.append(
        equal(broken.proof.holds.any().item(), False, "the proof of a raw blend with β off by 0.01", where=name)
    )
    return [*found, *_rough(stage, P, S, config, name), *_gradients(stage, P, S, config, name)]


def _formula(made: Blend, P: Tensor, S: Tensor, cfg: Config, name: str) -> list[Measurement]:
    import torch

    beta, loading = cfg.covariance.beta, cfg.covariance.loading
    raw = (1 - beta) * P + beta * S
    mixed = normalised((raw + raw.mH) / 2)
    N = P.shape[-1]
    wanted = (mixed + loading * torch.eye(N, dtype=P.dtype)) / (1 + loading)
    bound = 8 * torch.finfo(made.R.dtype).eps * N
    pairs = {"R": wanted, "R_pred": P, "R_samp": S, "R_raw": raw}
    text = f"of known matrices at β = {beta:g}, ε = {loading:g}, distance from the formula"
    found = [equal(made.R.dtype, P.dtype, "dtype of R for complex128 matrices", where=name)]
    found += [at_most(relative(vars(made)[n], w), bound, f"{n} {text}", where=name) for n, w in pairs.items()]
    found.append(close(made.beta, beta, 0.0, "β in the result", where=name))
    return [*found, close(made.loading, loading, 0.0, "ε in the result", where=name)]


def _proof(proof: BlendProof, made: Blend, name: str) -> list[Measurement]:
    """Return every figure of a proof against the matrices that it is about."""
    import torch

    c128 = torch.complex128
    P, S, raw, R = (vars(made)[n].to(c128) for n in ("R_pred", "R_samp", "R_raw", "R"))
    norm = torch.linalg.matrix_norm
    inner = (P.conj() * S).real.sum((1, 2))
    b = made.beta
    wanted = {
        "trace_pred": _trace(P), "trace_samp": _trace(S), "trace_blend": _trace(R), "norm_pred": norm(P),
        "norm_samp": norm(S), "norm_raw": norm(raw), "norm_blend": norm(R), "distance": norm(S - P),
        "moved": norm(raw - P), "inner": inner,
        "expected_square": (1 - b) ** 2 * norm(P) ** 2 + b**2 * norm(S) ** 2 + 2 * b * (1 - b) * inner,
    }  # fmt: skip
    scale = norm(P) ** 2 + norm(S) ** 2
    bound = 64 * torch.finfo(P.real.dtype).eps * P.shape[-1]
    found = []
    for figure, value in wanted.items():
        error = float(((vars(proof)[figure] - value).abs() / scale).max())
        found.append(at_most(error, bound, f"proof.{figure} against its matrices, over ‖P‖² + ‖S‖²", where=name))
    return [*found, equal(bool(proof.holds.all()), True, "the proof holds on known matrices", where=name)]


def _trace(R: Tensor) -> Tensor:
    import torch

    return torch.diagonal(R, dim1=1, dim2=2).real.sum(-1)


def _rough(stage: Any, P: Tensor, S: Tensor, cfg: Config, name: str) -> list[Measurement]:
    """Return that trace and symmetry are restored, where the stage takes matrices that lack them."""
    import torch

    from ris_verified.errors import RisVerifiedError

    skew = 1e-6 * torch.triu(torch.ones_like(P[0]), 1)
    try:
        made = stage(2 * P, S + skew, cfg)
    except RisVerifiedError:
        return []
    beta, loading = cfg.covariance.beta, cfg.covariance.loading
    raw = 2 * (1 - beta) * P + beta * (S + skew)
    N = P.shape[-1]
    wanted = (normalised((raw + raw.mH) / 2) + loading * torch.eye(N, dtype=P.dtype)) / (1 + loading)
    text = "R of matrices of trace 2N and not quite Hermitian, distance from the formula"
    return [at_most(relative(made.R, wanted), 8 * torch.finfo(made.R.dtype).eps * N, text, where=name)]


def _gradients(stage: Any, P: Tensor, S: Tensor, cfg: Config, name: str) -> list[Measurement]:
    import torch

    leaf = S.clone().requires_grad_()
    with torch.enable_grad():
        made = stage(P.clone().requires_grad_(), leaf, cfg)
    total = sum(vars(made)[n].abs().sum() for n in ("R", "R_raw", "R_samp"))
    if not isinstance(total, torch.Tensor) or not total.requires_grad:
        return []
    (given,) = torch.autograd.grad(total, leaf, allow_unused=True)
    size = 0.0 if given is None else float(given.abs().max())
    return [at_most(size, 0.0, "gradient of R, R_raw and R_samp in the sample covariance", where=name)]


def blend_slopes(context: Context) -> list[Measurement]:
    """Return the slopes of both blended matrices along a random direction of the factors, for RV0502."""
    import torch

    pipeline, cfg = context.pipeline, context.config
    generator = torch.Generator().manual_seed(context.seed)
    names = ("cov_fact_angle", "cov_fact_range")
    base = [vars(context.outputs)[n][:2].double() for n in names]
    step = [torch.randn(f.shape, generator=generator, dtype=torch.float64) * f.abs().mean() for f in base]
    R_samp = context.blend.R_samp[:2].to(torch.complex128)
    W = torch.randn(R_samp.shape, generator=generator, dtype=torch.complex128)
    h = torch.finfo(torch.float64).eps ** (1 / 3)

    def predicted(t: Tensor | float) -> Tensor:
        return pipeline.predicted_covariance(base[0] + t * step[0], base[1] + t * step[1], cfg)

    t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    live = pipeline.blend(predicted(t), R_samp, cfg)
    ahead, behind = predicted(h), predicted(-h)
    bound = 1e3 * h**2 * max(float((ahead - behind).norm() / (2 * h) * W.norm()), 1.0)
    changes = {
        "R_raw": (1 - cfg.covariance.beta) * (ahead - behind),
        "R": pipeline.blend(ahead, R_samp, cfg).R - pipeline.blend(behind, R_samp, cfg).R,
    }
    found = []
    for name, change in changes.items():
        value, slope = vars(live)[name], None
        if value.requires_grad:
            (slope,) = torch.autograd.grad((W.conj() * value).real.sum(), t, allow_unused=True, retain_graph=True)
        wanted = ((W.conj() * change).real.sum() / (2 * h)).item()
        text = f"slope of ⟨W, {name}⟩, autograd and difference"
        where = "predicted_covariance → blend"
        found.append(close(0.0 if slope is None else slope.item(), wanted, bound, text, where=where))
    return found
