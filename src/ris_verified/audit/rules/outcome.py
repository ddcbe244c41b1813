"""Section O: absolute oracles and what the outcome must obey."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

from ris_verified.audit.context import Context
from ris_verified.audit.laws.channel import channel_laws, code_laws
from ris_verified.audit.laws.drawn import drawn_laws
from ris_verified.audit.laws.knobs import knobs_turn
from ris_verified.audit.laws.loss_slopes import unread_fields
from ris_verified.audit.laws.model_laws import scenes_alone
from ris_verified.audit.laws.step_laws import batch_laws, update_laws
from ris_verified.audit.laws.trial_ends import objective_stops
from ris_verified.audit.laws.trial_scores import objective_keeps
from ris_verified.audit.oracle import element_grid, other_panel, relative, wave
from ris_verified.audit.rule import Measurement, at_least, at_most, close, equal, mended, rule
from ris_verified.audit.rules.losses import all_weights
from ris_verified.audit.rules.trials import objective_declares


@rule(
    "RV1601",
    "Declared parameters are those of what was drawn",
    law="element n at its stated place; steering of one off-axis source; SNR, κ, E|h|², powers, symbols, noise, view, "
    "counts, codebook and base-station distance as declared",
    why="Two paths that share a fault agree with each other.",
    how="Closed forms for positions and steering, also on another panel. Moments and distributions of drawn scenes: "
    "SNR from y − y_clean within 0.5 dB (checklist); noise, symbols and scattering are CN(0, 1), independent along "
    "every axis; positions, SNR and κ uniform; E|h|⁴ at the stated κ; at κ → ∞ a spherical wave. Bounds: "
    "Laurent–Massart, Hoeffding and Dvoretzky–Kiefer–Wolfowitz with exponent 20, so that a sound draw fails once in "
    "1e8. Positions again of scenes with one and with most sources, powers at a spread of 8 dB; no two sources share "
    "symbols, no two snapshots of a scene a code.",
    remedy="correct the stage named in the message",
)
def oracles(context: Context) -> Sequence[Measurement]:
    """Bounds: rounding k·eps·N for closed forms, exponential tail bounds for moments and distributions."""
    return [
        *mended(_geometry(context), "element n at (0, h·d, v·d) about the centroid; a_n = exp(−jk(‖p − p_n‖ − r))"),
        *mended([*_drawn(context), *drawn_laws(context)], "draw it as declared, from the scene's own generator, and "
                "state what was drawn"),
        *mended([_rician(context), *channel_laws(context)], "h = √(κ/(1 + κ)) spherical wave from the base station + "
                "√(1/(1 + κ)) CN(0, 1), over √N"),
        *mended(code_laws(context), "codes exp(2πj q/2^code_bits) of indices from the configured codebook"),
    ]  # fmt: skip


def _geometry(context: Context) -> list[Measurement]:
    import numpy as np
    import torch

    eps, found = torch.finfo(torch.float64).eps, []
    place = (np.array([0.6]), np.array([-0.3]), np.array([1.7]))
    for array in (context.config.array, other_panel(context.config.array)):
        grid = element_grid(array)
        text = f"panel of {array.horizontal} × {array.vertical}"
        p = context.pipeline.element_positions(array).double().numpy()
        d = array.spacing_wavelengths * array.wavelength
        if p.shape != grid.shape:
            found.append(
                equal(list(p.shape), list(grid.shape), f"shape of the positions, {text}", "", "element_positions")
            )
            continue
        errors = {
            "centroid off the origin": float(np.abs(p.mean(0)).max()) / d,
            "spacing of neighbours minus d": float(np.abs(np.linalg.norm(p[1] - p[0]) / d - 1)) if len(p) > 1 else 0.0,
            "element off (0, h·d, v·d)": float(np.abs(p - grid).max()) / d,
        }
        for law, error in errors.items():
            bound = 8 * eps * len(p)
            found.append(at_most(error, bound, f"{law}, {text}", "spacings", "element_positions"))
        for name in ("steering", "inference_steering"):
            a = vars(context.pipeline)[name](array, *(torch.from_numpy(v) for v in place))
            bound = 8 * eps * array.wavenumber * 10 * len(p)
            error = relative(a, torch.from_numpy(wave(array, *place)))
            found.append(at_most(error, bound, f"source at φ = 0.6, θ = −0.3, r = 1.7 m, {text}", "", name))
    return found


def _drawn(context: Context) -> list[Measurement]:
    import numpy as np

    scenes = context.many
    gaps = []
    for scene in scenes:
        noise = np.mean(np.abs(scene.y - scene.y_clean) ** 2)
        gaps.append(10 * np.log10(np.mean(np.abs(scene.y_clean) ** 2) / noise) - scene.snr_db)
    shape = (-1, context.config.array.vertical, context.config.array.horizontal)
    codes = np.concatenate([scene.codes for scene in scenes[:4]]).reshape(shape)
    lines = {"horizontal": codes.reshape(-1, shape[2]), "vertical": codes.transpose(0, 2, 1).reshape(-1, shape[1])}
    power = np.concatenate([np.abs(s.H_full).ravel() ** 2 for s in scenes]) * context.config.array.elements
    error = 6 * float(power.std()) / power.size**0.5
    modulus = float(np.abs(np.abs(codes) - 1).max())
    found = [
        at_most(abs(float(np.mean(gaps))), 0.5, "measured SNR minus stated SNR, mean of 64 scenes", "dB", "draw_scene"),
        close(float(power.mean()), 1.0, error, "N E|h|²", where="draw_scene"),
        at_most(modulus, 1e-15 * 64, "modulus of the codes minus one", where="draw_scene"),
    ]
    return found + [
        at_least(float(np.linalg.matrix_rank(m)), float(min(4, m.shape[1])), f"code rank, {n} axis", "", "draw_scene")
        for n, m in lines.items()
    ]


def _rician(context: Context) -> Measurement:
    import numpy as np

    kappa = 3.0
    scene = dataclasses.replace(context.config.scene, rician_factor_min=kappa, rician_factor_max=kappa)
    fixed = dataclasses.replace(context.config, scene=scene)
    power = np.concatenate([(np.abs(s.H_full) ** 2).ravel() for s in context.draw(6, fixed, key=5)])
    spread = float(np.var(power) / np.mean(power) ** 2)
    return close(
        spread,
        (1 + 2 * kappa) / (1 + kappa) ** 2,
        5 * 1.5 / np.sqrt(power.size),
        "Var|h|²/E²|h|² at κ = 3",
        where="draw_scene",
    )


CAUSES = {
    unread_fields: "let the loss read outputs, R_blend and the truth only",
    scenes_alone: "normalise, search and predict each scene by itself, wherever it stands in the batch",
    objective_keeps: "score the weights of each epoch on the validation scenes and return the best score",
    objective_stops: "end a trial after hpo.patience epochs without a better score, and not before",
    knobs_turn: "read the named field from the cfg that the stage is given: no constant, no cache that forgets it",
    update_laws: "clip by one norm, step, then average, with the configured values and in training mode",
    objective_declares: "pass the sampled values through `trial_config` to training and scoring",
}


@rule(
    "RV1604",
    "Every term, every scene and every knob has its effect and no other",
    law="k_logits move `order` only, angles `angle` only, ranges `range` only, R the covariance terms only; a scene's "
    "output moves with that scene only; a field of the configuration moves the stages that it is documented to move, "
    "and no other",
    why="A term that reads the wrong output trains the wrong head.",
    how="Each output of the model is disturbed alone, positions by too little to change the assignment of slots that "
    "lie far apart; the set of terms that change is compared with the declared one. At the small size: the loss with "
    "other y, H, C, H_full and SNR in the batch; a scene's output among other scenes, in another place and alone; "
    "each field of the configuration turned for the stages that it must move (`model.*` for this package's networks), "
    "and for each stage all fields together that it must not feel (bits are compared); norm at the optimiser, live, "
    "EMA and SWA weights beside a plain step written in the audit, with clipping, accumulation and averages on and "
    "off, bound 1e4 eps; modes, precision and configuration inside the step. Equal trials of the objective, the "
    "values that reach its training, the folders of two, which of three epochs' scores it returns, and when its "
    "patience ends it.",
    remedy="let the stage that the message names read what its documentation declares, and only that",
    apart=True,
)
def terms_and_causes(context: Context) -> Iterator[Measurement]:
    """Equal inputs give equal bits, so any change counts."""
    import torch

    config, b, out = all_weights(context.config), context.blend, _apart(context)

    def terms(outputs: Any, R: Any) -> dict[str, float]:
        result = context.pipeline.loss(outputs, b.R_pred, context.batch, config, R_blend=R, training=False)
        return {name: float(value) for name, value in result.terms.items()}

    base = terms(out, b.R)
    ramp = torch.linspace(0.5, 1.5, out.k_logits.shape[1])
    several = len(ramp) > 1
    # A hundred roundings of float32 show in a term; a tie of two assignments hardly ever lies so near.
    small = 100 * torch.finfo(torch.float32).eps
    causes = {
        "k_logits": (dataclasses.replace(out, k_logits=out.k_logits + ramp), b.R, {"order"} if several else set()),
        "angles": (dataclasses.replace(out, angles=out.angles + small * ramp[:, None]), b.R, {"angle"}),
        "ranges": (dataclasses.replace(out, ranges=out.ranges * (1 + small * ramp)), b.R, {"range"}),
        "R_blend": (out, b.R_samp, {"covariance", "alignment", "eigengap"}),
    }
    for cause, (outputs, R, wanted) in causes.items():
        moved = {name for name, value in terms(outputs, R).items() if value != base[name]}
        yield equal(sorted(moved), sorted(wanted), f"terms that move with {cause}", where="loss")
    for law, remedy in CAUSES.items():
        yield from mended(law(context), remedy)


def _apart(context: Context) -> Any:
    """Return the model's output with slots far apart: an untrained one may put all in one place, in no stable order."""
    import torch

    out, s = context.outputs, context.config.scene
    share = torch.linspace(-0.9, 0.9, out.ranges.shape[1], dtype=out.ranges.dtype)
    angles = torch.stack([share * s.azimuth_max, share * s.elevation_max], -1).expand_as(out.angles)
    ranges = (s.range_min + (share + 1) / 2 * (s.range_max - s.range_min)).expand_as(out.ranges)
    return dataclasses.replace(out, angles=angles, ranges=ranges)


