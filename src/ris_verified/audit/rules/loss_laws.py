"""Identities of the loss, scene by scene and source by source; measured for RV0603."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ris_verified.audit.context import Context
from ris_verified.audit.rule import Measurement, at_least, at_most, close

if TYPE_CHECKING:
    from torch import Tensor

    from ris_verified.data.batch import Batch
    from ris_verified.loss.total import LossResult
    from ris_verified.model.output import ModelOutput

SHIFT = 0.1
FAR = 1.3  # radians from the view's middle: no slot put there is near a source
WHERE = "loss"


@dataclass
class Bench:
    """Scenes with 1 … K_MAX sources at the small size, and the loss with all weights one.

    Args:
        context: small.
    """

    context: Context

    @cached_property
    def config(self) -> Any:
        """The configuration with every loss weight one."""
        weights = {f"loss.{f.name}": 1.0 for f in dataclasses.fields(self.context.config.loss)}
        return self.context.config.replaced(weights)

    @cached_property
    def batch(self) -> Batch:
        """Two scenes of one source, two of K_MAX, one of each number between."""
        most = self.context.config.scene.sources_max
        scenes = []
        for i, K in enumerate([1, *range(1, most + 1), most]):
            fixed = self.context.config.replaced({"scene.sources_min": K, "scene.sources_max": K})
            scenes += self.context.draw(1, fixed, key=20 + i)
        return self.context.as_batch(scenes)

    @cached_property
    def outputs(self) -> ModelOutput:
        """The network's, without a graph."""
        import torch

        b = self.batch
        with torch.no_grad():
            made: ModelOutput = self.context.model(b.y, b.H, b.C, b.H_full)
        return made

    @cached_property
    def R(self) -> Tensor:
        """R_blend of the outputs."""
        import torch

        with torch.no_grad():
            return self.context.pipeline.covariances(self.outputs, self.batch).R

    @property
    def K(self) -> list[int]:
        """Number of sources of each scene."""
        return [int(k) for k in self.batch.K]

    def evaluate(self, outputs: ModelOutput, R: Tensor, batch: Batch, *names: str) -> LossResult:
        """Return the loss with weight one on the named terms, on all without a name."""
        config = self.config
        if names:
            others = {f.name: 0.0 for f in dataclasses.fields(config.loss)}
            config = dataclasses.replace(config, loss=type(config.loss)(**{**others, **dict.fromkeys(names, 1.0)}))
        return self.context.pipeline.loss(outputs, R, batch, config, R_blend=R, training=False)

    def positions(self, angles: Tensor, ranges: Tensor, ptr: Tensor) -> tuple[float, float]:
        """Return the terms `angle` and `range` of one scene with these slots and true positions."""
        outputs, R, batch = self.row(0)
        K = (ptr[:, 0] == ptr[:, 0]).sum()[None]
        made = dataclasses.replace(outputs, angles=angles[None], ranges=ranges[None])
        truth = dataclasses.replace(batch, ptr=ptr[None], K=K)
        terms = self.evaluate(made, R, truth, "angle", "range").terms
        return float(terms["angle"]), float(terms["range"])

    def row(self, i: int) -> tuple[ModelOutput, Tensor, Batch]:
        """Return outputs, R and truth of one scene."""
        return row(self.outputs, i), self.R[i : i + 1], row(self.batch, i)


def row(fields: Any, i: int) -> Any:
    """Return one scene of a dataclass of batched tensors."""
    return dataclasses.replace(fields, **{n: v[i : i + 1] for n, v in vars(fields).items()})


def rounding(R: Tensor) -> float:
    """Return 8 eps·N of a matrix."""
    from ris_verified.contracts import tolerance

    return tolerance(R.dtype, R.shape[-1], 8)


def loss_laws(context: Context) -> list[Measurement]:
    """Measure all identities at the small size."""
    bench = Bench(context.small)
    return [*_additive(bench), *_closed_form(bench), *_ends(bench), *_slots(bench), *_sources(bench)]


