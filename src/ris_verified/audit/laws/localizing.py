"""What the public entry must obey: it hands data, order and covariance from stage to stage and adds nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ris_verified.audit.laws.watched import COVARIANCES, Seen, joined, modes_of, watched_model, watched_stages
from ris_verified.audit.oracle import relative, same_bits
from ris_verified.audit.rule import Measurement, at_most, close, equal

if TYPE_CHECKING:
    from torch import Tensor

    from ris_verified.audit.context import Context
    from ris_verified.config import Config
    from ris_verified.data.batch import Batch
    from ris_verified.estimate.result import Estimates

PLACE = ("azimuth", "elevation", "range")
DATA = {"y": "B L M", "H": "B L M", "C": "B L N", "H_full": "B M N"}
# Numbers of sources that caller, K head and order stage tell: three answers for every scene.
KNOWN, HEAD, STAGE = (1, 2, 3), (2, 3, 1), (3, 1, 2)
# The data are numbers of single precision, which no copy has to round; a matrix may be cast to it once.
COPIED, CAST = 0.0, 1e-6
# Squares of squares of such numbers leave single precision.
GAINS = ((1e-15, 1.0), (1e15, 1.0), (1e-15, 1e-15))


@dataclass(frozen=True)
class Case:
    """One call of `localize`.

    Args:
        title: in words, for messages.
        config: what it is called with.
        order: what the caller knows.
        K: the number of sources that must be looked for.
        modelled: whether there is a model.
    """

    title: str
    config: Config
    order: Tensor | int | None
    K: tuple[int, ...]
    modelled: bool = True


def localisation_carries(context: Context) -> list[Measurement]:
    """Localise a scene with a model: the result holds R_pred, R_samp and β, the configuration stays."""
    import torch

    p, cfg, batch = context.pipeline, context.config, context.batch
    before = cfg.digest()
    found = p.localize(*_measured(batch, 1).values(), cfg, order=batch.K[:1], model=context.model, pipeline=p)
    blended = found.blend
    if blended is None:
        return [
            equal("none", "R_pred, R_samp and β", "what localisation returns beside its estimates", where="localize")
        ]
    N = cfg.array.elements
    traces = {n: torch.diagonal(vars(blended)[n], dim1=-2, dim2=-1).sum(-1) for n in ("R_pred", "R_samp", "R")}
    result = [
        at_most(float((t - N).abs().max() / N), 1e-5, f"|tr − N|/N of {n}", where="localize") for n, t in traces.items()
    ]
    result.append(close(float(blended.beta), cfg.covariance.beta, 0.0, "β in the result", where="localize"))
    result.append(equal(cfg.digest(), before, "configuration after localisation", where="config"))
    wanted = batch.K[:1].tolist()
    result.append(equal(torch.isfinite(found.azimuth).sum(-1).tolist(), wanted, "positions a scene", where="localize"))
    return result


def localisation_hands_on(context: Context) -> Iterator[Measurement]:
    """Localise three scenes of the small size through watched stages: each gets what the one before it gave."""
    small = context.small
    data = _measured(small.batch, len(KNOWN))
    for case in _cases(small.config):
        seen = Seen()
        model = watched_model(small.model, seen, HEAD) if case.modelled else None
        before = modes_of(model)
        pipeline = watched_stages(small.pipeline, seen, STAGE)
        found = pipeline.localize(*data.values(), case.config, order=case.order, model=model, pipeline=pipeline)
        wanted = [*COVARIANCES, "spectrum", "mle"] if case.modelled else ["mle"]
        ran = [name for name in wanted if name in seen.calls]
        message = "stages of the given pipeline that ran" if ran else "the given pipeline is ignored: stages that ran"
        shown = ", ".join(ran) or "none", ", ".join(wanted)
        yield equal(*shown, f"{case.title}: {message}", where="localize pipeline")
        if ran == wanted:
            if case.modelled:
                yield from _model_obeyed(case, seen, data, modes_of(small.model))
                yield equal(modes_of(model) == before, True, f"{case.title}: mode as before afterwards", where="model")
                yield from _measurement_given(case, seen, COVARIANCES[1], 0, data)
                yield from _covariance_handed_on(case, seen, found)
                yield from _peaks_handed_on(case, seen)
            yield from _likeliest_returned(case, seen, data, found)


def _cases(config: Config) -> Iterator[Case]:
    import torch

    told = config.estimate.order_criterion
    fitted = {"estimate.order_criterion": told if told in ("marginal", "bic", "aicc") else "marginal"}
    newton = "estimate.newton_nearfield"
    for criterion, refined in (("model", False), ("auto", True)):
        head = {"estimate.order_criterion": criterion}
        # Who knows the order is not asked again, whatever would count.
        yield Case(
            f"known order beside {criterion}", config.replaced({newton: refined, **head}), torch.tensor(KNOWN), KNOWN
        )
        yield Case(f"order by {criterion}, the K head's", config.replaced({newton: False, **head}), None, HEAD)
    yield Case("order from its stage", config.replaced(fitted), None, STAGE)
    yield Case("no model", config.replaced(fitted), 2, (2, 2, 2), modelled=False)
    yield Case("no model, order from its stage", config.replaced(fitted), None, STAGE, modelled=False)


def _model_obeyed(case: Case, seen: Seen, data: dict[str, Tensor], evaluating: list[bool]) -> Iterator[Measurement]:
    import torch

    if not seen.inputs:
        yield equal("never", "once", f"{case.title}: the model ran", where="model")
        return
    modes = all(mode == evaluating for mode in seen.modes)
    yield equal(modes, True, f"{case.title}: the model runs in evaluation mode", where="model")
    H = torch.einsum("bmn,bln->blm", data["H_full"], data["C"])
    # A sum of N products in single precision.
    summed = data["C"].shape[-1] * torch.finfo(torch.float32).eps
    for name, wanted in {**data, "H": H}.items():
        got = joined([call[name] for call in seen.inputs])
        message = f"{case.title}: {name} against that of the measurement"
        yield equal(got.is_complex(), False, f"{case.title}: {name} is complex", where=f"model {name}")
        yield at_most(_moved(name, got, wanted), summed if name == "H" else COPIED, message, where=f"model {name}")


def _covariance_handed_on(case: Case, seen: Seen, found: Estimates) -> Iterator[Measurement]:
    import torch

    predicted, sample, blend = COVARIANCES
    factors = joined(seen.outputs, "cov_fact_angle")
    R, full = seen.result(blend, "R"), torch.complex128
    pairs = {
        predicted: (seen.given(predicted, 0), factors, "factors against the model's"),
        blend: (seen.given(blend, 0), seen.result(predicted), "R_pred against that of its stage"),
        f"{blend} R_samp": (seen.given(blend, 1), seen.result(sample), "R_samp against that of its stage"),
        "spectrum": (seen.given("spectrum", 0), R, "R that is searched against R_blend"),
    }
    if found.blend is not None:
        pairs["localize"] = (found.blend.R, R, "R in the result against R_blend")
    for where, (got, wanted, message) in pairs.items():
        yield at_most(relative(got.to(full), wanted.to(full)), CAST, f"{case.title}: {message}", where=where)


def _peaks_handed_on(case: Case, seen: Seen) -> Iterator[Measurement]:
    """The order reaches the search; Newton goes on from the search where it is on, NF-MLE from the last of them."""
    import torch

    refines = case.config.estimate.newton_nearfield
    stages = ["spectrum", "newton"] if refines else ["spectrum"]
    yield equal("newton" in seen.calls, refines, f"{case.title}: Newton ran", where="newton")
    if ("newton" in seen.calls) != refines:
        return
    for stage in stages:
        yield equal(seen.given(stage, 1).tolist(), list(case.K), f"{case.title}: order that is searched", where=stage)
    if refines:
        R, blended = seen.given("newton", 0), seen.result(COVARIANCES[2], "R")
        apart = relative(R.to(torch.complex128), blended.to(torch.complex128))
        yield at_most(apart, CAST, f"{case.title}: R that is refined against R_blend", where="newton")
    for stage, index, source in [("newton", 2, "spectrum")] * refines + [("mle", 0, stages[-1])]:
        same = all(_same(seen.given(stage, index, n), seen.result(source, n)) for n in PLACE)
        yield equal(same, True, f"{case.title}: it starts from the peaks of {source}", where=stage)


def _likeliest_returned(case: Case, seen: Seen, data: dict[str, Tensor], found: Estimates) -> Iterator[Measurement]:
    import torch

    yield from _measurement_given(case, seen, "mle", 1, data)
    if not case.modelled:
        there = torch.isfinite(seen.given("mle", 0, "azimuth")).sum(-1).tolist()
        yield equal(there, list(case.K), f"{case.title}: peaks a scene that it starts from", where="mle")
    for name in (*PLACE, "order", "covariance"):
        same = same_bits(vars(found)[name].double(), seen.result("mle", name).double())
        yield equal(same, True, f"{case.title}: the {name} returned is that of NF-MLE", where=f"localize {name}")


def _measurement_given(
    case: Case, seen: Seen, stage: str, first: int, data: dict[str, Tensor]
) -> Iterator[Measurement]:
    """Compare three arguments of a stage, the first of them at a place, with y, H_full and C."""
    for index, (name, wanted) in enumerate(data.items(), first):
        apart = _moved(name, seen.given(stage, index), wanted)
        message = f"{case.title}: {name} against that of the measurement"
        yield at_most(apart, COPIED, message, where=f"{stage} {name}")


def _same(a: Tensor, b: Tensor) -> bool:
    """Return whether two tensors are the same, up to a cast of one of them to the precision of the other."""
    coarse = a.dtype if a.itemsize < b.itemsize else b.dtype
    return same_bits(a.to(coarse), b.to(coarse))


def _measured(batch: Batch, scenes: int) -> dict[str, Tensor]:
    """Return y, H_full and C of the first scenes, complex128 numbers that single precision holds."""
    import torch

    from ris_verified.shapes import from_ri

    return {
        name: from_ri(vars(batch)[name][:scenes]).to(torch.complex64).to(torch.complex128)
        for name in ("y", "H_full", "C")
    }


def _moved(name: str, got: Tensor, wanted: Tensor) -> float:
    """Return how far data are from the measurement's, relative; all but codes may be scaled by a power of two."""
    import torch

    from ris_verified.shapes import as_complex

    got = as_complex(got, name, DATA[name]).to(torch.complex128)
    if name != "C" and got.shape == wanted.shape:
        size = got.flatten(1).norm(dim=1) / wanted.flatten(1).norm(dim=1)
        # Without energy, or not finite, the distance becomes NaN, which fails.
        got = got * torch.exp2(-size.log2().round())[:, None, None]
    return relative(got, wanted)


def localisation_scales(context: Context) -> list[Measurement]:
    """Localise a lone source at 30 dB in other units, of y alone and of both: no gain says anything of a place."""
    import torch

    small = context.small
    lone = {"scene.sources_min": 1, "scene.sources_max": 1, "scene.snr_db_min": 30.0, "scene.snr_db_max": 30.0}
    # A Tikhonov weight is in the channel's units.
    config = small.config.replaced({"estimate.mle_ridge": 0.0})
    y, H_full, C = _measured(small.as_batch(small.draw(1, config.replaced(lone), key=14)), 1).values()
    places = []
    for gain, channel in ((1.0, 1.0), *GAINS):
        found = small.pipeline.localize(gain * y, channel * H_full, C, config, order=1, pipeline=small.pipeline)
        places.append(torch.stack([vars(found)[name][0, 0].double() for name in PLACE]))
    return [
        at_most(float(((place - places[0]) / places[0]).abs().max()), 1e-3,
                f"change of a position with y times {gain:g} and H_full times {channel:g}, relative", where="localize")
        for (gain, channel), place in zip(GAINS, places[1:], strict=True)
    ]  # fmt: skip
