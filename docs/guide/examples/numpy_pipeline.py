"""Somebody's NumPy covariance and search as stages; `ris-verified audit --pipeline numpy_pipeline:pipeline`."""

import dataclasses

import numpy as np
import their_music
import torch
from jaxtyping import Complex
from torch import Tensor

import ris_verified as rv
from ris_verified.estimate.result import Peaks
from ris_verified.shapes import as_complex, require_axes, shaped


@shaped
def scene_by_scene(
    y: Complex[Tensor, "B L M"], H: Complex[Tensor, "B M N"], C: Complex[Tensor, "B L N"], cfg: rv.Config
):
    scenes = zip(y.numpy(), H.numpy(), C.numpy(), strict=True)
    found = [their_music.covariance(*scene, cfg.covariance.ridge, cfg.covariance.centre) for scene in scenes]
    return torch.from_numpy(np.stack(found)).to(y.dtype)


@torch.no_grad()
def sample_covariance(y, H_full, C, cfg):
    y, C, H_full = as_complex(y, "y", "B L M"), as_complex(C, "C", "B L N"), as_complex(H_full, "H_full", "B M N")
    return scene_by_scene(y, H_full, C, cfg)


def spectrum(R, K, cfg):
    require_axes("spectrum", {"R": "B N N", "K": "B"}, {"R": R, "K": K}, {"N": cfg.array.elements})
    a, s, e = cfg.array, cfg.scene, cfg.estimate
    view = s.azimuth_max, s.elevation_max, s.range_min, s.range_max
    counts = e.grid_azimuth, e.grid_elevation, e.grid_range
    places, waves = their_music.grid(a.horizontal, a.vertical, a.wavelength, a.spacing, view, counts)
    found = np.full((len(R), s.sources_max, 3), np.nan)
    for row, matrix, count in zip(found, R.numpy(), K.tolist(), strict=True):
        row[:count] = their_music.search(matrix, count, places, waves)
    return Peaks(*torch.from_numpy(found).to(R.real.dtype).unbind(-1))


mine = {"sample_covariance": sample_covariance, "inference_sample_covariance": sample_covariance, "spectrum": spectrum}
pipeline = dataclasses.replace(rv.Pipeline.default(), **mine)
