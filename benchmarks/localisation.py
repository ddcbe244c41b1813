"""Judge the classical localisation on drawn scenes: found sources, error over bound, order, time and its floor.

Run: python benchmarks/localisation.py [--scenes 1000] [--snr-db 0 5 10 15 20] [--batch 64] [--sources-min 1] [--key N]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ris_verified.config import Config
from ris_verified.data.dataset import scenes_to_batch, scenes_to_truth
from ris_verified.estimate.bound import cramer_rao_bound
from ris_verified.estimate.descent import descend
from ris_verified.estimate.linearised import linearised_gaussian
from ris_verified.estimate.measurement import Measurement
from ris_verified.estimate.order import chosen_order
from ris_verified.estimate.parameters import by_order
from ris_verified.estimate.search import Nested, greedy_search, nested_search
from ris_verified.evaluate.metrics import errors, summary
from ris_verified.pipeline import Pipeline
from ris_verified.scene.scene import draw_scene
from ris_verified.shapes import from_ri

KEY = 40_961


class Products(TorchDispatchMode):
    """Counts the real operations of matrix products: 2 a real and 8 a complex multiply-add."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.bmm):
            self.operations += (8 if out.is_complex() else 2) * out.numel() * args[0].shape[-1]
        return out


def product_rate() -> float:
    """Return the real operations a second of a large single-precision matrix product, the best of five."""
    a = torch.randn(2048, 2048, generator=torch.Generator().manual_seed(0))
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - began)
    return float(2 * 2048**3 / best)


def drawn(cfg: Config, count: int, key: int = KEY) -> tuple[Any, Any, tuple[Tensor, Tensor, Tensor]]:
    """Return batch, truth and complex measurements of scenes."""
    scenes = [draw_scene(cfg, key, index) for index in range(count)]
    batch, truth = scenes_to_batch(scenes, cfg), scenes_to_truth(scenes, cfg)
    y, H_full, C = (from_ri(value).to(torch.complex128) for value in (batch.y, batch.H_full, batch.C))
    return batch, truth, (y, H_full, C)


def with_truth(nested: Nested, ptr: Tensor, data: tuple[Tensor, Tensor, Tensor], cfg: Config) -> Tensor:
    """Return the deviances with the fit of the true order no worse than one begun at the truth, `K_MAX x B`."""
    places, deviance = torch.cat([ptr[..., :2], 1 / ptr[..., 2:]], -1).double(), nested.deviance.double()
    for scenes, rows in by_order(places, 64):
        y, H_full, C = (value[scenes] for value in data)
        part = Measurement.of(y, H_full, C, cfg)
        done = descend(linearised_gaussian(places[scenes[:, None], rows], part), part, 40, 1e-2)
        deviance[rows.shape[1] - 1, scenes] = torch.minimum(deviance[rows.shape[1] - 1, scenes], done.cost)
    return deviance


def accuracy(snr_db: float, least: int, count: int, key: int, write: Callable[[str], object]) -> None:
    """Print what is found at one SNR, K uniform on `least` … K_MAX."""
    cfg = Config.load(None, [f"scene.snr_db_min={snr_db}", f"scene.snr_db_max={snr_db}", f"scene.sources_min={least}"])
    pipeline, (batch, truth, data) = Pipeline.default(cfg), drawn(cfg, count, key)
    symbols = from_ri(truth.symbols).to(torch.complex128)
    crb = cramer_rao_bound(*truth.ptr.unbind(-1), symbols, *data[1:], truth.noise_variance, cfg)
    judged = errors(pipeline, pipeline.mle(greedy_search(*data, batch.K, cfg), *data, cfg), truth.ptr, crb)
    figures = summary(judged, truth.ptr, torch.ones(count, dtype=torch.bool))
    by_K = [float(judged.found[k == batch.K].double().mean()) for k in range(1, cfg.scene.sources_max + 1)]
    write(
        f"{snr_db:4g} dB: all found {figures['found']:.3f} ({' '.join(f'{v:.3f}' for v in by_K)} for K = 1 … 5), "
        f"strictly {figures['found_strictly']:.3f}, error/bound {figures['error_over_bound_found']:.3f}, "
        f"position off by {figures['position_rmse']:.2f} m (RMS)\n"
    )
    nested = nested_search(*data, cfg)
    for name in ("marginal", "bic", "aicc"):
        other = cfg.replaced({"estimate.order_criterion": name})
        right = chosen_order(nested.residual, nested.deviance, other) == batch.K
        by_K = [float(right[k == batch.K].double().mean()) for k in range(1, cfg.scene.sources_max + 1)]
        write(f"         order by {name}: {float(right.double().mean()):.3f} ({' '.join(f'{v:.3f}' for v in by_K)})\n")
    best = chosen_order(nested.residual, with_truth(nested, truth.ptr, data, cfg), cfg) == batch.K
    write(f"         order by marginal, were no fit of the true order missed: {float(best.double().mean()):.3f}\n")


def speed(K: int, batch_size: int, rate: float, write: Callable[[str], object]) -> None:
    """Print time a scene of search and NF-MLE, the best of five batches, beside the time of its products alone."""
    cfg = Config.load(None, ["scene.snr_db_min=10", "scene.snr_db_max=10", f"scene.sources_min={K}"])
    cfg = cfg.replaced({"scene.sources_max": K})
    pipeline, (batch, _, data) = Pipeline.default(cfg), drawn(cfg, batch_size)
    taken = []
    for _ in range(5):
        began = time.perf_counter()
        peaks = greedy_search(*data, batch.K, cfg)
        middle = time.perf_counter()
        pipeline.mle(peaks, *data, cfg)
        taken.append((time.perf_counter() - began, middle - began))
    both, search = (1e3 * value / batch_size for value in min(taken))
    with Products() as counted:
        pipeline.mle(greedy_search(*data, batch.K, cfg), *data, cfg)
    floor = 1e3 * counted.operations / rate / batch_size
    write(
        f"K = {K}, batches of {batch_size}: {both:.2f} ms a scene (search {search:.2f}, NF-MLE {both - search:.2f}), "
        f"products alone {floor:.2f} ms, ratio {both / floor:.1f}\n"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=1000)
    parser.add_argument("--snr-db", type=float, nargs="*", default=[0.0, 5.0, 10.0, 15.0, 20.0])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--sources-min", type=int, default=1)
    parser.add_argument("--key", type=int, default=KEY, help="of the scenes")
    args, write = parser.parse_args(), sys.stdout.write
    rate = product_rate()
    write(f"{torch.get_num_threads()} threads, single-precision product {rate / 1e9:.0f} Gop/s\n")
    with torch.no_grad():
        for K in (1, 2, 3, 4, 5):
            speed(K, args.batch, rate, write)
        for snr_db in args.snr_db:
            accuracy(snr_db, args.sources_min, args.scenes, args.key, write)
            sys.stdout.flush()


if __name__ == "__main__":
    main()
