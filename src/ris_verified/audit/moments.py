"""Laws of random numbers with bounds that a sound draw breaks with probability below 1e-8."""

from __future__ import annotations

from typing import Any

from ris_verified.audit.rule import Measurement, at_most

NATS = 20.0  # a bound fails by chance with probability 2 exp(−20) = 4e-9


def exponential_bound(count: int) -> float:
    """Return how far the mean of `count` unit exponentials strays from 1: √(2t/n) + t/n.

    Source: Laurent and Massart, Ann. Stat. 28 (2000), Lemma 1.
    """
    return float((2 * NATS / count) ** 0.5 + NATS / count)


def weighted_bound(weights: Any) -> float:
    """Return the same for Σ w E/Σ w: √(2t Σ w²)/Σ w + t max w/Σ w."""
    import numpy as np

    total = np.sum(weights)
    return float(np.sqrt(2 * NATS * np.sum(np.square(weights))) / total + NATS * np.max(weights) / total)


def bounded_mean_bound(count: int) -> float:
    """Return how far the mean of `count` numbers in [−1, 1] strays from its expectation: √(2t/n) (Hoeffding)."""
    return float((2 * NATS / count) ** 0.5)


def distribution(values: Any, cumulative: Any, message: str, where: str) -> Measurement:
    """Compare an empirical distribution with the declared one: sup|F_n − F| ≤ √(t/2n).

    Args:
        values: drawn numbers.
        cumulative: the declared distribution function at the sorted values.
        message, where: as in `Measurement`.

    Source: Massart, Ann. Prob. 18 (1990).
    """
    import numpy as np

    n = np.size(values)
    F = cumulative(np.sort(np.ravel(values)))
    apart = max(float(np.max(F - np.arange(n) / n)), float(np.max(np.arange(1, n + 1) / n - F)))
    return at_most(apart, float(np.sqrt(NATS / (2 * n))), f"{message}: largest difference of distributions", "", where)


def uniform(values: Any, low: float, high: float, message: str, where: str) -> list[Measurement]:
    """Return that values are uniform between two limits; only the limits where they coincide."""
    import numpy as np

    span = high - low
    edge = 1e-12 * max(abs(low), abs(high), 1.0)
    outside = float(max(np.max(values) - high, low - np.min(values)))
    found = [at_most(outside, edge, f"{message} beyond its limits {low:g} … {high:g}", "", where)]
    if span > 0:
        text = f"{message} uniform between its limits"
        found.append(distribution(values, lambda v: np.clip((v - low) / span, 0, 1), text, where))
    return found


def complex_normal(z: Any, axes: tuple[str, ...], name: str, where: str) -> list[Measurement]:
    """Return that `z` is CN(0, 1), independent along every axis.

    Args:
        z: complex, any number of axes.
        axes: a name for each axis.
        name: what is measured.
        where: the stage.
    """
    import numpy as np
    from scipy.special import ndtr

    n, found = z.size, []
    for part, text in ((z.real, "real"), (z.imag, "imaginary")):
        message = f"{text} part of the {name} against N(0, 1/2)"
        found.append(distribution(part, lambda v: ndtr(v * np.sqrt(2)), message, where))
    # Re z² and Im z² have variance one: both are inside √2 of the bound.
    circular = float(abs(np.mean(z**2)))
    found.append(at_most(circular, 2**0.5 * exponential_bound(n), f"|E z²| of the {name}, 0 if circular", "", where))
    for axis, label in enumerate(axes):
        count = z.shape[axis]
        found.append(_level(z, axis, f"{name}: mean power at one of {count} {label}, minus one", where))
        if count > 1:
            found += _independent(z, axis, f"{name} over {label}", where)
    return found


def _level(z: Any, axis: int, message: str, where: str) -> Measurement:
    import numpy as np

    power = np.mean(np.abs(z) ** 2, axis=tuple(i for i in range(z.ndim) if i != axis))
    return at_most(float(np.max(np.abs(power - 1))), exponential_bound(z.size // z.shape[axis]), message, "", where)


def _independent(z: Any, axis: int, message: str, where: str) -> list[Measurement]:
    import numpy as np

    moved = np.moveaxis(z, axis, 0)
    count, rest = len(moved), moved[0].size
    total = float(np.mean(np.abs(moved.sum(0)) ** 2)) / count
    product = float(abs(np.mean(moved[1:] * moved[:-1].conj())))
    # Neighbouring products share a factor: even and odd ones are independent, so half of them count.
    half = max(1, (count - 1) * rest // 2)
    return [
        at_most(
            abs(total - 1),
            exponential_bound(rest),
            f"|Σ z|²/n minus one, {message}",
            "",
            where,
        ),
        at_most(product, 2**0.5 * exponential_bound(half), f"correlation of neighbours, {message}", "", where),
    ]