@rule(
    "RV1606",
    "One optimiser step a batch, at the scheduled rate",
    law="steps = batches, whatever the accumulation; each step has the gradient of its whole batch and of no other; "
    "the rates used are those of a dry run of the schedule",
    why="A scheduler stepped a micro-batch, or twice, ends the schedule early.",
    how="Six train steps of the small model with accumulation 1 and 2: optimiser steps are counted by a hook and the "
    "rates inside it compared with a state whose scheduler alone is stepped. Bound: equal. Then three batches in "
    "unequal parts: the direction of the gradient at the optimiser against that of the mean loss of the whole batch, "
    "bound 1e4 eps, and the scenes held at once.",
    remedy="step optimiser and scheduler once a batch",
    apart=True,
)
def one_step(context: Context) -> Iterator[Measurement]:
    """The same float64 products in the same order: equal."""
    for parts in (1, 2):
        small = context.small
        train = dataclasses.replace(small.config.train, accumulation=parts)
        pipeline = dataclasses.replace(small.pipeline, config=dataclasses.replace(small.config, train=train))
        place = Context(pipeline, context.profile, context.source, None, context.seed)
        state, dry = place.state(total_steps=6), place.state(total_steps=6)
        used: list[float] = []
        state.optimizer.register_step_post_hook(lambda o, *_, used=used: used.append(float(o.param_groups[0]["lr"])))
        planned = []
        for _ in range(6):
            pipeline.train_step(state, place.batch, pipeline)
            planned.append(float(dry.optimizer.param_groups[0]["lr"]))
            dry.optimizer.step()
            dry.scheduler.step()
        yield equal(len(used), 6, f"optimiser steps for 6 batches, accumulation {parts}", where="train_step")
        yield equal(used[:6], planned, f"rates used, accumulation {parts}", where="train_step")
    yield from mended(batch_laws(context), "weight each micro-batch by its share of the scenes, clear gradients once a "
                      "batch, clip all of them by one norm")  # fmt: skip