def _figures(result: LossResult) -> dict[str, float]:
    return {
        "total": float(result.total),
        "logged NMSE": float(result.nmse),
        **{n: float(v) for n, v in result.terms.items()},
    }


def _additive(bench: Bench) -> list[Measurement]:
    """The loss of B scenes is the mean of the losses of one, so no scene weighs on another's."""
    whole = _figures(bench.evaluate(bench.outputs, bench.R, bench.batch))
    single = [_figures(bench.evaluate(*bench.row(i))) for i in range(len(bench.K))]
    found = []
    for name, value in whole.items():
        mean = sum(s.get(name, float("nan")) for s in single) / len(single)
        bound = rounding(bench.R) * max(1.0, abs(mean))
        found.append(
            close(value, mean, bound, f"{name} of {len(single)} scenes against the mean over each alone", where=WHERE)
        )
    return found


def _closed_form(bench: Bench) -> list[Measurement]:
    """NMSE = ‖R − R_true‖²_F/‖R_true‖²_F of each scene, in NumPy."""
    import numpy as np

    found = []
    for i, K in enumerate(bench.K):
        outputs, R, batch = bench.row(i)
        wanted = float(np.sum(np.abs(R.numpy() - batch.R_in.numpy()) ** 2) / np.sum(np.abs(batch.R_in.numpy()) ** 2))
        result = bench.evaluate(outputs, R, batch, "covariance")
        for name, value in (("covariance", float(result.terms["covariance"])), ("logged NMSE", float(result.nmse))):
            bound = rounding(R) * max(1.0, wanted)
            found.append(close(value, wanted, bound, f"{name} against ‖R − R_true‖²/‖R_true‖², K = {K}", where=WHERE))
    return found


def _ends(bench: Bench) -> list[Measurement]:
    """For every K: alignment 0 at the truth, 1 across, growing between; order 0 for the right K only."""
    import torch

    found, N = [], bench.R.shape[-1]
    for i, K in enumerate(bench.K):
        outputs, _, batch = bench.row(i)
        truth = batch.R_in
        values, vectors = torch.linalg.eigh(truth.to(torch.complex128))
        U = vectors[..., -K:] if float(values[0, -K]) > 1e-6 * N else vectors[..., -1:]
        across = ((torch.eye(N) - U @ U.mH) * (N / (N - U.shape[-1]))).to(truth.dtype)
        if U.shape[-1] == K:
            steps = [(1 - s) * truth + s * across for s in (0.0, 0.25, 0.5, 0.75, 1.0)]
            curve = [float(bench.evaluate(outputs, R, batch, "alignment").terms["alignment"]) for R in steps]
            rise = min(b - a for a, b in itertools.pairwise(curve))
            found.append(close(curve[0], 0.0, 1e-4, f"alignment at the truth, K = {K}", where="alignment"))
            found.append(close(curve[-1], 1.0, 1e-4, f"alignment at its complement, K = {K}", where="alignment"))
            found.append(
                at_least(rise, 1e-4, f"rise of alignment from truth to complement, K = {K}", where="alignment")
            )
            gap = float(bench.evaluate(outputs, across, batch, "eigengap").terms["eigengap"])
            found.append(at_least(gap, 1e-3, f"eigengap at the truth's complement, K = {K}", where="eigengap"))
        most = outputs.k_logits.shape[1]
        for k in range(most):
            logits = torch.full((1, most), -20.0)
            logits[0, k] = 20.0
            made = dataclasses.replace(outputs, k_logits=logits)
            value = float(bench.evaluate(made, truth, batch, "order").terms["order"])
            message = f"order for {K} sources with the logits on {k + 1}"
            right = close(value, 0.0, 1e-4, message, where="order")
            found.append(right if k + 1 == K else at_least(value, 0.1, message, where="order"))
    return found


def _perfect(ptr: Tensor, turn: int, junk: float) -> tuple[Tensor, Tensor]:
    """Return slots at the true positions, turned by some places, the others far away."""
    import torch

    here = torch.isfinite(ptr).all(-1)
    far = torch.tensor([junk, -junk, 9.0])
    place = torch.where(here[:, None], ptr, far).roll(turn, 0)
    return place[:, :2].clone(), place[:, 2].clone()


