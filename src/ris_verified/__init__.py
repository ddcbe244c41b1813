"""Near-field localisation through a reconfigurable intelligent surface, with an audit of the pipeline.

Every public name is loaded on first use, so that `import ris_verified` and the command line's help
do not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ris_verified.array.geometry import element_positions as element_positions
    from ris_verified.array.steering import fresnel_steering as fresnel_steering
    from ris_verified.array.steering import planar_steering as planar_steering
    from ris_verified.array.steering import steering as steering
    from ris_verified.audit.runner import audit as audit
    from ris_verified.config import Config as Config
    from ris_verified.covariance.blend import blend as blend
    from ris_verified.covariance.low_rank import LowRank as LowRank
    from ris_verified.covariance.low_rank import blend_low_rank as blend_low_rank
    from ris_verified.covariance.predicted import predicted_covariance as predicted_covariance
    from ris_verified.covariance.sample import sample_covariance as sample_covariance
    from ris_verified.errors import RisVerifiedError as RisVerifiedError
    from ris_verified.estimate.array_bound import deterministic_array_bound as deterministic_array_bound
    from ris_verified.estimate.array_bound import stochastic_array_bound as stochastic_array_bound
    from ris_verified.estimate.array_bound import uncorrelated_array_bound as uncorrelated_array_bound
    from ris_verified.estimate.bound import cramer_rao_bound as cramer_rao_bound
    from ris_verified.estimate.bound import planar_cramer_rao_bound as planar_cramer_rao_bound
    from ris_verified.estimate.eigen_order import eigenvalue_order as eigenvalue_order
    from ris_verified.estimate.localize import localize as localize
    from ris_verified.estimate.spectra import beamformer_spectrum as beamformer_spectrum
    from ris_verified.estimate.spectra import music_spectrum as music_spectrum
    from ris_verified.estimate.spectra import mvdr_spectrum as mvdr_spectrum
    from ris_verified.estimate.stochastic import planar_stochastic_bound as planar_stochastic_bound
    from ris_verified.estimate.stochastic import stochastic_bound as stochastic_bound
    from ris_verified.pipeline import Pipeline as Pipeline
    from ris_verified.scene.scene import draw_scene as draw_scene

_HOME = {
    "Config": "ris_verified.config",
    "LowRank": "ris_verified.covariance.low_rank",
    "Pipeline": "ris_verified.pipeline",
    "RisVerifiedError": "ris_verified.errors",
    "audit": "ris_verified.audit.runner",
    "beamformer_spectrum": "ris_verified.estimate.spectra",
    "blend": "ris_verified.covariance.blend",
    "blend_low_rank": "ris_verified.covariance.low_rank",
    "cramer_rao_bound": "ris_verified.estimate.bound",
    "deterministic_array_bound": "ris_verified.estimate.array_bound",
    "draw_scene": "ris_verified.scene.scene",
    "eigenvalue_order": "ris_verified.estimate.eigen_order",
    "element_positions": "ris_verified.array.geometry",
    "fresnel_steering": "ris_verified.array.steering",
    "localize": "ris_verified.estimate.localize",
    "music_spectrum": "ris_verified.estimate.spectra",
    "mvdr_spectrum": "ris_verified.estimate.spectra",
    "planar_cramer_rao_bound": "ris_verified.estimate.bound",
    "planar_steering": "ris_verified.array.steering",
    "planar_stochastic_bound": "ris_verified.estimate.stochastic",
    "predicted_covariance": "ris_verified.covariance.predicted",
    "sample_covariance": "ris_verified.covariance.sample",
    "steering": "ris_verified.array.steering",
    "stochastic_array_bound": "ris_verified.estimate.array_bound",
    "stochastic_bound": "ris_verified.estimate.stochastic",
    "uncorrelated_array_bound": "ris_verified.estimate.array_bound",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ris_verified' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    # The sub-packages `audit` and so on would otherwise shadow the functions of the same name once imported.
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
