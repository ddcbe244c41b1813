"""Each configuration field moves the stages that it is documented to move and no other; measured for RV1604."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ris_verified.audit.context import Context
from ris_verified.audit.laws.knob_table import KNOBS, STAGES, Knob
from ris_verified.audit.rule import Measurement, equal
from ris_verified.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from ris_verified.config import Config

SMALL_GRIDS = {
    "estimate.grid_azimuth": 16, "estimate.grid_elevation": 8, "estimate.grid_range": 3,
    "estimate.search_azimuth": 8, "estimate.search_elevation": 4, "estimate.search_range": 2,
}  # fmt: skip


def _flat(value: Any) -> list[Any]:
    """Return tensors as bytes and everything else as it is, whatever holds them."""
    import numpy as np
    import torch

    if isinstance(value, torch.Tensor):
        return [value.detach().resolve_conj().numpy().tobytes()]
    if isinstance(value, np.ndarray):
        return [value.tobytes()]
    if isinstance(value, Mapping):
        return [entry for item in value.values() for entry in _flat(item)]
    if isinstance(value, (list, tuple)):
        return [entry for item in value for entry in _flat(item)]
    if dataclasses.is_dataclass(value):
        return _flat(vars(value))
    return [value]


class Probes:
    """Each stage called with one configuration and otherwise the same arguments.

    Args:
        context: small; its evidence is what the stages are given.
    """

    def __init__(self, context: Context) -> None:
        import torch

        from ris_verified.estimate.result import Peaks
        from ris_verified.shapes import from_ri

        self.context, self.pipeline = context, context.pipeline
        self._kept: list[tuple[str, Config, int, list[Any]]] = []
        batch = context.batch
        self.data = [from_ri(vars(batch)[n][-2:]).to(torch.complex128) for n in ("y", "H_full", "C")]
        azimuth, elevation, range = batch.ptr[-2:].double().unbind(-1)
        self.peaks = Peaks(azimuth + 0.03, elevation - 0.02, range * 1.05)
        self.K = batch.K[-2:]
        self.R = context.blend.R[-2:].to(torch.complex128)

    def call(self, stage: str, config: Config, draws: int = 4) -> list[Any]:
        """Return what a stage gives, as something that can be compared to the bit."""
        import torch

        run = {"build_model": self._network, "loss": self._loss, "parameter_groups": self._groups}.get(stage)
        with torch.no_grad():
            if stage == "draw_scene":
                return [self.pipeline.draw_scene(config, 7, self.context.seed, i).y.tobytes() for i in range(draws)]
            return _flat(run(config) if run else vars(self.pipeline)[stage](*self._given(stage), config))

    def known(self, stage: str, config: Config, draws: int = 4) -> list[Any]:
        """Return the same, called once for each configuration."""
        for name, other, count, made in self._kept:
            if (name, count) == (stage, draws) and other == config:
                return made
        made = self.call(stage, config, draws)
        self._kept.append((stage, config, draws, made))
        return made

    def _given(self, stage: str) -> tuple[Any, ...]:
        import torch

        c = self.context
        b, out, blended = c.batch, c.outputs, c.blend
        return {
            "predicted_covariance": (out.cov_fact_angle, out.cov_fact_range),
            "sample_covariance": (b.y, b.H_full, b.C), "inference_sample_covariance": (b.y, b.H_full, b.C),
            "blend": (blended.R_pred, blended.R_samp), "inference_blend": (blended.R_pred, blended.R_samp),
            # Grids share their ends, where one or two sources may well be found; eight scenes are not all there.
            "spectrum": (blended.R.to(torch.complex128), b.K), "newton": (self.R, self.K, self.peaks),
            "mle": (self.peaks, *self.data), "order": tuple(self.data),
        }[stage]  # fmt: skip

    def _network(self, config: Config) -> list[Tensor]:
        import torch

        model, b = self.pipeline.build_model(config), self.context.batch
        still = model.eval()(b.y, b.H, b.C, b.H_full)
        torch.manual_seed(0)
        return [still, model.train()(b.y, b.H, b.C, b.H_full)]

    def _loss(self, config: Config) -> list[Any]:
        c = self.context
        made = self.pipeline.loss(c.outputs, c.blend.R_pred, c.batch, config, R_blend=c.blend.R, training=False)
        return [made.total, made.nmse]

    def _groups(self, config: Config) -> list[Any]:
        groups = self.pipeline.parameter_groups(self.context.model, config)
        return [{n: v for n, v in g.items() if n != "params"} for g in groups]


def knobs_turn(context: Context) -> Iterator[Measurement]:
    """Turn each knob alone, and for each stage all knobs together that it must not feel.

    Bits are compared: the same numbers in the same operations give the same. The full profile turns alone also
    the knobs that the quick one leaves to the second part.
    """
    probes = Probes(context.small)
    base = context.small.config.replaced(SMALL_GRIDS)
    full = context.profile == "full"
    for knob in KNOBS:
        if knob.must and (knob.quick or full) and not _of_another_network(context, knob):
            yield from _felt(probes, base, knob)
    for stage in STAGES:
        yield _unfelt(probes, base, stage)


def _of_another_network(context: Context, knob: Knob) -> bool:
    """Whether a field sizes this package's network: one of the user's own may have other sizes, or none."""
    return knob.field.startswith("model.") and not type(context.small.model).__module__.startswith("ris_verified.")


def _turned(base: Config, knob: Knob) -> Config | None:
    values = knob.change(base)
    try:
        return base.replaced(values) if values else None
    except ConfigError:
        return None  # another field that the user has set forbids this value


def _felt(probes: Probes, base: Config, knob: Knob) -> list[Measurement]:
    start = base.replaced(knob.given)
    other = _turned(start, knob)
    if other is None:
        return []
    dead = [s for s in knob.must if probes.call(s, other, knob.draws) == probes.known(s, start, knob.draws)]
    value = knob.change(start).get(knob.field, "another value")
    return [
        equal(
            dead, [], f"stages in which {knob.field} = {value} has no effect", where=f"{', '.join(dead)}: {knob.field}"
        )
    ]


def _unfelt(probes: Probes, base: Config, stage: str) -> Measurement:
    """Turn all at once, and where that moves the stage, ever smaller parts of them to say which."""
    foreign = [knob for knob in KNOBS if stage not in (*knob.must, *knob.may)]
    still = probes.known(stage, base)

    def movers(knobs: list[Knob]) -> list[str]:
        if not knobs or probes.call(stage, _all_turned(base, knobs)) == still:
            return []
        if len(knobs) == 1:
            return [knobs[0].field]
        half = len(knobs) // 2
        return movers(knobs[:half]) + movers(knobs[half:]) or ["several together"]

    felt = movers(foreign)
    message = f"fields that move {stage} and should not"
    return equal(felt, [], message, where=f"{stage}: {', '.join(felt)}" if felt else stage)


def _all_turned(base: Config, knobs: list[Knob]) -> Config:
    try:
        return base.replaced({n: v for knob in knobs for n, v in knob.change(base).items()})
    except ConfigError:
        return functools.reduce(lambda config, knob: _turned(config, knob) or config, knobs, base)
