"""What a training prints beside what it did, figure by figure, to the printed decimals."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ris_verified.audit.laws.heard import EPOCHS, STEPS, Heard
from ris_verified.audit.oracle import numerical_rank, top_share
from ris_verified.audit.rule import Measurement, close, equal, mended

if TYPE_CHECKING:
    from torch import Tensor

    from ris_verified.audit.context import Context
    from ris_verified.covariance.blend import Blend

NUMBER = r"(-?(?:\d+(?:\.\d+)?(?:e[+-]?\d+)?|nan|inf))"
# How each line of the proof block begins.
BLOCK = (
    "Optimiser: ", "Shapes: ", "Ranks: ", "Traces: ", "Norms: ", "Blend: ", "‖R_raw − R_pred‖ = ",
    "Share of the largest eigenvalues ",
)  # fmt: skip
SAY = (
    "log each line through `logging`, or print it to standard output, worded as in `train/printout.py`, with what was "
    "measured"
)
WHERE = "train"


def _lines(heard: Heard, start: str) -> list[tuple[int, str]]:
    return [(place, text[text.index(start) :]) for place, text in heard.lines if start in text]


def _line(heard: Heard, start: str) -> str:
    return next((text for _, text in _lines(heard, start)), "")


def block_is_said(context: Context) -> Iterator[Measurement]:
    """Every line of the proof block is heard, and its identity holds where it is said to."""
    for start in BLOCK:
        there = bool(_line(context.heard[0], start))
        yield from mended([equal(there, True, f"the training says a line that begins {start!r}", where=WHERE)], SAY)
    yield from mended([*_moved(context.heard[0], "hold"), *_moved(context.heard[1], "BROKEN")], SAY)


def _moved(heard: Heard, word: str) -> list[Measurement]:
    """Compare the line of the first identity; a training that ended at once when the blend was off said it, too."""
    import torch

    text, blend = _line(heard, BLOCK[6]), _shown(heard)
    if word == "BROKEN" and not (text and blend):
        return []
    parts = re.search(rf"= {NUMBER} = {NUMBER} × {NUMBER}.*identities (\w+)", text)
    if parts is None or blend is None:
        return [equal(text or "no line", "figures of a blend", "the line of ‖R_raw − R_pred‖", where=WHERE)]
    P, S, raw = (R.to(torch.complex128) for R in (blend.R_pred, blend.R_samp, blend.R_raw))
    beta = heard.config.covariance.beta
    wanted = {"‖R_raw − R_pred‖": _norm(raw - P), "β of the distance": beta, "‖R_samp − R_pred‖": _norm(S - P)}
    said = "" if word == "hold" else ", of a blend that is off"
    found = [
        _agrees(part, value, f"printed {name}{said}", blend)
        for part, (name, value) in zip(parts.groups(), wanted.items(), strict=False)
    ]
    return [*found, equal(parts[4], word, f"what is said of the norm identities{said}", where=WHERE)]


def _norm(R: Tensor) -> float:
    import torch

    return float(torch.linalg.matrix_norm(R.to(torch.complex128)).mean())


def _trace(R: Tensor) -> float:
    import torch

    return float(torch.diagonal(R.to(torch.complex128), dim1=1, dim2=2).real.sum(-1).mean())


def _agrees(text: str, measured: float, message: str, blend: Blend | None = None) -> Measurement:
    """Compare a printed figure with a measured one: half a unit of its last decimal, and rounding of the matrices."""
    from ris_verified.contracts import tolerance

    digits, _, power = text.partition("e")
    half = 0.5 * 10.0 ** (int(power or 0) - len(digits.partition(".")[2]))
    eps = 4 * 2.0**-52 if blend is None else tolerance(blend.R_raw.dtype, blend.R.shape[-1])
    return close(float(text), measured, half + eps * max(1.0, abs(measured)), message, where=WHERE)


def _figures(heard: Heard, start: str, wanted: dict[str, float], blend: Blend | None = None) -> list[Measurement]:
    """Compare `name figure` on a line with what was measured."""
    text, found = _line(heard, start), []
    for name, value in wanted.items():
        part = re.search(rf"{re.escape(name)} {NUMBER}", text)
        message = f"{start.split()[0]} {name} as printed"
        if part:
            found.append(_agrees(part[1], value, message, blend))
        else:
            found.append(equal(text or "no line", f"{name} {value:g}", message, where=WHERE))
    return found


def _wanted(blend: Blend) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
    named = {"R_pred": blend.R_pred, "R_samp": blend.R_samp, "R_raw": blend.R_raw}
    every = {**named, "R_blend": blend.R}
    return (
        {name: float(numerical_rank(R)) for name, R in named.items()},
        {name: _trace(R) for name, R in every.items() if name != "R_raw"},
        {name: _norm(R) for name, R in every.items()},
    )


def _shown(heard: Heard) -> Blend | None:
    """Return the blend that the block is of: of those that were made until then, the one that its figures fit best."""
    places = [_lines(heard, start)[0][0] for start in BLOCK if _lines(heard, start)]
    made = heard.blends(max(places, default=0))
    texts = re.findall(rf"(R_\w+) {NUMBER}", _line(heard, "Norms: "))

    def apart(blend: Blend) -> tuple[int, float]:
        # Two blends of the same scenes, of the step and of its print, differ by less than a decimal in their norms.
        wanted = _wanted(blend)
        said = [
            f for start, values in zip(BLOCK[2:5], wanted, strict=True) for f in _figures(heard, start, values, blend)
        ]
        said += _share(heard, blend)
        distance = sum(abs(float(value) - wanted[2].get(name, math.inf)) for name, value in texts)
        return sum(not figure.passed for figure in said), distance

    return min(made, key=apart) if made else None


def optimiser_is_said(context: Context) -> Iterator[Measurement]:
    """Compare sizes and base rates of the groups with those of the optimiser that stepped."""
    heard = context.heard[0]
    text = _line(heard, "Optimiser: ")
    if not heard.steps:
        yield equal("none", "some", "steps that the training takes by `train_step`", where=WHERE)
        return
    groups = heard.steps[0].groups
    for name, (size, rate) in groups.items():
        part = re.search(rf"{re.escape(name)} {NUMBER} M at {NUMBER}", text)
        if part is None:
            yield from mended([equal(text or "no line", name, "a group of the line `Optimiser`", where=WHERE)], SAY)
            continue
        yield _agrees(part[1], size / 1e6, f"printed size of {name}, M")
        yield _agrees(part[2], rate, f"printed rate of {name}")
    ratio = groups["head"][1] / groups["backbone"][1]
    for pattern, value in (
        (rf"\({NUMBER}×\)", ratio),
        (rf"total {NUMBER} M", sum(s for s, _ in groups.values()) / 1e6),
    ):
        part = re.search(pattern, text)
        message = "printed ratio of the rates" if "×" in pattern else "printed size of both, M"
        yield _agrees(part[1] if part else "nan", value, message)


def shapes_are_said(context: Context) -> Iterator[Measurement]:
    """Compare shapes with those of the first step's batch and of the blend."""
    heard = context.heard[0]
    blend, steps = _shown(heard), heard.steps
    text = _line(heard, "Shapes: ")
    wanted = dict(steps[0].shapes) if steps else {}
    if blend is not None:
        wanted |= {name: list(R.shape) for name, R in (("R_pred", blend.R_pred), ("R_samp", blend.R_samp))}
        wanted["R_blend"] = list(blend.R.shape)
    yield equal(len(wanted), 6, "tensors of the first batch that were seen", where=WHERE)
    for name, shape in wanted.items():
        part = re.search(rf"\b{name} \[([\d, ]*)\]", text)
        said = [int(size) for size in part[1].split(",")] if part else text or "no line"
        yield from mended([equal(said, shape, f"printed shape of {name}", where=WHERE)], SAY)


