"""Print the time of a MUSIC spectrum per grid point and covariance, here and in three published libraries.

Every contender gets the same covariances, R = A P Aᴴ + σ²I of a free-field array, and the same near-field grid. The
noise eigenvalues are spread by 1e-4: acoular weighs the noise subspace by them, which unequal ones would show, and
pyargus, which takes R for a general matrix, finds no orthogonal eigenvectors of equal ones. Each normalised spectrum must agree with a double-precision reference before it is timed. Times include the
eigendecomposition of every covariance and exclude whatever a contender can prepare once for all covariances: grid and
steering vectors. A library that is not installed is reported as absent: `pip install 'ris-verified[peers]'`.

Run: python benchmarks/peers.py [--covariances 64] [--threads 1] [--repeats 3] [--sources 3] [--grid 8 32 64]
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ris_verified.array.geometry import element_positions, to_cartesian
from ris_verified.array.steering import steering
from ris_verified.config import Config
from ris_verified.covariance.low_rank import LowRank
from ris_verified.estimate.grid import spectrum_grid
from ris_verified.estimate.folded_spectrum import folded_music, low_rank_subspace
from ris_verified.estimate.spectrum import music, signal_subspace
from ris_verified.scene.scene import draw_scene

Array = NDArray[Any]
Spectrum = Callable[[int], Array]
NOISE, RIPPLE = 0.1, 1e-4
# The columns of R_blend's factor: K_MAX of the prediction and L of the sample covariance.
WIDTH = 21
SPEED = 1.0
PLACE = ("azimuth", "elevation", "range")
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


@dataclass(frozen=True)
class Problem:
    """What every contender is given.

    Args:
        cfg: array, field of view and grid.
        sources: K, the same for every covariance.
        R: `B x N x N` complex128, trace N.
        low: the same as a `LowRank` of `WIDTH` columns, without the spread of the noise.
        sensors: `N x 3`, metres.
        points: `G x 3`, metres.
        atoms: `G x N` complex128, norm one.
        null: `B x G`, 1 − ‖Uᴴa‖² in double precision.
        spread: ‖R‖₂ over the gap that separates the signal subspace, the largest of all covariances.
        noise_spread: ‖R‖₂ over the smallest gap in the noise.
    """

    cfg: Config
    sources: int
    R: Array
    low: LowRank
    sensors: Array
    points: Array
    atoms: Array
    null: Array
    spread: float
    noise_spread: float

    @classmethod
    def drawn(cls, cfg: Config, count: int, sources: int) -> Problem:
        """Draw positions as scenes are drawn, and form covariances and the reference."""
        picked = cfg.replaced({"scene.sources_min": sources, "scene.sources_max": sources})
        scenes = [draw_scene(picked, 4, index) for index in range(count)]
        A = steering(cfg.array, *(np.stack([vars(s)[name] for s in scenes]) for name in PLACE)).mT
        wide = torch.linalg.qr(torch.randn(WIDTH, sources, dtype=A.dtype, generator=torch.Generator().manual_seed(0)))[
            0
        ]
        scale = (1 / (sources + NOISE)) ** 0.5
        low = LowRank(scale * A @ wide.mH, torch.full((count,), NOISE * scale**2, dtype=torch.float64))
        R, floor = low.dense(), float(low.floor[0])
        parameters, atoms = spectrum_grid(cfg, torch.float64, R.device)
        azimuth, elevation, inverse = parameters.unbind(-1)
        values, vectors = torch.linalg.eigh(R)
        U, rest = vectors[..., -sources:], vectors[..., :-sources]
        ripple = RIPPLE * floor * torch.linspace(-0.5, 0.5, rest.shape[-1], dtype=torch.float64)
        R = R + (rest * ripple) @ rest.mH
        null = torch.stack([(atoms - (atoms @ u.conj()) @ u.mT).abs().square().sum(-1) for u in U])
        gap = values[:, -sources] - values[:, -sources - 1]
        points = to_cartesian(azimuth, elevation, 1 / inverse)
        return cls(
            cfg, sources, R.numpy(), low, element_positions(cfg.array).numpy(), points.numpy(), atoms.numpy(),
            null.numpy(), float((values[:, -1] / gap).max()),
            float(values[:, -1].max() / (ripple[1] - ripple[0])),
        )  # fmt: skip


@dataclass(frozen=True)
class Contender:
    """A way to a spectrum.

    Args:
        name: what the table calls it.
        prepare: problem → function of the number of covariances, giving `B x G`.
        covariances: how many it does in one timed call; None for all.
        arithmetic: dtype of its products.
        phase: rounding of its phases in units of k·distance.
        weighed: True where noise eigenvalues weigh the noise subspace.
        general: True where eigenvectors are not made orthogonal.
        peer: True for another library.
    """

    name: str
    prepare: Callable[[Problem], Spectrum]
    covariances: int | None = 1
    arithmetic: type[np.floating[Any]] = np.float64
    phase: float = 2.0**-53
    weighed: bool = False
    general: bool = False
    peer: bool = True


def _ours(dtype: torch.dtype, form: Callable[[Tensor, Tensor, Config], Tensor]) -> Callable[[Problem], Spectrum]:
    def prepare(problem: Problem) -> Spectrum:
        R = torch.from_numpy(problem.R).to(dtype)
        K = torch.full((len(R),), problem.sources)
        return lambda count: form(R[:count], K[:count], problem.cfg).flatten(1).numpy()

    return prepare


def _folded(R: Tensor, K: Tensor, cfg: Config) -> Tensor:
    return folded_music(signal_subspace(R, K, int(K.max())), cfg)


def _ours_low_rank(problem: Problem) -> Spectrum:
    K = torch.full((len(problem.R),), problem.sources)

    def spectra(count: int) -> Array:
        low = LowRank(problem.low.factor[:count], problem.low.floor[:count])
        U = low_rank_subspace(low, K[:count], problem.sources)
        found: Array = folded_music(U.to(torch.complex64), problem.cfg).flatten(1).numpy()
        return found

    return spectra


def _numpy(problem: Problem) -> Spectrum:
    def one(R: Array) -> Array:
        U = np.linalg.eigh(R)[1][:, -problem.sources :]
        seen = problem.atoms.conj() @ U
        value: Array = 1 / (1 - (seen.real**2 + seen.imag**2).sum(-1))
        return value

    return lambda count: np.stack([one(R) for R in problem.R[:count]])


def _acoular(stored: bool) -> Callable[[Problem], Spectrum]:
    def prepare(problem: Problem) -> Spectrum:
        acoular = import_module("acoular")
        # It turns its threads off where NumPy came first.
        import_module("numba").set_num_threads(int(os.environ["NUMBA_NUM_THREADS"]))
        acoular.config.global_caching = "none"
        frequency = SPEED / problem.cfg.array.wavelength
        grid, mics = acoular.ImportGrid(), acoular.MicGeom(pos_total=problem.sensors.T.copy())
        grid._gpos = problem.points.T.copy()
        env = acoular.Environment(c=SPEED)
        known = np.ascontiguousarray(problem.atoms)
        vectors = type("Stored", (acoular.SteeringVector,), {"steer_vector": lambda self, f, ind=None: known})
        kind = vectors if stored else acoular.SteeringVector
        steer = kind(grid=grid, mics=mics, env=env, steer_type="classic")

        def spectra(count: int) -> Array:
            data = acoular.PowerSpectraImport(csm=problem.R[:count], frequencies=np.full(count, frequency))
            bf = acoular.BeamformerMusic(freq_data=data, steer=steer, n=problem.sources, cached=False)
            return np.asarray(bf.result[:])

        return spectra

    return prepare


def _pyargus(problem: Problem) -> Spectrum:
    estimation = import_module("pyargus.directionEstimation")
    # It puts 1 × 1 matrices into array elements, which NumPy has refused since 2.4; the work stays the same.
    vars(estimation)["np"] = SimpleNamespace(**vars(np) | {"abs": lambda value: np.abs(value).item()})
    vectors = np.ascontiguousarray(problem.atoms.T)

    def spectra(count: int) -> Array:
        # Its numpy.matrix warns at every grid point.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            rows = [estimation.DOA_MUSIC(R, vectors, problem.sources) for R in problem.R[:count]]
        return np.stack(rows).real

    return spectra


def _pyroomacoustics(problem: Problem) -> Spectrum:
    doa = import_module("pyroomacoustics.doa")
    # It would form the covariance from snapshots; here it is given, which costs it nothing.
    given = type("Given", (doa.MUSIC,), {"_compute_correlation_matricesvec": lambda self, X: X})
    rate = 2 * SPEED / problem.cfg.array.wavelength
    finder = given(problem.sensors.T, rate, 2, c=SPEED, num_src=problem.sources, dim=3, n_grid=len(problem.points))
    # Its constructor knows directions only: distances enter through its grid's Cartesian points.
    finder.grid.cartesian[:] = problem.points.T
    near = import_module("pyroomacoustics.doa.doa").ModeVector
    finder.mode_vec = near(problem.sensors.T, rate, 2, SPEED, finder.grid, mode="near", precompute=True)
    finder.freq_bins, finder.num_freq = np.array([1]), 1

    def one(R: Array) -> Array:
        # Its phase is +k·distance, so the covariance is conjugated.
        finder._process(R.conj()[None])
        value: Array = finder.grid.values
        return value

    return lambda count: np.stack([one(R) for R in problem.R[:count]])


CONTENDERS = (
    Contender("ris_verified `music`", _ours(torch.complex64, music), None, np.float32, peer=False),
    Contender("ris_verified folded, double", _ours(torch.complex128, _folded), None, peer=False),
    Contender("ris_verified folded, single", _ours(torch.complex64, _folded), None, np.float32, peer=False),
    Contender("ris_verified folded, single, low rank", _ours_low_rank, None, np.float32, peer=False),
    Contender("NumPy by hand, one at a time", _numpy, 8, peer=False),
    Contender("acoular, its steering", _acoular(False), phase=2.0**-24, weighed=True),
    Contender("acoular, steering stored", _acoular(True), weighed=True),
    Contender("pyroomacoustics", _pyroomacoustics),
    Contender("pyargus", _pyargus, general=True),
)


def disagreement(problem: Problem, contender: Contender, found: Array) -> float:
    """Return the largest error of the normalised spectrum in units of its bound.

    With δ = k·distance·phase + N·eps·(1 + ‖R‖/gap), the error of steering vectors and subspace, the null spectrum D is
    known to ΔD = 2√D δ + δ² + N·eps (and the spread of the noise where it weighs), and D_min/D to (ΔD/D + ΔD_min/D_min)/(1 − ΔD/D).
    """
    N, eps = problem.R.shape[-1], float(np.finfo(contender.arithmetic).eps)
    farthest = np.linalg.norm(problem.points, axis=1).max() + np.linalg.norm(problem.sensors, axis=1).max()
    gap = problem.noise_spread if contender.general else problem.spread
    delta = problem.cfg.array.wavenumber * farthest * contender.phase + N * eps * (1 + gap)
    D = problem.null[: len(found)]
    relative = (2 * np.sqrt(D) * delta + delta**2 + N * eps) / D + RIPPLE * contender.weighed
    least = np.take_along_axis(relative, D.argmin(-1)[:, None], -1)
    bound = (relative + least) / (1 - relative)
    normalised = found / found.max(-1, keepdims=True) * D / D.min(-1, keepdims=True)
    return float((np.abs(normalised - 1) / bound).max())


def _prepared(problem: Problem) -> tuple[dict[str, tuple[Contender, Spectrum, int]], list[str]]:
    ready, notes = {}, []
    for contender in CONTENDERS:
        try:
            spectra = contender.prepare(problem)
        except ImportError as error:
            notes.append(f"{contender.name}: absent ({error})")
            continue
        count = min(contender.covariances or len(problem.R), len(problem.R))
        error = disagreement(problem, contender, spectra(count))
        if not error <= 1:
            raise SystemExit(f"{contender.name}: spectrum differs from the reference by {error:.3g} of its bound")
        notes.append(f"{contender.name}: agrees, largest error {error:.2g} of its bound")
        ready[contender.name] = (contender, spectra, count)
    return ready, notes


def _timed(ready: dict[str, tuple[Contender, Spectrum, int]], repeats: int) -> dict[str, list[float]]:
    # Round by round, so that a slow minute of the machine meets everyone.
    times: dict[str, list[float]] = {name: [] for name in ready}
    for _ in range(repeats):
        for name, (_, spectra, count) in ready.items():
            began = time.perf_counter()
            spectra(count)
            times[name].append((time.perf_counter() - began) / count)
    return times


def _table(ready: dict[str, tuple[Contender, Spectrum, int]], times: dict[str, list[float]], points: int) -> str:
    rows = ["| | covariances a call | ms a covariance: median | least | ns a grid point |", "|---|---|---|---|---|"]
    median, least = ({name: pick(taken) for name, taken in times.items()} for pick in (statistics.median, min))
    for name, each in median.items():
        rows.append(
            f"| {name} | {ready[name][2]} | {1e3 * each:.2f} | {1e3 * least[name]:.2f} | {1e9 * each / points:.1f} |"
        )
    peers = [name for name in times if ready[name][0].peer]
    if peers:
        fastest = min(peers, key=lambda name: median[name])
        rows.append(f"\ntime of the fastest peer, {fastest}, over that of (medians; least times)")
        for name in times:
            if not ready[name][0].peer:
                rows.append(f"  {name}: {median[fastest] / median[name]:.1f}; {least[fastest] / least[name]:.1f}")
    return "\n".join(rows) + "\n"


def main() -> None:
    """Check, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--covariances", type=int, default=64)
    parser.add_argument("--sources", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--grid", type=int, nargs=3, default=(8, 32, 64), metavar=("RANGE", "ELEVATION", "AZIMUTH"))
    args = parser.parse_args()
    wanted = {name: str(args.threads) for name in THREADS}
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        # Thread counts are read when the numerical libraries load.
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | wanted)
    planes, rows, columns = args.grid
    cfg = Config().replaced(
        {"estimate.grid_range": planes, "estimate.grid_elevation": rows, "estimate.grid_azimuth": columns}
    )
    problem = Problem.drawn(cfg, args.covariances, args.sources)
    points, write = len(problem.points), sys.stdout.write
    write(f"N = {cfg.array.elements}, K = {args.sources}, {points} grid points, {args.threads} thread(s)\n")
    ready, notes = _prepared(problem)
    write("\n".join(notes) + "\n\n")
    write(_table(ready, _timed(ready, args.repeats), points))


if __name__ == "__main__":
    main()
