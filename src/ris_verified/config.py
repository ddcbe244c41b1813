"""The configuration tree: frozen, validated at construction, the one home of every default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ris_verified._config_check import between, check_kinds, require
from ris_verified._config_sections import (
    ArrayConfig,
    CovarianceConfig,
    DataConfig,
    EstimateConfig,
    HpoConfig,
    LossConfig,
    ModelConfig,
    SceneConfig,
    TrainConfig,
)

__all__ = [
    "ArrayConfig",
    "Config",
    "CovarianceConfig",
    "DataConfig",
    "EstimateConfig",
    "HpoConfig",
    "LossConfig",
    "ModelConfig",
    "SceneConfig",
    "TrainConfig",
]


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that a run depends on: immutable, passed in, hashed into every artefact.

    Raises:
        ConfigError: a value is out of range or contradicts another; names field, value and range.
    """

    seed: int = 0
    contracts: bool = True
    array: ArrayConfig = field(default_factory=ArrayConfig)
    scene: SceneConfig = field(default_factory=SceneConfig)
    data: DataConfig = field(default_factory=DataConfig)
    covariance: CovarianceConfig = field(default_factory=CovarianceConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    estimate: EstimateConfig = field(default_factory=EstimateConfig)
    hpo: HpoConfig = field(default_factory=HpoConfig)

    def __post_init__(self) -> None:
        check_kinds(self, "")
        # torch's generators take 64 bits, and processes of a run add their numbers.
        between(self, "", "seed", 0, 2**62)
        most = self.scene.sources_max
        require(
            most <= self.array.elements,
            "scene.sources_max",
            most,
            f"at most the {self.array.elements} elements of the array",
        )
        require(
            most < self.scene.antennas,
            "scene.sources_max",
            most,
            f"below scene.antennas = {self.scene.antennas}, or no snapshot determines its symbols",
        )

    @classmethod
    def load(cls, path: str | Path | None = None, overrides: Sequence[str] = ()) -> Config:
        """Read a TOML file and apply dotted overrides on top of the defaults.

        Args:
            path: a TOML file, the name of a preset (`quick`, `small`, `reference`), or None for defaults.
            overrides: texts such as `train.epochs=3`; values are TOML, bare words are strings.

        Returns:
            A validated configuration.

        Raises:
            ConfigError: unreadable file, unknown key (with the nearest known one), wrong value.
        """
        from ris_verified._config_load import load

        return load(cls, path, overrides)

    @classmethod
    def loads(cls, text: str, source: str = "text", overrides: Sequence[str] = ()) -> Config:
        """Read a configuration from TOML text, with overrides as in `load`; `source` names it in errors.

        Raises:
            ConfigError: not TOML, unknown key, wrong value.
        """
        from ris_verified._config_load import loads

        return loads(cls, text, source, overrides)

    def replaced(self, values: Mapping[str, Any]) -> Config:
        """Return a copy with some dotted fields changed.

        Args:
            values: value by dotted name, such as `{"train.epochs": 3}`.

        Raises:
            ConfigError: unknown name or wrong value.
        """
        from ris_verified._config_load import replaced

        return replaced(self, values)

    def digest(self) -> str:
        """Return the SHA-256 of the canonical JSON form, the first 16 hexadecimal digits."""
        from ris_verified._config_load import digest

        return digest(self)

    def to_toml(self) -> str:
        """Return the whole tree as TOML; `Config.load` of it gives an equal configuration."""
        from ris_verified._config_load import to_toml

        return to_toml(self)
