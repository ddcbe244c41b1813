"""Print the time of a MUSIC spectrum per grid point and covariance, here and in three published libraries.

Every contender gets the same covariances, R = A P Aᴴ + σ²I of a free-field array, and the same near-field grid; its
normalised spectrum must agree with a double-precision reference before it is timed. Times include the
eigendecomposition of every covariance, or of the factor where a form is low rank, and exclude whatever a contender can
prepare once for all covariances: grid and steering vectors. A library that is not installed is reported as absent:
`pip install -e '.[peers]'`.

Run: python benchmarks/peers.py [--covariances 64] [--threads 1] [--repeats 5] [--sources 3] [--grid 8 32 64]
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

import numpy as np
import torch
from peers_problem import SPEED, WIDTH, Array, Problem, Rounding

from ris_verified.config import Config
from ris_verified.covariance.low_rank import LowRank
from ris_verified.estimate.spectrum import music

Spectrum = Callable[[int], Array]
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


@dataclass(frozen=True)
class Contender:
    """A way to a spectrum.

    Args:
        name: what the table calls it.
        prepare: problem → function of the number of covariances, giving `B x G`.
        at_once: how many it does in one timed call; None for all.
        rounding: what its spectrum may be off by.
        peer: True for another library.
    """

    name: str
    prepare: Callable[[Problem], Spectrum]
    at_once: int | None = 1
    rounding: Rounding = Rounding()  # noqa: RUF009
    peer: bool = True


def _ours(dtype: torch.dtype) -> Callable[[Problem], Spectrum]:
    def prepare(problem: Problem) -> Spectrum:
        R = torch.from_numpy(problem.R).to(dtype)
        K = torch.full((len(R),), problem.sources)
        return lambda count: music(R[:count], K[:count], problem.cfg).flatten(1).numpy()

    return prepare


def _ours_low_rank(problem: Problem) -> Spectrum:
    low = LowRank(problem.low.factor.to(torch.complex64), problem.low.floor.float())
    K = torch.full((len(low.floor),), problem.sources)

    def spectra(count: int) -> Array:
        found: Array = music(LowRank(low.factor[:count], low.floor[:count]), K[:count], problem.cfg).flatten(1).numpy()
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
        # It warns and turns its threads off where NumPy came first; they are set below.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            acoular = import_module("acoular")
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


SINGLE = Rounding(arithmetic=np.float32)
CONTENDERS = (
    Contender("ris_verified, single precision", _ours(torch.complex64), None, SINGLE, peer=False),
    Contender("ris_verified, double precision", _ours(torch.complex128), None, peer=False),
    Contender(f"ris_verified, {WIDTH} columns for R", _ours_low_rank, None, SINGLE, peer=False),
    Contender("NumPy by hand, one at a time", _numpy, 8, peer=False),
    Contender("acoular, its steering", _acoular(False), rounding=Rounding(phase=2.0**-24, weighed=True)),
    Contender("acoular, steering stored", _acoular(True), rounding=Rounding(weighed=True)),
    Contender("pyroomacoustics", _pyroomacoustics),
    Contender("pyargus", _pyargus, rounding=Rounding(general=True)),
)


def _prepared(problem: Problem) -> tuple[dict[str, tuple[Contender, Spectrum, int]], list[str]]:
    ready, notes = {}, []
    for contender in CONTENDERS:
        try:
            spectra = contender.prepare(problem)
        except ImportError as error:
            notes.append(f"{contender.name}: absent ({error})")
            continue
        count = min(contender.at_once or len(problem.R), len(problem.R))
        apart = problem.disagreement(spectra(count), contender.rounding)
        if not apart <= 1:
            raise SystemExit(f"{contender.name}: spectrum differs from the reference by {apart:.3g} of its bound")
        notes.append(f"{contender.name}: agrees, largest error {apart:.2g} of its bound")
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
        own = (name for name in times if not ready[name][0].peer)
        rows += [f"  {n}: {median[fastest] / median[n]:.1f}; {least[fastest] / least[n]:.1f}" for n in own]
    return "\n".join(rows) + "\n"


def main() -> None:
    """Check, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--covariances", type=int, default=64)
    parser.add_argument("--sources", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
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
