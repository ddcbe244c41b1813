"""Sections 03 and 08: the hybrid proof, and training and inference doing the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ris_verified.audit.context import Context
from ris_verified.audit.laws.blends import blend_of_known, blend_of_scenes
from ris_verified.audit.laws.localizing import localisation_carries, localisation_hands_on, localisation_scales
from ris_verified.audit.laws.model_laws import modes_agree
from ris_verified.audit.laws.printed import block_is_said
from ris_verified.audit.laws.proposals import searched_alike
from ris_verified.audit.laws.steerings import steering_elsewhere
from ris_verified.audit.laws.validated_blend import blend_of_validation
from ris_verified.audit.oracle import closed_form, relative, view_grid, view_points
from ris_verified.audit.rule import Measurement, at_most, close, equal, rule

if TYPE_CHECKING:
    from torch import Tensor

    from ris_verified.covariance.blend import Blend


def inference_blend(context: Context) -> Blend:
    """Return the blend as inference makes it, without a graph."""
    import torch

    p, cfg, b, out = context.pipeline, context.config, context.batch, context.outputs
    with torch.no_grad():
        R_pred = p.inference_predicted_covariance(out.cov_fact_angle, out.cov_fact_range, cfg)
        R_samp = p.inference_sample_covariance(b.y, b.H_full, b.C, cfg)
        return p.inference_blend(R_pred, R_samp, cfg)


def _trace_error(R: Tensor) -> float:
    import torch

    N = R.shape[-1]
    return float(((torch.diagonal(R, dim1=-2, dim2=-1).to(torch.complex128).sum(-1) - N).abs() / N).max())


@rule(
    "RV0301",
    "Inference returns R_pred, R_samp and β",
    law="the result object carries R_pred, R_samp (trace N) and β; the configuration is unchanged; `localize` hands "
    "measurement, order and R_blend to the stages of the given pipeline and returns what NF-MLE found",
    why="The original wrote them into the configuration, where the next batch overwrote them. What is launched is "
    "`localize`, however right its stages are.",
    how="The inference blend is searched for the three, traces measured to 1e-5 (checklist RV0801), the "
    "configuration's digest compared before and after. Then three scenes of the small size through watched stages and "
    "a watched model: data equal up to a power of two a scene, matrices to 1e-6 (a cast to single precision), H_full "
    "c to N eps, evaluation mode, the number of sources told by caller, K head and order stage, Newton on and off, "
    "positions bit for bit; the same without a model. A lone source at 30 dB is localised again in units of 1e-7 and "
    "1e7.",
    remedy="return a Blend from inference, never write to the configuration, and let `localize` only pass things on",
)
def result_carries(context: Context) -> Iterator[Measurement]:
    """1e-5 is the checklist's figure; the digest is exact."""
    before = context.config.digest()
    blended = inference_blend(context)
    yield equal(context.config.digest(), before, "configuration after inference", where="config")
    for name in ("R_pred", "R_samp"):
        yield at_most(_trace_error(vars(blended)[name]), 1e-5, "|tr − N|/N", where=name)
    yield close(blended.beta, context.config.covariance.beta, 0.0, "β in the result", where="beta")
    yield from localisation_carries(context)
    for given in localisation_hands_on(context):
        # The stage is sound: it is `localize` that hands it something else.
        where = given.where if given.where.startswith("localize") else f"localize: what it hands to {given.where}"
        yield dataclasses.replace(given, where=where)
    yield from localisation_scales(context)


