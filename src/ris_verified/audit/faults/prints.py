"""Slips in what a training says of itself: the proof block of the first epoch and the line of every epoch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ris_verified.audit.faults.fault import Fault
from ris_verified.audit.faults.runs import running

if TYPE_CHECKING:
    from ris_verified.config import Config
    from ris_verified.pipeline import Pipeline

Plant = Callable[["Pipeline"], "Pipeline"]

# The lines of a run of the reference, as somebody once pasted them.
PASTED = (
    "Optimiser: backbone 8.3 M at 3.00e-04, head 11.0 M at 1.20e-03 (4×), total 19.3 M",
    (
        "Shapes: y [64, 16, 16, 2], H_full [64, 16, 144, 2], C [64, 16, 144, 2], R_pred [64, 144, 144], "
        "R_samp [64, 144, 144], R_blend [64, 144, 144]"
    ),
    "Ranks: R_pred 5, R_samp 15, R_raw 20",
    "Traces: R_pred 144.0, R_samp 144.0, R_blend 144.0",
    "Norms: R_pred 120.3, R_samp 118.7, R_raw 106.8, R_blend 106.7",
    "Blend: β = 0.300, ε = 0.001",
    "‖R_raw − R_pred‖ = 35.6 = 0.3 × 118.7; norm identities hold",
    "Share of the largest eigenvalues ≥ 0.742 (bound 1 − β = 0.700)",
)


def _first(change: Callable[[Any, Any, Config], dict[str, Any]]) -> Plant:
    """Return a plant whose proof block has other figures: change(figures, run, configuration) → fields."""

    def alter(made: Any) -> None:
        sound = made._first

        def _first(self: Any, batch: Any) -> Any:
            figures = sound(self, batch)
            return dataclasses.replace(figures, **change(figures, self, self.pipeline.config))

        made._first = _first

    return running(alter)


def _said(change: Callable[[Any, tuple[str, ...]], tuple[str, ...]]) -> Plant:
    """Return a plant that prints other lines: change(run, lines) → lines."""

    def alter(made: Any) -> None:
        sound = made._print
        made._print = lambda self, *lines: sound(self, *change(self, lines))

    return running(alter)


def _noted(change: Callable[[Any, dict[str, Any]], dict[str, Any]]) -> Plant:
    """Return a plant whose epoch lines are of another record than the log's: change(run, record) → fields."""

    def alter(made: Any) -> None:
        sound = made._line

        def _line(self: Any, record: dict[str, Any]) -> str:
            line: str = sound(self, {**record, **change(self, record)})
            return line

        made._line = _line

    return running(alter)


def _swapped(f: Any, run: Any, cfg: Config) -> dict[str, Any]:
    return {
        name: dict(zip(vars(f)[name], reversed(vars(f)[name].values()), strict=True)) for name in ("sizes", "rates")
    }


def _bounds(f: Any, run: Any, cfg: Config) -> dict[str, Any]:
    first, second = cfg.scene.sources_max, cfg.scene.snapshots - 1
    return {"ranks": {"R_pred": first, "R_samp": second, "R_raw": first + second}}


def _by_the_law(f: Any, run: Any, cfg: Config) -> dict[str, Any]:
    return {"moved": f.beta * f.distance}


def _declared(f: Any, run: Any, cfg: Config) -> dict[str, Any]:
    shape, s = [cfg.train.batch_size, cfg.array.elements, cfg.array.elements], cfg.scene
    return {"shapes": {**f.shapes, "y": [cfg.train.batch_size, s.antennas, s.snapshots, 2], "R_pred": shape}}


def _block(run: Any, lines: tuple[str, ...], new: tuple[str, ...]) -> tuple[str, ...]:
    return lines if lines[0].startswith("Epoch") else new


def _without(start: str) -> Plant:
    return _said(lambda run, lines: tuple(line for line in lines if not line.startswith(start)))