@rule(
    "RV1609",
    "No scene in two splits",
    law="content hashes of training, validation and test scenes are disjoint and without repeats",
    why="A validation on training scenes rewards memory.",
    how="SHA-256 of y of every stored scene with --data, else of 64 scenes drawn for each split. Bound: none shared.",
    remedy="draw each split with its own key",
)
def splits_disjoint(context: Context) -> Sequence[Measurement]:
    """Hashes are compared: no tolerance."""
    hashes = {name: list(_hashes(context, split, name)) for split, name in enumerate(("train", "validation", "test"))}
    every = [h for split in hashes.values() for h in split]
    text = ", ".join(f"{len(v)} {k}" for k, v in hashes.items())
    return [at_most(float(len(every) - len(set(every))), 0.0, f"repeated scenes among {text}", "scenes", "splits")]


def _hashes(context: Context, split: int, name: str) -> Iterator[str]:
    if context.data is None:
        for index in range(64):
            yield hashlib.sha256(context.pipeline.draw_scene(context.config, split, index).y.tobytes()).hexdigest()
        return
    import torch

    from ris_verified.data.dataset import SceneDataset

    dataset = SceneDataset(context.data, name)
    for index in torch.arange(len(dataset)).split(512):
        for row in dataset.batch(index).y:
            yield hashlib.sha256(row.numpy().tobytes()).hexdigest()
