"""What RV0707 measures: each stage, called with one tensor of wrong axes, and what its refusal says."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ris_verified.audit.context import Context
from ris_verified.audit.rule import Measurement, equal
from ris_verified.errors import RisVerifiedError

if TYPE_CHECKING:
    from torch import Tensor

BOTH = "one RisVerifiedError that names both shapes"
# What stages without a contract let through from below.
BARE = (RuntimeError, IndexError, ValueError, TypeError, KeyError, AttributeError, AssertionError, ArithmeticError)
# Axes of what is stored as real and imaginary parts.
PAIRS, PARTS = ("scene", "row", "column", "part"), 2
GROUP = re.compile(r"""\[([^\[\]'"]+)\]|\(([^()]+)\)|'([^']+)'|"([^"]+)\"""")


@dataclass(frozen=True)
class Question:
    """A stage's call with one wrong tensor.

    Args:
        stage, argument: which one it is.
        call: makes the call.
        right, wrong: the tensor's shapes.
    """

    stage: str
    argument: str
    call: Callable[[], object]
    right: tuple[int, ...]
    wrong: tuple[int, ...]

    def answer(self) -> Measurement:
        """Return whether the stage refuses, in one error that says what it was given and what it takes."""
        message = f"{self.argument} {list(self.wrong)} for {list(self.right)}"
        try:
            self.call()
        except (RisVerifiedError, *BARE) as error:
            return equal(self._judged(error), BOTH, message, where=self.stage)
        return equal("accepted", BOTH, message, where=self.stage)

    def _judged(self, error: Exception) -> str:
        name = type(error).__name__
        if not isinstance(error, RisVerifiedError):
            return f"{name} of another kind"
        if not any(entries in self._forms(self.wrong) for entries in _groups(str(error))):
            return f"{name} without {list(self.wrong)}"
        return BOTH if self._said(error.expected or str(error)) else f"{name} without {list(self.right)}"

    def _said(self, text: str) -> bool:
        """Whether a text holds the right shape; an axis may be called by its name."""
        return any(
            len(entries) == len(form) and all(e == f or not e.isdecimal() for e, f in zip(entries, form, strict=True))
            for entries in _groups(text)
            for form in self._forms(self.right)
        )

    def _forms(self, shape: Sequence[int]) -> list[list[str]]:
        """Return a shape's entries, and those of the complex tensor where the last axis holds its two parts."""
        entries = [str(size) for size in shape]
        return [entries, entries[:-1]] if self.right[-1] == PARTS and len(self.right) == len(PAIRS) else [entries]


def _groups(text: str) -> Iterator[list[str]]:
    """Yield the entries of everything in brackets or quotes, such as `[8, N]`, `(8, 24)` or `'B N N'`."""
    for found in GROUP.findall(text):
        yield [entry for entry in re.split(r"[\s,×]+|\bx\b", "".join(found)) if entry]


def questions(context: Context) -> Iterator[Question]:
    """Yield wrong calls of every stage that takes tensors, each sound but for one of them."""
    yield from _of_covariances(context)
    yield from _of_learning(context)
    yield from _of_searches(context)
    yield from _of_measurements(context)
    yield from _of_judging(context)
    yield from _of_unpacking(context)


def _wrong(stage: str, argument: str, value: Tensor, call: Callable[[Tensor], object], axes: str) -> Iterator[Question]:
    """Yield questions with an axis too many and, by their numbers, axes that are too long by one."""
    yield _one(stage, argument, value, value[None], call)
    for axis in map(int, axes):
        yield _one(stage, argument, value, _longer(value, axis), call)


def _one(stage: str, argument: str, value: Tensor, wrong: Tensor, call: Callable[[Tensor], object]) -> Question:
    return Question(stage, argument, lambda: call(wrong), tuple(value.shape), tuple(wrong.shape))


def _longer(value: Tensor, *axes: int) -> Tensor:
    import torch

    for axis in axes:
        value = torch.cat([value, value.narrow(axis, 0, 1)], axis)
    return value


def _asked(stage: str, function: Callable[..., object], given: dict[str, Any], **axes: str) -> Iterator[Question]:
    """Yield questions of a function of named values; `axes` says which tensors are spoiled, and where."""
    for name, numbers in axes.items():

        def call(wrong: Tensor, name: str = name) -> object:
            return function(*(wrong if other == name else value for other, value in given.items()))

        yield from _wrong(stage, name, given[name], call, numbers)


def _of_covariances(context: Context) -> Iterator[Question]:
    p, cfg, b, out, made = context.pipeline, context.config, context.batch, context.outputs, context.blend
    factors = {"cov_fact_angle": out.cov_fact_angle, "cov_fact_range": out.cov_fact_range, "cfg": cfg}
    measured = {"y": b.y, "H_full": b.H_full, "C": b.C, "cfg": cfg}
    matrices = {"R_pred": made.R_pred, "R_samp": made.R_samp, "cfg": cfg}
    for prefix in ("", "inference_"):
        stages = {n: vars(p)[prefix + n] for n in ("predicted_covariance", "sample_covariance", "blend")}
        predict, sample, blend = stages.values()
        yield from _asked(f"{prefix}predicted_covariance", predict, factors, cov_fact_angle="01", cov_fact_range="01")
        yield from _asked(f"{prefix}sample_covariance", sample, measured, y="012", H_full="012", C="012")
        yield from _asked(f"{prefix}blend", blend, matrices, R_pred="01", R_samp="02")


def _of_learning(context: Context) -> Iterator[Question]:
    p, cfg, b, out, made = context.pipeline, context.config, context.batch, context.outputs, context.blend
    inputs = {"y": b.y, "H": b.H, "C": b.C, "H_full": b.H_full}
    # What else a loss or a network reads of its arguments is its own affair.
    yield from _asked("model", context.model, inputs, y="012", C="012", H_full="012")

    def loss(R_hat: Tensor, R_blend: Tensor, R_in: Tensor) -> object:
        truth = dataclasses.replace(b, R_in=R_in)
        return p.loss(out, R_hat, truth, cfg, R_blend=R_blend, training=False)

    matrices = {"R_hat": made.R_pred, "R_blend": made.R, "R_in": b.R_in}
    yield from _asked("loss", loss, matrices, R_hat="01", R_blend="02", R_in="01")


def _of_searches(context: Context) -> Iterator[Question]:
    from ris_verified.estimate.result import Peaks

    p, cfg, b, R = context.pipeline, context.config, context.batch, context.blend.R
    places = dict(zip(("azimuth", "elevation", "range"), b.ptr.unbind(-1), strict=True))
    yield from _asked("spectrum", p.spectrum, {"R": R, "K": b.K, "cfg": cfg}, R="01", K="0")
    yield _one("spectrum", "R", R, _longer(R, 1, 2), lambda wrong: p.spectrum(wrong, b.K, cfg))

    def newton(R: Tensor, K: Tensor, *places: Tensor) -> object:
        return p.newton(R, K, Peaks(*places), cfg)

    yield from _asked("newton", newton, {"R": R, "K": b.K, **places}, R="01", K="0", azimuth="0", elevation="1")
    yield _one("newton", "R", R, _longer(R, 1, 2), lambda wrong: newton(wrong, b.K, *places.values()))
    line = {name: value[:, 0] for name, value in places.items()}
    for stage in ("steering", "inference_steering"):
        for name in line:

            def call(wrong: Tensor, name: str = name, stage: str = stage) -> object:
                return vars(p)[stage](cfg.array, *(line | {name: wrong}).values())

            # Any number of axes may broadcast.
            yield _one(stage, name, line[name], _longer(line[name], 0), call)


def _of_measurements(context: Context) -> Iterator[Question]:
    import torch

    from ris_verified.estimate.result import Peaks
    from ris_verified.shapes import from_ri

    p, cfg, b = context.pipeline, context.config, context.batch
    y, H_full, C = (from_ri(value).to(torch.complex128) for value in (b.y, b.H_full, b.C))
    places = dict(zip(("azimuth", "elevation", "range"), b.ptr.double().unbind(-1), strict=True))
    measured = {"y": y, "H_full": H_full, "C": C, "cfg": cfg}
    for stage in ("order", "localize"):
        yield from _asked(stage, vars(p)[stage], measured, y="012", H_full="012", C="012")

    def mle(y: Tensor, H_full: Tensor, C: Tensor, *places: Tensor) -> object:
        return p.mle(Peaks(*places), y, H_full, C, cfg)

    given: dict[str, Any] = {"y": y, "H_full": H_full, "C": C, **places}
    yield from _asked("mle", mle, given, y="012", H_full="012", C="012", azimuth="0", elevation="1")
    symbols = torch.ones(len(y), y.shape[1], b.ptr.shape[1], dtype=y.dtype)
    noise = torch.ones(len(y), dtype=torch.float64)
    given = {**places, "symbols": symbols, "H_full": H_full, "C": C, "noise_variance": noise, "cfg": cfg}
    yield from _asked("bound", p.bound, given, azimuth="01", symbols="012", H_full="02", C="012", noise_variance="0")


def _of_judging(context: Context) -> Iterator[Question]:
    import torch

    from ris_verified.estimate.result import Peaks

    p, ptr = context.pipeline, context.batch.ptr.double()
    given = dict(zip(("azimuth", "elevation", "range"), ptr.unbind(-1), strict=True)) | {"ptr": ptr}
    yield from _asked("match", p.match, given, azimuth="01", elevation="01", ptr="02")
    crb = torch.eye(3 * ptr.shape[1], dtype=ptr.dtype).expand(len(ptr), -1, -1)

    def metric(*given: Tensor) -> object:
        return p.metric(p, Peaks(*given[:3]), *given[3:])

    yield from _asked("metric", metric, given | {"crb": crb}, azimuth="0", range="1", ptr="02", crb="01")


def _of_unpacking(context: Context) -> Iterator[Question]:
    p, b = context.pipeline, context.batch
    axes = {"y": "012", "H": "1", "C": "12", "ptr": "2", "K": "0", "R_in": "1", "snr": "0", "H_full": "12"}
    fields = {name: vars(b)[name] for name in axes}

    def unpack(*values: Tensor) -> object:
        return p.unpack(dict(zip(fields, values, strict=True)), "cpu")

    yield from _asked("unpack", unpack, fields, **axes)
    # Where all sizes are equal nothing tells one from the other.
    if b.y.shape == b.H_full.shape:
        return
    exchanged = {"y": b.H_full, "H_full": b.y}
    forms = {"of a dict": {**fields, **exchanged}, "of a Batch": dataclasses.replace(b, **exchanged)}
    for form, value in forms.items():

        def call(_: Tensor, value: Any = value) -> object:
            return p.unpack(value, "cpu")

        yield _one("unpack", f"y {form}", b.y, b.H_full, call)
