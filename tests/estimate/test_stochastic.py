"""The stochastic and far-field bounds: what they accept, what they refuse, and a case by hand."""

from __future__ import annotations

import math

import pytest
import torch

from ris_verified.config import ArrayConfig, Config, SceneConfig
from ris_verified.errors import InputError, ShapeError
from ris_verified.estimate.array_bound import deterministic_array_bound, uncorrelated_array_bound
from ris_verified.estimate.bound import cramer_rao_bound, planar_cramer_rao_bound
from ris_verified.estimate.responses import near_response, planar_response
from ris_verified.estimate.stochastic import gaussian_information, planar_stochastic_bound, stochastic_bound
from ris_verified.shapes import to_ri

ONE = torch.ones(1, dtype=torch.float64)


def _bounds(truth, **changes):
    """Near and far stochastic bound of drawn scenes."""
    given = {
        "azimuth": truth.ptr[..., 0], "elevation": truth.ptr[..., 1], "range": truth.ptr[..., 2],
        "powers": torch.ones_like(truth.ptr[..., 0]), "H_full": truth.H_full, "C": truth.C,
        "noise_variance": truth.noise_variance, "cfg": truth.cfg,
    } | changes  # fmt: skip
    far = {name: value for name, value in given.items() if name != "range"}
    return stochastic_bound(**given), planar_stochastic_bound(**far)


def test_two_sensors_by_hand():
    # The closed form, and the projection of d = ∂a/∂ω beside a, which is half of it.
    p, noise, omega = 0.7, 0.4, 0.9
    a = torch.tensor([1, complex(math.cos(omega), math.sin(omega))], dtype=torch.complex128)
    d = torch.tensor([0, 1j * a[1]], dtype=torch.complex128)
    bound = uncorrelated_array_bound(a[None, :, None], d[None, :, None, None], p * ONE[:, None], noise * ONE, 1)
    # σ²/2 over dᴴP⊥d · p²aᴴR⁻¹a = ½ · p² · 2/(2p + σ²).
    assert float(bound) == pytest.approx(noise / 2 / (0.5 * p**2 * 2 / (2 * p + noise)), rel=1e-13)


def test_the_information_of_power_and_noise_without_a_position():
    # R = p a aᴴ + σ²I with ‖a‖² = M: eigenvalues Mp + σ² once, σ² M − 1 times.
    M, p, noise = 5, 2.0, 0.5
    a = torch.ones(1, 1, M, 1, dtype=torch.complex128)
    J = gaussian_information(a, torch.zeros_like(a), p * ONE[:, None], noise * ONE)[0]
    top = M * p + noise
    wanted = [[0, 0, 0], [0, M**2 / top**2, M / top**2], [0, M / top**2, 1 / top**2 + (M - 1) / noise**2]]
    assert torch.allclose(J, torch.tensor(wanted, dtype=torch.float64), rtol=1e-13, atol=0)


def test_real_pairs_are_complex_numbers(drawn):
    truth = drawn(Config(), 2)
    pairs = _bounds(truth, H_full=to_ri(truth.H_full), C=to_ri(truth.C))
    for first, second in zip(_bounds(truth), pairs, strict=True):
        assert torch.equal(first.nan_to_num(), second.nan_to_num())
    H, C, noise = to_ri(truth.H_full), to_ri(truth.C), truth.noise_variance
    near = cramer_rao_bound(*truth.ptr.unbind(-1), truth.symbols, H, C, noise, truth.cfg)
    far = planar_cramer_rao_bound(*truth.ptr[..., :2].unbind(-1), truth.symbols, H, C, noise, truth.cfg)
    K = truth.ptr.shape[1]
    assert (near.shape, far.shape) == ((2, 3 * K, 3 * K), (2, 2 * K, 2 * K))


