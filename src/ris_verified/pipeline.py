"""The Pipeline: one frozen record of every stage that training, inference, HPO and audit run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ris_verified.config import ArrayConfig, Config
from ris_verified.contracts import check_isolated

if TYPE_CHECKING:
    from optuna import Study

    from ris_verified.covariance.blend import Blend
    from ris_verified.data.batch import Batch
    from ris_verified.estimate.match import Assignment
    from ris_verified.estimate.result import Estimates, Peaks
    from ris_verified.evaluate.metrics import Errors
    from ris_verified.hpo.space import Space
    from ris_verified.loss.total import LossResult
    from ris_verified.model.output import ModelOutput
    from ris_verified.scene.scene import Scene
    from ris_verified.train.memory import Memory
    from ris_verified.train.result import TrainResult
    from ris_verified.train.state import StepReport, TrainState


@dataclass(frozen=True)
class Pipeline:
    """Stage callables; `dataclasses.replace(pipeline, stage=mine)` is another pipeline.

    A stage that training and inference could do differently has a second field with the prefix
    `inference_`, the same object by default.

    Args:
        config: what every stage is called with.
        element_positions: array → `N x 3`.
        steering: array, azimuth, elevation, range → `... x N` complex.
        inference_steering: the same, as spectrum and estimators use it.
        draw_scene: cfg, *key → Scene.
        unpack: tuple, dict or Batch, device → Batch.
        build_model: cfg → module; module(y, H, C, H_full) → ModelOutput; seeded by `cfg.seed`.
        predicted_covariance: two factors, cfg → R_pred.
        inference_predicted_covariance: the same at inference.
        sample_covariance: y, H_full, C, cfg → R_samp.
        inference_sample_covariance: the same at inference.
        blend: R_pred, R_samp, cfg → Blend.
        inference_blend: the same at inference.
        loss: outputs, R_hat, batch, cfg, R_blend, training → LossResult.
        parameter_groups: model, cfg → optimiser groups with keys name, params, lr.
        train_step: state, batch, pipeline → StepReport.
        peak_memory: pipeline, scenes in a step, device → Memory, predicted.
        validate: pipeline, model, batches → mean loss, nmse, capture and order.
        train: pipeline, data folder, output folder, progress=, curves=, tensorboard=, judge= → TrainResult, of the
            epoch with the highest mean of capture and order.
        spectrum: R, K, cfg → Peaks.
        newton: R, K, Peaks, cfg → Peaks.
        mle: Peaks, y, H_full, C, cfg → Estimates.
        order: y, H_full, C, cfg → K.
        localize: y, H_full, C, cfg, order, model, pipeline → Estimates, with the blend where there is a model.
        bound: positions, symbols, H_full, C, noise variance, cfg → Cramér–Rao bound.
        match: azimuth, elevation, range, ptr → Assignment.
        metric: pipeline, Estimates or Peaks, ptr, bound → Errors.
        score: pipeline, model, batches → number that studies minimise.
        spaces: search spaces by name.
        trial_config: cfg, sampled values → configuration of one HPO trial.
        objective: pipeline, data folder, output folder, values, number, report → score of one trial.
        run_study: cfg, objective, storage, verdict, spaces → optuna.Study.
        best_config: study, cfg → configuration of the best trial.
    """

    config: Config
    element_positions: Callable[[ArrayConfig], Tensor]
    steering: Callable[[ArrayConfig, Tensor, Tensor, Tensor], Tensor]
    inference_steering: Callable[[ArrayConfig, Tensor, Tensor, Tensor], Tensor]
    draw_scene: Callable[..., Scene]
    unpack: Callable[..., Batch]
    build_model: Callable[[Config], nn.Module]
    predicted_covariance: Callable[[Tensor, Tensor, Config], Tensor]
    inference_predicted_covariance: Callable[[Tensor, Tensor, Config], Tensor]
    sample_covariance: Callable[[Tensor, Tensor, Tensor, Config], Tensor]
    inference_sample_covariance: Callable[[Tensor, Tensor, Tensor, Config], Tensor]
    blend: Callable[[Tensor, Tensor, Config], Blend]
    inference_blend: Callable[[Tensor, Tensor, Config], Blend]
    loss: Callable[..., LossResult]
    parameter_groups: Callable[[nn.Module, Config], list[dict[str, Any]]]
    train_step: Callable[[TrainState, Batch, Pipeline], StepReport]
    peak_memory: Callable[[Pipeline, int, str], Memory]
    validate: Callable[[Pipeline, nn.Module, Iterable[Batch]], dict[str, float]]
    train: Callable[..., TrainResult]
    spectrum: Callable[[Tensor, Tensor, Config], Peaks]
    newton: Callable[[Tensor, Tensor, Peaks, Config], Peaks]
    mle: Callable[[Peaks, Tensor, Tensor, Tensor, Config], Estimates]
    order: Callable[[Tensor, Tensor, Tensor, Config], Tensor]
    localize: Callable[..., Estimates]
    bound: Callable[..., Tensor]
    match: Callable[[Tensor, Tensor, Tensor, Tensor], Assignment]
    metric: Callable[[Pipeline, Peaks | Estimates, Tensor, Tensor], Errors]
    score: Callable[[Pipeline, nn.Module, Iterable[Batch]], float]
    spaces: Mapping[str, Space]
    trial_config: Callable[[Config, dict[str, Any]], Config]
    objective: Callable[..., float]
    run_study: Callable[..., Study]
    best_config: Callable[[Study, Config], Config]

    @classmethod
    def default(cls, config: Config | None = None) -> Pipeline:
        """Return the pipeline made of this library's own stages."""
        from ris_verified._default_pipeline import default_pipeline

        return default_pipeline(config or Config())

    def forward(self, model: nn.Module, batch: Batch) -> tuple[ModelOutput, Blend]:
        """Run model, both covariances and the blend as training and validation do.

        Args:
            model: from `build_model`.
            batch: on the model's device.

        Returns:
            The model's output and the blend; gradients pass through R_pred only.
        """
        from ris_verified.model.call import outputs_of

        outputs = outputs_of(model, batch)
        return outputs, self.covariances(outputs, batch)

    def infer(self, model: nn.Module, y: Tensor, H: Tensor, C: Tensor, H_full: Tensor) -> tuple[ModelOutput, Blend]:
        """Run model, both covariances and the blend as inference does, in the model's present mode.

        Args:
            model: from `build_model`.
            y, H, C, H_full: as in `Batch`, on the model's device.

        Returns:
            The model's output and the blend of the `inference_` stages.
        """
        outputs = model(y, H, C, H_full)
        R_pred = self.inference_predicted_covariance(outputs.cov_fact_angle, outputs.cov_fact_range, self.config)
        R_samp = self.inference_sample_covariance(y, H_full, C, self.config)
        return outputs, self.inference_blend(R_pred, R_samp, self.config)

    def covariances(self, outputs: ModelOutput, batch: Batch) -> Blend:
        """Return the blend of the predicted and the sample covariance, in full precision.

        Raises:
            InvariantError: the sample covariance could carry a gradient, or a matrix breaks its law.
        """
        R_pred = self.predicted_covariance(outputs.cov_fact_angle, outputs.cov_fact_range, self.config)
        R_samp = self.sample_covariance(batch.y, batch.H_full, batch.C, self.config)
        if self.config.contracts:
            check_isolated(R_samp)
        return self.blend(R_pred, R_samp, self.config)