def _slots(bench: Bench) -> list[Measurement]:
    """Slots at the truth cost nothing in any order and wherever the slots in excess are."""
    found = []
    for i, K in enumerate(bench.K):
        ptr = bench.batch.ptr[i]
        for turn, junk in ((0, FAR), (1, -FAR), (2, FAR)):
            turned, stretched = bench.positions(*_perfect(ptr, turn, junk), ptr)
            message = f"of slots at the truth turned by {turn}, {len(ptr) - K} more far away, K = {K}"
            found.append(at_most(turned, rounding(bench.R), f"angle term {message}", where="angle"))
            found.append(at_most(stretched, rounding(bench.R), f"range term {message}", where="range"))
    return found


def _sources(bench: Bench) -> list[Measurement]:
    """Each coordinate of each source counts, once, with the same weight for every K."""

    found = []
    for i, K in enumerate(bench.K):
        ptr = bench.batch.ptr[i]
        for source in range(K):
            angles, ranges = _perfect(ptr, 0, FAR)
            for axis, name in enumerate(("azimuth", "elevation")):
                moved = angles.clone()
                moved[source, axis] += SHIFT
                turned, stretched = bench.positions(moved, ranges, ptr)
                message = f"{name} of source {source + 1} of {K} off by {SHIFT} rad"
                found.append(at_least(turned, SHIFT**2 / 10 / K, f"angle term, {message}", where="angle"))
                found.append(at_most(turned, 10 * SHIFT, f"angle term, {message}", where="angle"))
                found.append(at_most(stretched, rounding(bench.R), f"range term, {message}", where="range"))
            moved = ranges.clone()
            moved[source] *= 1.25
            turned, stretched = bench.positions(angles, moved, ptr)
            message = f"range of source {source + 1} of {K} off by a quarter"
            found.append(at_least(stretched, 1e-6, f"range term, {message}", where="range"))
            found.append(at_most(turned, rounding(bench.R), f"angle term, {message}", where="angle"))
    most = bench.batch.ptr.shape[1]
    return found + _alike(bench, most) + (_one_to_one(bench, most) if most > 1 else [])


def _alike(bench: Bench, most: int) -> list[Measurement]:
    """K sources at one place, each missed by the same, cost what one of them costs: a mean over the true ones."""
    import torch

    one = torch.tensor([0.2, -0.1, 2.0])
    costs = []
    for K in (1, most):
        ptr = torch.full((most, 3), torch.nan)
        ptr[:K] = one
        angles, ranges = _perfect(ptr, 0, FAR)
        angles[:K, 0] += SHIFT
        ranges[:K] *= 1.25
        costs.append(bench.positions(angles, ranges, ptr))
    return [
        close(many, single, rounding(bench.R) * max(1.0, single), f"{name} term of {most} sources as far off as one",
              where=name)
        for name, single, many in zip(("angle", "range"), *costs, strict=True)
    ]  # fmt: skip


def _one_to_one(bench: Bench, most: int) -> list[Measurement]:
    """A slot serves one source, in angle and range together."""
    import torch

    two = torch.full((most, 3), torch.nan)
    two[:2] = torch.tensor([[0.4, 0.1, 1.0], [-0.3, -0.2, 4.0]])
    angles, ranges = _perfect(two, 0, FAR)
    ranges[:2] = ranges[:2].flip(0)
    crossed = sum(bench.positions(angles, ranges, two))
    same = two.clone()
    same[1] = same[0]
    angles, ranges = _perfect(same, 0, FAR)
    angles[1:], ranges[1:] = torch.tensor([FAR, FAR]), 9.0
    shared = sum(bench.positions(angles, ranges, same))
    return [
        at_least(crossed, 1e-3, "angle and range terms of two sources with their ranges exchanged", where=WHERE),
        at_least(shared, 1e-3, "angle and range terms of two sources at one place with one slot there", where=WHERE),
    ]
