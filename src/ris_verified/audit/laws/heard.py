"""A short training that is listened to: what it says, and what its stages did meanwhile."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ris_verified.audit.damage import tiny_data

if TYPE_CHECKING:
    from torch import Tensor

    from ris_verified.audit.context import Context
    from ris_verified.config import Config
    from ris_verified.covariance.blend import Blend
    from ris_verified.pipeline import Pipeline

# Three epochs of two steps of two scenes: the rate falls from step to step.
EPOCHS, STEPS = 3, 2
# Sources and snapshots that are left, so that ranks stay below their bounds.
SOURCES, SNAPSHOTS = 2, 3
# By how much R_raw is off where a training must say so: far more than any decimal that it prints.
OFF = 1.1
PACKAGE = "ris_verified"


@dataclass(frozen=True)
class Step:
    """What one training step was given and did.

    Args:
        shapes: of y, H_full and C.
        groups: parameters and rate before the schedule's factor, of each group by name.
        rates: that the optimiser used.
        loss: as reported.
        skipped: as reported.
    """

    shapes: dict[str, list[int]]
    groups: dict[str, tuple[int, float]]
    rates: dict[str, float]
    loss: float
    skipped: bool


@dataclass
class Heard:
    """Lines (text), blends, steps and validated figures of a training, in the order in which they came."""

    config: Config
    events: list[Any] = field(default_factory=list)

    @property
    def lines(self) -> list[tuple[int, str]]:
        """Places among the events, and texts, of what was said."""
        return [(place, event) for place, event in enumerate(self.events) if isinstance(event, str)]

    @property
    def steps(self) -> list[Step]:
        """All steps."""
        return [event for event in self.events if isinstance(event, Step)]

    def blends(self, until: int) -> list[Blend]:
        """Return what was blended before an event."""
        from ris_verified.covariance.blend import Blend

        return [event for event in self.events[:until] if isinstance(event, Blend)]

    def validated(self, epoch: int) -> list[float]:
        """Return the losses of all validations in an epoch, counted from 1."""
        found, taken = [], 0
        for event in self.events:
            taken += isinstance(event, Step)
            if isinstance(event, dict) and -(-taken // STEPS) == epoch:
                found.append(event["loss"])
        return found


class _Ear(logging.Handler):
    def __init__(self, hear: Callable[[str], None]) -> None:
        super().__init__()
        self._hear = hear

    def emit(self, record: logging.LogRecord) -> None:
        for line in record.getMessage().splitlines():
            self._hear(line)


class _Page(io.TextIOBase):
    def __init__(self, hear: Callable[[str], None]) -> None:
        self._hear, self._begun = hear, ""

    def write(self, text: str) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            self._hear(line)
        return len(text)


@contextmanager
def listening(hear: Callable[[str], None]) -> Iterator[None]:
    """Hand on all that is logged or printed to standard output; nobody else gets it."""
    loggers = [logging.getLogger(), logging.getLogger(PACKAGE)]
    kept = [(logger, logger.handlers, logger.level, logger.propagate) for logger in loggers]
    muted = logging.root.manager.disable
    logging.disable(logging.NOTSET)
    for logger in loggers:
        logger.handlers, logger.propagate = [], True
        logger.setLevel(logging.INFO)
    loggers[0].handlers = [_Ear(hear)]
    try:
        with contextlib.redirect_stdout(_Page(hear)):
            yield
    finally:
        for logger, handlers, level, propagate in kept:
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)
        logging.disable(muted)


class _Watched:
    """Stages that do as before on poorer scenes, and note what they did."""

    def __init__(self, pipeline: Pipeline, off: float) -> None:
        self.heard, self._stages, self._off = Heard(pipeline.config), pipeline, off
        self._used: dict[str, float] = {}
        self._hooked: Any = None
        self.pipeline = dataclasses.replace(
            pipeline, predicted_covariance=self._predicted, sample_covariance=self._sampled, blend=self._blend,
            train_step=self._step, validate=self._validate,
        )  # fmt: skip

    def _predicted(self, cov_fact_angle: Tensor, cov_fact_range: Tensor, cfg: Config) -> Tensor:
        kept = cov_fact_angle.new_zeros(cfg.scene.sources_max, 1)
        kept[:SOURCES] = 1
        angle, distance = (
            (flat.unflatten(-1, (-1, cfg.scene.sources_max, 2)) * kept).flatten(1)
            for flat in (cov_fact_angle, cov_fact_range)
        )
        R: Tensor = self._stages.predicted_covariance(angle, distance, cfg)
        return R

    def _sampled(self, y: Tensor, H_full: Tensor, C: Tensor, cfg: Config) -> Tensor:
        few = y.clone()
        few[:, SNAPSHOTS:] = 0
        R: Tensor = self._stages.sample_covariance(few, H_full, C, cfg)
        return R

    def _blend(self, *given: Any, **named: Any) -> Blend:
        made: Blend = self._stages.blend(*given, **named)
        if self._off != 1:
            made = dataclasses.replace(made, R_raw=self._off * made.R_raw)
        seen = {n: vars(made)[n].detach().clone() for n in ("R", "R_pred", "R_samp", "R_raw")}
        self.heard.events.append(dataclasses.replace(made, **seen))
        return made

    def _step(self, state: Any, batch: Any, pipeline: Pipeline) -> Any:
        if self._hooked is not state.optimizer:
            self._hooked = state.optimizer
            state.optimizer.register_step_pre_hook(lambda optimizer, *_: self._used.update(_rates(optimizer)))
        groups = {
            g["name"]: (sum(p.numel() for p in g["params"]), float(g.get("initial_lr", g["lr"])))
            for g in state.optimizer.param_groups
        }
        shapes = {name: list(vars(batch)[name].shape) for name in ("y", "H_full", "C")}
        report = self._stages.train_step(state, batch, pipeline)
        step = Step(shapes, groups, dict(self._used), float(report.loss), bool(report.skipped))
        self.heard.events.append(step)
        return report

    def _validate(self, *given: Any, **named: Any) -> dict[str, float]:
        figures = self._stages.validate(*given, **named)
        self.heard.events.append(dict(figures))
        return figures


def _rates(optimizer: Any) -> dict[str, float]:
    return {group["name"]: float(group["lr"]) for group in optimizer.param_groups}


def _config(context: Context, epochs: int) -> Config:
    """Return other values than the audited ones, so that a constant in a line cannot be right by chance."""
    cfg = context.small.config
    return cfg.replaced(
        {
            "covariance.beta": 0.5 * cfg.covariance.beta + 0.23, "covariance.loading": 0.5 * cfg.covariance.loading
            + 0.0045, "train.learning_rate": 0.7 * cfg.train.learning_rate, "train.epochs": epochs,
            "train.batch_size": 2, "train.accumulation": 1, "train.warmup_share": 0.0, "train.curriculum_share": 0.0,
            "train.checkpoint_steps": 0, "data.train_scenes": 2 * STEPS, "data.validation_scenes": 1,
            # A group of less than 50,000 parameters is printed as 0.0 M.
            "model.width": 192, "model.head_width": 256,
        }
    )  # fmt: skip


def trained(context: Context) -> tuple[Heard, Heard]:
    """Train three epochs on four scenes, then one with an R_raw that breaks the norm identities, and listen."""
    from ris_verified.errors import InvariantError

    found = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tiny_data(context, folder / "data")
        for off, epochs in ((1.0, EPOCHS), (OFF, 1)):
            watched = _Watched(dataclasses.replace(context.pipeline, config=_config(context, epochs)), off)
            # A training may refuse a blend that is off, and need not print it then.
            refused = contextlib.suppress(InvariantError) if off != 1 else contextlib.nullcontext()
            with listening(watched.heard.events.append), refused:
                watched.pipeline.train(watched.pipeline, folder / "data", folder / f"out{off}", curves=False)
            found.append(watched.heard)
    return found[0], found[1]
