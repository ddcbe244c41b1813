"""Laws of the stochastic, far-field and array bounds over sizes, positions, powers and noise."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from ris_verified.array.steering import steering
from ris_verified.config import ArrayConfig, Config, SceneConfig
from ris_verified.estimate.array_bound import (
    deterministic_array_bound,
    stochastic_array_bound,
    uncorrelated_array_bound,
)
from ris_verified.estimate.bound import (
    cramer_rao_bound,
    fisher_information,
    measured,
    measured_response,
    planar_cramer_rao_bound,
)
from ris_verified.estimate.responses import near_response, planar_response
from ris_verified.estimate.stochastic import gaussian_information, planar_stochastic_bound, stochastic_bound

EPS = torch.finfo(torch.float64).eps
few = settings(max_examples=25)


class Case:
    """A batch of two scenes with K sources each, everything present and well apart."""

    def __init__(self, cfg, seed, K, noise):
        self.cfg, self.K, self.noise = cfg, K, noise
        self.generator = torch.Generator().manual_seed(seed)
        s, N = cfg.scene, cfg.array.elements
        low = torch.tensor([-s.azimuth_max, -s.elevation_max, 1 / s.range_max], dtype=torch.float64)
        high = torch.tensor([s.azimuth_max, s.elevation_max, 1 / s.range_min], dtype=torch.float64)
        azimuth, elevation, inverse = (low + (high - low) * (0.1 + 0.8 * self.uniform(2, K, 3))).unbind(-1)
        self.places = azimuth, elevation, 1 / inverse
        self.powers = 0.5 + self.uniform(2, K)
        self.H_full = self.normal(2, s.antennas, N) / math.sqrt(N)
        self.C = torch.polar(torch.ones(()).double(), 2 * math.pi * self.uniform(2, s.snapshots, N))

    @property
    def overlap(self):
        """Largest correlation of two responses."""
        a = steering(self.cfg.array, *self.places)
        a = a / a.norm(dim=-1, keepdim=True)
        return float(((a.conj() @ a.mT).abs() * (1 - torch.eye(self.K))).max())

    def normal(self, *shape):
        return torch.randn(*shape, dtype=torch.complex128, generator=self.generator)

    def uniform(self, *shape):
        return torch.rand(*shape, dtype=torch.float64, generator=self.generator)

    @property
    def joint(self):
        return self.cfg.scene.symbols == "constant"

    def seen(self, places=None):
        response = near_response(self.cfg.array, *(places or self.places))
        return measured_response(self.H_full, self.C, response, self.joint)

    def bound(self, noise=None, powers=None, keep=slice(None), rows=slice(None)):
        places = (value[:, keep] for value in self.places)
        powers = self.powers if powers is None else powers
        noise = self.noise if noise is None else noise
        return stochastic_bound(*places, powers[:, keep], self.H_full, self.C[:, rows], noise, self.cfg)


@st.composite
def cases(draw, most=2, symbols=("varying", "constant")):
    K = draw(st.integers(1, most))
    scene = SceneConfig(
        antennas=draw(st.integers(K + 3, 7)),
        snapshots=draw(st.integers(5, 8)),
        sources_max=K,
        symbols=draw(st.sampled_from(symbols)),
    )
    array = ArrayConfig(
        horizontal=draw(st.integers(4, 7)),
        vertical=draw(st.integers(4, 6)),
        amplitude=draw(st.sampled_from(["unit", "spherical"])),
    )
    noise = 10 ** draw(st.floats(-3, 0))
    case = Case(Config(array=array, scene=scene), draw(st.integers(0, 2**31)), K, noise)
    # Nearly coinciding sources make any bound a division by rounding.
    assume(case.overlap < 0.7)
    return case


def _error(a, b):
    """Largest difference relative to the scale of each pair of entries."""
    scale = torch.diagonal(b, dim1=-2, dim2=-1).sqrt()
    return float(((a - b).abs() / (scale[..., :, None] * scale[..., None, :])).max())


def _agree(a, b, factor=1e7):
    # Rounding times the condition of an information matrix.
    assert _error(a, b) <= factor * EPS


def _tends(errors, factor=1e6):
    # A hundredth of the small quantity leaves a fiftieth of the error, or rounding times a condition.
    first, second = errors
    assert second <= first / 50 + factor * EPS
    assert second <= 0.01


def _not_above(small, large, factor=1e7):
    """`large` − `small` is positive semidefinite, to rounding."""
    scale = torch.diagonal(large, dim1=-2, dim2=-1).sqrt()
    least = torch.linalg.eigvalsh((large - small) / (scale[..., :, None] * scale[..., None, :]))[..., 0]
    assert least.min() >= -factor * EPS


# ---- Gaussian symbols through the surface ----------------------------------------------------------------------------


def _covariance(case, flat, b):
    """R_l of the flat parameters (positions, powers, σ²) of one scene, `L x M x M`."""
    azimuth, elevation, range = flat[: 3 * case.K].reshape(case.K, 3).T
    A = steering(case.cfg.array, azimuth, elevation, range).mT
    B = measured(case.H_full[b : b + 1], case.C[b : b + 1], A[None], case.joint)[0]
    eye = torch.eye(B.shape[-2], dtype=B.dtype)
    return (B * flat[3 * case.K : -1]) @ B.mH + flat[-1] * eye


def _flat(case, b):
    places = torch.stack(case.places, -1)[b].flatten()
    return torch.cat([places, case.powers[b], torch.tensor([case.noise], dtype=torch.float64)])


@few
@given(cases())
def test_the_information_is_the_curvature_of_the_expected_likelihood(case):
    # −E log p = Σ log det R(η) + tr R(η)⁻¹R(η₀): its Hessian at η₀ by autograd knows no trace formula.
    information = gaussian_information(*case.seen(), case.powers, torch.full((2,), case.noise, dtype=torch.float64))
    for b in range(2):
        truth = _flat(case, b)
        wanted = _covariance(case, truth, b)

        def expected(flat, wanted=wanted, b=b):
            R = _covariance(case, flat, b)
            mismatch = torch.linalg.solve(R, wanted).diagonal(dim1=-2, dim2=-1)
            return torch.logdet(R).real.sum() + mismatch.real.sum()

        hessian = torch.autograd.functional.hessian(expected, truth)
        _agree(hessian, information[b], 1e7)


@few
@given(cases(), st.floats(1e-3, 1e3))
def test_only_the_ratio_of_powers_to_noise_counts(case, factor):
    _agree(case.bound(noise=factor * case.noise, powers=factor * case.powers), case.bound())


@few
@given(cases())
def test_more_noise_raises_the_bound(case):
    _not_above(case.bound(), case.bound(noise=2 * case.noise))


@few
@given(cases())
def test_another_snapshot_lowers_the_bound(case):
    _not_above(case.bound(), case.bound(rows=slice(1, None)))


@few
@given(cases(symbols=("varying",)), st.integers(2, 9))
def test_repeated_codes_divide_the_bound(case, times):
    wanted = case.bound() / times
    case.C = case.C.repeat(1, times, 1)
    _agree(case.bound(), wanted)


@few
@given(cases())
def test_sources_in_another_order_have_their_own_bounds(case):
    order = torch.arange(case.K).flip(0)
    entry = (3 * order[:, None] + torch.arange(3)).flatten()
    _agree(case.bound(keep=order), case.bound()[:, entry][:, :, entry])


@few
@given(cases(), st.integers(0, 2))
def test_absent_sources_do_not_count(case, where):
    wanted, where = case.bound(), min(where, case.K)
    fill = torch.full((2, 1), torch.nan, dtype=torch.float64)

    def padded(value):
        return torch.cat([value[:, :where], fill, value[:, where:]], 1)

    case.places = tuple(padded(value) for value in case.places)
    bound = case.bound(powers=padded(case.powers))
    here = torch.arange(3 * case.K + 3)
    here = here[(here < 3 * where) | (here >= 3 * where + 3)]
    _agree(bound[:, here][:, :, here], wanted)
    assert torch.isnan(bound[:, 3 * where : 3 * where + 3]).all()
    assert torch.isnan(bound[:, :, 3 * where : 3 * where + 3]).all()


@few
@given(cases(symbols=("varying",)))
def test_symbols_that_are_known_are_never_worse(case):
    # y alone informs no more than (y, s), whose information is the mean of (2/σ²) Re DᴴD s* sᵀ.
    _, D = case.seen()
    P = torch.diag_embed(case.powers).repeat_interleave(3, -1).repeat_interleave(3, -2)
    known = 2 / case.noise * ((D.mH @ D).real.sum(1) * P)
    _not_above(torch.linalg.inv(known), case.bound())


@few
@given(cases(most=1, symbols=("varying",)))
def test_without_noise_one_source_has_the_deterministic_bound(case):
    symbols = case.powers.sqrt()[:, None] * torch.ones(1, case.cfg.scene.snapshots, 1, dtype=torch.complex128)
    errors = []
    for share in (1e-3, 1e-5):
        quiet = share * case.noise
        known = cramer_rao_bound(*case.places, symbols, case.H_full, case.C, quiet, case.cfg)
        errors.append(_error(case.bound(noise=quiet), known))
    # Rounding times the SNR, which cancels in R⁻¹a.
    _tends(errors, 1e9)


@few
@given(cases())
def test_single_precision_inputs_keep_their_bound(case):
    exact = case.bound()
    H, C = case.H_full.to(torch.complex64), case.C.to(torch.complex64)
    rough = stochastic_bound(*case.places, case.powers, H, C, case.noise, case.cfg)
    assert rough.dtype == torch.float32
    same = stochastic_bound(
        *case.places, case.powers, H.to(torch.complex128), C.to(torch.complex128), case.noise, case.cfg
    )
    # Everything between the rounded inputs and the rounded result is in double precision.
    _agree(rough.double(), same, torch.finfo(torch.float32).eps / EPS)
    assert exact.dtype == torch.float64


# ---- far field -------------------------------------------------------------------------------------------------------


@few
@given(cases())
def test_the_far_field_information_is_the_limit_of_the_near(case):
    azimuth, elevation, _ = case.places
    far = measured_response(case.H_full, case.C, planar_response(case.cfg.array, azimuth, elevation), case.joint)
    noise = torch.full((2,), case.noise, dtype=torch.float64)
    J = gaussian_information(*far, case.powers, noise)
    keep = torch.arange(3 * case.K + case.K + 1)
    keep = keep[(keep >= 3 * case.K) | (keep % 3 < 2)]
    errors = []
    for distance in (1e3, 1e5):
        near = case.seen((azimuth, elevation, torch.full_like(azimuth, distance)))
        errors.append(_error(gaussian_information(*near, case.powers, noise)[:, keep][:, :, keep], J))
    _tends(errors)


@few
@given(cases())
def test_the_planar_deterministic_bound_is_the_limit_of_known_ranges(case):
    azimuth, elevation, _ = case.places
    rows, L = (1, case.cfg.scene.snapshots) if case.joint else (case.cfg.scene.snapshots, 1)
    own = case.normal(2, rows, case.K)
    symbols = own.repeat(1, L, 1)
    noise = torch.full((2,), case.noise, dtype=torch.float64)
    far = planar_cramer_rao_bound(azimuth, elevation, symbols, case.H_full, case.C, case.noise, case.cfg)
    errors = []
    for distance in (1e3, 1e5):
        seen, slopes = case.seen((azimuth, elevation, torch.full_like(azimuth, distance)))
        D = (slopes * own.repeat_interleave(3, -1)[:, :, None]).unflatten(-1, (case.K, 3))[..., :2].flatten(-2)
        errors.append(_error(torch.linalg.inv(fisher_information(seen, D, noise)), far))
    _tends(errors)


@few
@given(cases())
def test_the_planar_bound_is_its_information_inverted(case):
    azimuth, elevation, _ = case.places
    far = measured_response(case.H_full, case.C, planar_response(case.cfg.array, azimuth, elevation), case.joint)
    J = gaussian_information(*far, case.powers, torch.full((2,), case.noise, dtype=torch.float64))
    bound = planar_stochastic_bound(azimuth, elevation, case.powers, case.H_full, case.C, case.noise, case.cfg)
    _agree(bound, torch.linalg.inv(J)[:, : 2 * case.K, : 2 * case.K])


@few
@given(cases())
def test_planar_slopes_are_finite_differences(case):
    azimuth, elevation, _ = case.places
    step = EPS ** (1 / 3)
    slopes = planar_response(case.cfg.array, azimuth, elevation).slopes
    for axis, (da, de) in enumerate([(step, 0.0), (0.0, step)]):
        ahead, behind = (
            planar_response(case.cfg.array, azimuth + sign * da, elevation + sign * de).a for sign in (1, -1)
        )
        # Third derivatives of the phase grow as the cube of k times the aperture, below 30 per unit here.
        assert ((ahead - behind) / (2 * step) - slopes[..., axis]).abs().max() <= 30**3 * 10 * step**2


# ---- arrays that are sampled directly --------------------------------------------------------------------------------


def _array(case, distance=None):
    azimuth, elevation, range = case.places
    range = range if distance is None else torch.full_like(range, distance)
    response = near_response(case.cfg.array, azimuth, elevation, range)
    return response.a.mT, response.slopes.transpose(1, 2)


def _symbols(case):
    root = case.normal(2, case.K, case.K + 1)
    return root @ root.mH / case.K


def _noise(case):
    return torch.full((2,), case.noise, dtype=torch.float64)


@few
@given(cases(), st.integers(1, 500))
def test_unknown_symbol_statistics_never_help(case, L):
    A, slopes = _array(case)
    P = _symbols(case)
    _not_above(
        deterministic_array_bound(A, slopes, P, _noise(case), L), stochastic_array_bound(A, slopes, P, _noise(case), L)
    )


@few
@given(cases(), st.integers(1, 500))
def test_knowing_that_sources_are_uncorrelated_never_hurts(case, L):
    A, slopes = _array(case)
    P = torch.diag_embed(case.powers).to(torch.complex128)
    _not_above(
        uncorrelated_array_bound(A, slopes, case.powers, _noise(case), L),
        stochastic_array_bound(A, slopes, P, _noise(case), L),
    )


@few
@given(cases(), st.integers(2, 50), st.floats(1e-3, 1e3))
def test_array_bounds_scale(case, L, factor):
    A, slopes = _array(case)
    P, noise = _symbols(case), _noise(case)
    known = deterministic_array_bound(A, slopes, P, noise, 1)
    _agree(deterministic_array_bound(A, slopes, P, factor * noise, L), factor * known / L)
    unknown = stochastic_array_bound(A, slopes, P, noise, 1)
    _agree(stochastic_array_bound(A, slopes, factor * P, factor * noise, L), unknown / L)


@few
@given(cases(symbols=("varying",)))
def test_an_open_surface_is_the_array_itself(case):
    N, L = case.cfg.array.elements, case.cfg.scene.snapshots
    case.H_full, case.C = torch.eye(N, dtype=torch.complex128).expand(2, N, N), torch.ones_like(case.C)
    A, slopes = _array(case)
    _agree(case.bound(), uncorrelated_array_bound(A, slopes, case.powers, _noise(case), L))
    s = case.normal(2, L, case.K)
    P = s.mT @ s.conj() / L
    wanted = deterministic_array_bound(A, slopes, P, _noise(case), L)
    _agree(cramer_rao_bound(*case.places, s, case.H_full, case.C, case.noise, case.cfg), wanted)


@few
@given(cases(most=1), st.sampled_from([deterministic_array_bound, stochastic_array_bound]))
def test_far_away_an_unknown_range_costs_the_angles_nothing(case, model):
    # Bend is even over a centred panel and tilt is odd, so range and angles come apart as (D/r)².
    azimuth, elevation, _ = case.places
    response = planar_response(case.cfg.array, azimuth, elevation)
    P = torch.diag_embed(case.powers).to(torch.complex128)
    far = model(response.a.mT, response.slopes.transpose(1, 2), P, _noise(case), 10)
    errors = []
    for distance in (30.0, 300.0):
        A, slopes = _array(case, distance)
        errors.append(_error(model(A, slopes, P, _noise(case), 10)[:, :2, :2], far))
    _tends(errors, 1e8)


# ---- Monte Carlo -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("symbols", ["varying", "constant"])
def test_the_information_is_the_covariance_of_the_score(symbols):
    # Scores of drawn measurements, whitened by J, averaged over groups of 100: each entry is N(0, 1).
    scene = SceneConfig(antennas=4, snapshots=3, sources_max=2, symbols=symbols)
    case = Case(Config(array=ArrayConfig(horizontal=4, vertical=3), scene=scene), 7, 2, 0.3)
    groups, size = 150, 100
    truth = _flat(case, 0)
    J = gaussian_information(*case.seen(), case.powers, torch.full((2,), case.noise, dtype=torch.float64))[0]
    value, vector = torch.linalg.eigh(J)
    R, slope = (
        _covariance(case, truth, 0),
        torch.autograd.functional.jacobian(lambda flat: torch.view_as_real(_covariance(case, flat, 0)), truth),
    )
    inverse = torch.linalg.inv(R)
    slope = torch.view_as_complex(slope.movedim(-1, 0).contiguous())
    B = case.seen()[0][0]
    s = case.normal(groups * size, len(B), case.K) * case.powers[0].sqrt()
    noise = math.sqrt(case.noise) * case.normal(groups * size, *B.shape[:2])
    y = torch.einsum("lmk,dlk->dlm", B, s) + noise
    w = torch.einsum("lmn,dln->dlm", inverse, y)
    score = torch.einsum("dlm,ilmn,dln->di", w.conj(), slope, w).real
    score = score - torch.einsum("lmn,ilnm->i", inverse, slope).real
    # Directions that three snapshots cannot tell from each other have no variance to compare.
    told = value > 1e-9 * value[-1]
    means = (score @ vector[:, told] / value[told].sqrt()).reshape(groups, size, -1).mean(1) * math.sqrt(size)
    low, high = chi2.ppf([5e-5, 1 - 5e-5], groups)
    assert int(told.sum()) >= 6
    for energy in means.square().sum(0).tolist():
        assert low < energy < high
    low, high = chi2.ppf([5e-5, 1 - 5e-5], groups * int(told.sum()))
    assert low < float(means.square().sum()) < high
