"""Section 04: the optimiser's groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ris_verified.audit.context import Context
from ris_verified.audit.laws.model_laws import unregistered
from ris_verified.audit.plain_step import step_gradients
from ris_verified.audit.rule import Measurement, at_least, at_most, close, equal, mended, rule

MILLION = 1_000_000
TOO_SMALL = 1e-11  # a thousandth of Adam's eps: the step is below a thousandth of the rate

if TYPE_CHECKING:
    from ris_verified.config import Config


@rule(
    "RV0401",
    "Every parameter is in exactly one group",
    law="the groups partition the parameters, and every parameter is trainable",
    why="A parameter outside every group keeps its random start while everything around it learns.",
    how="Identities of the model's parameters are counted in the groups; every leaf of the graph behind the outputs "
    "must be one of them. The groups are called backbone and head, follow the parts of the model of that name, share "
    "no tensor, set no other option than the rate, and making them changes no weight. Bound: 0 missing, twice, "
    "foreign, frozen, unregistered.",
    remedy="put each parameter into one group and unfreeze it",
)
def partition(context: Context) -> Sequence[Measurement]:
    """Counts of tensors: no tolerance."""
    named = dict(context.model.named_parameters())
    groups = context.pipeline.parameter_groups(context.model, context.config)
    listed = [id(p) for group in groups for p in group["params"]]
    own = {id(p): name for name, p in named.items()}
    missing = [name for key, name in own.items() if key not in listed]
    twice = [own.get(key, "?") for key in set(listed) if listed.count(key) > 1]
    frozen = [name for name, p in named.items() if not p.requires_grad]
    foreign = [key for key in listed if key not in own]
    return [
        at_most(float(len(missing)), 0.0, "parameters in no group", "tensors", ", ".join(missing[:3])),
        at_most(float(len(twice)), 0.0, "parameters in two groups", "tensors", ", ".join(twice[:3])),
        at_most(float(len(frozen)), 0.0, "frozen parameters", "tensors", ", ".join(frozen[:3])),
        at_most(float(len(foreign)), 0.0, "parameters of another model", "tensors"),
        *mended(_split(context), "group by the names of the parts, set the rate only, and leave the weights alone"),
        *mended(unregistered(context), "keep layers as attributes of the module, or in nn.ModuleList or nn.ModuleDict"),
    ]


def _split(context: Context) -> list[Measurement]:
    """The two groups are those of the names, differ in rate only, and making them changes nothing."""
    import torch

    from ris_verified.model.groups import NAMES

    place = context.small
    model = place.pipeline.build_model(place.config)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    groups = place.pipeline.parameter_groups(model, place.config)
    names = [g.get("name") for g in groups]
    member = {id(p): g.get("name") for g in groups for p in g["params"]}
    own = {name for name, _ in model.named_children()}
    strayed = [n for n, p in model.named_parameters() if n.split(".")[0] in own & set(names) - {member.get(id(p))}]
    tied: dict[int, set[str]] = {}
    for n, p in model.named_parameters(remove_duplicate=False):
        tied.setdefault(id(p), set()).add(n.split(".")[0])
    shared = [sorted(parts) for parts in tied.values() if len(parts & set(names)) > 1]
    declared = {**torch.optim.AdamW(model.parameters()).defaults, "weight_decay": place.config.train.weight_decay}
    own_keys = ("name", "params", "lr", "initial_lr")
    options = [{k: v for k, v in g.items() if k not in own_keys and declared.get(k, ...) != v} for g in groups]
    changed = [n for n, p in model.named_parameters() if not torch.equal(p.detach(), before[n])]
    where = "parameter_groups"
    return [
        equal(sorted(map(str, names)), list(NAMES), "names of the groups", where=where),
        equal(
            strayed[:3], [], "parameters in another group than the part of the model that they belong to", where=where
        ),
        equal(shared, [], "one parameter that serves two groups", where="build_model"),
        equal([o for o in options if o], [], "options of a group that the configuration does not declare", where=where),
        equal(changed[:3], [], "parameters that making the groups changed", where=where),
    ]


@rule(
    "RV0402",
    "Backbone and head both hold more than a million parameters",
    law="each group > 1 M; reference model: 8.3 M + 11.0 M = 19.3 M",
    why="A head of a few thousand parameters cannot form two factors of 1440 numbers.",
    how="Elements of each group are counted; for the library's own reference network also to one decimal.",
    remedy="restore the widths of the reference model",
)
def sizes(context: Context) -> Sequence[Measurement]:
    """Integers; one decimal of a million is what the checklist states."""
    from ris_verified.model.groups import NAMES, group_sizes

    counts = group_sizes(context.groups)
    found = [at_least(float(counts[n]), MILLION + 1, f"parameters of {n}", where=n) for n in NAMES]
    if context.own_network and _is_reference(context.config):
        shown = tuple(round(counts[n] / 1e6, 1) for n in NAMES)
        found.append(equal((*shown, round(sum(counts.values()) / 1e6, 1)), (8.3, 11.0, 19.3), "millions", "M"))
    return found


def _is_reference(config: Config) -> bool:
    """Whether a configuration has the reference's sizes: layers of the head grow with sources and elements too."""
    plain = type(config)()
    sizes = ((c.model, c.array.elements, c.scene.sources_max) for c in (config, plain))
    return next(sizes) == next(sizes)


