"""Bounds against numbers that others printed and against closed forms of the literature."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import chi2

from ris_verified.config import ArrayConfig, Config, SceneConfig
from ris_verified.estimate.array_bound import (
    deterministic_array_bound,
    stochastic_array_bound,
    uncorrelated_array_bound,
)
from ris_verified.estimate.bound import measured_response
from ris_verified.estimate.responses import near_response, planar_response
from ris_verified.estimate.spectra import beamformer_spectrum
from ris_verified.estimate.stochastic import gaussian_information

ONE = torch.ones(1, dtype=torch.float64)
EPS = torch.finfo(torch.float64).eps

# Three sources from −π/3 to π/4 on a half-wavelength line of 10, σ² = 1, 100 snapshots.
ANGLES = [-math.pi / 3, -math.pi / 24, math.pi / 4]
CORRELATED = [[10, 1 + 0.3j, 0.5 - 0.1j], [1 - 0.3j, 11, 0.9 - 0.2j], [0.5 + 0.1j, 0.9 + 0.2j, 9]]
DETERMINISTIC = [
    [2.636339e-06, -2.947961e-08, -2.894480e-08],
    [-2.947961e-08, 5.868361e-07, -1.254243e-08],
    [-2.894480e-08, -1.254243e-08, 1.495266e-06],
]
STOCHASTIC = [
    [2.663109e-06, -3.037374e-08, -2.994223e-08],
    [-3.037374e-08, 5.922466e-07, -1.287051e-08],
    [-2.994223e-08, -1.287051e-08, 1.512018e-06],
]
UNCORRELATED = [
    [1.3757938e-05, -3.7302575e-09, 4.3845873e-08],
    [-3.7302575e-09, 2.2173076e-06, 5.0642214e-09],
    [4.3845873e-08, 5.0642214e-09, 1.4740719e-05],
]


def _line(M, azimuth, **changes):
    """Responses of a line along y to plane waves, referred to its first element, and slopes in azimuth."""
    azimuth = torch.as_tensor(azimuth, dtype=torch.float64)[None]
    array = ArrayConfig(horizontal=M, vertical=1, **changes)
    response = planar_response(array, azimuth, torch.zeros_like(azimuth))
    # Elements counted from the end of the line: correlated symbols are referred to the first one.
    turn = response.a[..., :1].conj()
    return (response.a * turn).mT, (response.slopes[..., :1] * turn[..., None]).transpose(1, 2)


def _agrees(bound, printed, digits):
    # Half a unit of the last printed digit.
    printed = torch.tensor(printed, dtype=torch.float64)
    assert ((bound[0] - printed).abs() <= 0.5 * 10.0 ** (1 - digits) * 10.0 ** printed.abs().log10().floor()).all()


def test_the_deterministic_bound_is_the_printed_one():
    """morriswmz/doatools.py, doatools/tests/test_crb.py, `test_det_farfield_1d`, seven digits."""
    P = torch.tensor([CORRELATED], dtype=torch.complex128)
    _agrees(deterministic_array_bound(*_line(10, ANGLES), P, ONE, 100), DETERMINISTIC, 7)


def test_the_stochastic_bound_is_the_printed_one():
    """morriswmz/doatools.py, doatools/tests/test_crb.py, `test_sto_farfield_1d`, seven digits."""
    P = torch.tensor([CORRELATED], dtype=torch.complex128)
    _agrees(stochastic_array_bound(*_line(10, ANGLES), P, ONE, 100), STOCHASTIC, 7)


def test_the_bound_of_uncorrelated_sources_is_the_printed_one():
    """morriswmz/doatools.py, doatools/tests/test_crb.py, `test_stouc_farfield_1d`, eight digits."""
    powers = torch.tensor([[2.0, 3.0, 1.0]], dtype=torch.float64)
    _agrees(uncorrelated_array_bound(*_line(10, ANGLES), powers, ONE, 100), UNCORRELATED, 8)


def test_the_measurement_model_with_an_open_surface_gives_the_printed_numbers():
    """The eight-digit table of doatools again, through `planar_stochastic_bound`'s information with H = I."""
    azimuth = torch.tensor([ANGLES], dtype=torch.float64)
    cfg = Config(array=ArrayConfig(horizontal=10, vertical=1), scene=SceneConfig(antennas=10, snapshots=100))
    response = planar_response(cfg.array, azimuth, torch.zeros_like(azimuth))
    response = response._replace(slopes=response.slopes[..., :1])
    H, C = torch.eye(10, dtype=torch.complex128)[None], torch.ones(1, 100, 10, dtype=torch.complex128)
    powers = torch.tensor([[2.0, 3.0, 1.0]], dtype=torch.float64)
    J = gaussian_information(*measured_response(H, C, response, False), powers, ONE)
    _agrees(torch.linalg.inv(J)[:, :3, :3], UNCORRELATED, 8)


