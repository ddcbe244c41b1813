"""The three spectra on hand-made covariances, on published cases, and without N x N in the low-rank form."""

from __future__ import annotations

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ris_verified.array.steering import planar_steering, steering
from ris_verified.config import ArrayConfig, Config
from ris_verified.covariance.low_rank import LowRank
from ris_verified.errors import InputError, ShapeError
from ris_verified.estimate.grid import spectrum_grid
from ris_verified.estimate.spectra import BLOCK, beamformer_spectrum, music_spectrum, mvdr_spectrum
from ris_verified.estimate.spectrum import music, spectrum, strongest

EPS = torch.finfo(torch.float64).eps
ALL = {
    "music": lambda R, atoms: music_spectrum(R, torch.full((_batch(R),), 2), atoms),
    "mvdr": mvdr_spectrum,
    "beamformer": beamformer_spectrum,
}
every = pytest.mark.parametrize("form", list(ALL.values()), ids=list(ALL))


def _batch(R):
    return len(R.factor) if isinstance(R, LowRank) else len(R)


def _normal(*shape, dtype=torch.complex128):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(sum(shape)))


def _low(B=2, N=12, P=3, floor=0.1, dtype=torch.complex128):
    factor = _normal(B, N, P, dtype=dtype)
    return LowRank(factor, torch.full((B,), floor, dtype=factor.real.dtype))


def _line(M, azimuth):
    return planar_steering(ArrayConfig(horizontal=M, vertical=1), azimuth, 0.0)


@pytest.mark.parametrize("low", [True, False])
def test_one_source_has_its_power(low):
    a, p, c = _normal(1, 6)[0], 2.5, 0.5
    R = LowRank((math.sqrt(p) * a)[None, :, None], torch.tensor([c], dtype=torch.float64))
    R = R if low else R.dense()
    size = float(a.abs().square().sum())
    assert float(beamformer_spectrum(R, a[None])) == pytest.approx(p + c / size, rel=64 * EPS)
    # R⁻¹a = a/(p‖a‖² + c), and the condition of R is about forty.
    assert float(mvdr_spectrum(R, a[None])) == pytest.approx(p + c / size, rel=4096 * EPS)
    assert float(music_spectrum(R, torch.tensor([1]), a[None])) >= 1 / (64 * EPS)
    other = _normal(1, 7)[:, :6]
    cosine = float((a.conj() @ other[0]).abs().square() / (size * other.abs().square().sum()))
    assert float(music_spectrum(R, torch.tensor([1]), other)) == pytest.approx(1 / (1 - cosine), rel=4096 * EPS)


@every
def test_a_grid_of_many_blocks_is_one_grid(form):
    low, atoms = _low(), _normal(2 * BLOCK + 3, 12)
    together = form(low, atoms)
    assert together.shape == (2, len(atoms))
    pieces = torch.cat([form(low, atoms[:5]), form(low, atoms[5:])], -1)
    assert torch.allclose(together, pieces, rtol=1e4 * EPS, atol=0)


@every
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_precision_follows_the_covariance(form, dtype):
    low, atoms = _low(dtype=dtype), _normal(5, 12)
    assert form(low, atoms).dtype == form(low.dense(), atoms).dtype == low.floor.dtype


