"""Laws of the search: folded products, gains and exchanges each against the direct way of computing them."""

from __future__ import annotations

import dataclasses
import math
from unittest import mock

import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ris_verified.array.folded import unfolded
from ris_verified.array.steering import steering
from ris_verified.config import ArrayConfig, Config, EstimateConfig, SceneConfig
from ris_verified.estimate.beside import LOADS, NEARER, beside, beside_nothing, beside_powers, deviance_of
from ris_verified.estimate.candidates import (
    _exchanges,
    _gains,
    _look,
    _refined,
    first_source,
    ranked_places,
    refined,
    summits,
)
from ris_verified.estimate.field import HIDDEN, STALE, first_gain, gain, see
from ris_verified.estimate.grid import search_grid
from ris_verified.estimate.linearised import linearised_gaussian
from ris_verified.estimate.measurement import FEW, Measurement
from ris_verified.estimate.parameters import clamped, remoteness
from ris_verified.estimate.projection import STRONGEST, fit

few = settings(max_examples=25)
FLOATS = {torch.float32: torch.complex64, torch.float64: torch.complex128}


class Case:
    """Random measurements of a random channel, and sources somewhere in the view."""

    def __init__(self, cfg, dtype, seed, K):
        generator = torch.Generator().manual_seed(seed)
        s, N, B = cfg.scene, cfg.array.elements, 2

        def normal(*shape):
            return torch.randn(*shape, dtype=FLOATS[dtype], generator=generator)

        phases = 2 * math.pi * torch.rand(B, s.snapshots, N, generator=generator).to(dtype)
        codes = torch.polar(torch.ones_like(phases), phases)
        H_full, self.cfg = normal(B, s.antennas, N) / math.sqrt(N), cfg
        self.data = Measurement.of(normal(B, s.snapshots, s.antennas), H_full, codes, cfg)
        low = torch.tensor([-s.azimuth_max, -s.elevation_max, 1 / s.range_max])
        high = torch.tensor([s.azimuth_max, s.elevation_max, 1 / s.range_min])
        place = low + (high - low) * torch.rand(B, K + 2, 3, generator=generator)
        self.sources, self.places = place[:, :K].to(dtype), place[:, K:].to(dtype)
        self.eps = torch.finfo(dtype).eps

    def columns(self, parameters):
        azimuth, elevation, inverse = parameters.unbind(-1)
        return self.data.seen(steering(self.cfg.array, azimuth, elevation, 1 / inverse))

    def cost(self, parameters, noise, load):
        """Σ_l y_lᴴ R_l⁻¹ y_l + log det R_l, R_l = σ²(I + B_l B_lᴴ/load), densely."""
        B = self.columns(parameters)
        R = B @ B.mH / load[:, None, None, None] + torch.eye(B.shape[2])
        R = R * noise[:, None, None, None]
        solved = torch.linalg.solve(R, self.data.y[..., None])[..., 0]
        return ((self.data.y.conj() * solved).real.sum(-1) + torch.linalg.slogdet(R)[1]).sum(1)


def _gains_at(places, known, data):
    return _gains(_look(places, known, data), known, data)


@st.composite
def cases(draw, dtypes=(torch.float64,), antennas=(6, 9)):
    # Even and odd panels; a middle row or column is its own mirror image.
    array = ArrayConfig(
        horizontal=draw(st.integers(3, 8)),
        vertical=draw(st.integers(3, 8)),
        amplitude=draw(st.sampled_from(["unit", "spherical"])),
    )
    M = draw(st.integers(*antennas))
    scene = SceneConfig(
        antennas=M,
        sources_max=min(3, M - 1),
        snapshots=draw(st.integers(2, 6)),
        symbols=draw(st.sampled_from(["varying", "constant"])),
    )
    grid = EstimateConfig(
        search_azimuth=2 * draw(st.integers(2, 4)), search_elevation=2 * draw(st.integers(2, 3)), search_range=3
    )
    cfg = Config(array=array, scene=scene, estimate=grid)
    return Case(cfg, draw(st.sampled_from(dtypes)), draw(st.integers(0, 2**31)), draw(st.integers(1, min(3, M - 1))))


def _apart(case):
    # Beside sources that nearly span a place a gain is a quotient of roundings.
    columns = case.columns(torch.cat([case.sources, case.places], 1))
    least = torch.linalg.eigvalsh(columns.mH @ columns)[..., 0].amin(1)
    assume(bool((least > 2 * HIDDEN * columns.abs().square().sum(2).mean((1, 2))).all()))


