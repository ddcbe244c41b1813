"""What makes two runs the same one: the settings that shape it; and under which conditions it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any

import torch

from ris_verified._config_load import names, read
from ris_verified.config import Config
from ris_verified.train.state import TrainState, autocast_dtype

# Weights, log and curves are the same whatever these are; what the data are like, their digest tells.
ASIDE = ("contracts", "data.shard_scenes", "data.test_scenes", "data.workers", "train.checkpoint_steps", "hpo.")
ABSENT = "absent"


def shaping(cfg: Config) -> dict[str, Any]:
    """Return the settings that decide what a run ends with, by dotted name."""
    return {name: read(cfg, name) for name in names(Config) if not name.startswith(ASIDE)}


def apart(stored: Mapping[str, Any], mine: Mapping[str, Any]) -> str:
    """Return what differs, `name = stored value, here mine`; empty where nothing does."""
    pairs = [(name, stored.get(name, ABSENT), mine.get(name, ABSENT)) for name in {**stored, **mine}]
    return "; ".join(f"{name} = {old!r}, here {new!r}" for name, old, new in pairs if old != new)


def conditions(state: TrainState, cfg: Config) -> dict[str, int | str]:
    """Return what equal runs must share to end with the same bits, besides settings, data and stages."""
    device = next(state.model.parameters()).device
    return {
        "precision": precision(cfg, device),
        "device": device.type,
        "processes": state.ranks.count,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def precision(cfg: Config, device: torch.device) -> str:
    """Return what `train.precision` comes to on a device."""
    return str(autocast_dtype(cfg, device) or torch.float32).removeprefix("torch.")


def told(found: Mapping[str, Any]) -> str:
    """Return conditions as a text."""
    return ", ".join(f"{name} = {value}" for name, value in found.items())


def described(state: TrainState, cfg: Config) -> bytes:
    """Return the configuration as a file, headed by the conditions: `auto` does not tell which precision was used."""
    return f"# trained with {told(conditions(state, cfg))}\n{cfg.to_toml()}".encode()


def name_of(stage: Callable[..., Any]) -> str:
    """Return module and name of a function, or of the class of a callable object."""
    named = stage if isinstance(stage, FunctionType | type) else type(stage)
    return f"{named.__module__}.{named.__qualname__}"
