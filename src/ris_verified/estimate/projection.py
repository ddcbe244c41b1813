"""Variable projection in the measurement domain, and the Levenberg–Marquardt steps on it.

The parameters of a source are azimuth, elevation and 1/range: the panel resolves them about uniformly.
Absent sources are NaN rows; their columns are zero and their steps too.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ris_verified.array.steering import steering, steering_and_derivatives
from ris_verified.config import ArrayConfig, Config
from ris_verified.estimate.bound import measured
from ris_verified.estimate.result import Peaks

DAMPING = 1e-2
LOWEST_DAMPING = 1e-9
HIGHEST_DAMPING = 1e9


@dataclass(frozen=True)
class Measurement:
    """One batch of measurements in the form that the model is fitted to.

    Args:
        y: `B x L x M` complex, or `B x 1 x LM` where symbols are constant.
        H_full: `B x M x N` complex.
        C: `B x L x N` complex.
        cfg: configuration.
        joint: True where symbols are constant.
    """

    y: Tensor
    H_full: Tensor
    C: Tensor
    cfg: Config
    joint: bool

    @classmethod
    def of(cls, y: Tensor, H_full: Tensor, C: Tensor, cfg: Config) -> Measurement:
        """Stack the snapshots where symbols are constant."""
        joint = cfg.scene.symbols == "constant"
        return cls(y.flatten(1)[:, None] if joint else y, H_full, C, cfg, joint)

    def only(self, chosen: Tensor | slice) -> Measurement:
        """Return some of the scenes."""
        return Measurement(self.y[chosen], self.H_full[chosen], self.C[chosen], self.cfg, self.joint)

    @property
    def energy(self) -> Tensor:
        """Σ_l ‖y_l‖², `B` real."""
        return self.y.abs().square().sum((1, 2))


def to_parameters(peaks: Peaks) -> Tensor:
    """Return `B x K x 3` real: azimuth, elevation, 1/range."""
    return torch.stack([peaks.azimuth, peaks.elevation, 1 / peaks.range], -1)


def to_peaks(parameters: Tensor) -> Peaks:
    """Undo `to_parameters`."""
    azimuth, elevation, inverse = parameters.unbind(-1)
    return Peaks(azimuth, elevation, 1 / inverse)


def clamped(parameters: Tensor, cfg: Config) -> Tensor:
    """Keep azimuth, elevation and 1/range inside the field of view; NaN stays NaN."""
    s = cfg.scene
    high = parameters.new_tensor([s.azimuth_max, s.elevation_max, 1 / s.range_min])
    low = parameters.new_tensor([-s.azimuth_max, -s.elevation_max, 1 / s.range_max])
    return parameters.clamp(low, high)


def with_slopes(parameters: Tensor, array: ArrayConfig) -> Tensor:
    """Return each steering vector and its derivatives in azimuth, elevation and 1/range.

    Args:
        parameters: `B x K x 3` real.
        array: the panel.

    Returns:
        `B x K x N x 4` complex.
    """
    azimuth, elevation, inverse = parameters.unbind(-1)
    a, slopes = steering_and_derivatives(array, azimuth, elevation, 1 / inverse)
    chain = torch.stack([torch.ones_like(inverse), torch.ones_like(inverse), -1 / inverse.square()], -1)
    return torch.cat([a[..., None], slopes * chain[:, :, None]], -1)


def _present(parameters: Tensor) -> tuple[Tensor, Tensor]:
    present = torch.isfinite(parameters).all(-1)
    return present, torch.where(present[..., None], parameters, torch.ones_like(parameters))


def _fit(seen: Tensor, y: Tensor, present: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    # Symbols by least squares on the Gram matrix, loaded by rounding so that coinciding sources
    # stay solvable; returns symbols, residual and the Gram matrix.
    gram = seen.mH @ seen
    size = torch.diagonal(gram, dim1=-2, dim2=-1).real.mean(-1)
    load = torch.finfo(size.dtype).eps * seen.shape[-2] * size[..., None]
    diagonal = torch.where(present[:, None], load, torch.ones_like(load))
    gram = gram + torch.diag_embed(diagonal).to(gram.dtype)
    symbols = torch.linalg.solve(gram, seen.mH @ y[..., None])
    return symbols, y - (seen @ symbols)[..., 0], gram


def columns(parameters: Tensor, data: Measurement) -> tuple[Tensor, Tensor]:
    """Return B_l = Φ_l A with zero columns for absent sources, `B x L x M x K`, and the mask `B x K`."""
    present, place = _present(parameters)
    azimuth, elevation, inverse = place.unbind(-1)
    a = steering(data.cfg.array, azimuth, elevation, 1 / inverse)
    return measured(data.H_full, data.C, (a * present[..., None]).mT, data.joint), present


def objective(parameters: Tensor, data: Measurement) -> Tensor:
    """Return Σ_l ‖P⊥(Φ_l A) y_l‖².

    Args:
        parameters: `B x K x 3` real, NaN rows are absent.
        data: the measurements.

    Returns:
        `B` real.

    Source: Golub and Pereyra, SIAM J. Numer. Anal. 10 (1973).
    """
    return solve_symbols(parameters, data)[1].abs().square().sum((1, 2))


def solve_symbols(parameters: Tensor, data: Measurement) -> tuple[Tensor, Tensor]:
    """Return the least-squares symbols `B x L x K` and residuals `B x L x M` (L = 1 where joint)."""
    seen, present = columns(parameters, data)
    symbols, residual, _ = _fit(seen, data.y, present)
    return symbols[..., 0], residual


def _normal_equations(parameters: Tensor, data: Measurement) -> tuple[Tensor, Tensor]:
    # Kaufman's Jacobian −P⊥ Φ_l ∂a_k ŝ_lk: JᴴJ and −Jᴴr in real form.
    present, place = _present(parameters)
    both = with_slopes(place, data.cfg.array) * present[..., None, None]
    K = place.shape[1]
    seen_all = measured(data.H_full, data.C, both.transpose(1, 2).flatten(2), data.joint)
    seen_all = seen_all.unflatten(-1, (K, 4))
    seen, tangents = seen_all[..., 0], seen_all[..., 1:]
    symbols, residual, gram = _fit(seen, data.y, present)
    D = (tangents * symbols[:, :, None]).flatten(-2)
    cross = seen.mH @ D
    JJ = (D.mH @ D - cross.mH @ torch.linalg.solve(gram, cross)).real.sum(1)
    # P⊥ r = r, so the gradient needs no second projection.
    right = (D.mH @ residual[..., None]).real.sum(1)[..., 0]
    return JJ, right


def descend(parameters: Tensor, data: Measurement, iterations: int) -> tuple[Tensor, Tensor]:
    """Run Levenberg–Marquardt on all sources jointly; the objective never increases.

    Args:
        parameters: `B x K x 3` real, NaN rows are absent.
        data: the measurements.
        iterations: most steps; scenes whose step no longer moves them stop by themselves.

    Returns:
        Parameters `B x K x 3` and objective `B`.

    Source: Kaufman, BIT 15 (1975); Marquardt, J. SIAM 11 (1963).
    """
    best, value = clamped(parameters, data.cfg), objective(clamped(parameters, data.cfg), data)
    damping = torch.full_like(value, DAMPING)
    absent = ~torch.isfinite(parameters).all(-1).repeat_interleave(3, -1)
    floor = torch.finfo(value.dtype).eps
    for _ in range(iterations):
        JJ, right = _normal_equations(best, data)
        diagonal = torch.diagonal(JJ, dim1=-2, dim2=-1)
        lifted = damping[:, None] * diagonal + floor * diagonal.amax(-1, keepdim=True) + absent
        step = torch.linalg.solve(JJ + torch.diag_embed(lifted), right)
        trial = clamped(best + step.unflatten(-1, (-1, 3)), data.cfg)
        new = objective(trial, data)
        better = new < value
        settled = (value - new).abs() <= 1e2 * floor * value
        best = torch.where(better[:, None, None], trial, best)
        value = torch.where(better, new, value)
        damping = torch.where(better, damping / 10, damping * 10).clamp(LOWEST_DAMPING, HIGHEST_DAMPING)
        if bool((settled | (damping >= HIGHEST_DAMPING)).all()):
            break
    return best, value