@rule(
    "RV0403",
    "The head learns four times as fast",
    law="lr_head = 4 · lr_backbone before and after every scheduler step",
    why="A scheduler that writes one rate into both groups undoes the ratio silently.",
    how="Rates of the real optimiser are read before and after each of 12 scheduler steps, and of groups made a "
    "second time. Bound: 4 within 8 eps of float64 (a product and a quotient of rates).",
    remedy="give each group its own base rate and schedule factors, not rates",
)
def ratio(context: Context) -> Sequence[Measurement]:
    """Three roundings of float64 numbers of relative error 2⁻⁵³ each; 8 eps is generous."""
    import torch

    state = context.state(total_steps=12)
    worst = 0.0
    for _ in range(12):
        rates = state.rates()
        worst = max(worst, abs(rates["head"] / rates["backbone"] - 4.0), key=_nan_last)
        with torch.no_grad():
            state.optimizer.step()
        state.scheduler.step()
    again = {g["name"]: float(g["lr"]) for g in context.pipeline.parameter_groups(context.model, context.config)}
    apart = abs(again["head"] / again["backbone"] - 4.0)
    worst = max(worst, apart, key=_nan_last)
    return [
        at_most(worst, 4.0 * 8 * torch.finfo(torch.float64).eps, "|lr_head/lr_backbone − 4| at worst over 12 steps")
    ]


def _nan_last(value: float) -> float:
    return float("inf") if value != value else value


@rule(
    "RV0404",
    "After one step every parameter has moved",
    law="every tensor of both groups has a finite gradient and changes in one step",
    why="A branch that the loss does not reach looks trained and is not.",
    how="One real train step on a copy; each tensor is compared with its value before, and its gradient with a "
    "thousandth of Adam's eps, for weight decay moves a tensor without gradient too. Terms of weight zero count with "
    "weight one. Bound: none unmoved.",
    remedy="connect the tensor to the loss, or delete it",
)
def all_move(context: Context) -> Sequence[Measurement]:
    """Counts of tensors: AdamW moves a tensor with any gradient by its rate, far above rounding."""
    import torch

    context = context.weighted
    state = context.state()
    before = {name: p.detach().clone() for name, p in state.model.named_parameters()}
    report, given = step_gradients(state, lambda: context.pipeline.train_step(state, context.batch, context.pipeline))
    after = {n: p for n, p in state.model.named_parameters() if n not in _order_only(context)}
    still = [name for name, p in after.items() if torch.equal(p.detach(), before[name])]
    silent = [name for name in after if name not in given or not bool(torch.isfinite(given[name]).all())]
    # Weight decay moves a tensor too: its gradient must.
    dead = [name for name in after if name in given and not bool(given[name].abs().max() > TOO_SMALL)]
    return [
        equal(report.skipped, False, "the step was taken"),
        at_most(float(len(still)), 0.0, "tensors that did not move", "tensors", ", ".join(still[:3])),
        at_most(float(len(silent)), 0.0, "tensors without a finite gradient", "tensors", ", ".join(silent[:3])),
        at_most(float(len(dead)), 0.0, "tensors whose gradient Adam takes for zero", "tensors", ", ".join(dead[:3])),
        close(sum(p.numel() for p in state.model.parameters()), sum(p.numel() for p in before.values()), 0, "kept"),
    ]


def _order_only(context: Context) -> list[str]:
    """With K_MAX = 1 the order is no question: what serves its logits alone has nothing to learn."""
    import torch

    if context.config.scene.sources_max > 1:
        return []
    b, model = context.batch, context.model
    outputs = model(b.y, b.H, b.C, b.H_full)
    total = torch.stack([v.sum() for n, v in vars(outputs).items() if n != "k_logits"]).sum()
    named = dict(model.named_parameters())
    slopes = torch.autograd.grad(total, list(named.values()), allow_unused=True)
    return [name for name, slope in zip(named, slopes, strict=True) if slope is None]
