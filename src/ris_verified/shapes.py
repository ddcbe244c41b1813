"""Real–imaginary packing and run-time shape contracts of public functions."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from beartype import beartype
from jaxtyping import TypeCheckError, jaxtyped
from torch import Tensor

from ris_verified.errors import NonFiniteError, ShapeError

P = ParamSpec("P")
T = TypeVar("T")


def to_ri(z: Tensor) -> Tensor:
    """Stack real and imaginary part on a new last axis.

    Args:
        z: `...` complex.

    Returns:
        `... x 2` real of the matching precision, contiguous.

    Raises:
        ShapeError: `z` is not complex.
    """
    if not z.is_complex():
        raise ShapeError(f"dtype {z.dtype}", where="to_ri", expected="a complex tensor")
    return torch.view_as_real(z.resolve_conj()).contiguous()


def from_ri(z: Tensor) -> Tensor:
    """Undo `to_ri`.

    Args:
        z: `... x 2` real; half precision is widened to float32 first.

    Returns:
        `...` complex.

    Raises:
        ShapeError: the last axis is not 2, or `z` is complex.
    """
    if z.is_complex() or z.ndim == 0 or z.shape[-1] != 2:
        raise ShapeError(describe(z), where="from_ri", expected="a real tensor [..., 2]")
    wide = z if z.dtype == torch.float64 else z.float()
    return torch.view_as_complex(wide.contiguous())


def as_complex(z: Tensor, name: str, axes: str) -> Tensor:
    """Accept a complex tensor or its real `... x 2` form and return the complex tensor.

    Args:
        z: tensor with the axes named in `axes`, or these and a last axis of 2.
        name: the argument's name, for the error.
        axes: names of the complex tensor's axes, such as `B L M`.

    Raises:
        ShapeError: neither form fits.
    """
    rank = len(axes.split())
    if z.is_complex() and z.ndim == rank:
        return z
    if z.is_floating_point() and z.ndim == rank + 1 and z.shape[-1] == 2:
        return from_ri(z)
    raise ShapeError(
        describe(z),
        where=name,
        expected=f"complex [{', '.join(axes.split())}] or real [{', '.join(axes.split())}, 2]",
    )


def require_finite(z: Tensor, name: str) -> None:
    """Raise NonFiniteError that names the first batch index with NaN or infinity."""
    good = torch.isfinite(torch.view_as_real(z.resolve_conj()) if z.is_complex() else z)
    if bool(good.all()):
        return
    first = (~good).nonzero()[0].tolist()
    raise NonFiniteError(
        "holds NaN or infinity",
        where=f"{name}[{first[0] if first else ''}]",
        expected="finite numbers",
        remedy="drop or repair this batch entry",
    )


def describe(value: object) -> str:
    """Return dtype and shape of a tensor, or the type of anything else."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    return type(value).__name__


def shaped(function: Callable[P, T]) -> Callable[P, T]:
    """Check jaxtyping annotations at run time and report a mismatch as one ShapeError.

    Raises:
        ShapeError: names every tensor argument with its shape and the annotated one.
    """
    checked = jaxtyped(function, typechecker=beartype)
    signature = inspect.signature(function)

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return checked(*args, **kwargs)
        except TypeCheckError as error:
            raise _mismatch(function.__name__, signature, args, kwargs) from error

    return wrapper


def _mismatch(name: str, signature: inspect.Signature, args: Any, kwargs: Any) -> ShapeError:
    given = signature.bind_partial(*args, **kwargs).arguments
    got = {k: describe(v) for k, v in given.items() if isinstance(v, Tensor)}
    wanted = {k: str(signature.parameters[k].annotation) for k in got}
    return ShapeError(
        "got " + ", ".join(f"{k} {text}" for k, text in got.items()),
        where=name,
        expected=", ".join(f"{k} {text}" for k, text in wanted.items()),
        remedy="axes that share a letter must share a size",
    )
