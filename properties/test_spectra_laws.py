"""Laws of the spectra and of the eigenvalue order over ranks, conditionings, floors and precisions."""

from __future__ import annotations

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from ris_verified.config import Config, CovarianceConfig
from ris_verified.contracts import tolerance
from ris_verified.covariance.blend import blend
from ris_verified.covariance.low_rank import LowRank, blend_low_rank
from ris_verified.covariance.trace import trace_normalised
from ris_verified.estimate.eigen_order import eigenvalue_criterion, eigenvalue_order
from ris_verified.estimate.spectra import beamformer_spectrum, music_spectrum, mvdr_spectrum

EPS = torch.finfo(torch.float64).eps
# A decomposition, two products and a sum of N terms, each within a few eps · N of its own scale.
FACTOR = 16.0
SEEDS = st.integers(0, 2**31)


class Case:
    """A low-rank covariance of known eigenvalues, an order below every gap, and a grid of random vectors."""

    def __init__(self, B, N, P, spread, floor, seed, dtype):
        self.generator = torch.Generator().manual_seed(seed)
        self.N, self.P, self.dtype = N, P, dtype
        # Powers fall evenly on a logarithmic scale from 1 to 10^−spread.
        self.powers = 10 ** -torch.linspace(0, spread, P, dtype=torch.float64)
        left, right = torch.linalg.qr(self.normal(B, N, P))[0], torch.linalg.qr(self.normal(B, P, P))[0]
        floors = torch.full((B,), floor, dtype=torch.float64)
        self.low = LowRank((left * self.powers.sqrt() @ right).to(dtype), floors.to(dtype.to_real()))
        self.floor = floor
        self.K = torch.randint(1, P + 1, (B,), generator=self.generator)
        self.atoms = torch.cat([self.normal(6, N), left[:, :, 0], left[:, :, -1]]).to(dtype)

    def normal(self, *shape):
        return torch.randn(*shape, dtype=torch.complex128, generator=self.generator)

    @property
    def double(self):
        """The dense covariance of exactly the numbers in the factor."""
        return LowRank(self.low.factor.to(torch.complex128), self.low.floor.double()).dense()

    @property
    def condition(self):
        return 1 + 1 / self.floor

    @property
    def gap(self):
        """λ₁ over the gap behind the K-th power."""
        after = torch.cat([self.powers, torch.zeros(1).double()])
        return 1 / (after[self.K - 1] - after[self.K])

    def complement(self, R):
        """1 − ‖U_Kᴴ a‖²/‖a‖², which the MUSIC spectrum inverts."""
        return 1 / music_spectrum(R, self.K, self.atoms.to(R.factor.dtype if isinstance(R, LowRank) else R.dtype))


@st.composite
def cases(draw, dtype=torch.complex128):
    N = draw(st.integers(3, 40))
    P = draw(st.integers(1, min(N - 1, 12)))
    spread, floor = draw(st.floats(0.3, 6)), 10 ** draw(st.floats(-6, 2))
    return Case(draw(st.integers(1, 3)), N, P, spread, floor, draw(st.integers(0, 2**31)), dtype)


def _relative(a, b):
    return float(((a - b) / b).abs().max())


# ---- the low-rank form is the dense one ------------------------------------------------------------------------------


@given(cases())
def test_minimum_variance_agrees_to_rounding_times_condition(case):
    low, dense = mvdr_spectrum(case.low, case.atoms), mvdr_spectrum(case.double, case.atoms)
    assert _relative(low, dense) <= tolerance(torch.float64, case.N, FACTOR) * case.condition


@given(cases())
def test_the_beamformer_agrees_to_rounding_times_condition(case):
    low, dense = beamformer_spectrum(case.low, case.atoms), beamformer_spectrum(case.double, case.atoms)
    # A vector outside the factor's span meets the floor alone, beside the rounding of the largest power.
    assert _relative(low, dense) <= tolerance(torch.float64, case.N, FACTOR) * case.condition


