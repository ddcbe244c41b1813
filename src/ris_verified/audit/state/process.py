"""The settings and generators of the process that an audit could disturb."""

from __future__ import annotations

import os
import random
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ris_verified.audit.state.held import Part, Value

Setting = tuple[str, Callable[[], Any], Callable[[Any], object]]


def process_parts() -> list[Part]:
    """Return random states, modes, thread count, warnings, environment, folder and path; imports nothing."""
    settings: list[Setting] = [
        ("random", random.getstate, random.setstate),
        ("warnings.filters", lambda: [str(item) for item in warnings.filters], _only_compared),
        ("os.environ", _environment, _set_environment),
        ("working directory", _folder, os.chdir),
        ("sys.path", lambda: list(sys.path), _set_path),
    ]
    if "numpy" in sys.modules:
        settings += _numpy()
    if "torch" in sys.modules:
        settings += _torch()
    return [Value(*setting) for setting in settings]


def remove_empty_compiler_folder(began: float) -> None:
    """Remove the cache folder that torch makes, unasked and empty, when something first imports its compiler.

    Args:
        began: seconds since the epoch; a folder that is older stays.
    """
    folder = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    with suppress(OSError):
        if folder and os.stat(folder).st_mtime >= began:
            os.rmdir(folder)


def _only_compared(value: object) -> None:
    """Warnings are put back by `catch_warnings`; inference mode ends only with the object that began it."""


def _folder() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:
        return ""


def _environment() -> dict[str, str]:
    # pytest tells here which test runs and at which stage, while the audit is one of its tests.
    return {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}


def _set_environment(held: dict[str, str]) -> None:
    for name in _environment().keys() - held.keys():
        del os.environ[name]
    os.environ.update(held)


def _set_path(held: list[str]) -> None:
    sys.path[:] = held


def _numpy() -> list[Setting]:
    import numpy as np

    return [
        ("numpy.random", np.random.get_state, np.random.set_state),
        ("numpy.errstate", np.geterr, lambda held: np.seterr(**held)),
    ]


def _torch() -> list[Setting]:
    import torch

    settings: list[Setting] = [
        ("torch.random", torch.get_rng_state, torch.set_rng_state),
        ("gradient mode", torch.is_grad_enabled, torch.set_grad_enabled),
        ("inference mode", torch.is_inference_mode_enabled, _only_compared),
        ("anomaly mode", torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
        ("default dtype", lambda: str(torch.get_default_dtype()), _set_default_dtype),
        ("thread count", torch.get_num_threads, torch.set_num_threads),
        ("deterministic algorithms", torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
        ("matmul precision", torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
        ("autocast cache", torch.is_autocast_cache_enabled, torch.set_autocast_cache_enabled),
    ]
    for device in ("cpu", "cuda"):
        settings += _autocast(device)
    for name in ("deterministic", "benchmark", "allow_tf32"):
        settings.append(_cudnn(name))
    # Reading a generator of a device that nobody uses would begin to use it.
    if torch.cuda.is_initialized():
        settings.append(("torch.cuda.random", torch.cuda.get_rng_state_all, torch.cuda.set_rng_state_all))
    return settings


def _set_default_dtype(name: str) -> None:
    import torch

    torch.set_default_dtype(vars(torch)[name.removeprefix("torch.")])


def _autocast(device: str) -> list[Setting]:
    import torch

    return [
        (f"autocast {device}", lambda: torch.is_autocast_enabled(device),
         lambda held: torch.set_autocast_enabled(device, held)),
        (f"autocast dtype {device}", lambda: str(torch.get_autocast_dtype(device)),
         lambda held: torch.set_autocast_dtype(device, vars(torch)[held.removeprefix("torch.")])),
    ]  # fmt: skip


def _cudnn(name: str) -> Setting:
    from torch.backends import cudnn

    # The flags are properties of a module object: `vars` does not hold them.
    return f"cudnn.{name}", lambda: getattr(cudnn, name), lambda held: setattr(cudnn, name, held)
