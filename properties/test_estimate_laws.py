"""Laws of bound, spectrum, Newton, maximum likelihood and matching over sizes, precisions and positions."""

from __future__ import annotations

import math

import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ris_verified.array.geometry import to_cartesian
from ris_verified.array.steering import steering
from ris_verified.config import ArrayConfig, Config, SceneConfig
from ris_verified.covariance.trace import trace_normalised
from ris_verified.estimate.bound import cramer_rao_bound, measured
from ris_verified.estimate.descent import descend
from ris_verified.estimate.linearised import linearised
from ris_verified.estimate.match import match
from ris_verified.estimate.measurement import Measurement
from ris_verified.estimate.mle import nf_mle
from ris_verified.estimate.newton import near_field_newton, null_spectrum
from ris_verified.estimate.parameters import by_order, clamped, to_parameters, to_peaks, with_slopes
from ris_verified.estimate.projection import objective
from ris_verified.estimate.result import Peaks
from ris_verified.estimate.spectrum import spectrum
from ris_verified.estimate.subspace import signal_subspace

NAN = float("nan")
# An example is a batch of scenes of its own sizes; 25 of them keep this file within its share of the suite's time.
few = settings(max_examples=25)
FLOATS = {torch.float32: torch.complex64, torch.float64: torch.complex128}


def _view(scene):
    low = [-scene.azimuth_max, -scene.elevation_max, 1 / scene.range_max]
    high = [scene.azimuth_max, scene.elevation_max, 1 / scene.range_min]
    return torch.tensor(low, dtype=torch.float64), torch.tensor(high, dtype=torch.float64)


class Case:
    """A batch of generated scenes; `parameters` holds azimuth, elevation, 1/range of `order` of the sources."""

    def __init__(self, cfg, dtype, seed, order):
        self.cfg, self.dtype, self.B = cfg, dtype, len(order)
        self.generator = torch.Generator().manual_seed(seed)
        s, N, most = cfg.scene, cfg.array.elements, cfg.scene.sources_max
        self.order = torch.tensor(order)
        self.present = torch.arange(most) < self.order[:, None]
        self.parameters = self.somewhere()
        self.H_full = self.normal(self.B, s.antennas, N) / math.sqrt(N)
        self.C = torch.polar(torch.ones(()).double(), 2 * math.pi * self.uniform(self.B, s.snapshots, N)).to(
            self.complex
        )
        rows = 1 if s.symbols == "constant" else s.snapshots
        self.symbols = self.normal(self.B, rows, most).expand(-1, s.snapshots, -1) * self.present[:, None]
        self.clean = self.measure(self.parameters, self.symbols)
        self.noise = 0.05
        self.y = self.clean + math.sqrt(self.noise) * self.normal(*self.clean.shape)

    @property
    def complex(self):
        return FLOATS[self.dtype]

    def normal(self, *shape):
        return torch.randn(*shape, dtype=self.complex, generator=self.generator)

    def uniform(self, *shape):
        return torch.rand(*shape, dtype=torch.float64, generator=self.generator)

    def somewhere(self):
        low, high = _view(self.cfg.scene)
        inside = low + (high - low) * (0.05 + 0.9 * self.uniform(self.B, self.present.shape[1], 3))
        return inside.masked_fill(~self.present[..., None], NAN).to(self.dtype)

    def measure(self, parameters, symbols):
        place = torch.where(self.present[..., None], parameters, torch.ones_like(parameters))
        azimuth, elevation, inverse = place.unbind(-1)
        field = steering(self.cfg.array, azimuth, elevation, 1 / inverse).mT
        return torch.einsum("blmk,blk->blm", measured(self.H_full, self.C, field, False), symbols.to(self.complex))

    def data(self, y=None):
        return Measurement.of(self.y if y is None else y, self.H_full, self.C, self.cfg)

    def bound(self, symbols=None, noise=None, keep=None):
        keep = slice(None) if keep is None else keep
        azimuth, elevation, inverse = self.parameters[:, keep].unbind(-1)
        symbols = self.symbols if symbols is None else symbols
        noise = self.noise if noise is None else noise
        return cramer_rao_bound(
            azimuth, elevation, 1 / inverse, symbols[..., keep], self.H_full, self.C, noise, self.cfg
        )


@st.composite
def cases(draw, dtypes=tuple(FLOATS), most=3):
    K = draw(st.integers(1, most))
    # Enough antennas and snapshots that every source's three positions are determined beside its symbols.
    scene = SceneConfig(
        antennas=draw(st.integers(K + 3, 8)),
        snapshots=draw(st.integers(4, 8)),
        sources_max=K,
        symbols=draw(st.sampled_from(["varying", "constant"])),
    )
    array = ArrayConfig(
        horizontal=draw(st.integers(5, 9)),
        vertical=draw(st.integers(4, 8)),
        amplitude=draw(st.sampled_from(["unit", "spherical"])),
    )
    order = draw(st.lists(st.integers(1, K), min_size=1, max_size=3))
    return Case(Config(array=array, scene=scene), draw(st.sampled_from(dtypes)), draw(st.integers(0, 2**31)), order)


