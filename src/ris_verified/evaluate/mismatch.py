"""Ways in which the world differs from the model that the estimator works with.

A measurement is made with a `World`; the nominal one is what the scene says. A mismatch returns another world,
and the estimator still gets the scene's channel and codes.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from ris_verified.array.geometry import element_positions, to_cartesian
from ris_verified.array.steering import steering
from ris_verified.config import Config
from ris_verified.errors import InputError
from ris_verified.scene.scene import Scene, complex_normal, forward

Complex = NDArray[np.complex128]
Real = NDArray[np.float64]


@dataclass(frozen=True)
class World:
    """What a measurement is really made with.

    Args:
        H_full: `M x N` complex128, channel from panel to base station.
        codes: `L x N` complex128.
        A: `N x K` complex128, steering vectors.
        gain: `M` complex128, of each antenna.
    """

    H_full: Complex
    codes: Complex
    A: Complex
    gain: Complex


def _distances(scene: Scene, elements: Real) -> Real:
    place = (torch.from_numpy(v) for v in (scene.azimuth, scene.elevation, scene.range))
    distances: Real = np.linalg.norm(elements[:, None] - to_cartesian(*place).numpy(), axis=-1)
    return distances


def phase(world: World, scene: Scene, rng: np.random.Generator, level: float, cfg: Config) -> World:
    """Turn each element's reflection by a fixed phase, c_n exp(jε_n), ε_n ~ N(0, level²); level in radians rms."""
    return replace(world, codes=world.codes * np.exp(1j * level * rng.standard_normal(cfg.array.elements)))


def position(world: World, scene: Scene, rng: np.random.Generator, level: float, cfg: Config) -> World:
    """Move the elements against each other; level is the rms length of a shift in metres.

    a_n becomes a_n exp(−jk(‖p − p_n − δ_n‖ − ‖p − p_n‖)), the mean of δ_n taken out: moving the whole panel
    would be another coordinate system, not an error. The channel is measured through the panel as it is.
    """
    shift = rng.standard_normal((cfg.array.elements, 3))
    shift = level * (shift - shift.mean(0)) / np.sqrt(3)
    elements = element_positions(cfg.array).numpy()
    longer = _distances(scene, elements + shift) - _distances(scene, elements)
    return replace(world, A=world.A * np.exp(-1j * cfg.array.wavenumber * longer))


def channel(world: World, scene: Scene, rng: np.random.Generator, level: float, cfg: Config) -> World:
    """Add an error to the channel that the estimator does not know, ‖E‖/‖H‖ ≈ level."""
    scale = np.sqrt(np.mean(np.abs(scene.H_full) ** 2))
    return replace(world, H_full=world.H_full + level * scale * complex_normal(rng, *scene.H_full.shape))


def rician(world: World, scene: Scene, rng: np.random.Generator, level: float, cfg: Config) -> World:
    """Add scattering that the estimator does not know, level² of what it knows: κ falls to κ/(1 + level²)."""
    scale = np.sqrt(1 / (1 + scene.rician_factor) / cfg.array.elements)
    return replace(world, H_full=world.H_full + level * scale * complex_normal(rng, *scene.H_full.shape))


def amplitude(world: World, scene: Scene, rng: np.random.Generator, level: float, cfg: Config) -> World:
    """Weight each element by (r/‖p − p_n‖)^level: 0 is the unit-amplitude model, 1 the spherical wave's amplitude.

    Raises:
        InputError: the configured model has that amplitude already.
    """
    if cfg.array.amplitude != "unit":
        raise InputError(
            f"array.amplitude is {cfg.array.amplitude!r}",
            where="amplitude",
            expected="a nominal model of unit amplitude",
        )
    gain = (scene.range / _distances(scene, element_positions(cfg.array).numpy())) ** level
    return replace(world, A=world.A * gain)


def calibration(world: World, scene: Scene, rng: np.random.Generator, level: float, cfg: Config) -> World:
    """Give each antenna a gain 1 + level·g_m that the estimator does not know, g_m ~ CN(0, 1)."""
    return replace(world, gain=world.gain * (1 + level * complex_normal(rng, len(world.gain))))


Mismatch = Callable[[World, Scene, np.random.Generator, float, Config], World]
MISMATCHES: dict[str, Mismatch] = {
    "phase": phase,
    "position": position,
    "channel": channel,
    "rician": rician,
    "amplitude": amplitude,
    "calibration": calibration,
}


def _measured(world: World, symbols: Complex) -> Complex:
    return forward(world.H_full, world.codes, world.A, symbols) * world.gain


def mismatched(scene: Scene, cfg: Config, levels: Mapping[str, float], seed: int) -> Scene:
    """Return the scene with the measurement that another world would have given, noise and all else unchanged.

    Args:
        scene: drawn with the nominal model.
        cfg: the nominal model.
        levels: level by name of mismatch, see `MISMATCHES`; level 0 gives back the scene bit for bit.
        seed: equal seeds give equal errors up to their level, whatever the order of the names.

    Returns:
        A `Scene`; `y_clean` and `y` differ, `H_full` and `codes` are what the estimator believes.

    Raises:
        InputError: an unknown name, or a mismatch that the nominal model already has.
    """
    A = steering(cfg.array, *(torch.from_numpy(v) for v in (scene.azimuth, scene.elevation, scene.range))).numpy().T
    nominal = World(scene.H_full, scene.codes, A.copy(), np.ones(len(scene.H_full), np.complex128))
    world = nominal
    for name, level in levels.items():
        if name not in MISMATCHES:
            raise InputError(f"{name!r}", where="mismatch", expected=", ".join(MISMATCHES))
        world = MISMATCHES[name](world, scene, np.random.default_rng([seed, zlib.crc32(name.encode())]), level, cfg)
    # As a difference from the same formula, so that no mismatch means no change of a single bit.
    change = _measured(world, scene.symbols) - _measured(nominal, scene.symbols)
    return replace(scene, y_clean=scene.y_clean + change, y=scene.y + change)
