"""Print what shipped or trained weights do on unseen scenes, beside the greedy search that needs none.

K uniform on 1 … 5, SNR −5 … 20 dB. Learned: one forward pass, peaks of R_blend, Newton, NF-MLE, as `localize` has
them. Greedy: the same without learning. Once with K known and once with K from the K head and from the nested greedy
fits. The capture is printed for blends with other shares of R_samp, too.

Run: python benchmarks/small_model.py [--weights small] [--scenes 1000] [--batch 50] [--key N] [--ship FILE]
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from ris_verified.covariance.capture import subspace_capture
from ris_verified.data.dataset import scenes_to_batch, scenes_to_truth
from ris_verified.estimate.search import greedy_search
from ris_verified.heap import keep_freed_memory
from ris_verified.pipeline import Pipeline
from ris_verified.scene.scene import Scene, draw_scene
from ris_verified.shapes import from_ri
from ris_verified.train.weights import load_model, save_model, stored_config

KEY = 71_404
BETAS = (0.0, 0.1, 0.2, 0.3, 0.5)


def _measure(pipeline: Pipeline, model: nn.Module, scenes: list[Scene]) -> dict[str, Tensor]:
    """Return figures of each scene; times in milliseconds a scene."""
    cfg, batch, truth = (
        pipeline.config,
        scenes_to_batch(scenes, pipeline.config),
        scenes_to_truth(scenes, pipeline.config),
    )
    data = tuple(from_ri(value).to(torch.complex128) for value in (batch.y, batch.H_full, batch.C))
    crb = pipeline.bound(
        *truth.ptr.unbind(-1), from_ri(truth.symbols).to(torch.complex128), *data[1:], truth.noise_variance, cfg
    )
    outputs, blended = pipeline.infer(model, batch.y, batch.H, batch.C, batch.H_full)
    head = outputs.k_logits.argmax(-1) + 1
    figures = {
        "snr": batch.snr.flatten(),
        "capture": subspace_capture(blended.R, batch.ptr, cfg.array),
        "order": (head == batch.K).float(),
    }
    for beta in BETAS:
        mixed = torch.lerp(blended.R_pred, blended.R_samp, beta)
        figures[f"capture were beta {beta}"] = subspace_capture(mixed, batch.ptr, cfg.array)

    def learned(K: Tensor | None) -> object:
        outputs, blended = pipeline.infer(model, batch.y, batch.H, batch.C, batch.H_full)
        K = outputs.k_logits.argmax(-1) + 1 if K is None else K
        peaks = pipeline.spectrum(blended.R, K, cfg)
        return pipeline.newton(blended.R, K, peaks, cfg) if cfg.estimate.newton_nearfield else peaks

    def greedy(K: Tensor | None) -> object:
        return greedy_search(*data, K, cfg)

    for name, search in (("learned", learned), ("greedy", greedy)):
        for known, K in (("known", batch.K), ("unknown", None)):
            began = time.perf_counter()
            peaks = search(K)
            searched = time.perf_counter() - began
            estimates = pipeline.mle(peaks, *data, cfg)
            whole = time.perf_counter() - began
            errors = pipeline.metric(pipeline, estimates, truth.ptr, crb)
            right = torch.isfinite(estimates.azimuth).sum(-1) == batch.K
            figures[f"{name} {known} found"] = (errors.found & right).float()
            for what, value in (("search ms", searched), ("whole ms", whole)):
                figures[f"{name} {known} {what}"] = torch.full((len(scenes),), 1e3 * value / len(scenes))
    return figures


def _share(values: Tensor) -> str:
    return f"{values.mean():.4f} ± {1.96 * values.std() / len(values) ** 0.5:.4f}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=Path("small"))
    parser.add_argument("--scenes", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--key", type=int, default=KEY, help="of the scenes")
    parser.add_argument("--ship", type=Path, metavar="FILE", help="write the weights in half precision and stop")
    args = parser.parse_args()
    # As the command does.
    keep_freed_memory()
    cfg = stored_config(args.weights)
    pipeline = Pipeline.default(cfg)
    model = load_model(args.weights, pipeline)
    if args.ship:
        save_model(model, cfg, args.ship, torch.float16)
        return
    scenes = [draw_scene(cfg, args.key, index) for index in range(args.scenes)]
    with torch.no_grad():
        # Grids and steering vectors are made once, outside the times.
        _measure(pipeline, model, scenes[:4])
        parts = [_measure(pipeline, model, scenes[a : a + args.batch]) for a in range(0, len(scenes), args.batch)]
    figures = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    snr = figures.pop("snr")
    sys.stdout.write(f"{args.scenes} scenes, batches of {args.batch}, {torch.get_num_threads()} thread(s)\n")
    sys.stdout.write(f"order right at 0 dB and above: {_share(figures['order'][snr >= 0])}\n")
    for name, values in figures.items():
        sys.stdout.write(f"{name}: {f'{values.mean():.2f}' if name.endswith('ms') else _share(values)}\n")


if __name__ == "__main__":
    main()