@pytest.mark.parametrize("symbols", ["varying", "constant"])
def test_absent_sources_are_nan_and_the_rest_is_positive(drawn, symbols):
    cfg = Config(scene=SceneConfig(sources_min=1, sources_max=3, symbols=symbols))
    truth = drawn(cfg, 4)
    for bound, p in zip(_bounds(truth), (3, 2), strict=True):
        present = torch.isfinite(truth.ptr[..., 0]).repeat_interleave(p, -1)
        assert torch.equal(torch.isfinite(bound), present[:, None] & present[:, :, None])
        assert (bound.diagonal(dim1=1, dim2=2)[present] > 0).all()


def test_a_known_range_helps_the_angles(drawn):
    truth = drawn(Config(scene=SceneConfig(sources_max=1)), 3)
    near, _ = _bounds(truth)
    known = torch.linalg.inv(torch.linalg.inv(near)[:, :2, :2])
    assert (known.diagonal(dim1=1, dim2=2) < near.diagonal(dim1=1, dim2=2)[:, :2]).all()


@pytest.mark.parametrize("wrong", [-1.0, 0.0, math.nan])
def test_a_power_that_is_not_positive_is_refused(drawn, wrong):
    truth = drawn(Config(scene=SceneConfig(sources_min=2)), 1)
    powers = torch.ones_like(truth.ptr[..., 0])
    powers[0, 1] = wrong
    with pytest.raises(InputError, match="powers"):
        _bounds(truth, powers=powers)


def test_shapes_that_do_not_fit_are_one_clear_error(drawn):
    truth = drawn(Config(), 1)
    for name, value in {
        "powers": torch.ones(1, 2),
        "azimuth": truth.ptr[..., :2, 0],
        "H_full": truth.H_full[0],
    }.items():
        with pytest.raises(ShapeError, match=name):
            _bounds(truth, **{name: value})
    with pytest.raises(ShapeError, match="symbols"):
        planar_cramer_rao_bound(
            *truth.ptr[..., :2].unbind(-1), truth.symbols[:, 1:], truth.H_full, truth.C, 1.0, truth.cfg
        )


def test_a_coordinate_that_the_array_cannot_see_is_named_as_such():
    # A horizontal line does not see the elevation of a source at its own height.
    azimuth, level = torch.tensor([[0.3]]).double(), torch.zeros(1, 1).double()
    line = near_response(ArrayConfig(vertical=1), azimuth, level, torch.full_like(level, 2.0))
    A, slopes = line.a.mT, line.slopes.transpose(1, 2)
    P, powers = torch.ones(1, 1, 1, dtype=torch.complex128), ONE[:, None]
    for model, strength in ((deterministic_array_bound, P), (uncorrelated_array_bound, powers)):
        with pytest.raises(InputError, match="batch entry 0: the Fisher information is singular"):
            model(A, slopes, strength, ONE, 10)
        assert torch.isfinite(model(A, slopes[..., [0, 2]], strength, ONE, 10)).all()


def test_planar_slopes_on_the_axis_by_hand():
    # Straight ahead the azimuth moves the phase by k y, the elevation by k z.
    array, zero = ArrayConfig(horizontal=3, vertical=2), torch.zeros(1, 1).double()
    response = planar_response(array, zero, zero)
    y = torch.tensor([-1.0, 0, 1] * 2).double()
    z = torch.tensor([-0.5] * 3 + [0.5] * 3).double()
    wanted = 1j * math.pi * torch.stack([y, z], -1)
    assert torch.allclose(response.slopes[0, 0], wanted, rtol=0, atol=1e-15)


def _given(truth):
    return {
        "azimuth": truth.ptr[..., 0], "elevation": truth.ptr[..., 1], "range": truth.ptr[..., 2],
        "symbols": truth.symbols, "H_full": truth.H_full, "C": truth.C,
        "noise_variance": truth.noise_variance, "cfg": truth.cfg,
    }  # fmt: skip