@rule(
    "RV0302",
    "The proof block prints what holds",
    law="the first epoch's lines are printed, state β and ε, and their identities hold",
    why="A proof that prints constants proves nothing.",
    how="The proof of the training blend: both identities within its own rounding bound for every scene. Then the "
    "stage `train` runs on four scenes and all that it logs or prints is read: every line of the block must be there, "
    "and that of the first identity show the norms of its own blend, in float64 to half of the last decimal; of a "
    "blend whose R_raw is a tenth too large it must say that the identities are broken.",
    remedy="print figures measured on the tensors of the batch",
)
def proof_prints(context: Context) -> Iterator[Measurement]:
    """The proof's own bound is 4 eps·N of ‖P‖² + ‖S‖²."""
    holds = bool(context.blend.proof.holds.all())
    yield equal(holds, True, "norm identities hold for every scene", where="blend.proof")
    yield from block_is_said(context)


@rule(
    "RV0801",
    "Every covariance has trace N",
    law="|tr R − N|/N ≤ 1e-5 for R_pred, R_samp, R_blend in training and inference, and R_true in the data",
    why="Blending matrices of different trace changes β.",
    how="Traces summed in float64. Bound 1e-5 from the checklist; float32 rounding of N terms is below it.",
    remedy="scale by N over the trace in the stage that makes the matrix",
)
def traces(context: Context) -> Sequence[Measurement]:
    """The checklist's 1e-5 exceeds 144 roundings of 2⁻²⁴ each."""
    train, infer = context.blend, inference_blend(context)
    found = [at_most(_trace_error(context.batch.R_in), 1e-5, "|tr − N|/N", where="data R_true")]
    for path, blended in (("training", train), ("inference", infer)):
        pairs = {"R_pred": blended.R_pred, "R_samp": blended.R_samp, "R_blend": blended.R}
        found += [at_most(_trace_error(R), 1e-5, "|tr − N|/N", where=f"{path} {name}") for name, R in pairs.items()]
    return found


@rule(
    "RV0802",
    "Training and inference agree",
    law="R_samp, R_blend and the steering vectors are the same to 1e-6; a network that is given stored proposals in "
    "training makes the same ones at inference",
    why="A network trained on one blend is judged on another.",
    how="Both paths on the same scenes and positions, relative Frobenius distance. Bound 1e-6 from the checklist. "
    "Outputs of the small network in training mode without dropout against those in evaluation, where they repeat. "
    "R_pred with proposals as `generate` stores them and without, median over the scenes, bound 1e-3: a choice "
    "between two equal candidates may turn.",
    remedy="call the same function in both",
)
def paths_agree(context: Context) -> Sequence[Measurement]:
    """Equal functions give equal bits; 1e-6 leaves room for another order of float32 sums."""
    p = context.pipeline
    place = view_grid(context)
    train, infer = context.blend, inference_blend(context)
    a, b = p.steering(context.config.array, *place), p.inference_steering(context.config.array, *place)
    return [
        at_most(relative(infer.R_pred, train.R_pred), 1e-6, "distance of the two", where="R_pred"),
        at_most(relative(infer.R_samp, train.R_samp), 1e-6, "distance of the two", where="R_samp"),
        at_most(relative(infer.R, train.R), 1e-6, "distance of the two", where="R_blend"),
        at_most(relative(b, a), 1e-6, "distance of the two", where="steering"),
        equal(_live_sample(context), False, "R_samp of inference asks for a gradient in y", where="R_samp"),
        *searched_alike(context),
        *modes_agree(context),
    ]


def _live_sample(context: Context) -> bool:
    import torch

    b = context.batch
    with torch.enable_grad():
        y = b.y.clone().requires_grad_()
        R: Tensor = context.pipeline.inference_sample_covariance(y, b.H_full, b.C, context.config)
    return R.requires_grad


