"""The library's own stages, gathered into a Pipeline."""

from __future__ import annotations

from ris_verified.array.geometry import element_positions
from ris_verified.array.steering import steering
from ris_verified.config import Config
from ris_verified.covariance.blend import blend
from ris_verified.covariance.predicted import predicted_covariance
from ris_verified.covariance.sample import sample_covariance
from ris_verified.data.batch import unpack
from ris_verified.estimate.bound import cramer_rao_bound
from ris_verified.estimate.localize import localize
from ris_verified.estimate.match import match
from ris_verified.estimate.mle import nf_mle
from ris_verified.estimate.newton import near_field_newton
from ris_verified.estimate.search import estimate_order
from ris_verified.estimate.spectrum import spectrum
from ris_verified.evaluate.metrics import errors
from ris_verified.evaluate.score import localisation_score
from ris_verified.hpo.objective import objective
from ris_verified.hpo.space import SPACES
from ris_verified.hpo.study import best_config, run_study
from ris_verified.hpo.trial import trial_config
from ris_verified.loss.total import loss
from ris_verified.model.groups import parameter_groups
from ris_verified.model.network import build_model
from ris_verified.pipeline import Pipeline
from ris_verified.scene.scene import draw_scene
from ris_verified.train.loop import train
from ris_verified.train.memory import peak_memory
from ris_verified.train.step import train_step
from ris_verified.train.validate import validate


def default_pipeline(config: Config) -> Pipeline:
    """See `Pipeline.default`."""
    return Pipeline(
        config=config,
        element_positions=element_positions,
        steering=steering,
        inference_steering=steering,
        draw_scene=draw_scene,
        unpack=unpack,
        build_model=build_model,
        predicted_covariance=predicted_covariance,
        inference_predicted_covariance=predicted_covariance,
        sample_covariance=sample_covariance,
        inference_sample_covariance=sample_covariance,
        blend=blend,
        inference_blend=blend,
        loss=loss,
        parameter_groups=parameter_groups,
        train_step=train_step,
        peak_memory=peak_memory,
        validate=validate,
        train=train,
        spectrum=spectrum,
        newton=near_field_newton,
        mle=nf_mle,
        order=estimate_order,
        localize=localize,
        bound=cramer_rao_bound,
        match=match,
        metric=errors,
        score=localisation_score,
        spaces=SPACES,
        trial_config=trial_config,
        objective=objective,
        run_study=run_study,
        best_config=best_config,
    )