@few
@given(cases(dtypes=tuple(FLOATS)))
def test_folded_products_are_the_plain_ones(case):
    grid = search_grid(case.cfg, case.sources.dtype, torch.device("cpu"))
    rows = case.data.Phi[0]
    parts = unfolded(grid.products(rows))
    folded = grid.volume(torch.complex(parts[:, :, 0], parts[:, :, 1]).transpose(0, 1)).flatten(1)
    azimuth, elevation, inverse = grid.places.double().unbind(-1)
    plain = rows.to(torch.complex128) @ steering(case.cfg.array, azimuth, elevation, 1 / inverse).T
    size = rows.abs().sum(1, keepdim=True).double() * 10
    assert ((folded - plain).abs() <= 8 * case.eps * size).all()


@few
@given(cases(dtypes=tuple(FLOATS)), st.integers(1, 2 * FEW), st.integers(1, 3))
def test_fields_and_rows_meet_the_channel_as_they_meet_phi(case, P, R):
    generator = torch.Generator().manual_seed(P)
    (B, L, M), N, dtype = case.data.y.shape, case.cfg.array.elements, case.data.y.dtype
    v, w = (torch.randn(*shape, dtype=dtype, generator=generator) for shape in ((B, P, N), (B, L, R, M)))
    seen, size = case.data.seen(v), 8 * case.eps * N * case.data.Phi.abs().amax() * v.abs().amax()
    assert ((seen - (case.data.Phi @ v.mT).unflatten(1, (L, M))).abs() <= size).all()
    there, here = w @ seen, case.data.back(w) @ v.mT[:, None]
    assert ((there - here).abs() <= 8 * M * size * w.abs().amax()).all()


@few
@given(cases())
def test_the_energy_of_the_field_is_that_of_the_measurement_but_for_weak_directions(case):
    field = see(case.data)
    azimuth, elevation, inverse = field.grid.places.unbind(-1)
    seen = case.data.seen(steering(case.cfg.array, azimuth, elevation, 1 / inverse)[None])
    energy = torch.stack([field.grid.volume(e.unflatten(1, (4, -1))).flatten(1) for e in field.energy.unbind(1)], 1)
    exact = seen.abs().square().sum(2)
    # What is not followed is at most the fifth singular value of the channel, at every place as for its mean.
    fifth = torch.linalg.svdvals(case.data.H)[:, 4].square() * (case.cfg.array.elements * case.cfg.scene.snapshots)
    if case.cfg.array.amplitude == "unit":
        assert ((energy - exact).abs() <= fifth[:, None, None] * (1 + 1e6 * case.eps)).all()
        # The mean of the others lies between their least and their most.
        assert ((exact - energy).flatten(1).amin(1) <= 0).all()
        assert ((exact - energy).flatten(1).amax(1) >= 0).all()
    assert torch.equal(field.only(torch.tensor([1])).energy, field.energy[1:])


@few
@given(cases())
def test_a_gain_with_free_symbols_is_the_fall_of_the_objective(case):
    _apart(case)
    now = fit(case.sources, case.data)
    known = beside(now, case.data)
    gains = _gains_at(case.places, known, case.data)
    for t in range(case.places.shape[1]):
        more = fit(torch.cat([case.sources, case.places[:, t : t + 1]], 1), case.data)
        assert torch.allclose(gains[:, t], (now.rss - more.rss) / now.noise_variance, rtol=1e-6)
    exchanged = _exchanges(_look(case.places, known, case.data), known)
    for k in range(case.sources.shape[1]):
        for t in range(case.places.shape[1]):
            other = case.sources.clone()
            other[:, k] = case.places[:, t]
            change = (now.rss - fit(other, case.data).rss) / now.noise_variance
            assert torch.allclose(exchanged[:, k, t], change, rtol=1e-6, atol=1e-6)


