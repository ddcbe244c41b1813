"""Print the time of R_samp by the literal N x N solve of every snapshot over that of `sample_covariance`.

The literal form is x_l = (Φ_lᴴΦ_l + αI)⁻¹ Φ_lᴴ y_l by one batched `torch.linalg.solve` of B x L x N x N, then the
mean-centred covariance with trace N. Ours must agree with it in double precision, to rounding, before both are timed.

Run: python benchmarks/covariance.py [--batch 16] [--repeats 7] [--threads 1]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from ris_verified.config import Config
from ris_verified.covariance.sample import sample_covariance
from ris_verified.covariance.trace import trace_normalised
from ris_verified.data.dataset import scenes_to_batch
from ris_verified.scene.scene import draw_scene
from ris_verified.shapes import from_ri

Measured = tuple[Tensor, Tensor, Tensor]


def _drawn(cfg: Config, count: int) -> Measured:
    batch = scenes_to_batch([draw_scene(cfg, 5, index) for index in range(count)], cfg)
    y, H_full, C = (from_ri(value).to(torch.complex128) for value in (batch.y, batch.H_full, batch.C))
    # Stored codes are rounded to single precision; their modulus is one.
    return y, H_full, C / C.abs()


def _systems(H_full: Tensor, C: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    N = H_full.shape[-1]
    Phi = H_full[:, None] * C[:, :, None]
    alpha = ridge * (Phi.abs().square().sum((-2, -1)) / N + 1e-12)
    return Phi, Phi.mH @ Phi + alpha[..., None, None] * torch.eye(N, dtype=Phi.dtype)


def literal(y: Tensor, H_full: Tensor, C: Tensor, cfg: Config) -> Tensor:
    """Return R_samp as its definition reads, `B x N x N` complex."""
    Phi, system = _systems(H_full, C, cfg.covariance.ridge)
    X = torch.linalg.solve(system, Phi.mH @ y[..., None])[..., 0]
    X = X - X.mean(1, keepdim=True)
    return trace_normalised(X.mT @ X.conj())


def _condition(system: Tensor) -> float:
    values = torch.linalg.eigvalsh(system)
    return float((values[..., -1] / values[..., 0]).max())


def rounding(data: Measured, dtype: torch.dtype, cfg: Config) -> float:
    """Return the bound of ‖ΔR‖_F/‖R‖_F between the literal form in double precision and ours in `dtype`.

    A solve errs by size·eps times its condition, a product over N by N·eps, and R is quadratic in x. Push-through
    solves M x M, whose eigenvalues are the largest M of the N x N system: the other N − M are α.
    """
    _, system = _systems(*data[1:], cfg.covariance.ridge)
    (M, N), eps, wide = data[1].shape[1:], torch.finfo(dtype).eps, torch.finfo(torch.float64).eps
    H, alpha = data[1], torch.linalg.eigvalsh(system[:, 0])[:, 0]
    inner = H @ H.mH + alpha[:, None, None] * torch.eye(M, dtype=H.dtype)
    return 2 * eps * (N + M * _condition(inner)) + 2 * wide * N * _condition(system[:, 0])


def _seconds(forms: dict[str, Callable[[], Tensor]], repeats: int) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in forms}
    for turn in range(repeats + 1):
        for name, form in forms.items():
            began = time.perf_counter()
            form()
            # The first turn warms up.
            if turn:
                times[name].append(time.perf_counter() - began)
    return {name: statistics.median(taken) for name, taken in times.items()}


def compare(dtype: torch.dtype, drawn: Measured, cfg: Config, repeats: int) -> str:
    """Check that both agree, time them and return a line of the table for each form of ours."""
    y, H_full, C = (value.to(dtype) for value in drawn)
    plain = cfg.replaced({"contracts": False})
    ours, theirs = sample_covariance(y, H_full, C, cfg).to(torch.complex128), literal(*drawn, cfg)
    apart = float((torch.linalg.matrix_norm(ours - theirs) / torch.linalg.matrix_norm(theirs)).max())
    bound = rounding(drawn, dtype, cfg)
    if not apart <= bound:
        raise SystemExit(f"{dtype}: R_samp differs by {apart:.2e}, rounding allows {bound:.2e}")
    forms = {
        "with contracts": lambda: sample_covariance(y, H_full, C, cfg),
        "without": lambda: sample_covariance(y, H_full, C, plain),
        "literal": lambda: literal(y, H_full, C, cfg),
    }
    taken = _seconds(forms, repeats)
    slow = taken.pop("literal")
    head = (
        f"{str(dtype).removeprefix('torch.'):10}  apart {apart:.1e} (bound {bound:.1e})  literal {1e3 * slow:7.1f} ms\n"
    )
    return head + "".join(
        f"{'':10}  {name:14}  {1e3 * each:6.2f} ms  ratio {slow / each:6.1f}\n" for name, each in taken.items()
    )


def main() -> None:
    """Check, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cfg = Config()
    sizes = f"B = {args.batch}, L = {cfg.scene.snapshots}, M = {cfg.scene.antennas}, N = {cfg.array.elements}"
    sys.stdout.write(f"{sizes}, {args.threads} thread(s), medians of {args.repeats}\n")
    drawn = _drawn(cfg, args.batch)
    for dtype in (torch.complex64, torch.complex128):
        sys.stdout.write(compare(dtype, drawn, cfg, args.repeats))


if __name__ == "__main__":
    main()
