"""The fields of the configuration and the stages that each one moves, as its documentation has it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ris_verified._config_load import read

if TYPE_CHECKING:
    from ris_verified.config import Config

Values = Mapping[str, Any]
STAGES = (
    "draw_scene", "build_model", "predicted_covariance", "sample_covariance", "inference_sample_covariance", "blend",
    "inference_blend", "loss", "parameter_groups", "spectrum", "newton", "mle", "order",
)  # fmt: skip


@dataclass(frozen=True)
class Knob:
    """One field of the configuration and what it moves.

    Args:
        field: dotted name.
        change: present configuration → other valid values by dotted name, empty where there are none.
        must: stages that move.
        may: stages that are allowed to.
        given: what else the configuration has to be, before and after.
        quick: whether the quick profile turns it alone too.
        draws: number of scenes to draw.
    """

    field: str
    change: Callable[[Config], Values]
    must: tuple[str, ...] = ()
    may: tuple[str, ...] = ()
    given: Values = dataclasses.field(default_factory=dict)
    quick: bool = True
    draws: int = 4


def to(field: str, *values: Any) -> Callable[[Config], Values]:
    """Return a change to the first of the values that differs from the present one."""
    return lambda config: {field: next(v for v in values if v != read(config, field))}


def by(field: str, factor: float, plus: float = 0.0) -> Callable[[Config], Values]:
    """Return a change to factor · value + plus; none where that is the present value."""

    def change(config: Config) -> Values:
        value = read(config, field)
        return {} if factor * value + plus == value else {field: type(value)(factor * value + plus)}

    return change


VIEW = ("build_model", "spectrum", "newton", "mle", "order")
QUICK_SIZES = ("dropout", "width", "heads", "layers")
SAMPLES = ("sample_covariance", "inference_sample_covariance")
BLENDS = ("blend", "inference_blend")
KNOBS = (
    Knob("covariance.beta", by("covariance.beta", 0.5, 0.2), BLENDS),
    Knob("covariance.loading", by("covariance.loading", 0.5, 0.01), BLENDS),
    Knob("covariance.ridge", by("covariance.ridge", 5.0), SAMPLES, ("build_model",)),
    Knob("covariance.centre", lambda c: {"covariance.centre": not c.covariance.centre}, SAMPLES, ("build_model",),
         {"scene.symbols": "varying"}),
    Knob("covariance.factor_mode", to("covariance.factor_mode", "sum", "product"), ("predicted_covariance",),
         ("build_model",)),
    Knob("covariance.sum_weight", by("covariance.sum_weight", 1.0, 1.0), ("predicted_covariance",), ("build_model",),
         {"covariance.factor_mode": "sum"}),
    Knob("array.spacing_wavelengths", by("array.spacing_wavelengths", 0.8), ("draw_scene", "spectrum", "newton", "mle"),
         ("build_model", "order", "loss")),
    Knob("array.amplitude", to("array.amplitude", "spherical", "unit"), ("draw_scene", "newton", "mle"),
         ("build_model", "spectrum", "order", "loss")),
    *(Knob(f"loss.{n}", by(f"loss.{n}", 1.0, 0.5), ("loss",))
      for n in ("covariance", "alignment", "eigengap", "angle", "range", "order")),
    Knob("train.learning_rate", by("train.learning_rate", 2.0), ("parameter_groups",)),
    Knob("train.head_multiplier", by("train.head_multiplier", 2.0), ("parameter_groups",)),
    *(Knob(f"train.{n}", by(f"train.{n}", factor, plus))
      for n, factor, plus in (("batch_size", 2, 0), ("epochs", 2, 0), ("weight_decay", 2.0, 1e-4),
                              ("clip_norm", 2.0, 0.0), ("accumulation", 2, 0), ("warmup_share", 0.5, 0.1),
                              ("checkpoint_steps", 1, 7))),
    Knob("seed", by("seed", 1, 1), ("build_model",), ("draw_scene",)),
    *(Knob(f"model.{n}", to(f"model.{n}", *values), ("build_model",), quick=n in QUICK_SIZES)
      for n, values in (("channels", (16, 8)), ("width", (32, 16)), ("layers", (2, 1)), ("heads", (4, 2)),
                        ("head_width", (32, 16)), ("head_layers", (2, 1)), ("dropout", (0.5, 0.2)),
                        ("dictionary_azimuth", (12, 8)), ("dictionary_elevation", (8, 4)),
                        ("dictionary_range", (4, 3)), ("residual", (False, True)))),
    Knob("scene.snr_db_min", by("scene.snr_db_min", 1.0, -1.0), ("draw_scene",)),
    Knob("scene.snr_db_max", by("scene.snr_db_max", 1.0, 1.0), ("draw_scene",)),
    Knob("scene.rician_factor_max", by("scene.rician_factor_max", 2.0, 1.0), ("draw_scene",)),
    Knob("scene.rician_factor_min", by("scene.rician_factor_min", 0.5), ("draw_scene",)),
    Knob("scene.power_spread_db", by("scene.power_spread_db", 1.0, 6.0), ("draw_scene",),
         given={"scene.sources_min": 2}),
    Knob("scene.codebook", to("scene.codebook", "dft2d", "random"), ("draw_scene",)),
    Knob("scene.code_bits", to("scene.code_bits", 2, 3), ("draw_scene",), given={"scene.codebook": "random"}),
    Knob("scene.symbols", to("scene.symbols", "varying", "constant"), ("draw_scene",),
         (*SAMPLES, "build_model", "mle", "order")),
    Knob("scene.sources_min", lambda c: {} if c.scene.sources_max == 1 else {"scene.sources_min": c.scene.sources_max},
         ("draw_scene",), given={"scene.sources_min": 1}, draws=16),
    *(Knob(f"scene.{n}", by(f"scene.{n}", factor), ("draw_scene",), VIEW)
      for n, factor in (("range_max", 1.5), ("range_min", 0.75))),
    # What is searched follows the view; ranges are not asked, for a grid has its ends in common with another.
    *(Knob(f"scene.{n}", by(f"scene.{n}", 0.75), ("draw_scene", "spectrum"), VIEW)
      for n in ("azimuth_max", "elevation_max")),
    Knob("scene.base_station_distance", by("scene.base_station_distance", 1.0, 10.0), ("draw_scene",),
         given={"scene.rician_factor_min": 1.0, "scene.rician_factor_max": 3.0}),
    *(Knob(f"estimate.{n}", by(f"estimate.{n}", factor, plus), ("spectrum",))
      for n, factor, plus in (("grid_azimuth", 1, 4), ("grid_elevation", 1, 4), ("grid_range", 1, 21))),
    *(Knob(f"estimate.{n}", by(f"estimate.{n}", 1, 4), (), ("mle", "order"), quick=False)
      for n in ("search_azimuth", "search_elevation", "search_range", "search_summits", "search_exchanges")),
    Knob("estimate.newton_iterations", to("estimate.newton_iterations", 1, 2), ("newton",)),
    Knob("estimate.newton_step", to("estimate.newton_step", 0.5, 1.0), ("newton",)),
    Knob("estimate.mle", lambda c: {"estimate.mle": not c.estimate.mle}, ("mle",),
         given={"estimate.mle_snr_threshold_db": -200.0}),
    Knob("estimate.mle_iterations", to("estimate.mle_iterations", 1, 2), ("mle",),
         given={"estimate.mle": True, "estimate.mle_snr_threshold_db": -200.0}),
    Knob("estimate.mle_ridge", by("estimate.mle_ridge", 1.0, 1.0), ("mle",), ("order",),
         given={"estimate.mle": True, "estimate.mle_snr_threshold_db": -200.0}),
    Knob("estimate.prior", to("estimate.prior", "none", "scene"), ("mle",), ("order",),
         given={"estimate.mle": True, "estimate.mle_snr_threshold_db": -200.0}),
    Knob("estimate.mle_snr_threshold_db", to("estimate.mle_snr_threshold_db", 200.0), ("mle",),
         given={"estimate.mle": True, "estimate.mle_snr_threshold_db": -200.0}),
    Knob("estimate.order_criterion", to("estimate.order_criterion", "bic", "marginal"), (), ("order",), quick=False),
    Knob("contracts", lambda c: {"contracts": not c.contracts}, quick=False),
    Knob("hpo.data_share", by("hpo.data_share", 0.5), quick=False),
    Knob("data.train_scenes", by("data.train_scenes", 2), quick=False),
)  # fmt: skip
