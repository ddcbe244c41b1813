"""Section F: one real batch through training and through inference."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ris_verified.audit.context import Context
from ris_verified.audit.laws.counting import inputs, measured_scenes, order_found
from ris_verified.audit.laws.estimation import refining, require_surface, separate_sources, threshold_obeys
from ris_verified.audit.laws.judging import bound_obeys
from ris_verified.audit.laws.likelihood import at_marginal_optimum, at_optimum
from ris_verified.audit.laws.on_blend import from_blend, scene_bounds
from ris_verified.audit.laws.scored_errors import bound_of_each_scene
from ris_verified.audit.rule import Measurement, at_least, at_most, equal, mended, rule

if TYPE_CHECKING:
    from torch import Tensor

# Share of the first epoch's loss at which 200 scenes count as memorised.
ENOUGH = 0.8
BOUND = "invert the Fisher matrix of positions and symbols of this configuration's symbols, with the stated σ²"
BLENDED = "refine what a loaded and blended covariance in single precision gives, not a noiseless one only"
THRESHOLD = "compare the SNR of each scene with estimate.mle_snr_threshold_db: refine at and above it, not below"


def finite_rows(found: Any) -> Tensor:
    """Return how many finite positions each scene of an estimate has, `B`."""
    import torch

    stacked = torch.stack([found.azimuth, found.elevation, found.range])
    return torch.isfinite(stacked).all(0).sum(-1)


@rule(
    "RV1201",
    "One real batch takes a training step",
    law="model → R_pred → R_samp → blend → loss → backward → step, every contract on, all finite",
    why="Every stage works alone; the launch needs the chain.",
    how="The reference model on eight drawn scenes with contracts on: the step must be taken with finite loss, "
    "terms and gradient norm, and move the weights.",
    remedy="see the stage named in the message",
)
def training_chain(context: Context) -> Sequence[Measurement]:
    """Finite or not: no tolerance."""
    import torch

    config = dataclasses.replace(context.config, contracts=True)
    pipeline = dataclasses.replace(context.pipeline, config=config)
    state = context.state()
    before = [p.detach().clone() for p in state.model.parameters()]
    report = pipeline.train_step(state, context.batch, pipeline)
    moved = sum(not torch.equal(a, b.detach()) for a, b in zip(before, state.model.parameters(), strict=True))
    figures = {"loss": report.loss, "nmse": report.nmse, "gradient_norm": report.gradient_norm, **report.terms}
    bad = [name for name, value in figures.items() if not bool(torch.isfinite(torch.as_tensor(value)).all())]
    return [
        equal(report.skipped, False, f"the step was taken at loss {float(report.loss):.4g}", where="train_step"),
        at_most(float(len(bad)), 0.0, "reported figures that are not finite", where=", ".join(bad)),
        at_least(float(moved), 1.0, "tensors moved by the step", "tensors", "train_step"),
    ]


@rule(
    "RV1202",
    "The same batch goes through inference",
    law="model → blend → spectrum → Newton → NF-MLE → matching gives K finite positions a scene, each matched",
    why="A path that only runs in the evaluation script fails after the training.",
    how="Every inference stage on four drawn scenes with their true K: counts of finite positions and of matched "
    "sources; the MLE's positions stay within 0 < r < 10 range_max. The order stage must count separate "
    "sources of 30 dB on a small panel right in half of the scenes of each number: one and two by BIC, and by the "
    "configured criterion up to K_MAX, five at most, three where symbols are constant.",
    remedy="see the stage named in the message",
)
def inference_chain(context: Context) -> Sequence[Measurement]:
    """Counts of positions: no tolerance."""
    import torch

    require_surface(context)
    p, cfg = context.pipeline, context.config
    batch = context.as_batch(context.scenes[:3] + context.scenes[-1:])
    with torch.no_grad():
        out = context.model(batch.y, batch.H, batch.C, batch.H_full)
        R_pred = p.inference_predicted_covariance(out.cov_fact_angle, out.cov_fact_range, cfg)
        R_samp = p.inference_sample_covariance(batch.y, batch.H_full, batch.C, cfg)
        R = p.inference_blend(R_pred, R_samp, cfg).R
        peaks = p.spectrum(R, batch.K, cfg)
        refined = p.newton(R, batch.K, peaks, cfg)
        found = p.mle(refined, *inputs(batch), cfg)
    pairs = p.match(found.azimuth, found.elevation, found.range, batch.ptr)
    matched = (pairs.estimate_index >= 0).sum(-1)
    wanted = batch.K.tolist()
    result = [equal(finite_rows(e).tolist(), wanted, "finite positions a scene", where=name)
              for name, e in (("spectrum", peaks), ("newton", refined), ("mle", found))]  # fmt: skip
    result.append(equal(matched.tolist(), wanted, "matched sources a scene", where="match"))
    r = found.range[torch.isfinite(found.range)]
    inside = bool((r > 0).all()) and bool((r < 10 * cfg.scene.range_max).all())
    result.append(equal(inside, True, "ranges are positive and below ten times the view's", where="mle"))
    return [*result, *order_found(context)]


@rule(
    "RV1203",
    "A small set can be memorised",
    law="200 scenes, 160 steps: an epoch's mean loss falls to 0.8 of the first epoch's",
    why="A network that cannot memorise 200 scenes has a broken path, whatever its size.",
    how="The small model on 200 scenes in batches of 50 at ten times the rate, until the loss is at 0.8 of its start.",
    remedy="check that every input reaches the network and every term the weights",
    profile="full",
    apart=True,
)
def memorises(context: Context) -> Sequence[Measurement]:
    """Epoch means of 200 scenes vary by far less than a fifth."""
    small, total = context.small, 160
    train = dataclasses.replace(small.config.train, learning_rate=3e-3, warmup_share=0.05)
    pipeline = dataclasses.replace(small.pipeline, config=dataclasses.replace(small.config, train=train))
    place = Context(pipeline, context.profile, context.source, None, context.seed)
    batches = [place.as_batch(place.draw(50, key=10 + i)) for i in range(4)]
    state = place.state(total_steps=total)
    first, left, step = 0.0, 1.0, 0
    # Whether it goes on falling is not asked.
    while not left <= ENOUGH and step < total:
        losses = [float(pipeline.train_step(state, batch, pipeline).loss) for batch in batches]
        first, step = first or sum(losses), step + len(losses)
        left = sum(losses) / first
    return [at_most(left, ENOUGH, f"share of the loss that is left after {step} steps", where="train_step")]


@rule(
    "RV1204",
    "Estimation on the true covariance reaches the bound",
    law="sources are found from R_true, and the MLE started on its grid peaks has RMS(error/√CRB) ≤ 2 at 20 dB; "
    "from R_blend eᵀ CRB⁻¹ e of the MLE is χ² of 3K degrees",
    why="An estimator that misses on the truth cannot be blamed on the network.",
    how="Six scenes of one or two sources at 20 dB: the spectrum of R_true on its grid, NF-MLE on y from there; "
    "position errors over the Cramér–Rao bound, of sources whose range the bound gives to a tenth. Bounds 0.3 and 2: "
    "for n ≥ 6 sources the ratio is 1 ± 0.3, and an estimate far better than the bound has seen the truth. There and "
    "for K_MAX sources: a tenth of a standard deviation to the optimum by the objective's gradient (NumPy), "
    "covariance · J = I, σ̂² from the residual. Peaks at 20 dB move with a threshold of 15 dB and stay with one of 25 "
    "dB. R_blend: of R_true and R_samp of 16 such scenes, β at most 0.3, through spectrum, Newton and MLE: "
    "√(Σ χ²/Σ 3K) inside its quantiles of 1e-6, the upper one without the worst quarter of the scenes, Newton's median "
    "below 5, and the way to the optimum as above.",
    remedy="check steering convention, conjugates and the MLE's objective",
)
def reaches_bound(context: Context) -> Sequence[Measurement]:
    """√(χ²/3n) exceeds 2 with probability below 1e-9 for n ≥ 6, with 4e-5 for the least n that is judged, 3."""
    import torch

    require_surface(context)
    most, cfg = min(2, context.config.scene.sources_max), refining(context.config)
    few = dataclasses.replace(context.config.scene, sources_min=1, sources_max=most, snr_db_min=20.0, snr_db_max=20.0)
    scenes = context.draw(6, dataclasses.replace(context.config, scene=few), key=4)
    batch = context.as_batch(scenes)
    R = torch.stack([context.true_covariance(scene) for scene in scenes])
    with torch.no_grad():
        peaks = context.pipeline.spectrum(R, batch.K, cfg)
        found = context.pipeline.mle(peaks, *inputs(batch), cfg)
    bounds = scene_bounds(context, scenes)
    ratio = context.pipeline.metric(context.pipeline, found, batch.ptr, bounds).over_bound
    ratio = ratio[torch.isfinite(batch.ptr).all(-1)]
    missed = int((~torch.isfinite(ratio)).sum())
    return [
        at_most(float(missed), 0.0, "sources missed", "sources", "spectrum on R_true"),
        *_over_bound(ratio, bounds, batch.ptr),
        *mended([*bound_obeys(context), *bound_of_each_scene(context)], BOUND),
        *at_optimum(context, scenes, found, peaks, "one or two sources"),
        *_crowded(context),
        *mended(threshold_obeys(context), THRESHOLD),
        *mended(from_blend(context), BLENDED),
    ]


def _over_bound(ratio: Tensor, bounds: Tensor, ptr: Tensor) -> list[Measurement]:
    """The RMS over sources whose distance the data tell: of others errors are not normal and end at the view's edge."""
    import torch

    sigma = torch.diagonal(bounds, dim1=1, dim2=2).sqrt().unflatten(1, (-1, 3))[..., 2]
    told = ratio[(sigma < 0.1 * ptr[..., 2])[torch.isfinite(ptr).all(-1)]]
    told = told[torch.isfinite(told)]
    if len(told) < 3:
        return []
    rms, text = float(told.square().mean().sqrt()), f"RMS of error over bound, {len(told)} sources at 20 dB"
    return [
        at_least(rms, 0.3, f"{text}: not better than the data allow", where="mle"),
        at_most(rms, 2.0, text, where="mle"),
    ]


