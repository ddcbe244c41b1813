"""Knobs that are dead in their stage, and knobs that move another."""

from __future__ import annotations

import dataclasses
from typing import Any

from ris_verified.audit.faults.fault import Fault
from ris_verified.pipeline import Pipeline

SAMPLES = ("sample_covariance", "inference_sample_covariance")
BLENDS = ("blend", "inference_blend")


def _last(stage: Any, section: str, fixed: dict[str, Any]) -> Any:
    """Return a stage whose last argument, the configuration, has fixed values."""

    def run(*given: Any) -> Any:
        part = dataclasses.replace(vars(given[-1])[section], **fixed)
        return stage(*given[:-1], dataclasses.replace(given[-1], **{section: part}))

    return run


class Fixed:
    """A plant: the named stages run with fixed values in one section of the configuration."""

    def __init__(self, stages: tuple[str, ...], section: str, **fixed: Any) -> None:
        self.stages, self.section, self.fixed = stages, section, fixed

    def __call__(self, pipeline: Pipeline) -> Pipeline:
        """Plant it."""
        made = {name: _last(vars(pipeline)[name], self.section, self.fixed) for name in self.stages}
        return dataclasses.replace(pipeline, **made)


def _drawn_with(**fixed: Any) -> Any:
    def plant(pipeline: Pipeline) -> Pipeline:
        def draw(cfg: Any, *key: int) -> Any:
            return pipeline.draw_scene(dataclasses.replace(cfg, scene=dataclasses.replace(cfg.scene, **fixed)), *key)

        return dataclasses.replace(pipeline, draw_scene=draw)

    return plant


def _drawn_by_beta(pipeline: Pipeline) -> Pipeline:
    return dataclasses.replace(
        pipeline, draw_scene=lambda cfg, *key: pipeline.draw_scene(cfg, *key, int(1000 * cfg.covariance.beta))
    )


def _ridge_by_beta(pipeline: Pipeline) -> Pipeline:
    def sample(y: Any, H_full: Any, C: Any, cfg: Any) -> Any:
        part = dataclasses.replace(cfg.covariance, ridge=cfg.covariance.ridge * (0.7 + cfg.covariance.beta))
        return pipeline.sample_covariance(y, H_full, C, dataclasses.replace(cfg, covariance=part))

    return dataclasses.replace(pipeline, sample_covariance=sample, inference_sample_covariance=sample)


def _step_by_loading(pipeline: Pipeline) -> Pipeline:
    def newton(R: Any, K: Any, peaks: Any, cfg: Any) -> Any:
        part = dataclasses.replace(cfg.estimate, newton_step=1.0 if cfg.covariance.loading > 2e-3 else 0.7)
        return pipeline.newton(R, K, peaks, dataclasses.replace(cfg, estimate=part))

    return dataclasses.replace(pipeline, newton=newton)


def _floored(pipeline: Pipeline) -> Pipeline:
    def sample(y: Any, H_full: Any, C: Any, cfg: Any) -> Any:
        ridge = max(cfg.covariance.ridge, 0.5 * pipeline.config.covariance.ridge)
        return pipeline.sample_covariance(y, H_full, C, cfg.replaced({"covariance.ridge": ridge}))

    return dataclasses.replace(pipeline, sample_covariance=sample, inference_sample_covariance=sample)


def _loaded_all_the_same(pipeline: Pipeline) -> Pipeline:
    def blend(R_pred: Any, R_samp: Any, cfg: Any) -> Any:
        loading = cfg.covariance.loading or 1e-3
        return pipeline.blend(R_pred, R_samp, cfg.replaced({"covariance.loading": loading}))

    return dataclasses.replace(pipeline, blend=blend, inference_blend=blend)


FAULTS = (
    Fault("beta_is_a_constant", "RV1604", "0.3 is written in the blend", Fixed(BLENDS, "covariance", beta=0.3)),
    Fault("loading_is_a_constant", "RV1604", "1e-3 is written in the blend", Fixed(BLENDS, "covariance", loading=1e-3)),
    Fault("ridge_is_a_constant", "RV1604", "1e-2 is written in the solve", Fixed(SAMPLES, "covariance", ridge=1e-2)),
    Fault("likelihood_of_unit_amplitude", "RV1604", "near sources are fitted without their decay",
          Fixed(("mle",), "array", amplitude="unit")),
    Fault("ridge_with_a_floor", "RV0705", "a smaller one is thought unstable", _floored),
    Fault("bound_of_varying_symbols", "RV1204", "sixteen nuisances are counted for one",
          Fixed(("bound",), "scene", symbols="varying")),
    Fault("loading_of_zero_is_missing", "RV0803", "`or` takes zero for a missing value", _loaded_all_the_same),
    Fault("always_centred", "RV1604", "centring has no switch", Fixed(SAMPLES, "covariance", centre=True)),
    Fault("factor_mode_ignored", "RV1604", "the product is formed always",
          Fixed(("predicted_covariance",), "covariance", factor_mode="product")),
    Fault("sum_weight_ignored", "RV1604", "λ is one", Fixed(("predicted_covariance",), "covariance", sum_weight=1.0)),
    Fault("grid_is_a_constant", "RV1604", "64 × 32 × 8 is written in the search",
          Fixed(("spectrum",), "estimate", grid_azimuth=64, grid_elevation=32, grid_range=8)),
    Fault("newton_iterations_ignored", "RV1604", "ten", Fixed(("newton",), "estimate", newton_iterations=10)),
    Fault("newton_step_ignored", "RV1604", "full steps", Fixed(("newton",), "estimate", newton_step=1.0)),
    Fault("mle_iterations_ignored", "RV1604", "twenty", Fixed(("mle",), "estimate", mle_iterations=20)),
    Fault("prior_ignored", "RV1604", "symbols stay free", Fixed(("mle",), "estimate", prior="none")),
    Fault("view_is_a_constant", "RV1604", "60° × 30° are written in the search",
          Fixed(("spectrum",), "scene", azimuth_max=1.0471975511965976, elevation_max=0.5235987755982988)),
    Fault("mle_threshold_ignored", "RV1604", "weak scenes are refined too",
          Fixed(("mle",), "estimate", mle_snr_threshold_db=-300.0)),
    Fault("snr_range_ignored", "RV1604", "the generator has its own", _drawn_with(snr_db_min=-5.0, snr_db_max=20.0)),
    Fault("power_spread_ignored", "RV1604", "equal powers", _drawn_with(power_spread_db=0.0)),
    Fault("scenes_follow_beta", "RV1604", "β enters the key", _drawn_by_beta),
    Fault("ridge_follows_beta", "RV1604", "β scales the ridge", _ridge_by_beta),
    Fault("newton_follows_loading", "RV1604", "C_EPS damps Newton", _step_by_loading),
)  # fmt: skip
