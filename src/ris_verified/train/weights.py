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
from ris_verified._config_load import plain, read
from ris_verified.config import Config
from ris_verified.errors import DataError
from ris_verified.files import atomic_write
from ris_verified.pipeline import Pipeline

FORMAT = "ris-verified-weights/1"
# Weights that come with the package, by name.
SHIPPED = ("small",)


# Of a scene: what a network is built for.
VIEW = ("azimuth_max", "elevation_max", "range_min", "range_max", "sources_max")


def architecture(cfg: Config) -> str:
    """Return the digest of what decides whether weights fit: array, field of view, K_MAX and model."""
    scene = plain(cfg.scene)
    parts = [plain(cfg.array), plain(cfg.model), [scene[name] for name in VIEW], cfg.covariance.factor_mode]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _differences(metadata: dict[str, str], cfg: Config) -> str:
    stored = Config.loads(metadata.get("config", ""), "weights")
    names = [f"{part}.{name}" for part in ("array", "model") for name in vars(vars(cfg)[part])]
    names += [*(f"scene.{name}" for name in VIEW), "covariance.factor_mode"]
    pairs = [(name, read(stored, name), read(cfg, name)) for name in names]
    apart = [f"{name} = {theirs!r}, not {mine!r}" for name, theirs, mine in pairs if theirs != mine]
    return "; ".join(apart) or f"another configuration, {metadata.get('config_hash')}"


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
    atomic_write(path, _in_order(save(tensors, metadata)))


def _in_order(content: bytes) -> bytes:
    """Sort what safetensors writes in an order that changes from call to call: equal weights are equal files."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    # Blanks keep the tensors aligned.
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[8 + size :]


def _file(path: Path) -> Path:
    if not path.is_dir():
        shipped = Path(ris_verified.__file__).parent / "weights" / f"{path}.safetensors"
        return shipped if str(path) in SHIPPED else path
    # `train` and `launch` leave it at different depths.
    places = [path / "weights.safetensors", path / "train" / "weights.safetensors"]
    return next((place for place in places if place.is_file()), places[0])


def _read(path: str | Path) -> tuple[Path, dict[str, str], dict[str, Tensor]]:
    file = _file(Path(path))
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
    if metadata.get("format") != FORMAT:
        raise DataError(f"holds {metadata.get('format', 'no known format')}", where=str(file), expected=FORMAT)
    if metadata.get("architecture") != architecture(pipeline.config):
        raise DataError(
            f"trained with {_differences(metadata, pipeline.config)}",
            where=str(file),
            expected="the array, field of view, K_MAX and model of this configuration",
            remedy="pass the configuration that the weights were trained with, or none: they bring their own",
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