@few
@given(cases())
def test_a_gain_with_gaussian_symbols_is_the_fall_of_the_dense_likelihood(case):
    _apart(case)
    known = beside(linearised_gaussian(case.sources, case.data), case.data)
    before = case.cost(case.sources, known.noise_variance, known.load)
    gains, exchanged = _gains_at(case.places, known, case.data), _exchanges(_look(case.places, known, case.data), known)
    for t in range(case.places.shape[1]):
        more = torch.cat([case.sources, case.places[:, t : t + 1]], 1)
        change = before - case.cost(more, known.noise_variance, known.load)
        assert torch.allclose(gains[:, t], change, rtol=1e-6, atol=1e-6)
        for k in range(case.sources.shape[1]):
            other = case.sources.clone()
            other[:, k] = case.places[:, t]
            change = before - case.cost(other, known.noise_variance, known.load)
            assert torch.allclose(exchanged[:, k, t], change, rtol=1e-6, atol=1e-6)


@few
@given(cases(antennas=(2, 2)))
def test_where_every_direction_is_followed_the_map_is_the_gain_of_its_places(case):
    _apart(case)
    now, field = fit(case.sources, case.data), see(case.data)
    for known in (beside(now, case.data), beside(linearised_gaussian(case.sources, case.data), case.data)):
        volume = gain(known, case.data, field)[0].flatten(1)
        direct = _gains_at(field.grid.places.expand(2, -1, -1), known, case.data)
        assert torch.allclose(volume, direct, rtol=1e-6, atol=1e-6)


@few
@given(cases(antennas=(2, 2)))
def test_where_every_direction_is_followed_the_first_map_is_exact(case):
    with mock.patch("ris_verified.estimate.field.FIRST", 2):
        grid, volume = first_gain(case.data)
    n, left = case.data.rows, 1 - volume.flatten(1) / case.data.energy[:, None]
    gains = _gains_at(grid.places.expand(2, -1, -1), None, case.data)
    # Gains in nats; beside nothing noise is what one source leaves.
    assert torch.allclose(left, torch.exp(-gains / n), rtol=1e8 * case.eps, atol=1e8 * case.eps)


@few
@given(cases())
def test_a_field_without_sources_that_stay_gives_the_same_gain(case):
    _apart(case)
    K, field = case.sources.shape[1], see(case.data)
    left = field
    for k in range(1, K + 1):
        known = beside(fit(case.sources[:, :k], case.data), case.data)
        _, whole = gain(known, case.data, field)
        _, left = gain(known, case.data, left)
        assert left.without == k
        mean = field.energy.mean((1, 2), keepdim=True)
        high = whole.energy > 4 * HIDDEN * mean
        # What is left only falls, so what is above the floor now has always been.
        assert ((left.energy - whole.energy).abs() <= 1e-9 * mean)[high].all()


@few
@given(cases())
def test_what_all_known_sources_have_left_is_not_projected_again(case):
    _apart(case)
    known, other = (
        beside(fit(p, case.data), case.data) for p in (case.sources, case.places[:, : case.sources.shape[1]])
    )
    assume(known.basis.shape == other.basis.shape)
    _, left = gain(known, case.data, see(case.data))
    volume, again = gain(other, case.data, left)
    floor = STALE * left.energy.mean((1, 2), keepdim=True)
    assert torch.equal(again.energy, torch.maximum(left.energy, floor))
    back = (other.residual.conj()[:, :, None] @ case.data.Phi.unflatten(1, case.data.y.shape[1:]))[:, :, 0]
    azimuth, elevation, inverse = left.grid.places.unbind(-1)
    hits = (back @ steering(case.cfg.array, azimuth, elevation, 1 / inverse).mT).abs().square()
    energy = again.grid.volume(again.energy.unflatten(2, (4, -1)).flatten(0, 1)).flatten(1).view_as(hits)
    assert torch.allclose(volume.flatten(1), other.gain(hits, energy), rtol=1e7 * case.eps, atol=1e7 * case.eps)


@few
@given(cases(antennas=(2, 2)))
def test_beside_nothing_the_field_keeps_all_but_what_is_hidden(case):
    field = see(case.data)
    _, left = gain(beside_nothing(case.data), case.data, field)
    assert torch.equal(left.energy, field.energy.maximum(HIDDEN * field.energy.mean((1, 2), keepdim=True)))