def _crowded(context: Context) -> list[Measurement]:
    """Two scenes of up to K_MAX separate sources at 12 dB, the MLE started one and a half standard deviations off."""
    import torch

    from ris_verified.estimate.result import Peaks

    cfg = refining(context.config)
    s = cfg.scene
    # A quarter of the rows must be left to measure the noise with.
    own = (1 if s.symbols == "constant" else s.snapshots) + 3
    place = separate_sources(context, min(s.sources_max, max(1, 3 * s.snapshots * s.antennas // (4 * own))))
    scenes = measured_scenes(context, [place, place[::-1]], 12.0, 1204)
    batch = context.as_batch(scenes)
    sigma = torch.diagonal(scene_bounds(context, scenes), dim1=1, dim2=2).sqrt().unflatten(1, (-1, 3))
    high = torch.tensor([s.azimuth_max, s.elevation_max, s.range_max], dtype=torch.float64)
    low = torch.tensor([-s.azimuth_max, -s.elevation_max, s.range_min], dtype=torch.float64)
    off = (batch.ptr.double() + 1.5 * torch.tensor([1.0, -1.0, 1.0]) * sigma).clamp(low, high)
    start = Peaks(*(off[..., i].contiguous() for i in range(3)))
    label, prior = f"{len(place)} separate sources", dataclasses.replace(cfg.estimate, prior="scene")
    with torch.no_grad():
        found = context.pipeline.mle(start, *inputs(batch), cfg)
        likeliest = context.pipeline.mle(start, *inputs(batch), dataclasses.replace(cfg, estimate=prior))
    settled = at_marginal_optimum(context, scenes, likeliest, label)
    return [*at_optimum(context, scenes, found, start, label), settled]
