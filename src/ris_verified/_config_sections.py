"""The sections of the configuration: every default and the range of every value."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

from ris_verified._config_check import at_least, between, check_kinds, even, one_of, ordered, require

DEGREE = math.pi / 180


@dataclass(frozen=True, kw_only=True)
class ArrayConfig:
    """The panel: a uniform grid in the y–z plane, centred on the origin, normal +x."""

    horizontal: int = 12
    vertical: int = 12
    wavelength: float = 0.3
    spacing_wavelengths: float = 0.5
    amplitude: Literal["unit", "spherical"] = "unit"

    @property
    def elements(self) -> int:
        """Number of elements N = N_H · N_V."""
        return self.horizontal * self.vertical

    @property
    def spacing(self) -> float:
        """Distance between neighbouring elements in metres."""
        return self.spacing_wavelengths * self.wavelength

    @property
    def wavenumber(self) -> float:
        """k = 2π/λ in radians per metre."""
        return 2 * math.pi / self.wavelength

    def __post_init__(self) -> None:
        check_kinds(self, "array")
        at_least(self, "array", 1, "horizontal", "vertical")
        at_least(self, "array", 1e-6, "wavelength", "spacing_wavelengths")
        one_of(self, "array", "amplitude", ("unit", "spherical"))


@dataclass(frozen=True, kw_only=True)
class SceneConfig:
    """What is drawn: sources, channel, codes, symbols and noise."""

    antennas: int = 16
    snapshots: int = 16
    sources_min: int = 1
    sources_max: int = 5
    azimuth_max: float = 60 * DEGREE
    elevation_max: float = 30 * DEGREE
    range_min: float = 0.5
    range_max: float = 10.0
    snr_db_min: float = -5.0
    snr_db_max: float = 20.0
    rician_factor_min: float = 0.5
    rician_factor_max: float = 10.0
    base_station_distance: float = 30.0
    codebook: Literal["random", "dft2d", "hadamard"] = "random"
    code_bits: int = 3
    symbols: Literal["varying", "constant"] = "varying"
    power_spread_db: float = 0.0

    def __post_init__(self) -> None:
        check_kinds(self, "scene")
        at_least(self, "scene", 1, "antennas", "sources_min")
        at_least(self, "scene", 2, "snapshots")
        at_least(self, "scene", 1e-3, "range_min")
        at_least(self, "scene", 0.0, "rician_factor_min", "power_spread_db")
        at_least(self, "scene", 1.0, "base_station_distance")
        between(self, "scene", "azimuth_max", 0.0, math.pi / 2)
        between(self, "scene", "elevation_max", 0.0, math.pi / 2)
        between(self, "scene", "code_bits", 1, 8)
        # Single precision ends at 3e38: the energy of 1e9 numbers of noise, 1e10 times the signal, can be squared
        # there. Beyond 300 dB noise leaves double precision.
        between(self, "scene", "snr_db_min", -100.0, 300.0)
        between(self, "scene", "snr_db_max", -100.0, 300.0)
        # The fourth power of a distance stays in single precision.
        between(self, "scene", "range_max", 1e-3, 1e9)
        for name in ("sources", "range", "snr_db", "rician_factor"):
            ordered(self, "scene", f"{name}_min", f"{name}_max")
        one_of(self, "scene", "codebook", ("random", "dft2d", "hadamard"))
        one_of(self, "scene", "symbols", ("varying", "constant"))


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """How many scenes are stored, and how."""

    train_scenes: int = 80_000
    validation_scenes: int = 16_000
    test_scenes: int = 4_000
    shard_scenes: int = 1_000
    workers: int = 2

    def __post_init__(self) -> None:
        check_kinds(self, "data")
        at_least(self, "data", 1, "train_scenes", "validation_scenes", "test_scenes")
        at_least(self, "data", 1, "shard_scenes", "workers")


@dataclass(frozen=True, kw_only=True)
class CovarianceConfig:
    """Predicted, sample and blended covariance."""

    beta: float = 0.3
    loading: float = 1e-3
    ridge: float = 1e-2
    centre: bool = True
    factor_mode: Literal["product", "sum", "real"] = "product"
    sum_weight: float = 1.0

    def __post_init__(self) -> None:
        check_kinds(self, "covariance")
        between(self, "covariance", "beta", 0.0, 1.0)
        between(self, "covariance", "loading", 0.0, 1.0)
        at_least(self, "covariance", 1e-12, "ridge")
        at_least(self, "covariance", 0.0, "sum_weight")
        one_of(self, "covariance", "factor_mode", ("product", "sum", "real"))


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Sizes of the network; the dictionary is uniform in sine of the angles and in 1/range."""

    channels: int = 48
    width: int = 416
    layers: int = 2
    heads: int = 4
    head_width: int = 1568
    head_layers: int = 2
    dropout: float = 0.0
    dictionary_azimuth: int = 20
    dictionary_elevation: int = 8
    dictionary_range: int = 6
    residual: bool = False

    def __post_init__(self) -> None:
        check_kinds(self, "model")
        at_least(self, "model", 1, "channels", "width", "layers", "heads", "head_width")
        at_least(self, "model", 1, "head_layers", "dictionary_range")
        at_least(self, "model", 4, "dictionary_azimuth", "dictionary_elevation")
        between(self, "model", "dropout", 0.0, 0.9)
        require(self.width % self.heads == 0, "model.width", self.width, f"a multiple of model.heads = {self.heads}")
        for name, size in (
            ("dictionary_azimuth", self.dictionary_azimuth),
            ("dictionary_elevation", self.dictionary_elevation),
        ):
            require(size % 4 == 0, f"model.{name}", size, "a multiple of 4 (the patch of a token)")


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weights of the loss terms; a weight of zero removes its term."""

    covariance: float = 0.2
    alignment: float = 1.0
    eigengap: float = 0.05
    angle: float = 0.5
    range: float = 0.3
    order: float = 0.1

    def __post_init__(self) -> None:
        check_kinds(self, "loss")
        names = [f.name for f in dataclasses.fields(self)]
        at_least(self, "loss", 0.0, *names)
        total = sum(vars(self).values())
        require(total > 0, "loss", total, "at least one weight above zero")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Optimiser, schedule, averaging and guards."""

    epochs: int = 12
    batch_size: int = 64
    accumulation: int = 1
    learning_rate: float = 3e-4
    head_multiplier: float = 4.0
    weight_decay: float = 1e-4
    warmup_share: float = 0.05
    clip_norm: float = 1.0
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    ema_decay: float = 0.999
    swa_share: float = 0.0
    curriculum_share: float = 0.0
    nonfinite_limit: int = 20
    checkpoint_steps: int = 200

    def __post_init__(self) -> None:
        check_kinds(self, "train")
        at_least(self, "train", 1, "epochs", "batch_size", "accumulation", "nonfinite_limit")
        at_least(self, "train", 1e-9, "learning_rate", "head_multiplier", "clip_norm")
        at_least(self, "train", 0, "weight_decay", "checkpoint_steps")
        between(self, "train", "ema_decay", 0.0, 0.999999)
        for name in ("warmup_share", "swa_share", "curriculum_share"):
            between(self, "train", name, 0.0, 0.9)
        one_of(self, "train", "precision", ("auto", "float32", "bfloat16"))


