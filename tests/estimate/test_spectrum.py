"""The spectrum stage: what any implementation owes, and this one against the oracle scenes."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from ris_verified.array.steering import steering
from ris_verified.config import Config, EstimateConfig
from ris_verified.covariance.trace import trace_normalised
from ris_verified.errors import ShapeError
from ris_verified.estimate.match import match
from ris_verified.estimate.spectrum import music, spectrum


def _covariance(cfg, *places):
    A = steering(cfg.array, *torch.tensor(places, dtype=torch.float64).T).mT
    return trace_normalised((A @ A.mH)[None])


def _overlap(cfg, first, second):
    a, b = steering(cfg.array, *first), steering(cfg.array, *second)
    return float((a.conj() * b).sum(-1).abs() / cfg.array.elements)


def _places(peaks):
    return torch.stack([peaks.azimuth, peaks.elevation, peaks.range], -1)


class SpectrumContract:
    """What every spectrum stage (R, K, cfg → Peaks) must do."""

    cfg = Config()
    spectrum = None

    @pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
    def test_mixed_orders_are_padded_with_nan(self, dtype):
        R = _covariance(self.cfg, (0.3, -0.2, 2.0), (-0.5, 0.1, 4.0), (0.8, 0.3, 1.0)).to(dtype).expand(3, -1, -1)
        K = torch.tensor([3, 1, 2])
        peaks = self.spectrum(R, K, self.cfg)
        found = torch.isfinite(_places(peaks)).all(-1)
        assert found.shape == (3, self.cfg.scene.sources_max)
        assert found.sum(-1).tolist() == K.tolist()
        assert peaks.azimuth.dtype == R.real.dtype

    @pytest.mark.parametrize("azimuth", [-0.9, 0.0, 0.6])
    @pytest.mark.parametrize("elevation", [-0.45, 0.13])
    @pytest.mark.parametrize("distance", [0.6, 2.0, 9.0])
    def test_one_source_peaks_in_its_own_main_lobe(self, azimuth, elevation, distance):
        place = (azimuth, elevation, distance)
        peaks = self.spectrum(_covariance(self.cfg, place), torch.tensor([1]), self.cfg)
        assert _overlap(self.cfg, place, tuple(_places(peaks)[0, 0])) > math.sqrt(0.5)

    def test_a_short_vector_is_not_found_twice(self):
        # Near a large panel the spherical amplitude leaves less than half of N.
        array = dataclasses.replace(self.cfg.array, horizontal=16, vertical=12, amplitude="spherical")
        cfg = dataclasses.replace(self.cfg, array=array)
        places = (0.528, -0.193, 0.624), (-0.267, 0.12, 0.575)
        assert float(steering(array, *places[1]).abs().square().sum()) < array.elements / 2
        peaks = _places(self.spectrum(_covariance(cfg, *places), torch.tensor([2]), cfg))[0, :2]
        assert float((peaks[0, :2] - peaks[1, :2]).norm()) > 0.5

    def test_two_ranges_in_one_direction_are_two_sources(self):
        near, far = (0.4, 0.2, 0.7), (0.4, 0.2, 6.0)
        assert _overlap(self.cfg, near, far) < 0.5
        peaks = self.spectrum(_covariance(self.cfg, near, far), torch.tensor([2]), self.cfg)
        found = _places(peaks)[0, :2]
        assert _overlap(self.cfg, near, tuple(found[found[:, 2].argmin()])) > 0.7
        assert _overlap(self.cfg, far, tuple(found[found[:, 2].argmax()])) > 0.7

    def test_the_ridge_of_a_strong_source_hides_no_weak_one(self):
        strong, weak = (-0.3, 0.0, 5.0), (0.5, -0.3, 3.0)
        a, b = (steering(self.cfg.array, *place) for place in (strong, weak))
        R = trace_normalised((30 * torch.outer(a, a.conj()) + torch.outer(b, b.conj()))[None])
        found = _places(self.spectrum(R, torch.tensor([2]), self.cfg))[0, :2]
        for place in (strong, weak):
            assert max(_overlap(self.cfg, place, tuple(one)) for one in found) > 0.7

    def test_scenes_of_a_batch_do_not_touch_each_other(self):
        first = _covariance(self.cfg, (0.3, -0.2, 2.0), (-0.5, 0.1, 4.0))
        second = _covariance(self.cfg, (0.7, 0.3, 1.0))
        both = _places(self.spectrum(torch.cat([first, second]), torch.tensor([2, 1]), self.cfg))
        alone = [_places(self.spectrum(R, torch.tensor([k]), self.cfg)) for R, k in ((first, 2), (second, 1))]
        assert torch.allclose(both, torch.cat(alone), equal_nan=True)

    def test_every_peak_lies_in_the_field_of_view(self, drawn):
        truth = drawn(self.cfg, 6)
        found = _places(self.spectrum(truth.R_true, truth.K, self.cfg))
        s = self.cfg.scene
        inside = torch.nan_to_num(found.abs()) <= torch.tensor([s.azimuth_max, s.elevation_max, s.range_max])
        assert inside.all()
        assert (torch.nan_to_num(found[..., 2], nan=1.0) >= s.range_min).all()

    def test_a_wrong_shape_is_one_clear_error(self):
        with pytest.raises(ShapeError):
            self.spectrum(torch.zeros(2, 144, 143, dtype=torch.complex128), torch.tensor([1, 1]), self.cfg)


class TestMusicPeaks(SpectrumContract):
    spectrum = staticmethod(spectrum)


@pytest.mark.parametrize("index", range(5))
def test_the_true_covariance_of_an_oracle_scene_peaks_at_its_sources(oracle, index):
    scene, cfg = oracle(index), Config(estimate=EstimateConfig(grid_azimuth=96, grid_elevation=48, grid_range=12))
    ptr = torch.from_numpy(np.stack([scene["azimuth"], scene["elevation"], scene["range"]], -1))[None]
    R = torch.from_numpy(scene["R_true"])[None].to(torch.complex128)
    peaks = spectrum(R, torch.tensor([ptr.shape[1]]), cfg)
    pairs = match(peaks.azimuth, peaks.elevation, peaks.range, ptr)
    assert pairs.misses.item() == pairs.false_alarms.item() == 0
    for k, chosen in enumerate(pairs.estimate_index[0].tolist()):
        assert _overlap(cfg, tuple(ptr[0, k]), tuple(_places(peaks)[0, chosen])) > 0.7


def test_the_music_map_has_its_axes_in_order_and_its_peak_where_the_source_is():
    cfg = Config()
    value = music(_covariance(cfg, (0.5, -0.2, 3.0)), torch.tensor([1]), cfg)
    e = cfg.estimate
    assert value.shape == (1, e.grid_range, e.grid_elevation, e.grid_azimuth)
    _, v, h = (int(i) for i in torch.unravel_index(value[0].argmax(), value[0].shape))
    width, height = math.sin(cfg.scene.azimuth_max), math.sin(cfg.scene.elevation_max)
    assert abs(-width + 2 * width * (h + 0.5) / e.grid_azimuth - math.sin(0.5)) < 2 * width / e.grid_azimuth
    assert abs(-height + 2 * height * (v + 0.5) / e.grid_elevation - math.sin(-0.2)) < 2 * height / e.grid_elevation
    assert (value >= 1).all()