def _next_rate(run: Any, record: dict[str, Any]) -> dict[str, Any]:
    return {"rate": run.state.rates()["backbone"]}


def _of_validation(run: Any, record: dict[str, Any]) -> dict[str, Any]:
    return {"train": record["validation"]["loss"]}


FAULTS = (
    Fault("block_of_constants", "RV0302", "lines of a reference run, pasted",
          _said(lambda run, lines: _block(run, lines, PASTED))),
    Fault("block_missing", "RV0302", "a log level above the block's",
          _said(lambda run, lines: _block(run, lines, ()))),
    Fault("identities_printed_as_held", "RV0302", "the word is part of the text",
          _first(lambda f, run, cfg: {"identities": True})),
    Fault("moved_printed_by_the_law", "RV0302", "β times the distance, which it should be compared with",
          _first(_by_the_law)),
    Fault("distance_of_the_blend", "RV0302", "the distance is that of R_blend",
          _first(lambda f, run, cfg: {"distance": f.moved})),
    Fault("blend_line_missing", "RV0302", "a line fewer", _without("Blend: ")),
    Fault("groups_printed_exchanged", "RV1301", "the first group is taken for the head", _first(_swapped)),
    Fault("rates_printed_from_the_default", "RV1301", "the rate of the reference, whatever is configured",
          _first(lambda f, run, cfg: {"rates": {"backbone": 3e-4, "head": 1.2e-3}})),
    Fault("sizes_printed_of_the_reference", "RV1301", "the sizes that the checklist states",
          _first(lambda f, run, cfg: {"sizes": {"backbone": 8_300_000, "head": 11_000_000}})),
    Fault("shapes_printed_as_declared", "RV1302", "L and M in the order of the paper", _first(_declared)),
    Fault("ranks_printed_as_bounds", "RV1303", "the bound is printed, not the rank", _first(_bounds)),
    Fault("traces_of_the_sample", "RV1304", "one matrix before it is normalised",
          _first(lambda f, run, cfg: {"traces": {**f.traces, "R_samp": 1.01 * f.traces["R_samp"]}})),
    Fault("norms_printed_as_traces", "RV1304", "the wrong list of figures",
          _first(lambda f, run, cfg: {"norms": {**f.norms, **f.traces}})),
    Fault("norms_of_another_matrix", "RV1304", "R_samp's norm in the place of R_pred's",
          _first(lambda f, run, cfg: {"norms": {**f.norms, "R_pred": f.norms["R_samp"]}})),
    Fault("beta_printed_from_a_constant", "RV1304", "the default is printed, whatever is configured",
          _first(lambda f, run, cfg: {"beta": 0.3})),
    Fault("loading_printed_from_a_constant", "RV1304", "the default is printed, whatever is configured",
          _first(lambda f, run, cfg: {"loading": 1e-3})),
    Fault("share_printed_as_its_bound", "RV1307", "1 − β is printed",
          _first(lambda f, run, cfg: {"top_share": 1 - cfg.covariance.beta})),
    Fault("rate_of_the_next_epoch", "RV1308", "read after the scheduler's step", _noted(_next_rate)),
    Fault("rate_before_the_schedule", "RV1308", "the configured rate, not the one used",
          _noted(lambda run, record: {"rate": run.pipeline.config.train.learning_rate})),
    Fault("validation_printed_as_training", "RV1308", "one figure in two places", _noted(_of_validation)),
    Fault("training_printed_as_validation", "RV1308", "one figure in two places",
          _noted(lambda run, record: {"validation": {**record["validation"], "loss": record["train"]}})),
    Fault("epochs_counted_from_zero", "RV1308", "the index is printed",
          _noted(lambda run, record: {"epoch": record["epoch"] - 1})),
    Fault("last_epoch_unsaid", "RV1308", "the run ends before its line",
          _noted(lambda run, record: {"epoch": min(record["epoch"], run.pipeline.config.train.epochs - 1)})),
)  # fmt: skip
