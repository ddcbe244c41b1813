"""The laws that stages check on what they return, switched off by `config.contracts = false`.

Each check costs one pass over its tensor. Hermiticity and positivity are tested against two fixed
vectors v, w of unit modulus: vᴴR w = (wᴴR v)* for all v and w holds only for a Hermitian R.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from ris_verified.errors import DivergedError, InvariantError
from ris_verified.shapes import describe

LAWS = ("trace is not N", "not Hermitian", "not positive semidefinite")


def tolerance(dtype: torch.dtype, size: int, factor: float = 4.0) -> float:
    """Return factor · eps · size, the rounding bound of a sum of `size` terms."""
    return factor * torch.finfo(dtype).eps * size


@functools.cache
def _probes(elements: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the real and imaginary parts of v and w, `4 x N` real, and what turns their products with R into forms.

    The second, `8N x 6` real, times these products as reals in one row gives 2 Im vᴴRv, 2 Im wᴴRw, the real and
    imaginary part of vᴴRw − (wᴴRv)*, vᴴRv and wᴴRw.
    """
    n = torch.arange(elements, dtype=torch.float64)
    phase = math.pi * torch.outer(torch.tensor([math.sqrt(5) - 1, math.sqrt(2) - 1], dtype=torch.float64), n * n)
    x, y = phase.cos(), phase.sin()
    # Of (Re p − i Im p)ᵀR as rows (re, im), times v or w.
    re = torch.stack([torch.stack([x, -y], -1), torch.stack([y, x], -1)], 1)
    im = torch.stack([torch.stack([y, x], -1), torch.stack([-x, y], -1)], 1)
    forms = re.new_zeros(6, 2, *re.shape[1:])
    forms[0, 0], forms[1, 1] = 2 * im[0], 2 * im[1]
    forms[2, 0], forms[2, 1] = re[1], -re[0]
    forms[3, 0], forms[3, 1] = im[1], im[0]
    forms[4, 0], forms[5, 1] = re[0], re[1]
    real = dtype.to_real()
    return torch.stack([x, y], 1).flatten(0, 1).to(device, real), forms.flatten(1).mT.contiguous().to(device, real)


def _fail(law: str, name: str, index: int, value: float, bound: float) -> InvariantError:
    return InvariantError(
        f"{law}: measured {value:.3e}",
        where=f"{name}[{index}]",
        expected=f"at most {bound:.3e}",
        remedy="the stage that made this tensor breaks its law",
    )


@torch.no_grad()
def check_covariance(R: Tensor, name: str) -> None:
    """Raise unless every matrix is finite, Hermitian and positive on two probes and has trace N.

    Args:
        R: `B x N x N` complex.
        name: what to call it in the error.

    Raises:
        DivergedError: a matrix holds NaN or infinity, or is zero throughout.
        InvariantError: names the law, the batch index, the measured value and the bound.
    """
    N = R.shape[-1]
    if R.ndim != 3 or R.shape[-2] != N or not R.is_complex():
        raise InvariantError(describe(R), where=name, expected="complex [B, N, N]")
    figures = _figures(R)
    within = figures.clamp(*_limits(R.dtype, N, R.device))
    if torch.equal(figures, within):
        return
    column, index = (figures != within).mT.nonzero()[0].tolist()
    law, target, scale, bound = _laws(R.dtype, N)[column]
    value = float(figures[index, column])
    # What is scaled by its own size is zero where that overflows.
    vanished = not bool(figures[index].any())
    if math.isfinite(value) and not vanished:
        raise _fail(law, name, index, abs(value - target) / scale, bound)
    fact = f"not finite: {'the trace' if law == LAWS[0] else 'a form'} is {value}"
    raise DivergedError(
        "zero throughout" if vanished else fact,
        where=f"{name}[{index}]",
        expected="finite numbers, not all zero",
        remedy="look for what overflows or divides by zero in the stage that made this tensor or before it",
    )


def _figures(R: Tensor) -> Tensor:
    """Return the trace, real and imaginary, and the forms of `_probes` of each matrix, `B x 8` real."""
    parts, forms = _probes(R.shape[-1], R.dtype, R.device)
    # Few rows times R as reals, matrix by matrix: this reads R once, as it lies, and as fast as memory gives it.
    seen = torch.bmm(parts.expand(len(R), -1, -1), torch.view_as_real(R.resolve_conj()).flatten(2))
    trace = torch.view_as_real(torch.diagonal(R, dim1=-2, dim2=-1).sum(-1))
    return torch.cat([trace, seen.flatten(1) @ forms], 1)


def _laws(dtype: torch.dtype, N: int) -> list[tuple[str, float, float, float]]:
    """Return law, value, unit of what is measured and bound of each of `_figures`."""
    bound = tolerance(dtype, N)
    trace, skew, least = LAWS
    traces = [(trace, target, float(N), min(bound, 1e-5)) for target in (float(N), 0.0)]
    return traces + [(skew, 0.0, N**1.5, bound)] * 4 + [(least, 0.0, float(N**2), bound)] * 2


@functools.cache
def _limits(dtype: torch.dtype, N: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the least and the largest of each of `_figures`, `8` real each."""
    ranges = [
        (target - scale * bound, math.inf if law == LAWS[2] else target + scale * bound)
        for law, target, scale, bound in _laws(dtype, N)
    ]
    low, high = torch.tensor(ranges, dtype=dtype.to_real(), device=device).mT.contiguous()
    return low, high


def check_isolated(R_samp: Tensor) -> None:
    """Raise InvariantError if a gradient could flow into the sample covariance."""
    if R_samp.requires_grad:
        raise InvariantError(
            "requires a gradient",
            where="R_samp",
            expected="a constant",
            remedy="detach the sample covariance before it is blended",
        )


def check_centred(positions: Tensor, spacing: float) -> None:
    """Raise InvariantError unless the element positions have their centroid at the origin."""
    error = positions.mean(0).abs().max() / spacing
    bound = tolerance(positions.dtype, positions.shape[0])
    if not bool(error <= bound):
        raise _fail("array is off centre (in spacings)", "positions", 0, float(error), bound)
