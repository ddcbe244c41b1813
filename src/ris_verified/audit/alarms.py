"""False alarms: the sound pipeline over seeds and over a drawn family of configurations must be GO."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from ris_verified.audit.runner import audit
from ris_verified.config import Config
from ris_verified.pipeline import Pipeline

# Every combination is a sound set-up; the network keeps more than a million parameters in each group. Fields that only
# fit each other are drawn together.
FAMILY: Mapping[str, tuple[Any, ...]] = MappingProxyType(
    {
        "array.horizontal": (8, 10, 12, 16),
        "array.vertical": (6, 8, 12),
        "array.wavelength": (0.003, 0.01, 0.1, 0.3),
        "array.spacing_wavelengths": (0.25, 0.4, 0.5),
        "array.amplitude": ("unit", "spherical"),
        "scene.antennas": (8, 12, 16, 24, 32),
        "scene.snapshots": (8, 12, 16, 20, 40),
        "scene.sources_max": (1, 2, 3, 4, 5),
        "scene.azimuth_max": (0.6, 1.0471975511965976, 1.3),
        "scene.elevation_max": (0.2, 0.5235987755982988, 0.9),
        "scene.range_min": (0.3, 0.5, 1.5),
        "scene.range_max": (5.0, 10.0, 20.0),
        "scene.snr_db_min": (-5.0, 0.0, 5.0),
        "scene.snr_db_max": (10.0, 20.0, 30.0),
        "scene.rician_factor_max": (2.0, 10.0),
        "scene.codebook": ("random", "dft2d", "hadamard"),
        "scene.code_bits": (1, 2, 3, 6),
        "scene.symbols, covariance.centre": (("varying", True), ("varying", True), ("constant", False)),
        "scene.power_spread_db": (0.0, 6.0, 10.0),
        "covariance.beta": (0.05, 0.1, 0.3, 0.6),
        "covariance.ridge": (1e-3, 1e-2, 1e-1),
        "covariance.factor_mode": ("product", "sum"),
        "model.channels": (48, 64),
        "model.width": (176, 208),
        "model.head_width": (480, 560),
        "model.head_layers": (2, 3),
        "model.dropout": (0.0, 0.1, 0.3),
        "model.dictionary_azimuth": (16, 32),
        "model.dictionary_elevation": (8, 16),
        "model.dictionary_range": (4, 6),
        "model.residual": (True, False),
        "loss.covariance": (0.1, 0.25),
        "loss.eigengap": (0.0, 0.05),
        "loss.order": (0.05, 0.25),
        "train.batch_size": (64, 72, 80),
        "train.accumulation": (1, 2),
        "train.precision": ("auto", "float32"),
        "train.ema_decay": (0.0, 0.99, 0.999),
        "train.swa_share": (0.0, 0.2),
        "train.curriculum_share": (0.0, 0.3),
        "train.clip_norm": (0.5, 1.0, 5.0),
        "train.learning_rate": (1e-4, 3e-4, 1e-3),
        "estimate.prior": ("none", "scene"),
        "estimate.order_criterion": ("bic", "aicc", "marginal"),
    }
)


@dataclass(frozen=True)
class Alarm:
    """A rule that did not pass on a sound pipeline.

    Args:
        label: of the configuration.
        id: of the rule.
        status: `fail` or `error`.
        message: of the rule, with place and figures.
    """

    label: str
    id: str
    status: str
    message: str


def drawn_config(seed: int) -> Config:
    """Return the member of the family that a seed draws, on top of the `quick` preset.

    Args:
        seed: also the configuration's own.
    """
    import numpy as np

    generator = np.random.default_rng([seed, 1])
    values: dict[str, Any] = {}
    for names, choices in FAMILY.items():
        chosen = choices[int(generator.integers(len(choices)))]
        several = names.split(", ")
        values |= dict(zip(several, chosen if len(several) > 1 else [chosen], strict=True))
    return Config.load("quick").replaced({**values, "seed": seed})


def alarms(config: Config, label: str) -> Iterator[Alarm]:
    """Audit the sound pipeline of a configuration and yield what does not pass, warnings included."""
    for result in audit(Pipeline.default(config)).results:
        if result.status in ("fail", "error"):
            figures = f"[{result.measured}, bound {result.bound}]"
            yield Alarm(label, result.id, result.status, f"{result.where}: {result.message} {figures}")
