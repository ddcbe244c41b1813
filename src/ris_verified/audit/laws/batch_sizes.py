"""A scene's answer is its own, whatever the size of its batch; measured for RV0202."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ris_verified.audit.context import Context
from ris_verified.audit.laws.knobs import SMALL_GRIDS
from ris_verified.audit.laws.model_laws import AGREE, pick
from ris_verified.audit.laws.rounding import SHAKES, shaken
from ris_verified.audit.laws.unpacking import same_bits
from ris_verified.audit.rule import Measurement, at_most, equal

if TYPE_CHECKING:
    from torch import Tensor

# Three more than any block of eights that somebody may work in.
MANY = 131
# Where stages choose, two candidates of one scene may be alike to rounding: another order of sums turns the choice.
# One scene in sixty did so alone, drawn configurations say; three of eight are a fault.
CHOOSES, TURNED = {"build_model", "spectrum", "newton", "mle", "order", "localize"}, 2
# Stages of milliseconds are called as often as a short training would: none may count its calls.
COVARIANCES, CALLS = ("predicted_covariance", "sample_covariance", "blend"), 300


def own_answers(context: Context) -> Iterator[Measurement]:
    """Give the small scenes to each stage one by one, and 131 of them over and over, and compare the answers.

    Bound: 1e-3 of an answer's size, far above float32 sums in another order; where stages choose two scenes may turn,
    beside those that rounding in the measurements turns.
    """
    small = context.small.with_config(context.small.config.replaced(SMALL_GRIDS))
    yield from _unpacked(small)
    stages, B = _stages(small), len(small.batch)
    for name, (run, given) in stages.items():
        before = [value.clone() for value in given]
        own, allowed = _rows(run(*given)), float(TURNED if name in CHOOSES else 0)
        kept = all(same_bits(value, was) for value, was in zip(given, before, strict=True))
        yield equal(kept, True, "what a stage is given stays as it was", where=name)
        loose = _turned_by_rounding(run, given, own) if name in CHOOSES else set()
        for label, batches in (("alone", [[i] for i in range(B)]), (f"in a batch of {MANY}", [_many(B)])):
            wrong: set[int] = set()
            for rows in batches:
                made = _rows(run(*(value[rows] for value in given)))
                lengths = sorted({len(value) for value in made})
                if lengths != [len(rows)]:
                    yield equal(lengths, [len(rows)], "scenes that come out of a batch", "scenes", name)
                    return
                wrong |= {rows[i] for mine, its in zip(own, made, strict=True) for i in _changed(mine[rows], its)}
            text = f"scenes of {B} with another answer {label}"
            yield at_most(float(len(wrong - loose)), allowed, text, "scenes", name)
        if name.removeprefix("inference_") in COVARIANCES:
            last = [run(*given) for _ in range(CALLS)][-1]
            wrong = {i for mine, its in zip(own, _rows(last), strict=True) for i in _changed(mine, its)}
            yield at_most(
                float(len(wrong)), 0.0, f"scenes of {B} with another answer after {CALLS} calls", "scenes", name
            )


def _turned_by_rounding(run: Callable[..., Any], given: tuple[Tensor, ...], own: list[Tensor]) -> set[int]:
    found: set[int] = set()
    for key in range(SHAKES):
        disturbed = _rows(run(*(shaken(v, key) if v.is_floating_point() or v.is_complex() else v for v in given)))
        found |= {row for mine, its in zip(own, disturbed, strict=True) for row in _changed(mine, its)}
    return found


def _many(scenes: int) -> list[int]:
    # One further in each round: with an even period a stage that takes a place modulo 16 would meet the same scene.
    return [(i + 1 + i // scenes) % scenes for i in range(MANY)]


def _unpacked(small: Context) -> Iterator[Measurement]:
    from ris_verified.data.dataset import scenes_to_batch

    given = scenes_to_batch(small.scenes, small.config)
    for rows in ([0], _many(len(given))):
        wanted = pick(given, rows)
        made = small.pipeline.unpack(wanted, "cpu")
        same = all(same_bits(vars(made)[name], value) for name, value in vars(wanted).items())
        yield equal(same, True, f"a batch of {len(rows)} is unpacked whole", where="unpack")


def _stages(small: Context) -> dict[str, tuple[Callable[..., Any], tuple[Tensor, ...]]]:
    """Return each stage that takes batches, with what it is given."""
    import torch

    from ris_verified.estimate.result import Peaks
    from ris_verified.shapes import from_ri

    p, cfg, b, out, made = small.pipeline, small.config, small.batch, small.outputs, small.blend
    R, data = made.R.to(torch.complex128), [from_ri(v).to(torch.complex128) for v in (b.y, b.H_full, b.C)]
    near = b.ptr.double() * torch.tensor([1.01, 0.99, 1.02])
    factors = (out.cov_fact_angle, out.cov_fact_range)

    def model(*fields: Tensor) -> Any:
        with torch.no_grad():
            return small.model(*fields)

    def configured(stage: str) -> Callable[..., Any]:
        return lambda *given: vars(p)[stage](*given, cfg)

    # Peaks go in as one tensor, so that scenes can be picked.
    def newton(R: Tensor, K: Tensor, place: Tensor) -> Peaks:
        return p.newton(R, K, Peaks(*place.unbind(-1)), cfg)

    def mle(place: Tensor, *measured: Tensor) -> Any:
        return p.mle(Peaks(*place.unbind(-1)), measured[0], measured[1], measured[2], cfg)

    found: dict[str, tuple[Callable[..., Any], tuple[Tensor, ...]]] = {
        "build_model": (model, (b.y, b.H, b.C, b.H_full))
    }
    for inference in ("", "inference_"):
        found |= {
            f"{inference}predicted_covariance": (configured(f"{inference}predicted_covariance"), factors),
            f"{inference}sample_covariance": (configured(f"{inference}sample_covariance"), (b.y, b.H_full, b.C)),
            f"{inference}blend": (configured(f"{inference}blend"), (made.R_pred, made.R_samp)),
        }
    found["localize"] = (lambda *measured: p.localize(*measured, cfg, pipeline=p), tuple(data))
    found |= {"spectrum": (configured("spectrum"), (R, b.K)), "newton": (newton, (R, b.K, near)),
              "mle": (mle, (near, *data)), "order": (configured("order"), tuple(data))}  # fmt: skip
    return found


def _rows(made: Any) -> list[Tensor]:
    """Return the tensors of an answer that have a row for each scene."""
    import torch

    if isinstance(made, torch.Tensor):
        return [made]
    return [value for value in vars(made).values() if isinstance(value, torch.Tensor) and value.ndim]


def _changed(own: Tensor, made: Tensor) -> list[int]:
    import torch

    a, b = (value.detach().flatten(1) if value.ndim > 1 else value[:, None] for value in (own, made))
    if a.shape != b.shape:
        return list(range(len(own)))
    a, b = (v if v.is_complex() else v.double() for v in (a, b))
    alike = (a - b).abs() <= AGREE * torch.nan_to_num(a.abs(), nan=-1.0).amax(1, keepdim=True)
    both = torch.isnan(a.abs()) & torch.isnan(b.abs())
    bad: list[int] = (~(alike | both)).any(1).nonzero()[:, 0].tolist()
    return bad