def _all_bounds(given):
    """Near and far, deterministic and stochastic."""
    powers = {name: value for name, value in given.items() if name != "symbols"}
    powers["powers"] = torch.ones_like(given["azimuth"])
    near = [(cramer_rao_bound, given), (stochastic_bound, powers)]
    planar = [(planar_cramer_rao_bound, given), (planar_stochastic_bound, powers)]
    far = [(bound, {name: value for name, value in each.items() if name != "range"}) for bound, each in planar]
    return [lambda bound=bound, each=each: bound(**each) for bound, each in near + far]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("H_full", lambda H: H[..., :100]),
        ("H_full", lambda H: H[:2]),
        ("H_full", lambda H: H[:1]),
        ("C", lambda C: C[:1]),
        ("C", lambda C: C[..., 1:]),
        ("noise_variance", lambda noise: noise[:2]),
    ],
)
def test_axes_that_do_not_agree_are_one_error_in_every_bound(drawn, name, change):
    given = _given(drawn(Config(), 3))
    for bound in _all_bounds(given | {name: change(given[name])}):
        with pytest.raises(ShapeError, match=name):
            bound()


@pytest.mark.parametrize("noise", [0.0, -1.0, math.nan])
def test_a_noise_variance_that_is_not_positive_is_one_error_in_every_bound(drawn, noise):
    for bound in _all_bounds(_given(drawn(Config(), 1)) | {"noise_variance": noise}):
        with pytest.raises(InputError, match="noise_variance"):
            bound()


def test_what_is_not_determined_is_one_error(drawn):
    given = _given(drawn(Config(scene=SceneConfig(sources_min=2, sources_max=2)), 2))
    line = _given(drawn(Config(array=ArrayConfig(vertical=1), scene=SceneConfig(sources_max=1)), 2))
    silent = given["symbols"].clone()
    silent[1, :, 1] = 0
    twice = {name: given[name][:, :1].expand(-1, 2) for name in ("azimuth", "elevation", "range")}
    for wrong, where in ((line, 0), (given | twice, 0), (given | {"symbols": silent}, 1)):
        with pytest.raises(InputError, match=f"batch entry {where}: the Fisher information is singular"):
            cramer_rao_bound(**wrong)


def test_rounding_alone_tells_no_two_sources_apart(drawn):
    for first in range(16):
        given = _given(drawn(Config(scene=SceneConfig(sources_min=2, sources_max=2)), 1, first))
        nearly = {n: given[n][:, :1] + 1e-8 * torch.arange(2) for n in ("azimuth", "elevation", "range")}
        with pytest.raises(InputError, match="singular"):
            cramer_rao_bound(**given | nearly)


def test_single_precision_is_the_bound_of_double_precision(drawn):
    given = _given(drawn(Config(), 3))
    wide = cramer_rao_bound(**given)
    single = {n: v.to(torch.complex64) if n in ("symbols", "H_full", "C") else v for n, v in given.items()}
    narrow = cramer_rao_bound(**single)
    assert narrow.dtype == torch.float32
    eps = torch.finfo(torch.float32).eps
    # What the numbers lose when they are rounded comes back multiplied by the condition of close sources.
    assert torch.allclose(narrow.double().nan_to_num(), wide.nan_to_num(), rtol=1000 * eps, atol=1000 * eps)


def test_a_channel_as_it_is_stored_does_not_round_the_bound(drawn):
    truth = drawn(Config(), 2)
    half = to_ri(truth.H_full).half()
    for coarse, exact in zip(_bounds(truth, H_full=half), _bounds(truth, H_full=half.double()), strict=True):
        assert coarse.dtype == torch.float32
        torch.testing.assert_close(coarse, exact.float(), equal_nan=True)


def test_arrays_are_told_to_be_tensors(drawn):
    truth = drawn(Config(), 1)
    with pytest.raises(ShapeError, match=r"azimuth: ndarray.*torch\.from_numpy"):
        _bounds(truth, azimuth=truth.ptr[..., 0].numpy())
