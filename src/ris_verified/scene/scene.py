"""One scene, drawn from a seed, or built around given positions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray

from ris_verified.array.steering import steering
from ris_verified.config import Config, SceneConfig
from ris_verified.errors import ShapeError
from ris_verified.scene.channel import draw_channel
from ris_verified.scene.codes import code_values, draw_codes

Real = NDArray[np.float64]
Complex = NDArray[np.complex128]


class _Place(NamedTuple):
    azimuth: Real
    elevation: Real
    range: Real
    powers: Real


@dataclass(frozen=True)
class Scene:
    """Everything that made one measurement.

    Args:
        azimuth: `K` float64, radians.
        elevation: `K` float64, radians.
        range: `K` float64, metres.
        powers: `K` float64, mean power of each source's symbols.
        symbols: `L x K` complex128.
        H_full: `M x N` complex128, channel from panel to base station.
        code_index: `L x N` uint8, phase indices.
        codes: `L x N` complex128, unit modulus.
        y_clean: `L x M` complex128, without noise.
        y: `L x M` complex128.
        noise_variance: σ².
        snr_db: mean |Φ_l x_l|²/σ² in decibels.
        rician_factor: κ, linear.
    """

    azimuth: Real
    elevation: Real
    range: Real
    powers: Real
    symbols: Complex
    H_full: Complex
    code_index: NDArray[np.uint8]
    codes: Complex
    y_clean: Complex
    y: Complex
    noise_variance: float
    snr_db: float
    rician_factor: float


def forward(H_full: Complex, codes: Complex, A: Complex, symbols: Complex) -> Complex:
    """Return the noiseless measurement y_l = H diag(c_l) A s_l.

    Args:
        H_full: `M x N` complex.
        codes: `L x N` complex.
        A: `N x K` complex.
        symbols: `L x K` complex.

    Returns:
        `L x M` complex.
    """
    return (codes * (symbols @ A.T)) @ H_full.T


def complex_normal(rng: Generator, *shape: int) -> Complex:
    """Return circular Gaussian numbers of unit power, `*shape` complex128."""
    values: Complex = rng.standard_normal((*shape, 2)).view(np.complex128)[..., 0] / np.sqrt(2)
    return values


def _draw_powers(scene: SceneConfig, K: int, rng: Generator) -> Real:
    powers: Real = 10 ** (rng.uniform(-0.5, 0.5, K) * scene.power_spread_db / 10)
    powers /= powers.mean()
    return powers


def draw_scene(cfg: Config, *key: int) -> Scene:
    """Draw one scene; equal configuration and key give equal bytes.

    Sources are uniform in azimuth, elevation and range, κ and the SNR in decibels uniform too.
    σ² is set from the signal as drawn, so the stated SNR is the measured one.

    Args:
        cfg: configuration; `cfg.seed` begins the key.
        key: further integers, such as split and index.

    Returns:
        The scene.
    """
    rng = np.random.default_rng([cfg.seed, *key])
    s = cfg.scene
    K = int(rng.integers(s.sources_min, s.sources_max + 1))
    azimuth = rng.uniform(-s.azimuth_max, s.azimuth_max, K)
    elevation = rng.uniform(-s.elevation_max, s.elevation_max, K)
    range = rng.uniform(s.range_min, s.range_max, K)
    powers = _draw_powers(s, K, rng)
    rician_factor = float(rng.uniform(s.rician_factor_min, s.rician_factor_max))
    snr_db = float(rng.uniform(s.snr_db_min, s.snr_db_max))
    return _measured(cfg, _Place(azimuth, elevation, range, powers), rician_factor, snr_db, rng)


def scene_at(cfg: Config, azimuth: Real, elevation: Real, range: Real, *, snr_db: float, rng: Generator) -> Scene:
    """Draw everything but the sources' positions and the SNR, which are given.

    Powers, κ, channel, codes, symbols and noise are drawn as in `draw_scene`. Equal generators at two SNRs
    give the same scene but for the strength of the noise.

    Args:
        cfg: reads `array` and `scene`.
        azimuth: `K` float64, radians.
        elevation: `K` float64, radians.
        range: `K` float64, metres.
        snr_db: mean |Φ_l x_l|²/σ² in decibels.
        rng: source of randomness.

    Returns:
        The scene.

    Raises:
        ShapeError: not three vectors of one length.
    """
    given = [np.asarray(value, np.float64) for value in (azimuth, elevation, range)]
    if given[0].ndim != 1 or not given[0].size or len({value.shape for value in given}) != 1:
        raise ShapeError(
            ", ".join(str(list(value.shape)) for value in given),
            where="azimuth, elevation, range",
            expected="three vectors [K] of one length, with at least one source",
        )
    powers = _draw_powers(cfg.scene, given[0].size, rng)
    rician_factor = float(rng.uniform(cfg.scene.rician_factor_min, cfg.scene.rician_factor_max))
    return _measured(cfg, _Place(given[0], given[1], given[2], powers), rician_factor, snr_db, rng)


def _measured(cfg: Config, place: _Place, rician_factor: float, snr_db: float, rng: Generator) -> Scene:
    s, (azimuth, elevation, range, powers) = cfg.scene, place
    H_full = draw_channel(cfg.array, s, rician_factor, rng)
    index = draw_codes(cfg.array, s, rng)
    codes = code_values(index, s.code_bits)
    drawn = complex_normal(rng, s.snapshots if s.symbols == "varying" else 1, azimuth.size)
    symbols = np.broadcast_to(np.sqrt(powers) * drawn, (s.snapshots, azimuth.size)).copy()
    A = steering(cfg.array, *(torch.from_numpy(v) for v in (azimuth, elevation, range))).numpy().T
    y_clean = forward(H_full, codes, A, symbols)
    noise_variance = float(np.mean(np.abs(y_clean) ** 2) / 10 ** (snr_db / 10))
    y = y_clean + np.sqrt(noise_variance) * complex_normal(rng, *y_clean.shape)
    return Scene(
        azimuth, elevation, range, powers, symbols, H_full, index, codes,
        y_clean, y, noise_variance, snr_db, rician_factor,
    )  # fmt: skip
