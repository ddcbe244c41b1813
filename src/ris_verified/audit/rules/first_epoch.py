"""Section E: what the first epoch must print, measured here by another path than the printing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ris_verified.audit.context import Context
from ris_verified.audit.laws.printed import (
    epochs_are_said,
    optimiser_is_said,
    ranks_are_said,
    shapes_are_said,
    share_is_said,
    sizes_are_said,
)
from ris_verified.audit.oracle import numerical_rank, top_share
from ris_verified.audit.rule import Measurement, NotApplicable, at_least, at_most, close, equal, rule

BATCH = 64


def of_reference(context: Context) -> bool:
    """Return whether sizes are the reference ones, for which alone the checklist states figures."""
    cfg = context.config
    default = type(cfg)()
    shapes = [(c.array, c.model, c.scene.sources_max, c.scene.antennas, c.scene.snapshots) for c in (cfg, default)]
    return shapes[0] == shapes[1]


@rule(
    "RV1301",
    "Optimiser set-up",
    law="backbone 8.3 M at 3.00e-04, head 11.0 M at 1.20e-03 (4×), total 19.3 M",
    why="The first printed line is the last chance to see a frozen or misplaced half of the network.",
    how="The line that a short training of small sizes says, with a rate that is nobody's default, beside the groups "
    "of the optimiser that stepped, to the printed decimals. At the reference sizes base rates of the groups and, of "
    "this library's own network, sizes, to the checklist's decimals.",
    remedy="restore sizes and rates of the reference configuration; print those of the optimiser's groups",
)
def optimiser_line(context: Context) -> Iterator[Measurement]:
    """Printed decimals are compared: no tolerance but half of the last one."""
    if of_reference(context):
        yield from _reference_groups(context)
    yield from optimiser_is_said(context)


def _reference_groups(context: Context) -> list[Measurement]:
    own = context.own_network
    groups = {g["name"]: g for g in context.groups}
    train = context.config.train
    wanted = {"backbone": ("8.3", train.learning_rate), "head": ("11.0", 4 * train.learning_rate)}
    found = []
    for name, (size, rate) in wanted.items():
        shown = f"{sum(p.numel() for p in groups[name]['params']) / 1e6:.1f}"
        found += [equal(shown, size, f"size of {name}", "M", name)] if own else []
        found.append(equal(f"{groups[name]['lr']:.2e}", f"{rate:.2e}", f"rate of {name}", where=name))
    total = sum(p.numel() for g in groups.values() for p in g["params"])
    return [*found, *([equal(f"{total / 1e6:.1f}", "19.3", "size of both", "M")] if own else [])]


@rule(
    "RV1302",
    "Shapes of the first batch",
    law="y [64,16,16,2], H_full [64,16,144,2], C [64,16,144,2], R_pred, R_samp, R_blend [64,144,144]",
    why="A batch that lost an axis still trains.",
    how="The line that a short training of small sizes says beside its first batch and its blend. At the reference "
    "sizes one batch of 64 drawn scenes through model, covariances and blend.",
    remedy="restore the reference sizes or the stage that drops an axis; print the shapes of the tensors",
)
def shapes_line(context: Context) -> Iterator[Measurement]:
    """Integers: no tolerance."""
    found = _reference_shapes(context) if of_reference(context) else []
    yield from found
    # A batch that lost scenes need not survive a training.
    if all(m.passed for m in found):
        yield from shapes_are_said(context)


def _reference_shapes(context: Context) -> list[Measurement]:
    import torch

    batch = context.as_batch(context.many)
    with torch.no_grad():
        _, blended = context.pipeline.forward(context.model, batch)
    square = [BATCH, 144, 144]
    wanted = {"y": [BATCH, 16, 16, 2], "H_full": [BATCH, 16, 144, 2], "C": [BATCH, 16, 144, 2]}
    found = [equal(list(vars(batch)[n].shape), shape, "shape", where=n) for n, shape in wanted.items()]
    matrices = {"R_pred": blended.R_pred, "R_samp": blended.R_samp, "R_blend": blended.R}
    return found + [equal(list(R.shape), square, "shape", where=n) for n, R in matrices.items()]


@rule(
    "RV1303",
    "Ranks",
    law="rank R_pred ≤ K_MAX, rank R_samp ≤ L − 1, rank of the blend before loading ≤ K_MAX + L − 1",
    why="A rank above the bound means that something else than factors and centred snapshots entered.",
    how="Eigenvalues in float64 above 4 eps·N of the largest, eps of the matrices' own precision. The ranks that a "
    "short training prints, of scenes with two factor columns and three snapshots, beside those of its blend.",
    remedy="centre the snapshots; form R_pred from K_MAX columns; print ranks, not their bounds",
)
def ranks(context: Context) -> Sequence[Measurement]:
    """A float32 matrix of rank r has spurious eigenvalues up to eps·N of its norm."""
    cfg, b = context.config, context.blend
    first = cfg.scene.sources_max * (2 if cfg.covariance.factor_mode == "sum" else 1)
    second = cfg.scene.snapshots - (1 if cfg.covariance.centre else 0)
    return [
        at_most(float(numerical_rank(b.R_pred)), float(first), "rank", where="R_pred"),
        at_most(float(numerical_rank(b.R_samp)), float(second), "rank", where="R_samp"),
        at_most(float(numerical_rank(b.R_raw)), float(first + second), "rank", where="R_raw"),
        *ranks_are_said(context),
    ]


@rule(
    "RV1304",
    "Traces, β and ε as printed",
    law="tr = 144.0 for all three; β = 0.300, ε = 0.001",
    why="The figures that a reader checks first must be those of the tensors.",
    how="Traces of the blend of the batch, to the printed decimals; then the lines that a short training says, with "
    "β and ε that are nobody's default, beside traces and norms of its blend, in float64 to half of the last decimal.",
    remedy="print measured values",
)
def printed_figures(context: Context) -> Sequence[Measurement]:
    """Half a unit of the last printed decimal."""
    import torch

    cfg, b = context.config, context.blend
    found = []
    for name, R in (("R_pred", b.R_pred), ("R_samp", b.R_samp), ("R_blend", b.R)):
        trace = float(torch.diagonal(R, dim1=1, dim2=2).real.double().sum(-1).mean())
        found.append(close(trace, float(cfg.array.elements), 0.05, "trace", where=name))
    loading = equal(f"{cfg.covariance.loading:.3f}", "0.001", "ε", where="covariance.loading")
    return [*found, loading, *sizes_are_said(context)]


@rule(
    "RV1305",
    "The blend moved by β times the distance",
    law="‖R_raw − R_pred‖ = β ‖R_samp − R_pred‖ ≫ 0",
    why="Zero distance means that the sample half never entered.",
    how="Norms in float64 over the batch; bound 8 eps·N of ‖P‖ + ‖S‖, and the distance at least a thousandth of it.",
    remedy="blend two different matrices with the configured β",
)
def moved(context: Context) -> Sequence[Measurement]:
    """Each float32 entry of R_raw carries eps of the entries of P and S."""
    import torch

    from ris_verified.contracts import tolerance

    b, beta = context.blend, context.config.covariance.beta
    P, S, raw = (R.to(torch.complex128) for R in (b.R_pred, b.R_samp, b.R_raw))
    norm = torch.linalg.matrix_norm
    scale = norm(P) + norm(S)
    left, right = norm(raw - P), beta * norm(S - P)
    worst = float(((left - right).abs() / scale).max())
    text = f"‖R_raw − R_pred‖ = {float(left.mean()):.1f} = {beta:g} × {float(norm(S - P).mean()):.1f}"
    return [
        at_most(worst, tolerance(b.R_raw.dtype, P.shape[-1], 8), f"{text}, relative error", where="blend"),
        at_least(float((norm(S - P) / scale).min()), 1e-3, "‖R_samp − R_pred‖ over ‖P‖ + ‖S‖", where="blend"),
    ]


@rule(
    "RV1306",
    "Norms of the blend obey the cosine law",
    law="‖R_raw‖² = (1−β)²‖P‖² + β²‖S‖² + 2β(1−β) Re⟨P, S⟩",
    why="Printed norms that break it were not measured on one blend.",
    how="All norms in float64 over the batch; bound 8 eps·N of ‖P‖² + ‖S‖².",
    remedy="measure the norms on the matrices that were blended",
)
def cosine_law(context: Context) -> Sequence[Measurement]:
    """Squares double the relative error eps of each entry; the sum has N² terms of random sign."""
    import torch

    from ris_verified.contracts import tolerance

    b, beta = context.blend, context.config.covariance.beta
    P, S, raw = (R.to(torch.complex128) for R in (b.R_pred, b.R_samp, b.R_raw))
    square = [R.abs().square().sum((1, 2)) for R in (P, S, raw)]
    inner = (P.conj() * S).real.sum((1, 2))
    expected = (1 - beta) ** 2 * square[0] + beta**2 * square[1] + 2 * beta * (1 - beta) * inner
    worst = float(((square[2] - expected).abs() / (square[0] + square[1])).max())
    return [at_most(worst, tolerance(b.R_raw.dtype, P.shape[-1], 8), "error of the law, relative", where="blend")]


@rule(
    "RV1307",
    "The K_MAX largest eigenvalues hold at least 1 − β",
    law="Σ_{i ≤ K_MAX} λ_i(R_raw) ≥ (1 − β) tr R_raw",
    why="Ky Fan: R_pred has rank ≤ K_MAX, so less means that R_pred is not in the blend with its weight.",
    how="Eigenvalues of R_raw in float64; bound 1 − β less 8 eps·N. The share that a short training prints, beside "
    "that of its blend, to half of the last decimal.",
    remedy="weight R_pred with 1 − β; print the share that was measured",
)
def largest_hold(context: Context) -> Sequence[Measurement]:
    """Eigenvalue sums move by at most the rounding of the matrix, eps·N of its trace."""
    from ris_verified.contracts import tolerance

    R, cfg = context.blend.R_raw, context.config
    if cfg.covariance.factor_mode == "sum":
        raise NotApplicable("R_pred has rank up to 2·K_MAX")
    bound = 1 - cfg.covariance.beta - tolerance(R.dtype, R.shape[-1], 8)
    held = at_least(top_share(R, cfg.scene.sources_max), bound, "share of the largest eigenvalues", where="R_raw")
    return [held, *share_is_said(context)]


@rule(
    "RV1308",
    "The epoch line prints the rate that was used",
    law="`Epoch 1/12 | train … | val … | lr 3.00e-04`, lr = the optimiser's rate in its last step",
    why="A rate read after the scheduler step is the next one's.",
    how="Three train steps with the rate read from the optimiser inside them: the report must show that rate, bit for "
    "bit. Then every line of a short training of three epochs: number, mean loss of its steps, validated loss and the "
    "rate of its last step, to half of the last decimal.",
    remedy="read the rates before the scheduler steps; print the record of the epoch",
)
def epoch_rate(context: Context) -> Iterator[Measurement]:
    """The same float64 number must come back."""
    small = context.small
    state = small.state(total_steps=7)
    used: dict[str, float] = {}
    state.optimizer.register_step_pre_hook(
        lambda optimizer, *_: used.update({g["name"]: float(g["lr"]) for g in optimizer.param_groups})
    )
    for _ in range(3):
        report = small.pipeline.train_step(state, small.batch, small.pipeline)
        for name, rate in report.learning_rates.items():
            yield close(rate, used.get(name, float("nan")), 0.0, "reported rate against the one used", where=name)
    yield equal(sorted(used), ["backbone", "head"], "groups that the optimiser stepped", where="train_step")
    yield from epochs_are_said(context)
