"""Print how often the classical search finds all sources, how often each criterion gets K right, and the time of both.

Run: python benchmarks/localisation.py [--snr-db 10] [--scenes 80]
"""

from __future__ import annotations

import argparse
import sys
import time

import torch

from ris_verified.config import Config
from ris_verified.data.dataset import scenes_to_batch, scenes_to_truth
from ris_verified.estimate.bound import cramer_rao_bound
from ris_verified.estimate.order import order_criterion
from ris_verified.estimate.search import greedy_search, nested_search
from ris_verified.evaluate.metrics import errors, summary
from ris_verified.pipeline import Pipeline
from ris_verified.scene.scene import draw_scene
from ris_verified.shapes import from_ri


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--snr-db", type=float, default=10.0)
    parser.add_argument("--scenes", type=int, default=80)
    args = parser.parse_args()
    cfg = Config.load(None, [f"scene.snr_db_min={args.snr_db}", f"scene.snr_db_max={args.snr_db}"])
    pipeline, write = Pipeline.default(cfg), sys.stdout.write
    scenes = [draw_scene(cfg, 2, index) for index in range(args.scenes)]
    batch, truth = scenes_to_batch(scenes, cfg), scenes_to_truth(scenes, cfg)
    y, H_full, C = (from_ri(value).to(torch.complex128) for value in (batch.y, batch.H_full, batch.C))
    symbols = from_ri(truth.symbols).to(torch.complex128)
    crb = cramer_rao_bound(*truth.ptr.unbind(-1), symbols, H_full, C, truth.noise_variance, cfg)
    began = time.perf_counter()
    peaks = greedy_search(y, H_full, C, batch.K, cfg)
    searched = time.perf_counter()
    judged = errors(pipeline, pipeline.mle(peaks, y, H_full, C, cfg), truth.ptr, crb)
    refined = time.perf_counter()
    figures = summary(judged, truth.ptr, torch.ones(args.scenes, dtype=torch.bool))
    write(f"{args.scenes} scenes, {args.snr_db:g} dB, K known: ")
    write(", ".join(f"{name} {figures[name]:.3f}" for name in ("found", "found_strictly", "error_over_bound_found")))
    each = 1e3 / args.scenes
    write(f"\nsearch {(searched - began) * each:.0f} ms, NF-MLE {(refined - searched) * each:.0f} ms")
    residual = nested_search(y, H_full, C, cfg).residual.double()
    write(f", nested search {(time.perf_counter() - refined) * each:.0f} ms a scene\n")
    for name in ("bic", "aicc"):
        choice = order_criterion(residual, cfg.replaced({"estimate.order_criterion": name})).argmin(0) + 1
        write(f"order right by {name}: {float((choice == batch.K).double().mean()):.3f}\n")


if __name__ == "__main__":
    main()
