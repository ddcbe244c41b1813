"""What RV1204 measures on the MLE: that it ends at the optimum, and that its covariance is that of its optimum."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ris_verified.audit.context import Context
from ris_verified.audit.oracle import closed_form
from ris_verified.audit.rule import Measurement, at_least, at_most, equal

if TYPE_CHECKING:
    from ris_verified.estimate.result import Estimates, Peaks
    from ris_verified.scene.scene import Scene

STEP = 1e-5
SETTLED = 0.3  # standard deviations


def _seen(context: Context, scene: Scene, place: Any) -> tuple[Any, Any]:
    """Return `L x M x K` Φ_l a_k and `L x M` y; one snapshot that stacks all where symbols are constant."""
    import numpy as np

    a = closed_form(context, *place.T)
    seen = np.einsum("mn,ln,kn->lmk", scene.H_full, scene.codes, a)
    if context.config.scene.symbols == "constant":
        return seen.reshape(1, -1, len(place)), scene.y.reshape(1, -1)
    return seen, scene.y


def fit(context: Context, scene: Scene, place: Any) -> tuple[float, Any, Any]:
    """Return Σ_l ‖P⊥(Φ_l A) y_l‖², the residuals and the least-squares symbols at `K x 3` positions."""
    import numpy as np

    seen, y = _seen(context, scene, place)
    symbols = np.linalg.pinv(seen) @ y[..., None]
    rest = y - (seen @ symbols)[..., 0]
    return float(np.sum(np.abs(rest) ** 2)), rest, symbols[..., 0]


def information(context: Context, scene: Scene, place: Any) -> Any:
    """Return σ² J = 2 Re Σ_l D_lᴴ P⊥(B_l) D_l at an estimate, `3K x 3K`, slopes by central differences."""
    import numpy as np

    _, _, symbols = fit(context, scene, place)
    seen, _ = _seen(context, scene, place)
    K, slopes = len(place), []
    for k in range(K):
        for axis in range(3):
            h = STEP * (place[k, 2] if axis == 2 else 1.0)
            up, down = place[k : k + 1].copy(), place[k : k + 1].copy()
            up[0, axis] += h
            down[0, axis] -= h
            slope = (_seen(context, scene, up)[0] - _seen(context, scene, down)[0])[..., 0] / (2 * h)
            slopes.append(slope * symbols[:, None, k])
    D = np.stack(slopes, -1)
    out = D - seen @ (np.linalg.pinv(seen) @ D)
    return 2 * np.real(np.sum(np.conj(D).swapaxes(1, 2) @ out, 0))


def _gradient(context: Context, scene: Scene, place: Any, steps: Any) -> Any:
    import numpy as np

    slopes = np.zeros(place.size)
    for i in range(place.size):
        move = np.zeros(place.size)
        move[i] = steps[i]
        up, down = (fit(context, scene, place + sign * move.reshape(place.shape))[0] for sign in (1, -1))
        slopes[i] = (up - down) / (2 * steps[i])
    return slopes


def _interior(context: Context, place: Any) -> bool:
    """Return whether every position lies off the edges of the view: an edge may hold one back, and it the others."""
    import numpy as np

    s = context.config.scene
    low = np.array([-s.azimuth_max, -s.elevation_max, s.range_min])
    high = np.array([s.azimuth_max, s.elevation_max, s.range_max])
    return bool((np.minimum(place - low, high - place) > 1e-6 * high).all())


def at_optimum(context: Context, scenes: list[Scene], found: Estimates, start: Peaks, label: str) -> list[Measurement]:
    """Return that estimates are stationary, no worse than the start, in their slots, and that their covariance is J⁻¹.

    Args:
        context: the evidence.
        scenes: `B`, high SNR.
        found: the stage's answer for them, started at `start`.
        start: positions, NaN beyond K.
        label: which scenes, for the message.
    """
    import numpy as np
    import torch

    counts = [len(scene.azimuth) for scene in scenes]
    finite = torch.isfinite(torch.stack([found.azimuth, found.elevation, found.range]))
    wanted = [[k < K for k in range(finite.shape[2])] for K in counts]
    slots = finite.all(0).tolist() == wanted and finite.any(0).tolist() == wanted
    result = [
        equal(slots, True, f"{label}: the first K slots hold positions and the others NaN", where="mle"),
        equal(found.order.tolist(), counts, f"{label}: order of the estimates", where="mle"),
    ]
    if not slots:
        return result
    figures = np.array([_scene_figures(context, scene, found, start, i) for i, scene in enumerate(scenes)])
    worst = figures.max(0)
    least = figures.min(0)
    return [
        *result,
        at_most(float(worst[0]), SETTLED, f"{label}: way to the optimum in standard deviations", where="mle"),
        at_most(float(worst[1]), 1e-9, f"{label}: rise of the objective from the start, relative", where="mle"),
        at_most(float(worst[2]), 1e-3, f"{label}: covariance times J minus a multiple of I", where="mle.covariance"),
        at_least(float(least[3]), 1.0, f"{label}: σ̂² of the covariance over RSS/rows", where="mle.covariance"),
        at_most(float(worst[4]), 1.0, f"{label}: σ̂² of the covariance over 1.1 RSS/(rows − unknowns)",
                where="mle.covariance"),
    ]  # fmt: skip


def _scene_figures(context: Context, scene: Scene, found: Estimates, start: Peaks, i: int) -> tuple[float, ...]:
    """Return way to the optimum, rise of the objective, covariance error, and σ̂² over its lower and upper value."""
    import numpy as np

    K = len(scene.azimuth)
    axes = ("azimuth", "elevation", "range")
    place, begin = (np.stack([vars(e)[n][i, :K].double().numpy() for n in axes], -1) for e in (found, start))
    value, rest, _ = fit(context, scene, place)
    J = information(context, scene, place)
    scale = 1 / np.sqrt(np.diag(J))
    unit = J * scale[:, None] * scale
    free = rest.size - K * (len(rest) + 3)
    variance = value / max(free, 1)
    g = _gradient(context, scene, place, 1e-3 * np.sqrt(variance) * scale) * scale
    # The Hessian of the objective is σ² J: the way to the optimum is J⁻¹g/σ², and its length in σ is squared here.
    way = float(np.sqrt(g @ np.linalg.solve(unit, g) / variance)) if _interior(context, place) else 0.0
    rise = value / fit(context, scene, begin)[0] - 1
    covariance = found.covariance[i, : 3 * K, : 3 * K].double().numpy()
    product = (covariance / scale[:, None] / scale) @ unit
    size = float(np.trace(product) / len(product))
    apart = float(np.abs(product / size - np.eye(len(product))).max()) if size > 0 else float("inf")
    return way, rise, apart / np.linalg.cond(unit), size * rest.size / value, size * free / value / 1.1


def _marginal(context: Context, scene: Scene, place: Any) -> float:
    """Return n log(q/n) + Σ_l log det(I + B_l B_lᴴ/load), least over the load: −log-likelihood of Gaussian symbols."""
    import numpy as np
    from scipy.optimize import minimize_scalar

    seen, y = _seen(context, scene, place)
    gram = np.conj(seen).swapaxes(1, 2) @ seen
    hit, energy, eye = np.conj(seen).swapaxes(1, 2) @ y[..., None], float(np.sum(np.abs(y) ** 2)), np.eye(len(place))

    def cost(log_load: float) -> float:
        load = np.exp(log_load)
        explained = float(np.sum(np.conj(hit) * np.linalg.solve(gram + load * eye, hit)).real)
        spread = np.linalg.slogdet(eye + gram / load)[1].sum()
        return float(y.size * np.log((energy - explained) / y.size) + spread)

    middle = np.log(np.trace(gram, axis1=1, axis2=2).mean() / len(place))
    least = minimize_scalar(cost, bounds=(middle - 14, middle + 5), method="bounded", options={"xatol": 1e-9})
    return float(least.fun)


def at_marginal_optimum(context: Context, scenes: list[Scene], found: Estimates, label: str) -> Measurement:
    """Return the longest way, in standard deviations, from an estimate to where Gaussian symbols are likeliest."""
    import numpy as np

    ways = [0.0]
    for i, scene in enumerate(scenes):
        K = len(scene.azimuth)
        columns = (vars(found)[name][i, :K].double().numpy() for name in ("azimuth", "elevation", "range"))
        place = np.stack(list(columns), 1)
        if not _interior(context, place):
            continue
        value, rest, _ = fit(context, scene, place)
        fisher = information(context, scene, place) * max(rest.size - K * (len(rest) + 3), 1) / value
        steps, slopes = 1e-2 / np.sqrt(np.diag(fisher)), np.zeros(3 * K)
        for j, step in enumerate(steps):
            move = np.zeros(3 * K)
            move[j] = step
            up, down = (_marginal(context, scene, place + sign * move.reshape(K, 3)) for sign in (1, -1))
            slopes[j] = (up - down) / (2 * step)
        ways.append(float(np.sqrt(slopes @ np.linalg.solve(fisher, slopes))))
    text = f"{label}: way to the optimum with Gaussian symbols, in standard deviations"
    return at_most(max(ways), SETTLED, text, where="mle with estimate.prior = scene")