def _single(M, power, noise, L, model, sine=0.4):
    A, slopes = _line(M, [math.asin(sine)])
    P = torch.full((1, 1, 1), power, dtype=torch.complex128)
    return float(model(A, slopes, P, noise * ONE, L))


@pytest.mark.parametrize("M", [2, 5, 16, 64])
@pytest.mark.parametrize("sine", [0.0, -0.4, 0.85])
def test_one_source_on_a_line_has_the_closed_form(M, sine):
    """6σ²/(L p (k d cosφ)² M(M²−1)): Stoica and Nehorai, IEEE Trans. ASSP 37 (1989), without M ≫ 1."""
    power, noise, L = 0.7, 2.5, 40
    closed = 6 * noise / (L * power * math.pi**2 * (1 - sine**2) * M * (M**2 - 1))
    bound = _single(M, power, noise, L, deterministic_array_bound, sine)
    assert bound == pytest.approx(closed, rel=64 * M * EPS)


@pytest.mark.parametrize("ratio", [1e-3, 0.1, 1.0, 100.0])
def test_unknown_power_costs_one_part_in_the_array_snr(ratio):
    """1 + σ²/(M p): Stoica and Nehorai, IEEE Trans. ASSP 38 (1990), for one source."""
    M = 8
    known = _single(M, ratio, 1.0, 10, deterministic_array_bound)
    unknown = _single(M, ratio, 1.0, 10, stochastic_array_bound)
    # R⁻¹ a cancels p ‖a‖²/σ² leading digits of rounding.
    assert unknown / known == pytest.approx(1 + 1 / (M * ratio), rel=64 * M * EPS * (1 + M * ratio))


def _near_line(M, sine, r, spacing):
    array = ArrayConfig(horizontal=M, vertical=1, spacing_wavelengths=spacing)
    azimuth = torch.tensor([[math.asin(sine)]], dtype=torch.float64)
    response = near_response(array, azimuth, torch.zeros_like(azimuth), torch.full_like(azimuth, r))
    return array, response.a.mT, response.slopes[..., [0, 2]].transpose(1, 2)


@pytest.mark.parametrize("sine", [0.0, 0.5, -0.8])
@pytest.mark.parametrize("r", [0.4, 3.0])
@pytest.mark.parametrize("ratio", [0.1, 10.0])
def test_near_field_bounds_are_proportional(sine, r, ratio):
    """Unconditional = conditional · (1 + σ²/(M p)) in angle and range alike.

    El Korso, Boyer, Renaux and Marcos, "Conditional and unconditional Cramér–Rao bounds for
    near-field source localization", IEEE Trans. Signal Process. 58 (2010); for any parametrisation
    and the exact delay, Gazzah and Delmas, "CRB-based design of linear antenna arrays for near-field
    source localization", IEEE Trans. Antennas Propag. 62 (2014).
    """
    M = 9
    _, A, slopes = _near_line(M, sine, r, 0.25)
    P = torch.full((1, 1, 1), ratio, dtype=torch.complex128)
    known, unknown = (model(A, slopes, P, ONE, 20) for model in (deterministic_array_bound, stochastic_array_bound))
    powers = torch.full((1, 1), ratio, dtype=torch.float64)
    alone = uncorrelated_array_bound(A, slopes, powers, ONE, 20)
    condition = float(torch.linalg.cond(known / (known.diagonal(dim1=1, dim2=2).prod(-1) ** 0.5)))
    limit = 64 * M * EPS * condition * (1 + M * ratio)
    assert torch.allclose(unknown, known * (1 + 1 / (M * ratio)), rtol=limit, atol=0)
    assert torch.allclose(alone, unknown, rtol=limit, atol=0)


