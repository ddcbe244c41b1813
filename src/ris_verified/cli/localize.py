"""`ris-verified localize FILE`: positions from a measurement file."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

from ris_verified.arguments import named_path
from ris_verified.cli.common import add_config, configuration, say
from ris_verified.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ris_verified.estimate.result import Estimates

NAMES = ("y", "H_full", "C")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `localize`."""
    add_config(parser)
    parser.add_argument(
        "file", type=named_path, metavar="FILE", help=".npz or .mat with y [L, M], H_full [M, N], C [L, N]"
    )
    parser.add_argument(
        "--weights",
        "--model",
        type=named_path,
        metavar="FILE",
        help="use a trained model's search: a file, a folder or `small`",
    )
    parser.add_argument("--order", type=int, metavar="K", help="number of sources where it is known")
    parser.add_argument("--format", choices=("text", "json"), default="text")


def read_measurement(path: Path) -> dict[str, NDArray[np.generic]]:
    """Return y, H_full and C of a file.

    Raises:
        InputError: no such file, not of a known kind, an array is missing, or there is one snapshot only; names the
            file.
    """
    suffix = path.suffix.lower()
    if suffix not in (".npz", ".mat"):
        raise InputError(f"suffix {path.suffix!r}", where=str(path), expected=".npz or .mat")
    try:
        arrays = _read_npz(path) if suffix == ".npz" else _read_mat(path)
    except InputError:
        raise
    except NotImplementedError as error:
        raise InputError(
            "is a MATLAB 7.3 file", where=str(path), expected="an older format", remedy="save it with the option -v7"
        ) from error
    except Exception as error:
        # The parsers raise almost anything on bytes that are not theirs; none of it is an error of this program.
        raise InputError(
            f"cannot be read: {type(error).__name__}: {error}", where=str(path), expected="a whole .npz or .mat file"
        ) from error
    return _required(arrays, path)


def _required(arrays: dict[str, NDArray[np.generic]], path: Path) -> dict[str, NDArray[np.generic]]:
    missing = [name for name in NAMES if name not in arrays]
    if missing:
        raise InputError(
            f"holds {', '.join(sorted(arrays)) or 'nothing'}, lacks {', '.join(missing)}",
            where=str(path),
            expected="y [L, M], H_full [M, N] and C [L, N]",
        )
    found = {**{name: arrays[name] for name in NAMES}, "C": _complex(arrays["C"])}
    # No configuration has fewer than two: one that is set to the file's size would be refused next.
    if _snapshots(found["y"]) == _snapshots(found["C"]) == 1:
        raise InputError(
            f"holds one snapshot: y {list(found['y'].shape)}, C {list(found['C'].shape)}",
            where=str(path),
            expected="at least 2: y [L, M] and C [L, N]",
            remedy="take two or more snapshots of the same sources, each with a code of its own, and set "
            "scene.snapshots to their number",
        )
    return found


def _snapshots(array: NDArray[np.generic]) -> int:
    """Return L of [L, M], with or without scenes before and pairs of real numbers behind; 1 of a vector."""
    pairs = array.dtype.kind in "biuf" and array.ndim > 2
    shape = array.shape[:-1] if pairs else array.shape
    return shape[-2] if len(shape) > 1 else 1


def _read_npz(path: Path) -> dict[str, NDArray[np.generic]]:
    import numpy as np

    with path.open("rb") as file:
        archive = np.load(file, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("one array without a name")
        # Other arrays are left unread: whatever they hold does no harm.
        return {name: _numbers(archive, name, path) if name in NAMES else np.empty(0) for name in archive.files}


def _numbers(archive: np.lib.npyio.NpzFile, name: str, path: Path) -> NDArray[np.generic]:
    try:
        array: NDArray[np.generic] = archive[name]
    except ValueError as error:
        if "pickle" not in str(error):
            raise
        # NumPy's own words advise to run what the file holds.
        raise InputError(f"{name} holds Python objects", where=str(path), expected="arrays of numbers") from error
    return array


def _read_mat(path: Path) -> dict[str, NDArray[np.generic]]:
    import scipy.io

    return {name: value for name, value in scipy.io.loadmat(path).items() if not name.startswith("__")}


def _complex(array: NDArray[np.generic]) -> NDArray[np.generic]:
    """Widen ±1 codes stored as real; a real y or H_full has lost its phase and stays what it is: an error."""
    import numpy as np

    pairs = array.ndim > 2 and array.shape[-1] == 2
    return array if array.dtype.kind not in "biuf" or pairs else array.astype(np.complex128)


def as_records(estimates: Estimates) -> list[list[dict[str, float | None]]]:
    """Return, scene by scene, each source with one-sigma bounds; angles in degrees, range in metres.

    A bound is None where the measurement determines none.
    """
    scenes = []
    sigma = estimates.covariance.diagonal(dim1=-2, dim2=-1).sqrt().unflatten(-1, (-1, 3))
    for b, K in enumerate(estimates.order.tolist()):
        sources = []
        for k in range(K):
            degrees = 180 / math.pi
            sources.append(
                {
                    "azimuth_deg": float(estimates.azimuth[b, k]) * degrees,
                    "azimuth_sigma_deg": _known(float(sigma[b, k, 0]) * degrees),
                    "elevation_deg": float(estimates.elevation[b, k]) * degrees,
                    "elevation_sigma_deg": _known(float(sigma[b, k, 1]) * degrees),
                    "range": float(estimates.range[b, k]),
                    "range_sigma": _known(float(sigma[b, k, 2])),
                }
            )
        scenes.append(sources)
    return scenes


def _known(bound: float) -> float | None:
    return bound if math.isfinite(bound) else None


def _within(bound: float | None) -> str:
    return "unknown" if bound is None else f"{bound:.3f}"


def run(args: argparse.Namespace) -> int:
    """Localise and print."""
    arrays = read_measurement(args.file)
    cfg = configuration(args, args.weights)
    from ris_verified.estimate.localize import localize
    from ris_verified.pipeline import Pipeline
    from ris_verified.train.weights import load_model

    model = load_model(args.weights, Pipeline.default(cfg)) if args.weights else None
    try:
        found = localize(arrays["y"], arrays["H_full"], arrays["C"], cfg, order=args.order, model=model)
    except InputError as error:
        # The file may be one of many.
        place = f"{args.file}: {error.where}" if error.where.partition("[")[0] in NAMES else error.where
        raise type(error)(error.what, where=place, expected=error.expected, remedy=error.remedy) from error
    scenes = as_records(found)
    if args.format == "json":
        say(json.dumps({"file": args.file.name, "scenes": scenes}, indent=1, allow_nan=False))
        return 0
    for number, sources in enumerate(scenes):
        say(f"scene {number}: {len(sources)} source{'s' * (len(sources) != 1)}")
        for s in sources:
            say(
                f"  azimuth {s['azimuth_deg']:8.3f} ± {_within(s['azimuth_sigma_deg'])}°  "
                f"elevation {s['elevation_deg']:8.3f} ± {_within(s['elevation_sigma_deg'])}°  "
                f"range {s['range']:7.3f} ± {_within(s['range_sigma'])} m"
            )
    return 0
