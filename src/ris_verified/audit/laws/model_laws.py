"""What a network must do whatever its layers are; measured for RV0401, RV1602, RV1604 and RV1605."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from ris_verified.audit.context import Context
from ris_verified.audit.laws.rounding import AMPLIFIED, SHAKES, shaken
from ris_verified.audit.oracle import closed_form, same_bits
from ris_verified.audit.rule import Measurement, at_least, at_most, equal

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ris_verified.data.batch import Batch
    from ris_verified.model.output import ModelOutput

WHERE = "build_model"
# A thousand roundings of float32: far above sums in another order, far below what a scene's neighbour could teach.
AGREE = 1000 * 2.0**-23


def run(model: nn.Module, batch: Batch) -> ModelOutput:
    """Return the network's output on a batch, without a graph."""
    import torch

    with torch.no_grad():
        made: ModelOutput = model(batch.y, batch.H, batch.C, batch.H_full)
    return made


def pick(batch: Batch, rows: list[int]) -> Batch:
    """Return some scenes of a batch, in the given order."""
    return dataclasses.replace(batch, **{n: v[rows] for n, v in vars(batch).items()})


def apart(a: ModelOutput, b: ModelOutput) -> dict[str, Tensor]:
    """Return each output's distance over its size, by scene."""
    import torch

    tiny = torch.finfo(torch.float32).tiny
    made = {}
    for name, value in vars(a).items():
        scale = value.flatten(1).norm(dim=1).clamp_min(tiny)
        made[name] = (value - vars(b)[name]).flatten(1).norm(dim=1) / scale
    return made


def scenes_alone(context: Context) -> list[Measurement]:
    """Measure that a scene's output is its own: no neighbour, place in the batch or batch size enters (RV1604).

    The same scene among other ones of the same batch size runs the same sums, so every scene must agree. In
    another place or alone, a rounding may turn a choice between two equal candidates: there the median counts.
    No output need agree better than with its own when the measurements are disturbed by rounding.
    """
    import torch

    small = context.small
    model, batch = small.model, small.batch
    others = small.as_batch(small.draw(len(batch), key=13))
    base, B = run(model, batch), len(batch)
    among = []
    for parity in (0, 1):
        rows = [i for i in range(B) if i % 2 == parity]
        kept = torch.arange(B) % 2 == parity
        mixed = {n: torch.where(kept.view(-1, *[1] * (v.ndim - 1)), v, vars(others)[n]) for n, v in vars(batch).items()}
        made = run(model, dataclasses.replace(batch, **mixed))
        among.append(apart(pick_outputs(base, rows), pick_outputs(made, rows)))
    turned = [*range(1, B), 0]
    placed = apart(pick_outputs(base, turned), run(model, pick(batch, turned)))
    alone = [apart(pick_outputs(base, [i]), run(model, pick(batch, [i]))) for i in range(B)]
    rounded = [apart(base, run(model, dataclasses.replace(batch, y=shaken(batch.y, key)))) for key in range(SHAKES)]
    found = []
    for name in vars(base):
        shakes = torch.stack([change[name] for change in rounded])
        # One scene that rounding turns must not excuse what all of them do.
        most, middle = shakes.max(), shakes.median(1).values.max()
        for what, changes, usual in (
            ("other scenes beside it", torch.cat([part[name] for part in among]).max(), most),
            ("another place in the batch", placed[name].median(), middle),
            ("no other scene in the batch", torch.cat([row[name] for row in alone]).median(), middle),
        ):
            bound, text = max(AGREE, AMPLIFIED * float(usual)), f"change of a scene's output with {what}"
            found.append(at_most(float(changes), bound, text, where=f"{WHERE}: {name}"))
    return found + _causes(context, base)