class _Shapes(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for value in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(value, torch.Tensor):
                self.seen.add(tuple(value.shape[-2:]))
        return out


@every
def test_the_low_rank_form_never_makes_an_n_by_n_matrix(form):
    low, atoms = _low(), _normal(5, 12)
    with _Shapes() as shapes:
        form(low, atoms)
    assert (12, 12) not in shapes.seen
    with _Shapes() as shapes:
        form(low.dense(), atoms)
    assert (12, 12) in shapes.seen


@every
def test_a_grid_of_another_array_is_one_clear_error(form):
    for R in (_low(), _low().dense()):
        with pytest.raises(ShapeError):
            form(R, _normal(5, 11))


def test_a_singular_covariance_has_no_minimum_variance():
    F = _normal(2, 12, 3)
    for R in (F @ F.mH, LowRank(F, torch.tensor([0.1, 0.0]).double())):
        with pytest.raises(InputError, match=r"not positive definite.*loading"):
            mvdr_spectrum(R, _normal(5, 12))


def test_more_sources_than_directions_are_refused():
    for R, K in ((_low(), 4), (_low().dense(), 13)):
        with pytest.raises(InputError, match="at most"):
            music_spectrum(R, torch.tensor([1, K]), _normal(5, 12))


def test_a_direction_that_is_not_there_is_left_out():
    F = _normal(1, 12, 1)
    low = LowRank(torch.cat([F, torch.zeros_like(F)], -1), torch.zeros(1, dtype=torch.float64))
    atoms = _normal(7, 12)
    two, one = (music_spectrum(low, torch.tensor([K]), atoms) for K in (2, 1))
    assert torch.allclose(two, one, rtol=64 * EPS, atol=0)


def test_on_the_grid_of_the_configuration_it_is_the_library_s_own_map():
    cfg = Config()
    A = steering(cfg.array, *torch.tensor([(0.3, -0.2, 2.0), (-0.5, 0.1, 4.0)], dtype=torch.float64).T).mT[None]
    low, K = LowRank(A, torch.full((1,), 0.01, dtype=torch.float64)), torch.tensor([2])
    grid = spectrum_grid(cfg, torch.float64, A.device)
    atoms = steering(cfg.array, *grid.places[:, :2].T, 1 / grid.places[:, 2])
    own, mine = music(low.dense(), K, cfg).flatten(1), music_spectrum(low, K, atoms)
    assert torch.allclose(1 / own, 1 / mine, rtol=0, atol=64 * 144 * EPS)
    wanted = spectrum(low.dense(), K, cfg)
    for value in (mine, mvdr_spectrum(low, atoms)):
        found = strongest(value, K, grid, cfg.scene.sources_max)
        assert found.azimuth[0, :2].sort()[0].sub(wanted.azimuth[0, :2].sort()[0]).abs().max() < 0.05


@pytest.mark.parametrize(("form", "decimals"), [(mvdr_spectrum, 6), (beamformer_spectrum, 3)])
def test_six_waves_on_sixteen_elements_peak_where_published(form, decimals):
    """morriswmz/doatools.py, doatools/tests/test_beamforming.py, `test_beamforming_1d`.

    R = A Aᴴ + I, sources from −π/3 to π/3, 5761 grid points over half a turn: the peaks agree with
    the sources to 6 decimals (MVDR) and 3 (Bartlett).
    """
    sources = torch.linspace(-math.pi / 3, math.pi / 3, 6, dtype=torch.float64)
    grid = torch.linspace(-math.pi / 2, math.pi / 2, 5761, dtype=torch.float64)
    low = LowRank(_line(16, sources).mT[None], torch.ones(1, dtype=torch.float64))
    for R in (low, low.dense()):
        value = form(R, _line(16, grid))[0]
        inner = value[1:-1]
        peak = torch.where((inner > value[:-2]) & (inner >= value[2:]), inner, 0).topk(6)[1] + 1
        # numpy's assert_array_almost_equal allows 1.5 units of the last decimal.
        assert ((grid[peak].sort()[0] - sources).abs() < 1.5 * 10.0**-decimals).all()


def test_five_waves_on_ten_elements_peak_where_published():
    """morriswmz/doatools.py, doatools/tests/test_music.py, `test_music_1d`: 6 decimals, after its refinement."""
    sources = torch.linspace(-math.pi / 3, math.pi / 3, 5, dtype=torch.float64)
    low = LowRank(_line(10, sources).mT[None], torch.ones(1, dtype=torch.float64))
    offset = 1.5e-6 * torch.linspace(-20, 20, 41, dtype=torch.float64)
    for R in (low, low.dense()):
        value = music_spectrum(R, torch.tensor([5]), _line(10, (sources[:, None] + offset).flatten())).reshape(5, 41)
        assert (offset[value.argmax(-1)].abs() < 1.5e-6).all()