@few
@given(cases(), st.lists(st.floats(-2, 2), min_size=2, max_size=2))
def test_a_far_place_counts_by_the_density_of_sources_and_for_less_the_stronger_the_noise(case, exponents):
    fitted = fit(case.sources, case.data)
    explained = (fitted.columns @ fitted.symbols[..., None])[..., 0]

    def weight(exponent):
        data = dataclasses.replace(case.data, y=explained + 10**exponent * fitted.residual)
        return beside(fit(case.sources, data), data).far_weight

    assume(bool((fitted.rss > case.eps * case.data.energy).all()))
    quiet, loud = sorted(exponents)
    tolerance = 1e4 * case.eps
    assert (weight(quiet) >= weight(loud) - tolerance).all()
    assert torch.allclose(weight(-3), torch.ones(2, dtype=fitted.rss.dtype), atol=1e-9 + tolerance)
    assert torch.allclose(weight(5), torch.full_like(fitted.rss, -NEARER), atol=1e-9 + tolerance)
    # With a power for each source the density counts in full, whatever the noise.
    powers = fitted.symbols.abs().square().mean(1)
    assert (beside_powers(fitted, powers, 1e10 * fitted.noise_variance).far_weight == 1).all()


@few
@given(cases(antennas=(2, 2)))
def test_the_strongest_place_is_in_the_view_and_no_worse_than_the_grid(case):
    _apart(case)
    known, field = beside(fit(case.sources, case.data), case.data), see(case.data)

    def worth(places):
        return _gains_at(places, known, case.data) + known.far_weight[:, None] * remoteness(places, case.cfg)

    points = field.grid.places.expand(2, -1, -1)
    exact, about = worth(points), gain(known, case.data, field)[0].flatten(1)
    about = about + known.far_weight[:, None] * remoteness(points, case.cfg)
    best, (places, promises) = exact.amax(1), ranked_places(known, case.data, field)
    assert (promises.diff(dim=1) <= 0).all()
    place, promise = places[:, 0], promises[:, 0]
    # What is hidden counts as a share of the mean over the places that are looked at, and these differ.
    looked = torch.cat([points[torch.arange(2)[:, None], torch.stack([exact.argmax(1), about.argmax(1)], 1)],
                        place[:, None]], 1)  # fmt: skip
    seen = case.columns(looked)
    energy = seen.abs().square().sum(2) - (known.basis.conj() @ seen).abs().square().sum(2)
    assume(bool((energy > HIDDEN * case.columns(points).abs().square().sum(2).amax()).all()))
    there = worth(place[:, None])[:, 0]
    assert (there >= best - 1e-6 * best.abs()).all()
    assert ((promise - there).abs() <= 1e-6 * there.abs()).all()
    for found in (place, first_source(case.data)):
        assert torch.equal(found, clamped(found, case.cfg))


@few
@given(cases())
def test_refining_a_place_never_lowers_gain_and_worth_of_being_far_together(case):
    _apart(case)
    known = dataclasses.replace(beside(fit(case.sources, case.data), case.data), far_weight=torch.ones(2).double())
    places, gains = refined(case.places, known, case.data)
    before = _gains_at(case.places, known, case.data) + remoteness(case.places, case.cfg)
    after = gains + remoteness(places, case.cfg)
    assert (after >= before - 1e6 * case.eps * (1 + before.abs())).all()


@few
@given(cases())
def test_what_a_refined_place_shows_is_what_a_look_at_it_shows(case):
    _apart(case)
    for known in (None, beside(linearised_gaussian(case.sources, case.data), case.data)):
        places, gains, seen = _refined(case.places, known, case.data)
        assert torch.allclose(gains, _gains(seen, known, case.data), rtol=1e-9, atol=1e-9)
        for kept, looked in zip(seen, _look(places, known, case.data), strict=True):
            assert torch.allclose(kept, looked, rtol=1e-9, atol=1e-9)


@given(st.integers(0, 2**32 - 1), st.tuples(*[st.integers(1, 5)] * 4), st.integers(1, 3), st.integers(1, 30))
def test_summits_are_where_pooling_three_axes_at_once_changes_nothing(seed, shape, levels, count):
    # Few levels make plateaus, negative ones show what lies beyond the edge.
    volume = torch.randint(-levels, 1, shape, generator=torch.Generator().manual_seed(seed)).double()
    pooled = torch.nn.functional.max_pool3d(volume[:, None], 3, stride=1, padding=1)[:, 0]
    heights = torch.where(volume == pooled, volume, -torch.inf).flatten(1)
    assert torch.equal(summits(volume, count), heights.topk(min(count, heights.shape[1])).indices)


