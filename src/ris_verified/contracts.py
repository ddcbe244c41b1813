"""The laws that stages check on what they return, switched off by `config.contracts = false`.

Each check costs a few passes over its tensor. Hermiticity and positivity are tested against one
fixed unit-modulus probe vector v: R v = Rᴴ v for every v holds only for a Hermitian R.
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
def _probe(elements: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    n = torch.arange(elements, dtype=torch.float64)
    phase = math.pi * (math.sqrt(5) - 1) * n * n
    return torch.polar(torch.ones_like(phase), phase).to(device=device, dtype=dtype)


def _fail(law: str, name: str, value: Tensor, bound: float, bad: Tensor) -> InvariantError:
    index = int(bad.flatten().nonzero()[0])
    return InvariantError(
        f"{law}: measured {float(value.flatten()[index]):.3e}",
        where=f"{name}[{index}]",
        expected=f"at most {bound:.3e}",
        remedy="the stage that made this tensor breaks its law",
    )


def _both_sides(R: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Return R v and Rᴴ v, `B x N` complex each."""
    # As real products whose large factor is read as it lies: others of these shapes copy all of R or cross it.
    flat, parts = torch.view_as_real(R.resolve_conj()).flatten(2), torch.view_as_real(v)
    turned = torch.stack([torch.view_as_real(v.conj().resolve_conj()), torch.view_as_real(1j * v.conj())]).flatten(1)
    right = torch.view_as_complex(flat @ turned.mT)
    along, across = (parts.mT @ flat).unflatten(2, parts.shape).unbind(1)
    return right, torch.complex(along[..., 0] + across[..., 1], across[..., 0] - along[..., 1])


@torch.no_grad()
def check_covariance(R: Tensor, name: str) -> None:
    """Raise unless every matrix is finite, Hermitian, positive on a probe and has trace N.

    Args:
        R: `B x N x N` complex.
        name: what to call it in the error.

    Raises:
        InvariantError: names the law, the batch index, the measured value and the bound.
    """
    N = R.shape[-1]
    if R.ndim != 3 or R.shape[-2] != N or not R.is_complex():
        raise InvariantError(describe(R), where=name, expected="complex [B, N, N]")
    v = _probe(N, R.dtype, R.device)
    right, left = _both_sides(R, v)
    trace = torch.diagonal(R, dim1=-2, dim2=-1).to(torch.complex128).sum(-1)
    quadratic = (right @ v.conj()).real
    bound = tolerance(R.dtype, N)
    laws = {
        "trace is not N": ((trace - N).abs() / N, min(bound, 1e-5)),
        "not Hermitian": (torch.view_as_real(right - left).flatten(1).norm(dim=-1) / N**1.5, bound),
        "not positive semidefinite": (-quadratic / N**2, bound),
    }
    held = [value <= limit for value, limit in laws.values()]
    if bool(torch.stack(held).all()):
        return
    for (law, (value, limit)), good in zip(laws.items(), held, strict=True):
        if not bool(good.all()):
            raise _fail(law, name, value, limit, ~good)


@torch.no_grad()
def check_unit_modulus(a: Tensor, name: str) -> None:
    """Raise InvariantError unless every entry of `a` has modulus one."""
    error = (a.abs() - 1).abs().amax(-1)
    bound = tolerance(a.dtype, 1, 8)
    if not bool((error <= bound).all()):
        raise _fail("modulus is not one", name, error, bound, ~(error <= bound))


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