double = cases(dtypes=(torch.float64,))


def _agree(a, b, factor=1e6):
    # Relative to the scale of each pair of entries: rounding times the condition of a bound (about 1e5 here).
    finite = torch.isfinite(a)
    assert torch.equal(finite, torch.isfinite(b))
    scale = torch.diagonal(torch.nan_to_num(b, nan=1.0), dim1=-2, dim2=-1).abs().sqrt()
    error = (torch.nan_to_num(a - b)).abs() / (scale[:, :, None] * scale[:, None])
    assert error.max() <= factor * torch.finfo(a.dtype).eps


def _well_posed(case):
    # Nearly coinciding sources make any bound a division by rounding.
    bound = case.bound()
    assume(bool(torch.isfinite(bound.diagonal(dim1=-2, dim2=-1))[case.present.repeat_interleave(3, -1)].all()))
    place = torch.where(case.present[..., None], case.parameters, torch.ones_like(case.parameters))
    a = steering(case.cfg.array, place[..., 0], place[..., 1], 1 / place[..., 2])
    a = a / a.norm(dim=-1, keepdim=True)
    overlap = (a.conj() @ a.mT).abs() * (1 - torch.eye(a.shape[1])) * case.present[:, None]
    assume(float(overlap.max()) < 0.8)
    return bound


# ---- the bound ------------------------------------------------------------------------------------------------------


@few
@given(double, st.floats(1e-3, 1e3))
def test_the_bound_is_proportional_to_noise(case, factor):
    bound = _well_posed(case)
    _agree(case.bound(noise=factor * case.noise), factor * bound)


@few
@given(double, st.floats(0.1, 10))
def test_the_bound_is_inverse_to_symbol_power(case, factor):
    bound = _well_posed(case)
    _agree(case.bound(symbols=math.sqrt(factor) * case.symbols), bound / factor)


@few
@given(double)
def test_a_phase_common_to_all_sources_leaves_the_bound(case):
    # The phase of one source among several does move the bound: J's block of two sources is the real part of a
    # product that carries the difference of their phases.
    bound = _well_posed(case)
    rows = 1 if case.cfg.scene.symbols == "constant" else case.cfg.scene.snapshots
    turn = torch.polar(torch.ones(()).double(), 2 * math.pi * case.uniform(case.B, rows, 1))
    _agree(case.bound(symbols=turn * case.symbols), bound)


@few
@given(cases(dtypes=(torch.float64,), most=1))
def test_a_single_source_has_no_phase_to_the_bound(case):
    turn = torch.polar(torch.ones(()).double(), 2 * math.pi * case.uniform(case.B, 1, 1))
    _agree(case.bound(symbols=turn * case.symbols), case.bound())


@few
@given(double)
def test_absent_sources_do_not_count_in_the_bound(case):
    bound = _well_posed(case)
    for b, k in enumerate(case.order.tolist()):
        alone = case.bound(keep=slice(k))[b : b + 1]
        _agree(bound[b : b + 1, : 3 * k, : 3 * k], alone)
        assert torch.isnan(bound[b, 3 * k :]).all()
        assert torch.isnan(bound[b, :, 3 * k :]).all()


@few
@given(double)
def test_the_bound_is_symmetric_positive_definite(case):
    bound = _well_posed(case)
    for b, k in enumerate(case.order.tolist()):
        own = bound[b, : 3 * k, : 3 * k]
        assert torch.equal(own, own.mT)
        scale = own.diagonal().sqrt()
        assert torch.linalg.eigvalsh(own / torch.outer(scale, scale)).min() > 0


@few
@given(cases(dtypes=(torch.float64,), most=2))
def test_the_bound_is_the_curvature_of_the_objective_without_noise(case):
    # One matrix derived twice: Fisher information by projection, and the objective's Hessian by autograd.
    bound = _well_posed(case)
    data = case.data(case.clean)
    for b, k in enumerate(case.order.tolist()):
        scene = data.only(slice(b, b + 1))

        def value(flat, scene=scene, k=k):
            place = flat.reshape(1, k, 3)
            inverse = 1 / place[..., 2:]
            return objective(torch.cat([place[..., :2], inverse], -1), scene)[0]

        azimuth, elevation, inverse = case.parameters[b, :k].unbind(-1)
        truth = torch.stack([azimuth, elevation, 1 / inverse], -1).flatten()
        hessian = torch.autograd.functional.hessian(value, truth)
        information = torch.linalg.inv(bound[b, : 3 * k, : 3 * k]) * case.noise
        scale = information.diagonal().sqrt()
        error = (hessian - information).abs() / torch.outer(scale, scale)
        assert error.max() <= 1e8 * torch.finfo(torch.float64).eps


