"""The laws that stages check on what they return, switched off by `config.contracts = false`.

Each check costs one pass over its tensor. Hermiticity and positivity are tested against two fixed
vectors v, w of unit modulus: vᴴR w = (wᴴR v)* for all v and w holds only for a Hermitian R.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from ris_verified.errors import InvariantError
from ris_verified.shapes import describe


def tolerance(dtype: torch.dtype, size: int, factor: float = 4.0) -> float:
    """Return factor · eps · size, the rounding bound of a sum of `size` terms."""
    return factor * torch.finfo(dtype).eps * size


@functools.cache
def _probes(elements: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return two vectors v of unit modulus, `N x 2` complex, and what turns rows of R, read as reals, into R v."""
    n = torch.arange(elements, dtype=torch.float64)
    phase = math.pi * torch.outer(n * n, torch.tensor([math.sqrt(5) - 1, math.sqrt(2) - 1], dtype=torch.float64))
    v = torch.complex(phase.cos(), phase.sin())
    parts = torch.stack([torch.view_as_real(v.conj().resolve_conj()), torch.view_as_real(1j * v.conj())], -1)
    rows = parts.transpose(1, 2).reshape(2 * elements, 4).mT.contiguous()
    return v.to(device, dtype), rows.to(device, v.to(dtype).real.dtype)


def _fail(law: str, name: str, value: Tensor, bound: float, bad: Tensor) -> InvariantError:
    index = int(bad.flatten().nonzero()[0])
    return InvariantError(
        f"{law}: measured {float(value.flatten()[index]):.3e}",
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
        InvariantError: names the law, the batch index, the measured value and the bound.
    """
    N = R.shape[-1]
    if R.ndim != 3 or R.shape[-2] != N or not R.is_complex():
        raise InvariantError(describe(R), where=name, expected="complex [B, N, N]")
    v, reals = _probes(N, R.dtype, R.device)
    # As a real product, which reads R as it lies: a complex one copies all of it, and `@` takes three times as long.
    seen = torch.nn.functional.linear(torch.view_as_real(R.resolve_conj()).flatten(2), reals)
    forms = v.mH @ torch.view_as_complex(seen.unflatten(2, (2, 2)))
    trace = torch.diagonal(R, dim1=-2, dim2=-1).to(torch.complex128).sum(-1)
    bound = tolerance(R.dtype, N)
    laws = {
        "trace is not N": ((trace - N).abs() / N, min(bound, 1e-5)),
        "not Hermitian": ((forms - forms.mH).abs().amax((1, 2)) / N**1.5, bound),
        "not positive semidefinite": (-torch.diagonal(forms, dim1=-2, dim2=-1).real.amin(1) / N**2, bound),
    }
    held = [value <= limit for value, limit in laws.values()]
    if bool(torch.stack(held).all()):
        return
    for (law, (value, limit)), good in zip(laws.items(), held, strict=True):
        if not bool(good.all()):
            raise _fail(law, name, value, limit, ~good)


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
        raise _fail("array is off centre (in spacings)", "positions", error, bound, error > bound)