@given(cases())
def test_music_agrees_to_rounding_over_the_gap(case):
    error = (case.complement(case.low) - case.complement(case.double)).abs().amax(-1)
    # A floor above the powers enters the dense matrix, and with it its rounding.
    bound = tolerance(torch.float64, case.N, FACTOR) * case.gap * (1 + case.floor)
    assert (error <= bound).all()


@given(cases(torch.complex64))
def test_single_precision_agrees_with_the_dense_form_of_its_numbers(case):
    # 1e-5 in every value of all three: both forms compute in double precision and round once.
    atoms = case.atoms.to(torch.complex128)
    for form in (mvdr_spectrum, beamformer_spectrum):
        assert _relative(form(case.low, case.atoms), form(case.double, atoms)) <= 1e-5
    low, dense = (music_spectrum(R, case.K, case.atoms) for R in (case.low, case.double.to(torch.complex64)))
    exact = music_spectrum(case.double, case.K, atoms).clamp_max(1 / torch.finfo(torch.float32).eps)
    assert low.dtype == dense.dtype == torch.float32
    rounding = tolerance(torch.float64, case.N, FACTOR) * case.gap.max()
    assert _relative(low, exact) <= 1e-5 + float(exact.max() * rounding)


@given(cases(torch.complex64))
def test_a_dense_covariance_in_single_precision_loses_its_condition(case):
    # Rounding the entries of R moves R by eps‖R‖, whatever is computed from it afterwards.
    single = case.double.to(torch.complex64)
    bound = tolerance(torch.float32, case.N, 1.0) * case.condition
    if bound < 0.1:
        assert _relative(mvdr_spectrum(single, case.atoms), mvdr_spectrum(case.low, case.atoms)) <= bound
        assert _relative(beamformer_spectrum(single, case.atoms), beamformer_spectrum(case.low, case.atoms)) <= bound


@given(st.integers(1, 5), st.integers(1, 6), st.floats(0, 1), st.floats(1e-6, 1), st.integers(0, 2**31))
def test_the_blend_of_factors_is_the_blend(P, S, beta, loading, seed):
    cfg = Config(covariance=CovarianceConfig(beta=beta, loading=loading))
    generator = torch.Generator().manual_seed(seed)
    A, X = (torch.randn(2, *s, dtype=torch.complex128, generator=generator) for s in ((20, P), (S, 20)))
    R = blend(trace_normalised(A @ A.mH), trace_normalised(X.mT @ X.conj()), cfg).R
    low = blend_low_rank(A, X, cfg)
    distance, size = torch.linalg.matrix_norm(low.dense() - R), torch.linalg.matrix_norm(R)
    assert (distance <= tolerance(torch.float64, 20) * size).all()
    atoms = torch.randn(5, 20, dtype=torch.complex128, generator=generator)
    bound = tolerance(torch.float64, 20, FACTOR) * (1 + 20 * (1 + loading) / loading)
    assert _relative(mvdr_spectrum(low, atoms), mvdr_spectrum(R, atoms)) <= bound


# ---- what each spectrum is -------------------------------------------------------------------------------------------


@given(cases())
def test_minimum_variance_never_exceeds_the_beamformer(case):
    # Cauchy and Schwarz: (aᴴa)² ≤ aᴴRa · aᴴR⁻¹a.
    slack = 1 + tolerance(torch.float64, case.N, FACTOR) * case.condition
    assert (mvdr_spectrum(case.low, case.atoms) <= slack * beamformer_spectrum(case.low, case.atoms)).all()
    assert (mvdr_spectrum(case.double, case.atoms) <= slack * beamformer_spectrum(case.double, case.atoms)).all()