# ---- derivatives ----------------------------------------------------------------------------------------------------


@few
@given(double)
def test_slopes_are_finite_differences(case):
    place = torch.where(case.present[..., None], case.parameters, torch.ones_like(case.parameters))
    slopes = with_slopes(place, case.cfg.array)[1].mT
    # Central differences: the step that balances rounding and curvature is eps^(1/3), the error its square.
    step = torch.finfo(torch.float64).eps ** (1 / 3)
    for j in range(3):
        ahead, behind = place.clone(), place.clone()
        ahead[..., j] += step
        behind[..., j] -= step
        a, b = (with_slopes(p, case.cfg.array)[0] for p in (ahead, behind))
        error = ((a - b) / (2 * step) - slopes[..., j]).abs().max()
        # Third derivatives of the phase grow as the cube of k times the aperture, below 30 per unit here.
        assert error <= 30**3 * 10 * step**2


# ---- maximum likelihood ---------------------------------------------------------------------------------------------


def _residual(parameters, case):
    return objective(parameters, case.data())


def _descended(start, data, iterations):
    end, value = start.clone(), data.energy
    for scenes, rows in by_order(start, len(start)):
        part = data.only(scenes)
        done = descend(linearised(clamped(start[scenes[:, None], rows], data.cfg), part), part, iterations, 0.0)
        end[scenes[:, None], rows], value[scenes] = done.parameters, done.rss
    return end, value


@few
@given(cases(), st.integers(1, 12))
def test_descent_never_raises_the_objective_and_reports_it(case, iterations):
    start = case.somewhere()
    end, value = _descended(start, case.data(), iterations)
    # The objective alone and with its slopes are two sums of the same terms: equal to rounding.
    rounding = 1e2 * torch.finfo(case.dtype).eps
    assert (value <= _residual(clamped(start, case.cfg), case) * (1 + rounding)).all()
    assert torch.allclose(value, _residual(end, case), rtol=rounding, atol=0)
    assert torch.equal(torch.isnan(end), torch.isnan(start))
    low, high = (v.to(case.dtype) for v in _view(case.cfg.scene))
    assert ((torch.nan_to_num(end, nan=0.2) >= low) & (torch.nan_to_num(end, nan=0.2) <= high)).all()


@few
@given(double)
def test_the_objective_is_between_zero_and_the_energy(case):
    value, energy = _residual(case.somewhere(), case), case.data().energy
    assert (value >= 0).all()
    assert (value <= energy).all()
    assert (objective(case.parameters, case.data(case.clean)) <= 1e-9 * energy).all()


@few
@given(cases())
def test_absent_sources_do_not_change_the_descent(case):
    start = case.somewhere()
    together, _ = _descended(start, case.data(), 1)
    for b, k in enumerate(case.order.tolist()):
        alone, _ = _descended(start[b : b + 1, :k], case.data().only(slice(b, b + 1)), 1)
        low, high = (v.to(case.dtype) for v in _view(case.cfg.scene))
        # One step solves one system; its condition is at most that of the damped Gram, far below 1e4.
        error = (together[b, :k] - alone[0]).abs() / (high - low)
        assert error.max() <= 1e4 * torch.finfo(case.dtype).eps


@few
@given(double, st.floats(1e-3, 1e3), st.floats(0, 2 * math.pi))
def test_scale_and_phase_of_the_measurement_leave_the_estimate(case, scale, phase):
    start = to_peaks(case.parameters)
    turn = scale * complex(math.cos(phase), math.sin(phase))
    first = nf_mle(start, case.y, case.H_full, case.C, case.cfg)
    second = nf_mle(start, turn * case.y, case.H_full, case.C, case.cfg)
    sigma = torch.diagonal(first.covariance, dim1=-2, dim2=-1).sqrt()[:, ::3]
    assert (torch.nan_to_num((first.azimuth - second.azimuth) / sigma).abs() <= 1e-2).all()


@few
@given(double, st.randoms(use_true_random=False))
def test_the_objective_does_not_know_the_order_of_the_sources(case, random):
    order = list(range(case.present.shape[1]))
    random.shuffle(order)
    start = case.somewhere()
    assert torch.allclose(_residual(start[:, order], case), _residual(start, case), rtol=1e-9, atol=0)


# ---- spectrum and Newton --------------------------------------------------------------------------------------------


