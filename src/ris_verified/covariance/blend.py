"""The hybrid covariance and the proof of its arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Complex
from torch import Tensor
from torch.autograd.function import once_differentiable

from ris_verified.config import Config
from ris_verified.contracts import check_covariance, tolerance
from ris_verified.covariance.trace import hermitian, inner, trace
from ris_verified.shapes import require_one_dtype, shaped


@dataclass(frozen=True)
class BlendProof:
    """Measured figures of one blend; each tensor is `B` real.

    Args:
        trace_pred, trace_samp, trace_blend: traces, N each.
        norm_pred, norm_samp, norm_raw, norm_blend: Frobenius norms.
        distance: ‖S − P‖_F.
        moved: ‖R_raw − P‖_F, which is β · distance.
        inner: Re⟨P, S⟩.
        expected_square: (1−β)²‖P‖² + β²‖S‖² + 2β(1−β) Re⟨P, S⟩, which is ‖R_raw‖².
        tolerance: relative rounding bound of both identities.
    """

    trace_pred: Tensor
    trace_samp: Tensor
    trace_blend: Tensor
    norm_pred: Tensor
    norm_samp: Tensor
    norm_raw: Tensor
    norm_blend: Tensor
    distance: Tensor
    moved: Tensor
    inner: Tensor
    expected_square: Tensor
    beta: float
    tolerance: float

    @property
    def holds(self) -> Tensor:
        """`B` bool: both norm identities hold to rounding."""
        scale = self.norm_pred.square() + self.norm_samp.square()
        first: Tensor = (self.moved - self.beta * self.distance).abs() <= self.tolerance * scale.sqrt()
        second: Tensor = (self.norm_raw.square() - self.expected_square).abs() <= self.tolerance * scale
        both: Tensor = first & second
        return both


@dataclass(frozen=True)
class Blend:
    """A blended covariance with what it was made from.

    Args:
        R: `B x N x N` complex, loaded, trace N.
        R_pred: `B x N x N` complex, trace N.
        R_samp: `B x N x N` complex, trace N, no gradient.
        R_raw: `B x N x N` complex, (1−β) R_pred + β R_samp before renormalisation and loading.
        beta: β.
        loading: C_EPS, relative to tr/N.
    """

    R: Tensor
    R_pred: Tensor
    R_samp: Tensor
    R_raw: Tensor
    beta: float
    loading: float

    @cached_property
    def proof(self) -> BlendProof:
        """The figures of checklist RV1304–RV1306, measured when first asked for."""
        with torch.no_grad():
            P, S, raw = (R.to(torch.complex128) for R in (self.R_pred, self.R_samp, self.R_raw))

            def norm(R: Tensor) -> Tensor:
                size: Tensor = torch.linalg.matrix_norm(R)
                return size

            along = inner(P, S)
            b = self.beta
            square = (1 - b) ** 2 * norm(P) ** 2 + b**2 * norm(S) ** 2 + 2 * b * (1 - b) * along
            return BlendProof(
                trace(P), trace(S), trace(self.R),
                norm(P), norm(S), norm(raw), norm(self.R),
                norm(S - P), norm(raw - P), along, square,
                b, tolerance(self.R_raw.dtype, self.R_raw.shape[-1]),
            )  # fmt: skip


class _Blended(torch.autograd.Function):
    """R_raw; its Hermitian part, trace N, diagonal loading by `loading`·tr/N, trace N again; one pass back for both."""

    @staticmethod
    def forward(ctx: Any, P: Tensor, S: Tensor, beta: float, loading: float) -> tuple[Tensor, Tensor]:
        # As complex numbers the same lerp takes twice as long.
        start, end = (torch.view_as_real(z.resolve_conj()) for z in (P, S))
        raw = torch.view_as_complex(torch.lerp(start, end, beta))
        # tr/N is 1 after renormalisation, so loading by C_EPS and renormalising again is one scale and
        # one addition to the diagonal.
        total, N = trace(raw), raw.shape[-1]
        scale, lift = N / ((1 + loading) * total), loading / (1 + loading)
        R = hermitian(raw, scale, lift)
        ctx.save_for_backward(R, total, scale)
        ctx.lift, ctx.share = lift, 1 - beta
        ctx.set_materialize_grads(False)
        return raw, R

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, raw: Tensor | None, gradient: Tensor | None) -> tuple[Tensor | None, None, None, None]:
        if gradient is None:
            return None if raw is None else ctx.share * raw, None, None, None
        R, total, scale = ctx.saved_tensors
        # R = s H(raw) + c I with s = N/((1 + ε) tr raw): ∂ = s H(G) − Re⟨G, R − c I⟩/tr(raw) · I.
        along = inner(gradient, R) - ctx.lift * trace(gradient)
        through = hermitian(gradient, ctx.share * scale, -(ctx.share * along / total)[:, None])
        return through if raw is None else through.add_(raw, alpha=ctx.share), None, None, None


@shaped
def blend(R_pred: Complex[Tensor, "B N N"], R_samp: Complex[Tensor, "B N N"], cfg: Config) -> Blend:
    """Blend prediction and sample; gradients pass through R_pred only.

    R_raw = (1−β) R_pred + β R_samp; then Hermitian part, trace N, diagonal loading C_EPS · tr/N,
    trace N again.

    Args:
        R_pred: `B x N x N` complex, trace N.
        R_samp: `B x N x N` complex, trace N; detached here.
        cfg: reads `covariance.beta` and `covariance.loading`.

    Returns:
        A `Blend`; `.proof` holds the norm identities.

    Raises:
        ShapeError: the two do not share a shape and a precision.
        InvariantError: the result breaks its law; the stages that made the inputs have checked these.

    Source: checklist RV0803.
    """
    require_one_dtype(R_pred=R_pred, R_samp=R_samp)
    S = R_samp.detach()
    beta, loading = cfg.covariance.beta, cfg.covariance.loading
    raw, R = _Blended.apply(R_pred, S, beta, loading)  # type: ignore[no-untyped-call]
    if cfg.contracts:
        check_covariance(R, "R_blend")
    return Blend(R, R_pred, S, raw, beta, loading)
