"""Near-field Newton: what any implementation owes, and this one on true covariances."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from ris_verified.config import Config, EstimateConfig
from ris_verified.estimate.match import match
from ris_verified.estimate.newton import near_field_newton, null_spectrum
from ris_verified.estimate.parameters import to_parameters
from ris_verified.estimate.result import Peaks
from ris_verified.estimate.spectrum import spectrum
from ris_verified.estimate.subspace import signal_subspace


def _value(peaks, truth):
    U = signal_subspace(truth.R_true, truth.K, truth.cfg.scene.sources_max)
    parameters = to_parameters(peaks)
    present = torch.isfinite(parameters).all(-1)
    return null_spectrum(torch.where(present[..., None], parameters, 1.0), U, truth.cfg).masked_fill(~present, 0.0)


class NewtonContract:
    """What every Newton stage (R, K, Peaks, cfg → Peaks) must do."""

    cfg = Config()
    newton = None

    def test_the_null_spectrum_never_rises_and_nan_stays_nan(self, drawn):
        truth = drawn(self.cfg, 8)
        start = spectrum(truth.R_true, truth.K, self.cfg)
        end = self.newton(truth.R_true, truth.K, start, self.cfg)
        assert (_value(end, truth) <= _value(start, truth)).all()
        assert torch.equal(torch.isnan(end.range), torch.isnan(start.range))

    def test_one_source_is_found_to_a_thousandth_of_its_range(self, drawn):
        cfg = Config.load(None, ["scene.sources_max=1"])
        truth = drawn(cfg, 10)
        end = self.newton(truth.R_true, truth.K, spectrum(truth.R_true, truth.K, cfg), cfg)
        distance = match(end.azimuth, end.elevation, end.range, truth.ptr).distance
        assert (distance <= 1e-3 * truth.ptr[..., 2]).all()

    def test_a_start_at_the_truth_stays_there(self, drawn):
        truth = drawn(self.cfg, 4)
        start = Peaks(*truth.ptr.unbind(-1))
        end = self.newton(truth.R_true, truth.K, start, self.cfg)
        # eigh leaves eps in the subspace, the flattest direction (range) magnifies it.
        assert torch.allclose(to_parameters(end), to_parameters(start), rtol=0, atol=1e-6, equal_nan=True)

    def test_it_stays_in_the_field_of_view(self, drawn):
        truth, s = drawn(self.cfg, 4), self.cfg.scene
        corner = Peaks(*(torch.full((4, s.sources_max), v) for v in (s.azimuth_max, -s.elevation_max, s.range_min)))
        start = Peaks(*(v.double() for v in vars(corner).values()))
        end = self.newton(truth.R_true, truth.K, start, self.cfg)
        eps = 8 * torch.finfo(torch.float64).eps
        assert (end.azimuth.abs() <= s.azimuth_max + eps).all()
        assert (end.elevation.abs() <= s.elevation_max + eps).all()
        assert ((end.range >= s.range_min - eps) & (end.range <= s.range_max * (1 + eps))).all()

    def test_more_iterations_are_no_worse(self, drawn):
        truth = drawn(self.cfg, 4)
        start = spectrum(truth.R_true, truth.K, self.cfg)
        values = []
        for iterations in (1, 4, 16):
            cfg = dataclasses.replace(self.cfg, estimate=EstimateConfig(newton_iterations=iterations))
            values.append(_value(self.newton(truth.R_true, truth.K, start, cfg), truth))
        assert (values[1] <= values[0]).all()
        assert (values[2] <= values[1]).all()
        assert values[2].sum() < values[0].sum()


class TestNearFieldNewton(NewtonContract):
    newton = staticmethod(near_field_newton)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_the_result_has_the_precision_of_the_covariance(drawn, dtype):
    truth = drawn(Config(), 2)
    R = truth.R_true.to(dtype)
    end = near_field_newton(R, truth.K, spectrum(R, truth.K, truth.cfg), truth.cfg)
    assert end.azimuth.dtype == end.range.dtype == R.real.dtype


def test_one_element_sees_no_direction_and_moves_nothing():
    cfg = Config.load(None, ["array.horizontal=1", "array.vertical=1", "scene.sources_max=1"])
    start = Peaks(*(torch.tensor([[value]], dtype=torch.float64) for value in (0.1, 0.2, 3.0)))
    end = near_field_newton(torch.ones(1, 1, 1, dtype=torch.complex128), torch.ones(1, dtype=torch.int64), start, cfg)
    assert torch.equal(to_parameters(end), to_parameters(start))