@few
@given(cases(), st.floats(1e-3, 1e3))
def test_the_deviance_is_the_dense_likelihood_at_its_best_load(case, scale):
    now = fit(case.sources, case.data)
    values = torch.linalg.eigvalsh(now.columns.mH @ now.columns).mean((1, 2))
    n, least = case.data.rows, torch.full_like(values, torch.inf)
    B = now.columns
    for load in LOADS:
        R = B @ B.mH / (load * values)[:, None, None, None] + torch.eye(B.shape[2])
        q = (case.data.y.conj() * torch.linalg.solve(R, case.data.y[..., None])[..., 0]).real.sum((1, 2))
        least = torch.minimum(least, n * torch.log(q / n) + torch.linalg.slogdet(R)[1].sum(1))
    assert torch.allclose(deviance_of(B, case.data), least, rtol=1e-6, atol=1e-6 * n)
    louder = dataclasses.replace(case.data, y=scale * case.data.y)
    shift = 2 * n * math.log(scale)
    assert torch.allclose(deviance_of(B, louder) - shift, least, rtol=1e-6, atol=1e-6 * n)


@few
@given(cases())
def test_the_cost_of_gaussian_symbols_is_the_dense_likelihood_and_the_slope_its_gradient(case):
    _apart(case)
    now = linearised_gaussian(case.sources, case.data)
    load, n = now.load, case.data.rows

    def cost(parameters):
        B = case.columns(parameters)
        R = (B / load[:, None, None]) @ B.mH + torch.eye(B.shape[2])
        q = (case.data.y.conj() * torch.linalg.solve(R, case.data.y[..., None])[..., 0]).real.sum((1, 2))
        return n * torch.log(q / n) + torch.linalg.slogdet(R)[1].sum(1)

    assert torch.allclose(now.cost, cost(case.sources), rtol=1e-8, atol=1e-8 * n)
    slope = -2 * n * now.slope / now.rss[:, None]
    step, size = 1e-5, slope.abs().amax(1) + n
    for i in range(slope.shape[1]):
        move = torch.zeros_like(case.sources).flatten(1)
        move[:, i] = step
        up, down = (cost(case.sources + sign * move.view_as(case.sources)) for sign in (1, -1))
        # Central differences: the third derivative leaves about (k · panel · step)² of the size.
        assert ((slope[:, i] - (up - down) / (2 * step)).abs() <= 1e-4 * size).all()


@few
@given(cases())
def test_rounds_of_the_load_end_where_the_likelihood_is_highest(case):
    _apart(case)
    now = linearised_gaussian(case.sources, case.data)
    for _ in range(200):
        before, now = now, fit(case.sources, case.data, now.likelier_load)
        if ((now.load / before.load - 1).abs() < 1e-9).all():
            break
    size = now.columns.abs().square().mean((1, 3)).sum(-1)
    # At the limits of a prior the likelihood may go on beyond.
    settled = (now.load[:, 0] > 1e-6 * size) & (now.load[:, 0] < 0.9 * STRONGEST * size)
    settled &= (now.likelier_load / now.load - 1).abs().amax(1) < 1e-6
    for factor in (0.8, 1.25):
        other = fit(case.sources, case.data, factor * now.load)
        assert (other.cost >= now.cost)[settled].all()
    # There the cost is level in the load; beside an end it falls with a slope of its own.
    up, down = (fit(case.sources, case.data, factor * now.load).cost for factor in (1.001, 0.999))
    slope, bend = (up - down) / 2e-3, (up + down - 2 * now.cost) / 1e-6
    assert (slope.abs() <= 1e-4 + 1e-3 * bend.abs())[settled].all()


@few
@given(cases(), st.floats(0.55, 9.5))
def test_remoteness_is_the_density_of_ranges_in_the_chart_of_the_search(case, range):
    def places(r):
        return torch.tensor([0.1, -0.2, 1 / r], dtype=torch.float64)

    # Uniform in range: the share between two ranges over the length of 1/range between them, by central differences.
    def density(r):
        return 2e-4 / (1 / (r - 1e-4) - 1 / (r + 1e-4))

    told = remoteness(places(range), case.cfg) - remoteness(places(1.0), case.cfg)
    assert abs(float(told) - math.log(density(range) / density(1.0))) < 1e-6
    plain = case.cfg.replaced({"estimate.prior": "none"})
    assert float(remoteness(places(range), plain)) == 0
