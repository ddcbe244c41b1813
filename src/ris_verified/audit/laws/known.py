"""Predicted covariances of known factors and sample covariances of the scenes, against their formulas."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from ris_verified.audit.context import Context
from ris_verified.audit.oracle import relative
from ris_verified.audit.rule import Measurement, at_most, equal

if TYPE_CHECKING:
    from torch import Tensor

    from ris_verified.config import Config
    from ris_verified.scene.scene import Scene

SCENES = 3


def normalised(R: Tensor) -> Tensor:
    """Return Hermitian matrices scaled to trace N."""
    import torch

    return R * (R.shape[-1] / torch.diagonal(R, dim1=-2, dim2=-1).real.sum(-1))[..., None, None]


def random_covariances(context: Context, stream: int, rank: int) -> Tensor:
    """Return `3 x N x N` complex128 covariances of trace N and of a given rank.

    Args:
        context: gives N and the seed.
        stream: separates draws.
        rank: number of columns.
    """
    import torch

    generator = torch.Generator().manual_seed(1000 * context.seed + stream)
    A = torch.randn(SCENES, context.config.array.elements, rank, generator=generator, dtype=torch.complex128)
    return normalised(A @ A.mH)


def predicted_of_known(context: Context) -> list[Measurement]:
    """Return R_pred of random factors in both precisions against the formula of each mode, the configured one first."""
    modes = dict.fromkeys((context.config.covariance.factor_mode, "product", "sum", "real"))
    return [m for mode in modes for m in _predicted_of_known(context, mode)]


def _predicted_of_known(context: Context, mode: str) -> list[Measurement]:
    import torch

    # A weight of one would hide that it is not read, or is squared.
    cfg, found = context.config.replaced({"covariance.factor_mode": mode, "covariance.sum_weight": 0.7}), []
    generator = torch.Generator().manual_seed(context.seed)
    N, K = cfg.array.elements, cfg.scene.sources_max
    angle, range = torch.randn(2, SCENES, N, K, generator=generator, dtype=torch.complex128)
    # One scene is far louder and one source far weaker: a scale shared by scenes or by columns shows.
    angle[0] *= 10
    range[:, :, -1] *= 0.1
    for dtype in (torch.complex64, torch.complex128):
        a, r = angle.to(dtype), range.to(dtype)
        packed = [torch.stack([f.real, f.imag], -1).reshape(SCENES, -1) for f in (a, r)]
        R = context.pipeline.predicted_covariance(packed[0], packed[1], cfg)
        text = f'R_pred of known {str(dtype).removeprefix("torch.")} factors, factor_mode = "{mode}"'
        found.append(equal(R.dtype, dtype, f"dtype, {text}", where="predicted_covariance"))
        bound = 8 * torch.finfo(R.dtype).eps * N
        error = relative(R.to(torch.complex128), _predicted(a.to(torch.complex128), r.to(torch.complex128), cfg))
        found.append(at_most(error, bound, f"{text}, distance from the formula", where="predicted_covariance"))
    return found


def _predicted(angle: Tensor, range: Tensor, cfg: Config) -> Tensor:
    if cfg.covariance.factor_mode == "sum":
        return normalised(angle @ angle.mH + cfg.covariance.sum_weight * range @ range.mH)
    A = angle * range
    A = A.real.to(A.dtype) if cfg.covariance.factor_mode == "real" else A
    return normalised(A @ A.mH)


def sample_formula(context: Context) -> list[Measurement]:
    """Both stages on the scenes in float64 and, in a batch with float32, against the normal equations."""
    import numpy as np
    import torch

    from ris_verified.shapes import to_ri

    p, cfg = context.pipeline, context.config
    chosen = [context.scenes[i] for i in (0, 1, -1)]
    others = [cfg.replaced({"covariance.ridge": factor * cfg.covariance.ridge}) for factor in (3, 0.01)]
    # A panel that loses power has codes of other moduli than one: the last scene's.
    lossy = chosen[-1].codes * np.random.default_rng(705).uniform(0.5, 1.0, chosen[-1].codes.shape)
    chosen[-1] = dataclasses.replace(chosen[-1], codes=lossy)
    found, N = [], cfg.array.elements
    arrays = [torch.stack([torch.from_numpy(vars(s)[n]) for s in chosen]) for n in ("y", "H_full", "codes")]
    for config in (cfg, *others):
        wanted = torch.stack([_ridge_by_normal_equations(s, config) for s in chosen])
        for name in ("sample_covariance", "inference_sample_covariance"):
            for kind in (torch.float64, torch.float32):
                R = vars(p)[name](*(to_ri(z).to(kind) for z in arrays), config)
                if kind == torch.float32:
                    found.append(equal(R.dtype, torch.complex64, "dtype of R_samp for float32", where=name))
                eps = torch.finfo(R.dtype).eps
                rounded = (N / config.covariance.ridge + 1) * eps * 8
                if rounded >= 1:
                    continue  # So weak a ridge leaves nothing of the precision: rounding could be all there is.
                bound = min(0.05, rounded)
                text = f"{R.dtype} of {len(chosen)} scenes, N = {N}, ridge {config.covariance.ridge:g}"
                error = relative(R.to(wanted.dtype), wanted)
                found.append(at_most(error, bound, f"distance from the normal equations, {text}", where=name))
    return found


def sample_of_missing(context: Context) -> list[Measurement]:
    """A scene with NaN in its measurement has no covariance: the stage raises, or says NaN for this scene."""
    import torch

    from ris_verified.errors import RisVerifiedError

    p, b, found = context.pipeline, context.batch, []
    y = b.y.clone()
    y[1, 0, 0] = torch.nan
    for name in ("sample_covariance", "inference_sample_covariance"):
        try:
            R = vars(p)[name](y, b.H_full, b.C, context.config)
        except RisVerifiedError:
            continue
        finite = bool(torch.isfinite(R[1].abs()).all())
        found.append(equal(finite, False, "a covariance of numbers for a scene with NaN in y", where=name))
    return found


def _ridge_by_normal_equations(scene: Scene, cfg: Config) -> Tensor:
    import torch

    H, y = torch.from_numpy(scene.H_full), torch.from_numpy(scene.y)
    N, rows = cfg.array.elements, []
    joint = cfg.scene.symbols == "constant"
    parts = [H * torch.from_numpy(code) for code in scene.codes]
    systems = [(torch.cat(parts), y.flatten())] if joint else list(zip(parts, y, strict=True))
    for Phi, measured in systems:
        gram = Phi.mH @ Phi
        alpha = cfg.covariance.ridge * (torch.diagonal(gram).real.sum() / N + 1e-12)
        rows.append(torch.linalg.solve(gram + alpha * torch.eye(N, dtype=gram.dtype), Phi.mH @ measured))
    X = torch.stack(rows)
    if cfg.covariance.centre and not joint:
        X = X - X.mean(0)
    R = X.mT @ X.conj()
    return R * (N / torch.diagonal(R).real.sum())