@dataclass(frozen=True, kw_only=True)
class EstimateConfig:
    """Search grid, near-field Newton, NF-MLE and order selection."""

    grid_azimuth: int = 64
    grid_elevation: int = 32
    grid_range: int = 8
    search_azimuth: int = 18
    search_elevation: int = 10
    search_range: int = 6
    search_summits: int = 6
    search_exchanges: int = 8
    newton_nearfield: bool = True
    newton_iterations: int = 10
    newton_step: float = 1.0
    mle: bool = True
    mle_iterations: int = 20
    mle_snr_threshold_db: float = -10.0
    mle_ridge: float = 0.0
    prior: Literal["scene", "none"] = "scene"
    order_criterion: Literal["marginal", "bic", "aicc", "model", "auto"] = "marginal"

    def __post_init__(self) -> None:
        check_kinds(self, "estimate")
        at_least(self, "estimate", 4, "grid_azimuth", "grid_elevation", "search_azimuth", "search_elevation")
        at_least(self, "estimate", 1, "grid_range", "search_range", "newton_iterations", "mle_iterations")
        at_least(self, "estimate", 0, "search_exchanges")
        at_least(self, "estimate", 1, "search_summits")
        at_least(self, "estimate", 0.0, "mle_ridge")
        even(self, "estimate", "grid_azimuth", "grid_elevation", "search_azimuth", "search_elevation")
        between(self, "estimate", "newton_step", 0.01, 1.0)
        one_of(self, "estimate", "prior", ("scene", "none"))
        one_of(self, "estimate", "order_criterion", ("marginal", "bic", "aicc", "model", "auto"))


@dataclass(frozen=True, kw_only=True)
class HpoConfig:
    """Size of a study and what a trial is allowed to use."""

    trials: int = 50
    epochs_per_trial: int = 12
    space: Literal["wide", "narrow"] = "wide"
    data_share: float = 0.1
    pruning: bool = True
    patience: int = 3
    timed: bool = False

    def __post_init__(self) -> None:
        check_kinds(self, "hpo")
        at_least(self, "hpo", 1, "trials", "epochs_per_trial")
        at_least(self, "hpo", 0, "patience")
        between(self, "hpo", "data_share", 1e-3, 1.0)
        one_of(self, "hpo", "space", ("wide", "narrow"))