def ranks_are_said(context: Context) -> Iterator[Measurement]:
    """Compare ranks, of scenes whose ranks are below the bounds."""
    yield from _of_blend(context, "Ranks: ", 0)


def sizes_are_said(context: Context) -> Iterator[Measurement]:
    """Compare traces, norms, β and ε."""
    heard = context.heard[0]
    yield from _of_blend(context, "Traces: ", 1)
    yield from _of_blend(context, "Norms: ", 2)
    cov = heard.config.covariance
    yield from mended(_figures(heard, "Blend: ", {"β =": cov.beta, "ε =": cov.loading}), SAY)


def _of_blend(context: Context, start: str, which: int) -> Iterator[Measurement]:
    blend = _shown(context.heard[0])
    if blend is None:
        yield equal("none", "some", f"blends by the stage `blend` before the line {start!r}", where=WHERE)
        return
    yield from mended(_figures(context.heard[0], start, _wanted(blend)[which], blend), SAY)


def share_is_said(context: Context) -> Iterator[Measurement]:
    """Compare the smallest share of the K_MAX largest eigenvalues of R_raw."""
    heard = context.heard[0]
    blend = _shown(heard)
    said = _share(heard, blend) if blend else []
    yield from said
    if not said:
        text = _line(heard, BLOCK[7]) or "no line"
        yield from mended([equal(text, "≥ share (bound 1 − β = …)", "the line of the share", where=WHERE)], SAY)


def _share(heard: Heard, blend: Blend) -> list[Measurement]:
    parts = re.search(rf"≥ {NUMBER} \(bound 1 − β = {NUMBER}\)", _line(heard, BLOCK[7]))
    if parts is None:
        return []
    share = top_share(blend.R_raw, heard.config.scene.sources_max)
    return [
        _agrees(parts[1], share, "printed share of the largest eigenvalues", blend),
        _agrees(parts[2], 1 - heard.config.covariance.beta, "printed bound of the share"),
    ]


def epochs_are_said(context: Context) -> Iterator[Measurement]:
    """Compare each epoch's line with its steps, its validation and the rate of its last step."""
    heard = context.heard[0]
    pattern = rf"Epoch (\d+)/(\d+) \| train {NUMBER} \| val {NUMBER} \| lr {NUMBER}"
    lines = [part for _, text in heard.lines if (part := re.search(pattern, text))]
    wanted = [f"{epoch}/{EPOCHS}" for epoch in range(1, EPOCHS + 1)]
    text = "lines `Epoch 1/12 | train … | val … | lr …`"
    yield from mended([equal([f"{line[1]}/{line[2]}" for line in lines], wanted, text, where=WHERE)], SAY)
    for line, epoch in zip(lines, range(1, EPOCHS + 1), strict=False):
        steps, seen = heard.steps[(epoch - 1) * STEPS : epoch * STEPS], heard.validated(epoch)
        taken = [step.loss for step in steps if not step.skipped]
        if not taken or not seen:
            yield equal(f"{len(taken)} and {len(seen)}", "some", f"steps and validations of epoch {epoch}", where=WHERE)
            return
        said = float(line[4])
        yield _agrees(line[3], sum(taken) / len(taken), f"printed training loss of epoch {epoch}")
        yield _agrees(line[4], min(seen, key=lambda v: abs(v - said)), f"printed validation loss of epoch {epoch}")
        used = steps[-1].rates.get("backbone", math.nan)
        yield _agrees(line[5], used, f"printed rate of epoch {epoch} against the one used in its last step")