@given(cases(), st.floats(1e-3, 1e3))
def test_power_scales_two_spectra_and_leaves_the_third(case, factor):
    scaled = LowRank(math.sqrt(factor) * case.low.factor, factor * case.low.floor)
    limit = tolerance(torch.float64, case.N, FACTOR) * case.condition
    for form in (mvdr_spectrum, beamformer_spectrum):
        assert _relative(form(scaled, case.atoms), factor * form(case.low, case.atoms)) <= limit
    error = (case.complement(scaled) - case.complement(case.low)).abs().amax(-1)
    assert (error <= tolerance(torch.float64, case.N, FACTOR) * case.gap).all()


@given(cases(), st.floats(0.1, 10), st.floats(0, 2 * math.pi))
def test_length_and_phase_of_a_steering_vector(case, length, phase):
    turned = length * complex(math.cos(phase), math.sin(phase)) * case.atoms
    limit = tolerance(torch.float64, case.N, FACTOR) * case.condition
    for form in (mvdr_spectrum, beamformer_spectrum):
        assert _relative(form(case.low, turned), form(case.low, case.atoms) / length**2) <= limit
    share = 1 / music_spectrum(case.low, case.K, turned)
    assert (share - case.complement(case.low)).abs().max() <= tolerance(torch.float64, case.N, FACTOR)


@given(cases())
def test_the_floor_does_not_turn_the_subspace(case):
    other = LowRank(case.low.factor, torch.zeros_like(case.low.floor))
    assert torch.equal(case.complement(other), case.complement(case.low))


@given(cases())
def test_scenes_of_a_batch_do_not_touch_each_other(case):
    for b in range(len(case.K)):
        alone = LowRank(case.low.factor[b : b + 1], case.low.floor[b : b + 1])
        limit = tolerance(torch.float64, case.N, FACTOR) * case.condition
        assert _relative(mvdr_spectrum(alone, case.atoms), mvdr_spectrum(case.low, case.atoms)[b : b + 1]) <= limit
        one = 1 / music_spectrum(alone, case.K[b : b + 1], case.atoms)
        error = (one - case.complement(case.low)[b]).abs().max()
        assert error <= tolerance(torch.float64, case.N, FACTOR) * case.gap[b]


# ---- the eigenvalue order --------------------------------------------------------------------------------------------


@given(
    st.sampled_from(["aic", "mdl"]), st.integers(2, 12), st.data(), st.floats(0.5, 4), st.floats(-8, 8),
    st.integers(0, 2**31),
)  # fmt: skip
def test_equal_noise_eigenvalues_give_the_number_of_others(criterion, M, data, decades, scale, seed):
    K, snapshots = data.draw(st.integers(0, M - 1)), data.draw(st.integers(2000 * M, 20000 * M))
    generator = torch.Generator().manual_seed(seed)
    eigenvalues = torch.ones(M, dtype=torch.float64)
    eigenvalues[:K] = 1 + 10 ** (decades * torch.rand(K, dtype=torch.float64, generator=generator))
    Q = torch.linalg.qr(torch.randn(M, M, dtype=torch.complex128, generator=generator))[0]
    R = 10**scale * (Q * eigenvalues) @ Q.mH
    # M − 1 sources leave one eigenvalue, and nothing in which it could be unequal.
    assert eigenvalue_order(R[None], snapshots, criterion).tolist() == [K]


@given(st.sampled_from(["aic", "mdl"]), st.integers(2, 12), st.integers(20, 500), st.floats(-3, 3), SEEDS)
def test_the_criterion_does_not_know_the_unit(criterion, M, snapshots, scale, seed):
    generator = torch.Generator().manual_seed(seed)
    value = (1 + torch.rand(2, M, dtype=torch.float64, generator=generator)).sort(-1, descending=True)[0]
    first, second = (eigenvalue_criterion(v, snapshots, criterion) for v in (value, 10**scale * value))
    # Logarithms up to seven, times L (M − k) and two.
    assert (first - second).abs().max() <= tolerance(torch.float64, M, FACTOR) * 14 * snapshots * M
