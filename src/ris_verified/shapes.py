"""Real–imaginary packing and run-time shape contracts of public functions."""

from __future__ import annotations

import functools
import inspect
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

import torch
from beartype import beartype
from jaxtyping import TypeCheckError, jaxtyped
from torch import Tensor

from ris_verified.errors import NonFiniteError, ShapeError

P = ParamSpec("P")
T = TypeVar("T")
TENSORS = "torch.from_numpy makes tensors of arrays"
LETTERS = "axes that share a letter must share a size"
# Of an annotation such as `Complex[Tensor, "B N N"]`, axes that all have a plain name or a size.
AXES = re.compile(r"""Tensor, ?["'] ?(\w+(?: \w+)*)["']""")


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
    wide = wide.contiguous()
    # A view that begins between two pairs.
    return torch.view_as_complex(wide.clone() if wide.storage_offset() % 2 else wide)


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
    require_tensors(**{name: z})
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


def require_tensors(**values: object) -> None:
    """Raise ShapeError that names the first argument that is no tensor."""
    for name, value in values.items():
        if not isinstance(value, Tensor):
            raise ShapeError(describe(value), where=name, expected="a tensor", remedy=TENSORS)


def require_axes(
    where: str,
    axes: Mapping[str, str],
    tensors: Mapping[str, Tensor],
    sizes: Mapping[str, int] | None = None,
    remedy: str = LETTERS,
) -> None:
    """Raise ShapeError unless tensors have their axes; it looks at shapes alone and takes microseconds.

    Args:
        where: what is called, for the error.
        axes: names of each tensor's axes, such as `B L M 2`; axes of one name share a size, a number is a size.
        tensors: at least those that `axes` names.
        sizes: of axes that are known.
        remedy: what to do.

    Raises:
        ShapeError: names every shape, and what is expected of each.
    """
    sizes = sizes or {}
    known = dict(sizes)
    for name, text in axes.items():
        letters, shape = text.split(), tensors[name].shape
        if len(letters) != len(shape) or not all(
            (int(letter) if letter.isdecimal() else known.setdefault(letter, size)) == size
            for letter, size in zip(letters, shape, strict=True)
        ):
            break
    else:
        return
    meant = _meant(axes, {name: tensors[name].shape for name in axes}, sizes)
    raise ShapeError(
        "got " + ", ".join(f"{name} {describe(tensors[name])}" for name in axes),
        where=where,
        expected=", ".join(f"{name} [{', '.join(text.split())}]{meant[name]}" for name, text in axes.items()),
        remedy=remedy,
    )


def _meant(axes: Mapping[str, str], shapes: Mapping[str, Sequence[int]], sizes: Mapping[str, int]) -> dict[str, str]:
    """Return ` = [8, N]` for each shape that differs from what is known and what most of the shapes say, else nothing.

    An axis on whose size they are divided keeps its name.
    """
    said: dict[str, Counter[int]] = {letter: Counter() for text in axes.values() for letter in text.split()}
    for name, text in axes.items():
        letters = text.split()
        for letter, size in zip(letters, shapes[name], strict=True) if len(letters) == len(shapes[name]) else ():
            said[letter][size] += 1
    known = {letter: _most(letter, counts) for letter, counts in said.items()}
    known |= {letter: str(size) for letter, size in sizes.items()}
    meant = {name: [known[letter] for letter in text.split()] for name, text in axes.items()}
    differs = {name: meant[name] != [str(size) for size in shapes[name]] for name in axes}
    return {name: f" = [{', '.join(meant[name])}]" if differs[name] else "" for name in axes}


def _most(letter: str, counts: Counter[int]) -> str:
    if letter.isdecimal():
        return letter
    first, second = [*counts.most_common(2), (0, 0), (0, 0)][:2]
    return str(first[0]) if first[1] > second[1] else letter


def require_one_dtype(**tensors: Tensor) -> None:
    """Raise ShapeError where tensors that are multiplied with each other differ in precision."""
    if len({tensor.dtype for tensor in tensors.values()}) > 1:
        raise ShapeError(
            ", ".join(f"{name} {str(tensor.dtype).removeprefix('torch.')}" for name, tensor in tensors.items()),
            where=", ".join(tensors),
            expected="one precision",
            remedy="convert the narrower ones with `.to`",
        )


def describe(value: object) -> str:
    """Return dtype and shape of a tensor, or the type of anything else."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    return type(value).__name__


def shaped(function: Callable[P, T]) -> Callable[P, T]:
    """Check jaxtyping annotations at run time and report a mismatch as one ShapeError.

    Raises:
        ShapeError: names every argument with its shape or type and what is annotated.
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
    wanted = {k: str(signature.parameters[k].annotation) for k in given}
    missing = [k for k, v in given.items() if "Tensor" in wanted[k] and not isinstance(v, Tensor)]
    letters = LETTERS if any("Tensor" in text for text in wanted.values()) else ""
    axes = {k: found[1] for k, v in given.items() if isinstance(v, Tensor) and (found := AXES.search(wanted[k]))}
    wanted |= {k: wanted[k] + text for k, text in _meant(axes, {k: given[k].shape for k in axes}, {}).items()}
    return ShapeError(
        "got " + ", ".join(f"{k} {describe(v)}" for k, v in given.items()),
        where=name,
        expected=", ".join(f"{k} {text}" for k, text in wanted.items()),
        remedy=TENSORS if missing else letters,
    )