@few
@given(cases(), st.integers(1, 10), st.floats(0.05, 1.0))
def test_newton_never_raises_the_null_spectrum(case, iterations, step):
    cfg = Config.load(None, [f"estimate.newton_iterations={iterations}", f"estimate.newton_step={step}"])
    cfg = Config(array=case.cfg.array, scene=case.cfg.scene, estimate=cfg.estimate)
    N = cfg.array.elements
    X = case.normal(case.B, N, 6)
    R = trace_normalised(X @ X.mH)
    start = case.somewhere()
    end = near_field_newton(R, case.order, to_peaks(start), cfg)
    U = signal_subspace(R, case.order, cfg.scene.sources_max)
    before, after = (
        null_spectrum(torch.where(case.present[..., None], p, torch.ones_like(p)), U, cfg)
        for p in (start, to_parameters(end))
    )
    # Written as range and read back, a position may move by rounding.
    assert (after <= before + 1e2 * N * torch.finfo(case.dtype).eps)[case.present].all()
    assert torch.equal(torch.isnan(end.azimuth), ~case.present)


FULL = Config()


@st.composite
def positions(draw, count):
    low, high = _view(FULL.scene)
    share = st.floats(0.02, 0.98)
    drawn = [[draw(share) for _ in range(3)] for _ in range(draw(count))]
    azimuth, elevation, inverse = (low + (high - low) * torch.tensor(drawn).double()).unbind(-1)
    return torch.stack([azimuth, elevation, 1 / inverse], -1)


@few
@given(positions(st.integers(1, 3)))
def test_the_spectrum_of_the_true_covariance_peaks_at_the_truth(ptr):
    a = steering(FULL.array, *ptr.unbind(-1))
    overlap = (a.conj() @ a.T).abs() / FULL.array.elements
    assume(float((overlap - torch.eye(len(ptr))).max()) < 0.3)
    R, K = trace_normalised((a.mT @ a.conj())[None]), torch.tensor([len(ptr)])
    peaks = spectrum(R, K, FULL)
    near = steering(FULL.array, *(v[0, : len(ptr)] for v in vars(peaks).values()))
    share = (near.conj() @ a.T).abs() / FULL.array.elements
    # Half a cell of the default grid away in each axis, a source keeps more than half of its amplitude.
    assert sorted(share.argmax(-1).tolist()) == list(range(len(ptr)))
    assert share.amax(-1).min() > 0.5
    refined = near_field_newton(R, K, peaks, FULL)
    pairs = match(refined.azimuth, refined.elevation, refined.range, ptr[None])
    assert pairs.misses.item() == pairs.false_alarms.item() == 0
    assert (pairs.distance[0] <= 0.01 * ptr[:, 2]).all()


# ---- matching -------------------------------------------------------------------------------------------------------


@st.composite
def matchings(draw):
    def rows(count):
        place = st.tuples(st.floats(-1, 1), st.floats(-0.5, 0.5), st.floats(0.5, 10))
        values = draw(st.lists(st.one_of(place, st.none()), min_size=count, max_size=count))
        return torch.tensor([v or (NAN, NAN, NAN) for v in values]).double().reshape(1, count, 3)

    return rows(draw(st.integers(0, 6))), rows(draw(st.integers(1, 5)))


@given(matchings(), st.randoms(use_true_random=False))
def test_matching_counts_pairs_and_forgets_the_order(case, random):
    estimates, truth = case
    pairs = match(*estimates.unbind(-1), truth)
    given_, wanted = (int(torch.isfinite(v).all(-1).sum()) for v in (estimates, truth))
    assert pairs.misses.item() == max(wanted - given_, 0)
    assert pairs.false_alarms.item() == max(given_ - wanted, 0)
    used = pairs.estimate_index[pairs.estimate_index >= 0].tolist()
    assert len(used) == len(set(used)) == min(given_, wanted)
    assert torch.equal(pairs.estimate_index < 0, torch.isnan(pairs.distance))
    first, second = list(range(estimates.shape[1])), list(range(truth.shape[1]))
    random.shuffle(first)
    random.shuffle(second)
    again = match(*estimates[:, first].unbind(-1), truth[:, second])
    assert torch.isclose(again.distance.nansum(), pairs.distance.nansum(), rtol=1e-12)
    assert (again.misses, again.false_alarms) == (pairs.misses, pairs.false_alarms)
    for true, chosen in enumerate(pairs.estimate_index[0].tolist()):
        if chosen >= 0:
            span = to_cartesian(*truth[0, true]) - to_cartesian(*estimates[0, chosen])
            assert torch.isclose(span.norm(), pairs.distance[0, true], rtol=1e-12, atol=1e-12)


@few
@given(positions(st.integers(1, 5)), st.randoms(use_true_random=False))
def test_the_truth_matches_itself_in_any_order(ptr, random):
    order = list(range(len(ptr)))
    random.shuffle(order)
    shuffled = Peaks(*ptr[order].T[:, None])
    pairs = match(shuffled.azimuth, shuffled.elevation, shuffled.range, ptr[None])
    assert pairs.distance.max() == 0
