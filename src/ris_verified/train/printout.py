"""What the first epoch prints, every figure measured on the tensors of one training batch."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ris_verified.config import Config
from ris_verified.contracts import tolerance
from ris_verified.covariance.blend import Blend
from ris_verified.data.batch import Batch
from ris_verified.model.groups import group_sizes
from ris_verified.pipeline import Pipeline
from ris_verified.train.state import TrainState

logger = logging.getLogger(__name__)
# Figures of a proof, a number a scene each.
PROVED = (
    "trace_pred", "trace_samp", "trace_blend", "norm_pred", "norm_samp", "norm_raw", "norm_blend", "distance", "moved",
)  # fmt: skip


def _mean(value: Tensor) -> float:
    return float(value.double().mean())


def _rank(R: Tensor) -> int:
    return max(_rank_of_one(alone) for alone in R)


def _rank_of_one(R: Tensor) -> int:
    values = torch.linalg.eigvalsh(R.detach().to(torch.complex128))
    return int((values > values[-1] * tolerance(R.dtype, R.shape[-1])).sum())


def top_share(R: Tensor, count: int) -> Tensor:
    """Return the share of the `count` largest eigenvalues in the trace.

    Args:
        R: `B x N x N` complex, Hermitian.
        count: how many.

    Returns:
        `B` real.
    """
    values = torch.linalg.eigvalsh(R.detach().to(torch.complex128))
    share: Tensor = values[:, -count:].sum(-1) / values.sum(-1)
    return share


@dataclass(frozen=True)
class FirstEpoch:
    """Figures of checklist section E.

    Args:
        sizes: parameters of each group.
        rates: learning rate of each group, before the schedule's factor.
        shapes: of y, H_full and C of the whole step; of R_pred, R_samp and R_blend as measured.
        ranks: largest numerical rank over the batch of R_pred, R_samp and R_raw.
        traces: mean trace of R_pred, R_samp and R_blend.
        norms: mean Frobenius norm of R_pred, R_samp, R_raw and R_blend.
        distance: mean ‖R_samp − R_pred‖_F.
        moved: mean ‖R_raw − R_pred‖_F.
        beta: β.
        loading: C_EPS.
        top_share: smallest share of the K_MAX largest eigenvalues of R_raw.
        identities: both norm identities hold for every scene.
    """

    sizes: dict[str, int]
    rates: dict[str, float]
    shapes: dict[str, list[int]]
    ranks: dict[str, int]
    traces: dict[str, float]
    norms: dict[str, float]
    distance: float
    moved: float
    beta: float
    loading: float
    top_share: float
    identities: bool

    def lines(self) -> list[str]:
        """Return the text, a line a figure."""
        head, base = self.rates["head"], self.rates["backbone"]
        groups = ", ".join(f"{n} {s / 1e6:.1f} M at {self.rates[n]:.2e}" for n, s in self.sizes.items())
        measured, whole = self.shapes["R_blend"][0], self.shapes["y"][0]
        part = f"Measured on the first {measured} of the step's {whole} scenes: a micro-batch"
        return [
            f"Optimiser: {groups} ({head / base:.0f}×), total {sum(self.sizes.values()) / 1e6:.1f} M",
            "Shapes: " + ", ".join(f"{name} {shape}" for name, shape in self.shapes.items()),
            *([part] if measured < whole else []),
            "Ranks: " + ", ".join(f"{name} {rank}" for name, rank in self.ranks.items()),
            "Traces: " + ", ".join(f"{name} {value:.1f}" for name, value in self.traces.items()),
            "Norms: " + ", ".join(f"{name} {value:.1f}" for name, value in self.norms.items()),
            f"Blend: β = {self.beta:.3f}, ε = {self.loading:.3f}",
            (
                f"‖R_raw − R_pred‖ = {self.moved:.1f} = {self.beta:g} × {self.distance:.1f}; "
                f"norm identities {'hold' if self.identities else 'BROKEN'}"
            ),
            f"Share of the largest eigenvalues ≥ {self.top_share:.3f} (bound 1 − β = {1 - self.beta:.3f})",
        ]


@torch.no_grad()
def first_epoch(state: TrainState, batch: Batch, pipeline: Pipeline, most: int) -> FirstEpoch:
    """Measure the figures that the first epoch prints, on as many scenes as a step holds at once.

    Args:
        state: gives groups and rates.
        batch: of one training step.
        pipeline: its `forward` is the one that training runs.
        most: scenes to measure, the first ones.

    Returns:
        A `FirstEpoch`.
    """
    _, blended = pipeline.forward(state.model, batch.split(-(-len(batch) // most))[0])
    cfg, proofs = pipeline.config, [alone.proof for alone in _each(blended)]
    measured = {name: torch.cat([vars(proof)[name] for proof in proofs]) for name in PROVED}
    named = {"R_pred": blended.R_pred, "R_samp": blended.R_samp, "R_blend": blended.R}
    inputs = {"y": batch.y, "H_full": batch.H_full, "C": batch.C}
    shares = [top_share(alone.R_raw, cfg.scene.sources_max) for alone in _each(blended)]
    return FirstEpoch(
        sizes=group_sizes(state.optimizer.param_groups),
        rates={group["name"]: group["initial_lr"] for group in state.optimizer.param_groups},
        shapes={name: list(value.shape) for name, value in {**inputs, **named}.items()},
        ranks={n: _rank(R) for n, R in {**named, "R_raw": blended.R_raw}.items() if n != "R_blend"},
        traces={f"R_{n}": _mean(measured[f"trace_{n}"]) for n in ("pred", "samp", "blend")},
        norms={f"R_{n}": _mean(measured[f"norm_{n}"]) for n in ("pred", "samp", "raw", "blend")},
        distance=_mean(measured["distance"]),
        moved=_mean(measured["moved"]),
        beta=proofs[0].beta,
        loading=blended.loading,
        top_share=float(torch.cat(shares).min()),
        identities=all(bool(proof.holds.all()) for proof in proofs),
    )


def _each(blended: Blend) -> Iterator[Blend]:
    """Yield the blend scene by scene: the proof of a batch, in double precision, can take more than a step does."""
    for place in range(len(blended.R)):
        alone = {name: vars(blended)[name][place : place + 1] for name in ("R", "R_pred", "R_samp", "R_raw")}
        yield replace(blended, **alone)


def epoch_line(epoch: int, epochs: int, train: float, validation: float, rate: float) -> str:
    """Return `Epoch 1/12 | train … | val … | lr 3.00e-04`, the rate being the last one used."""
    return f"Epoch {epoch}/{epochs} | train {train:.4f} | val {validation:.4f} | lr {rate:.2e}"


def tell_sizes(cfg: Config, data: Path, scenes: int, batch: int) -> None:
    """Log where a run is smaller than its configuration says.

    Args:
        cfg: what was asked for.
        data: the folder.
        scenes: of an epoch.
        batch: scenes of a step.
    """
    asked = cfg.train.batch_size * cfg.train.accumulation
    if scenes < cfg.data.train_scenes:
        logger.warning("%s holds %d of data.train_scenes = %d scenes", data, scenes, cfg.data.train_scenes)
    if batch < asked:
        logger.warning("%d scenes are a single step: the batch that is configured, %d, is larger", scenes, asked)