def _causes(context: Context, base: ModelOutput) -> list[Measurement]:
    """Every output moves with the measurements and with the codes; a network may read H in place of C."""
    small, found = context.small, []
    for label, fields in (("y", ("y",)), ("C and H", ("C", "H"))):
        given = {n: v.roll(1, 0) if n in fields else v for n, v in vars(small.batch).items()}
        moved = apart(base, run(small.model, dataclasses.replace(small.batch, **given)))
        for name, value in moved.items():
            message = f"change of the output with another scene's {label}"
            found.append(at_least(float(value.max()), 1e-6, message, where=f"{WHERE}: {name}"))
    return found


def pick_outputs(outputs: ModelOutput, rows: list[int]) -> ModelOutput:
    """Return some scenes of an output."""
    return dataclasses.replace(outputs, **{n: v[rows] for n, v in vars(outputs).items()})


def _bits(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def _differing(a: dict[str, Tensor], b: dict[str, Tensor]) -> list[str]:
    import torch

    return sorted(n for n in {**a, **b} if n not in a or n not in b or not torch.equal(a[n], b[n]))


def repeats(context: Context) -> list[Measurement]:
    """Measure that a network in evaluation is a function of weights and inputs, built from the seed alone (RV1605)."""
    import torch

    small = context.small
    build, model, batch = small.pipeline.build_model, small.model, small.batch
    torch.manual_seed(small.seed + 987_654)  # no round number that a network would reset it to
    drawn = torch.get_rng_state()
    before, first = _bits(model), run(model, batch)
    still = torch.equal(drawn, torch.get_rng_state())
    torch.manual_seed(small.seed + 1)
    second = run(model, batch)
    found = [
        equal(same_bits(value, vars(second)[name]), True,
              "the second evaluation on a batch repeats the first to the bit", where=f"{WHERE}: {name}")
        for name, value in vars(first).items()
    ]  # fmt: skip
    found.append(
        equal(_differing(before, _bits(model))[:3], [], "weights and buffers changed by an evaluation", where=WHERE)
    )
    found.append(equal(still, True, "the random state after an evaluation is that before it", where=WHERE))
    # A configuration without dropout hides one that is never off.
    dropping = build(small.config.replaced({"model.dropout": 0.3})).eval()
    once, twice = run(dropping, batch), run(dropping, batch)
    unlike = [name for name, value in vars(once).items() if not same_bits(value, vars(twice)[name])]
    found.append(equal(unlike, [], "outputs that two evaluations with model.dropout = 0.3 differ in", where=WHERE))
    one = build(small.config)
    # A fork of the global state gives the same draws again until that state is another.
    torch.manual_seed(small.seed + 2)
    other = build(small.config)
    found.append(
        equal(_differing(_bits(one), _bits(other))[:3], [], "weights that differ between two builds", where=WHERE)
    )
    own = {p.data_ptr() for p in one.parameters() if p.numel()}
    shared = sum(p.data_ptr() in own for p in other.parameters() if p.numel())
    found.append(at_most(float(shared), 0.0, "weights that two builds share", "tensors", WHERE))
    reseeded = build(small.config.replaced({"seed": small.config.seed + 1}))
    fresh = sum(not torch.equal(a, b) for a, b in zip(one.parameters(), reseeded.parameters(), strict=False))
    return [*found, at_least(float(fresh), 1.0, "weights that differ under another seed", "tensors", WHERE)]


def unregistered(context: Context) -> list[Measurement]:
    """Measure that every leaf of the graph behind the outputs is a parameter of the model (RV0401)."""
    small = context.small
    b, model = small.batch, small.model
    outputs = model(b.y, b.H, b.C, b.H_full)
    own = {id(p) for p in model.parameters()}
    waiting = [v.grad_fn for v in vars(outputs).values() if v.grad_fn is not None]
    seen, foreign = set(), []
    while waiting:
        node: Any = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable") and id(node.variable) not in own:
            foreign.append(list(node.variable.shape))
        waiting += [after for after, _ in node.next_functions if after is not None]
    message = "trainable tensors in the graph that are no parameters of the model"
    return [at_most(float(len(foreign)), 0.0, message, "tensors", ", ".join(f"shape {s}" for s in foreign[:3]))]


def heads_agree(context: Context) -> list[Measurement]:
    """Measure that slots are places of their own and that their factors are complex and mean those places (RV1602)."""
    import torch

    small, out = context.small, context.small.outputs
    found = []
    if small.config.scene.sources_max > 1:
        place = torch.cat([out.angles, out.ranges[..., None]], -1)
        spread = (place - place[:, :1]).abs().amax((1, 2))
        found.append(at_least(float(spread.median()), 1e-6, "distance between the slots of a scene", where=WHERE))
    if small.config.covariance.factor_mode != "real":
        R = small.blend.R_pred
        share = (R.imag.flatten(1).norm(dim=1) / R.flatten(1).norm(dim=1)).max()
        message = "imaginary share of R_pred: a real one is that of the mirror image too"
        found.append(at_least(float(share), 1e-3, message, where=f"{WHERE}: factors"))
    return found + _on_manifold(context)


def _on_manifold(context: Context) -> list[Measurement]:
    """Without the learned residual a slot's factors multiply to the steering vector of its angles and range.

    Only a network whose range factor is of unit modulus, in pairs or in blocks of real and imaginary parts, claims
    to return steering vectors. Bound: float32 phases carry eps of k times the distances that they are made from,
    32 eps k (1 m + aperture).
    """
    import torch

    cfg = context.small.config
    if cfg.array.amplitude != "unit":
        return []
    plain = cfg.replaced({"model.residual": False})
    out = run(context.small.pipeline.build_model(plain).eval(), context.small.batch)
    N, K = cfg.array.elements, cfg.scene.sources_max
    halves = out.cov_fact_range.double().chunk(2, -1)
    pairs = [
        torch.view_as_complex(f.double().unflatten(-1, (N, K, 2)).contiguous())
        for f in (out.cov_fact_angle, out.cov_fact_range)
    ]
    claims = ((pairs[1].abs() - 1).abs().max(), ((halves[0] ** 2 + halves[1] ** 2) - 1).abs().max())
    if float(min(claims)) > 1e-2:
        return []
    f = (pairs[0] * pairs[1]).mT.flatten(0, 1)
    place = [v.double().flatten().numpy() for v in (*out.angles.unbind(-1), out.ranges)]
    a = torch.from_numpy(closed_form(context.small, *place))
    likeness = (a.conj() * f).sum(-1, keepdim=True) / (f.abs().square().sum(-1, keepdim=True))
    error = float(torch.nan_to_num((f * likeness - a).abs(), nan=math.inf).max())
    bound = (
        32 * torch.finfo(torch.float32).eps * cfg.array.wavenumber * (1 + cfg.array.elements**0.5 * cfg.array.spacing)
    )
    message = "largest entry of a slot's factors less the steering vector of its own angles and range"
    return [at_most(error, bound, message, where=f"{WHERE}: factors against angles and ranges")]


def modes_agree(context: Context) -> list[Measurement]:
    """Measure that a network without dropout gives in training what it gives in evaluation (RV0802).

    One that draws in training for other reasons, such as a stochastic depth of its own, is not asked.
    """
    import copy

    import torch

    small = context.small
    model, batch = copy.deepcopy(small.model), small.batch
    for module in model.modules():
        if isinstance(module, torch.nn.modules.dropout._DropoutNd):
            module.p = 0.0
    still = run(model.eval(), batch)
    with torch.random.fork_rng(devices=[]):
        made = []
        for seed in (0, 1):
            torch.manual_seed(seed)
            made.append(run(copy.deepcopy(model).train(), batch))
    if not all(same_bits(value, vars(made[1])[name]) for name, value in vars(made[0]).items()):
        return []
    text = "change of a scene's output from training mode to evaluation, without dropout"
    return [
        at_most(float(value.median()), AGREE, text, where=f"{WHERE}: {name}")
        for name, value in apart(still, made[0]).items()
    ]
