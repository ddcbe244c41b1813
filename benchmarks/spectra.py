"""Print the time of each spectrum from a dense blend over that from its low-rank form, and how far they are apart.

Run: python benchmarks/spectra.py [--scenes 4] [--repeats 5]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from ris_verified.array.steering import steering
from ris_verified.config import Config
from ris_verified.covariance.low_rank import LowRank, blend_low_rank
from ris_verified.covariance.sample import centred, least_squares_snapshots
from ris_verified.data.dataset import scenes_to_batch, scenes_to_truth
from ris_verified.estimate.grid import spectrum_grid
from ris_verified.estimate.spectra import beamformer_spectrum, music_spectrum, mvdr_spectrum
from ris_verified.scene.scene import draw_scene
from ris_verified.shapes import from_ri


def _drawn(cfg: Config, count: int) -> tuple[LowRank, Tensor]:
    """Return blends of the true steering vectors with the sample covariance, and K."""
    scenes = [draw_scene(cfg, 2, index) for index in range(count)]
    batch, truth = scenes_to_batch(scenes, cfg), scenes_to_truth(scenes, cfg)
    y, H_full, C = (from_ri(value).to(torch.complex128) for value in (batch.y, batch.H_full, batch.C))
    present = torch.isfinite(truth.ptr).all(-1, keepdim=True)
    place = torch.where(present, truth.ptr, torch.ones_like(truth.ptr)).double()
    A = (steering(cfg.array, *place.unbind(-1)) * present).mT
    return blend_low_rank(A, centred(least_squares_snapshots(y, H_full, C, cfg), cfg), cfg), batch.K


def _seconds(work: Callable[[], Tensor], repeats: int) -> float:
    work()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    cfg = Config()
    low, K = _drawn(cfg, args.scenes)
    dense = low.dense()
    places = spectrum_grid(cfg, torch.float64, dense.device).places
    atoms = steering(cfg.array, *places[:, :2].T, 1 / places[:, 2])
    forms: dict[str, Callable[[Tensor | LowRank], Tensor]] = {
        "MUSIC": lambda R: music_spectrum(R, K, atoms),
        "MVDR": lambda R: mvdr_spectrum(R, atoms),
        "Bartlett": lambda R: beamformer_spectrum(R, atoms),
    }
    rank = low.factor.shape[-1]
    sys.stdout.write(f"{args.scenes} scenes, N = {dense.shape[-1]}, rank {rank}, {len(atoms)} grid points\n")
    for name, form in forms.items():
        apart = float((form(low) / form(dense) - 1).abs().max())
        thin, full = (_seconds(lambda R=R, form=form: form(R), args.repeats) for R in (low, dense))  # type: ignore[misc]
        sys.stdout.write(
            f"{name:8}  dense {1e3 * full:7.1f} ms  low rank {1e3 * thin:7.1f} ms  "
            f"ratio {full / thin:5.2f}  apart {apart:.1e}\n"
        )


if __name__ == "__main__":
    main()
