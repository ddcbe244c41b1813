"""Figures with their 95 % confidence intervals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, bootstrap

CONFIDENCE = 0.95
RESAMPLES = 999
Real = NDArray[np.float64]


@dataclass(frozen=True)
class Figure:
    """A measured value and its interval; None where it cannot be measured.

    Args:
        value: the figure.
        low: lower end of the 95 % interval.
        high: upper end.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None


def share(successes: int, trials: int) -> Figure:
    """Return a share with Wilson's score interval.

    (p̂ + z²/2n ± z √(p̂(1 − p̂)/n + z²/4n²))/(1 + z²/n). It takes the trials for independent.

    Args:
        successes: how many.
        trials: of how many.

    Returns:
        A `Figure`, empty where there was no trial.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", J. Amer. Statist.
    Assoc. 22 (1927).
    """
    if not trials:
        return Figure()
    ends = binomtest(successes, trials).proportion_ci(CONFIDENCE, method="wilson")
    return Figure(successes / trials, float(ends.low), float(ends.high))


def root_mean_square(squares: Real, counts: Real, rng: np.random.Generator) -> Figure:
    """Return √(Σ squares/Σ counts), resampled scene by scene: sources of one scene share their noise.

    Args:
        squares: `S` real, sum of squared errors of each scene.
        counts: `S` real, how many errors that is.
        rng: source of the resampling.

    Returns:
        A `Figure` in the unit of the errors; no interval from a single scene.
    """

    def rms(squares: Real, counts: Real, axis: int = -1) -> Real:
        value: Real = np.sqrt(squares.sum(axis) / counts.sum(axis))
        return value

    kept = counts > 0
    return _resampled((squares[kept], counts[kept]), rms, rng)


def mean(values: Real, rng: np.random.Generator) -> Figure:
    """Return the mean over scenes with its bootstrap interval.

    Args:
        values: `S` real.
        rng: source of the resampling.
    """
    return _resampled((values,), np.mean, rng)


def median(values: Real, rng: np.random.Generator) -> Figure:
    """Return the median with its bootstrap interval.

    Args:
        values: `S` real.
        rng: source of the resampling.
    """
    return _resampled((values,), np.median, rng)


def _resampled(data: tuple[Real, ...], statistic: Callable[..., Real], rng: np.random.Generator) -> Figure:
    if not data[0].size:
        return Figure()
    value = float(statistic(*data, axis=-1))
    if data[0].size == 1:
        return Figure(value)
    # Percentiles: bias-corrected intervals are undefined where all scenes agree.
    ends = bootstrap(
        data, statistic, paired=len(data) > 1, vectorized=True, n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE, method="percentile", random_state=rng,
    ).confidence_interval  # fmt: skip
    return Figure(value, float(ends.low), float(ends.high))