@pytest.mark.parametrize("sine", [0.0, 0.5, -0.8])
@pytest.mark.parametrize("M", [3, 8, 15])
def test_near_field_bounds_tend_to_their_closed_forms(M, sine):
    """Angle 6σ²/(Lp k²d² cos²φ M(M²−1)), range 360σ² r⁴/(Lp k²d⁴ cos⁴φ M(M²−1)(M²−4)) to order (D/r)².

    Leading terms of the expansion of the exact bound for a centred line: Begriche, Thameri and
    Abed-Meraim, "Exact conditional and unconditional Cramér–Rao bounds for near field localization",
    Digit. Signal Process. 31 (2014); Delmas, El Korso, Gazzah and Castella, Signal Process. 127 (2016).
    """
    power, noise, L, relative = 2.0, 0.3, 25, []
    P = torch.full((1, 1, 1), power, dtype=torch.complex128)
    for r in (10.0, 100.0):
        array, A, slopes = _near_line(M, sine, r, 0.5)
        bound = deterministic_array_bound(A, slopes, P, noise * ONE, L)[0].diagonal()
        kd, d, cosine = array.wavenumber * array.spacing, array.spacing, 1 - sine**2
        scale = noise / (L * power * kd**2 * cosine * M * (M**2 - 1))
        closed = torch.tensor([6 * scale, 360 * scale * r**4 / (d**2 * cosine * (M**2 - 4))], dtype=torch.float64)
        relative.append((bound / closed - 1).abs())
        # A fraction of the aperture to range, squared; the factor grows as 1/cos²φ towards endfire.
        assert (relative[-1] <= 10 * (M * d / r) ** 2 / cosine).all()
    # The next order of an even expansion: ten times the range, a hundredth of the error.
    assert (relative[1] <= 0.011 * relative[0] + 1e-9).all()


def test_the_maximum_of_the_beamformer_attains_the_stochastic_bound():
    """Maximum likelihood is efficient: Σ error²/bound of 500 runs is χ² with 500 degrees of freedom.

    Stoica and Nehorai, IEEE Trans. ASSP 38 (1990); the interval leaves out 1e-4.
    """
    M, L, runs, power, noise = 8, 200, 500, 1.0, 0.2
    generator = torch.Generator().manual_seed(20250611)
    sigma = math.sqrt(_single(M, power, noise, L, stochastic_array_bound))
    offset = sigma * torch.linspace(-8, 8, 321, dtype=torch.float64)
    atoms = _line(M, math.asin(0.4) + offset)[0][0].T
    truth = _line(M, [math.asin(0.4)])[0][0]
    s, n = (
        torch.randn(runs, rows, L, dtype=torch.complex128, generator=generator) * math.sqrt(scale)
        for rows, scale in ((1, power), (M, noise))
    )
    Y = truth @ s + n
    value = beamformer_spectrum(Y @ Y.mH / L, atoms)
    peak = value.argmax(-1)
    assert ((peak > 0) & (peak < len(offset) - 1)).all()
    left, top, right = (value.gather(1, peak[:, None] + step)[:, 0] for step in (-1, 0, 1))
    error = offset[peak] + (offset[1] - offset[0]) * (left - right) / (left - 2 * top + right) / 2
    low, high = chi2.ppf([5e-5, 1 - 5e-5], runs)
    assert low < float((error / sigma).square().sum()) < high