@rule(
    "RV0803",
    "The blend is the stated one",
    law="R ∝ herm((1−β)P + βS)/tr + ε tr/N I, trace N, β as configured, ε = 1e-3",
    why="ε = 1.0 turns the blend into an identity matrix with a little signal; swapped weights trust the wrong half.",
    how="Both blends, of the scenes and of known matrices at three β, one zero, against the formula in float64, bound "
    "8 eps·N relative; every figure of the proof, which must fail on a raw blend that is off; β as ⟨R_raw − P, S − P⟩"
    "/‖S − P‖² to the same; ε from the smallest eigenvalue λ of R_blend as λ/(1 − λ) (R_raw is singular); no gradient "
    "to S.",
    remedy="blend as (1−β)R_pred + β R_samp.detach() with loading C_EPS = 1e-3 of tr/N",
)
def blend_formula(context: Context) -> Sequence[Measurement]:
    """float32 sums of N terms; λ of a unit-scale matrix carries the matrix's absolute rounding."""
    found = []
    for name, blended in (("blend", context.blend), ("inference_blend", inference_blend(context))):
        found += [*blend_of_scenes(context, name, blended), *blend_of_known(context, name)]
    return found


@rule(
    "RV0804",
    "One convention for positions",
    law="a_n(p) of generator, heads, MUSIC and MLE equal exp(−jk(‖p − p_n‖ − r)) to 1e-6, in metres and radians",
    why="Degrees for radians, or a sign, in one place gives a spectrum that peaks elsewhere.",
    how="Both steering stages on a grid and 400 random positions of the view against the closed form in NumPy "
    "float64, for both amplitudes and another wavelength and spacing, 24,581 positions at once on a small panel, "
    "slopes by autograd against central differences where there are any, and in float32 to 32 k r eps with complex64 "
    "returned; the scene's clean measurement is explained by the closed form (residual of a least-squares fit), bound "
    "1e-6 (checklist).",
    remedy="import the one steering function everywhere",
)
def one_convention(context: Context) -> Sequence[Measurement]:
    """1e-6 is the checklist's figure; the closed form itself is float64."""
    import numpy as np
    import torch

    place = view_points(context)
    wanted = closed_form(context, *(v.numpy() for v in place))
    found = []
    for name in ("steering", "inference_steering"):
        a = vars(context.pipeline)[name](context.config.array, *place)
        found.append(at_most(relative(a, torch.from_numpy(wanted)), 1e-6, "distance from the closed form", where=name))
        found += [_single(context, name, place), *steering_elsewhere(context, name)]
    worst = 0.0
    for scene in context.scenes:
        A = closed_form(context, scene.azimuth, scene.elevation, scene.range).T
        expected = (scene.codes * (scene.symbols @ A.T)) @ scene.H_full.T
        worst = max(worst, float(np.linalg.norm(scene.y_clean - expected) / np.linalg.norm(expected)))
    return [*found, at_most(worst, 1e-6, "clean measurement against the closed form", where="draw_scene")]


def _single(context: Context, name: str, place: tuple[Tensor, ...]) -> Measurement:
    """Positions in float32 turn phases by a few k r eps, however they are subtracted: bound 32 k r_max eps."""
    import torch

    array, s = context.config.array, context.config.scene
    low = [v.float() for v in place]
    a = vars(context.pipeline)[name](array, *low)
    if a.dtype != torch.complex64:
        return equal(a.dtype, torch.complex64, "dtype for float32 positions", where=name)
    wanted = torch.from_numpy(closed_form(context, *(v.double().numpy() for v in low)))
    bound = 32 * torch.finfo(torch.float32).eps * max(1.0, array.wavenumber * s.range_max)
    return at_most(relative(a.to(wanted.dtype), wanted), bound, "distance from the closed form in float32", where=name)


@rule(
    "RV0805",
    "Validation computes its loss on the same R_blend",
    law="the R_blend that the loss receives in validation is that of training",
    why="A validation on R_pred alone improves while what is deployed does not.",
    how="The loss stage is watched while a train step's forward and a validation run with equal weights; the matrices "
    "that it received are compared. Bound 1e-6, as for RV0802; then the values of both.",
    remedy="validate through Pipeline.forward and pass R_blend to the loss",
)
def validation_same(context: Context) -> Sequence[Measurement]:
    """Same weights in evaluation mode, same operations: equal up to the order of float32 sums."""
    return blend_of_validation(context)
