"""Weights as safetensors, with the configuration that made them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import safetensors
import torch
from safetensors.torch import save
from torch import Tensor, nn

import ris_verified
from ris_verified._config_load import plain
from ris_verified.config import Config
from ris_verified.errors import DataError
from ris_verified.files import atomic_write
from ris_verified.pipeline import Pipeline

FORMAT = "ris-verified-weights/1"
# Weights that come with the package, by name.
SHIPPED = ("small",)


def architecture(cfg: Config) -> str:
    """Return the digest of what decides whether weights fit: array, field of view, K_MAX and model."""
    s = cfg.scene
    view = [*map(float, (s.azimuth_max, s.elevation_max, s.range_min, s.range_max)), s.sources_max]
    parts = [plain(cfg.array), plain(cfg.model), view, cfg.covariance.factor_mode]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def save_model(model: nn.Module, cfg: Config, path: Path, dtype: torch.dtype | None = None) -> None:
    """Write the weights and, as metadata, configuration and digest; atomic.

    Args:
        model: the weights.
        cfg: what they were trained with.
        path: the file.
        dtype: in which they are stored; None leaves them as they are.

    Raises:
        StorageError: the file could not be written; an older one is intact.
    """
    metadata = {
        "format": FORMAT,
        "config": cfg.to_toml(),
        "config_hash": cfg.digest(),
        "architecture": architecture(cfg),
    }
    tensors = {name: value.detach().cpu().to(dtype).contiguous() for name, value in model.state_dict().items()}
    atomic_write(path, save(tensors, metadata))


def _read(path: str | Path) -> tuple[Path, dict[str, str], dict[str, Tensor]]:
    path = Path(path)
    shipped = Path(ris_verified.__file__).parent / "weights" / f"{path}.safetensors"
    file = path / "weights.safetensors" if path.is_dir() else shipped if str(path) in SHIPPED else path
    try:
        with safetensors.safe_open(str(file), framework="pt") as archive:
            metadata = archive.metadata() or {}
            return file, metadata, {name: archive.get_tensor(name) for name in archive.keys()}  # noqa: SIM118
    except (OSError, safetensors.SafetensorError) as error:
        raise DataError(
            f"cannot be read: {error}",
            where=str(file),
            expected=f"weights written by `ris-verified train`, or the name of shipped ones: {', '.join(SHIPPED)}",
        ) from error


def stored_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Return the configuration that weights were trained with.

    Args:
        path: the file, the folder that holds `weights.safetensors`, or the name of weights that are shipped.
        overrides: as in `Config.load`.

    Raises:
        DataError: no such file, or not a weights file.
        ConfigError: a wrong override.
    """
    file, metadata, _ = _read(path)
    if metadata.get("format") != FORMAT or "config" not in metadata:
        raise DataError(
            f"holds {metadata.get('format', 'no known format')}", where=str(file), expected=f"{FORMAT} with its config"
        )
    return Config.loads(metadata["config"], str(file), overrides)


def load_model(path: str | Path, pipeline: Pipeline) -> nn.Module:
    """Build the pipeline's model and load weights into it; runs no code from the file.

    Args:
        path: the file, the folder that holds `weights.safetensors`, or the name of weights that are shipped.
        pipeline: its configuration must describe the same architecture.

    Returns:
        The model in evaluation mode.

    Raises:
        DataError: no such file, not a weights file, or of another architecture.
    """
    file, metadata, tensors = _read(path)
    if metadata.get("format") != FORMAT or metadata.get("architecture") != architecture(pipeline.config):
        raise DataError(
            f"holds {metadata.get('format', 'no known format')} of configuration {metadata.get('config_hash')}",
            where=str(file),
            expected=f"{FORMAT} with the array, field of view, K_MAX and model of this configuration",
            remedy="pass the configuration that the weights were trained with",
        )
    model = pipeline.build_model(pipeline.config)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise DataError(
            f"holds other tensors than the network has: {str(error).splitlines()[-1].strip()}",
            where=str(file),
            expected="weights of the network that this version builds from this configuration",
            remedy="train again, or install the version that wrote them",
        ) from error
    return model.eval()
