"""The laws that stages check on what they return, switched off by `config.contracts = false`.

Each check costs one pass over its tensor. Hermiticity and positivity are tested against two fixed
vectors v, w of unit modulus: vᴴR w = (wᴴR v)* for all v and w holds only for a Hermitian R.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable

import torch
from torch import Tensor

from ris_verified.errors import InvariantError
from ris_verified.shapes import describe

LAWS = ("trace is not N", "not Hermitian", "not positive semidefinite")


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
    figures, limits = _figures(R), _limits(R.dtype, N, R.device)
    held = figures <= limits
    if bool(held.all()):
        return
    law = int((~held).any(1).nonzero()[0])
    raise _fail(LAWS[law], name, figures[law], float(limits[law]), ~held[law])


def _figures(R: Tensor) -> Tensor:
    """Return how far each matrix is from each of `LAWS`, `3 x B` real."""
    N = R.shape[-1]
    v, reals = _probes(N, R.dtype, R.device)
    # As a real product, which reads R as it lies: a complex one copies all of it.
    rows = torch.view_as_real(R.resolve_conj()).flatten(2).flatten(0, 1)
    seen = (rows @ reals.mT).mT.contiguous() if _tall(N, rows.dtype, R.device) else reals @ rows.mT
    forms = (torch.complex(seen[::2], seen[1::2]).view(-1, N) @ v.conj()).unflatten(0, (2, -1))
    skew = (forms - forms.transpose(0, 2).conj()).abs().amax((0, 2))
    least = torch.diagonal(forms, dim1=0, dim2=2).real.amin(1)
    trace = torch.diagonal(R, dim1=-2, dim2=-1).sum(-1, dtype=torch.complex128)
    return torch.stack([(trace - N).abs() / N, skew / N**1.5, least / -(N**2)])


@functools.cache
def _tall(elements: int, dtype: torch.dtype, device: torch.device) -> bool:
    """Return whether many rows by few columns is the faster of the two products here.

    One library of products takes a quarter of the other's time for it on one make of processor, half as much again on
    another.
    """
    rows, few = (torch.zeros(n, 2 * elements, dtype=dtype, device=device) for n in (64 * elements, 4))

    def seconds(product: Callable[[], Tensor]) -> float:
        spent = []
        for _ in range(4):
            began = time.perf_counter()
            product()
            spent.append(time.perf_counter() - began)
        return min(spent)

    return device.type != "cpu" or seconds(lambda: rows @ few.mT) < seconds(lambda: few @ rows.mT)


@functools.cache
def _limits(dtype: torch.dtype, elements: int, device: torch.device) -> Tensor:
    bound = tolerance(dtype, elements)
    return torch.tensor([[min(bound, 1e-5)], [bound], [bound]], dtype=torch.float64, device=device)


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
