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
    from ris_verified.covariance.predicted import predicted_covariance as predicted_covariance
    from ris_verified.covariance.sample import sample_covariance as sample_covariance
    from ris_verified.errors import RisVerifiedError as RisVerifiedError
    from ris_verified.estimate.bound import cramer_rao_bound as cramer_rao_bound
    from ris_verified.estimate.localize import localize as localize
    from ris_verified.pipeline import Pipeline as Pipeline
    from ris_verified.scene.scene import draw_scene as draw_scene

_HOME = {
    "Config": "ris_verified.config",
    "Pipeline": "ris_verified.pipeline",
    "RisVerifiedError": "ris_verified.errors",
    "audit": "ris_verified.audit.runner",
    "blend": "ris_verified.covariance.blend",
    "cramer_rao_bound": "ris_verified.estimate.bound",
    "draw_scene": "ris_verified.scene.scene",
    "element_positions": "ris_verified.array.geometry",
    "fresnel_steering": "ris_verified.array.steering",
    "localize": "ris_verified.estimate.localize",
    "planar_steering": "ris_verified.array.steering",
    "predicted_covariance": "ris_verified.covariance.predicted",
    "sample_covariance": "ris_verified.covariance.sample",
    "steering": "ris_verified.array.steering",
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
