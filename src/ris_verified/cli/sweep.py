"""`ris-verified evaluate --sweep`: figures over SNR, sources, range, separation and model mismatch."""

from __future__ import annotations

import argparse
import math

from ris_verified.cli.common import configuration, say
from ris_verified.cli.terminal import progress
from ris_verified.errors import InputError

# Option by field of Axes.
OPTIONS = {
    "snr_db": "--snr-db",
    "sources": "--sources",
    "range": "--range",
    "separation": "--separation",
    "mismatch": "--mismatch",
    "cell_scenes": "--scenes",
    "cutoff": "--cutoff",
    "map_scenes": "--map-scenes",
}
SPHERICAL = {"amplitude=spherical": "amplitude=1", "amplitude=unit": "amplitude=0"}


def _levels(text: str) -> dict[str, float]:
    """Read `phase=0.1+position=0.005`."""
    levels: dict[str, float] = {}
    for part in text.split("+"):
        name, equals, number = SPHERICAL.get(part, part).partition("=")
        try:
            level = float(number)
        except ValueError:
            level = math.nan
        if not (name and equals) or name in levels or math.isnan(level):
            raise argparse.ArgumentTypeError(f"{text!r} is not of the form phase=0.1 or phase=0.1+position=0.005")
        levels[name] = level
    return levels


def _reach(text: str) -> float | None:
    try:
        return None if text == "any" else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of metres nor `any`") from None


def add_sweep(parser: argparse.ArgumentParser) -> None:
    """Add the options of a sweep; their defaults are those of `Axes`."""
    group = parser.add_argument_group("sweep", "fresh scenes in every combination; needs neither --data nor --weights")
    group.add_argument("--sweep", action="store_true", help="sweep instead of judging the test split")
    group.add_argument("--snr-db", type=float, nargs="+", metavar="DB")
    group.add_argument("--sources", type=int, nargs="+", metavar="K", help="numbers of sources")
    group.add_argument("--range", type=_reach, nargs="+", metavar="M", help="metres, a band of ±10 %%; `any`: the view")
    group.add_argument(
        "--separation", type=float, nargs="+", metavar="RAD", help="between two sources exactly, more at least; 0: free"
    )
    group.add_argument(
        "--mismatch", type=_levels, nargs="+", metavar="NAME=LEVEL",
        help="beside the nominal model: phase (rad), position (m), channel, rician, amplitude, calibration; "
        "joined by + they act at once",
    )  # fmt: skip
    group.add_argument("--scenes", dest="cell_scenes", type=int, metavar="N", help="in each cell")
    group.add_argument("--cutoff", type=float, metavar="M", help="of GOSPA, precision and recall, metres")
    group.add_argument("--map-scenes", type=int, metavar="N", help="in each direction of the error map; 0: no map")


def wants_sweep(args: argparse.Namespace) -> bool:
    """Return which form of `evaluate` was asked for; options of the other are refused.

    Raises:
        InputError: names the option that is missing or does not belong.
    """
    given = vars(args)
    stray = [option for name, option in OPTIONS.items() if given[name] is not None]
    if args.sweep and args.data is not None:
        raise InputError("not read by a sweep, which draws its own scenes", where="--data", remedy="leave one out")
    if not args.sweep and stray:
        raise InputError("only for a sweep", where=", ".join(stray), remedy="add --sweep")
    if not args.sweep and args.weights is None:
        raise InputError("missing", where="--weights", expected="--weights or --model small, or --sweep")
    return bool(args.sweep)


def run_sweep(args: argparse.Namespace) -> int:
    """Sweep and say what was found at the ends."""
    from ris_verified.evaluate.axes import Axes
    from ris_verified.evaluate.sweep import sweep
    from ris_verified.pipeline import Pipeline
    from ris_verified.train.weights import load_model

    asked = {name: vars(args)[name] for name in OPTIONS if vars(args)[name] is not None}
    lists = {name: tuple(value) for name, value in asked.items() if isinstance(value, list)}
    if args.mismatch:
        # The nominal model is what every mismatch is compared with.
        lists["mismatch"] = ({}, *(levels for levels in args.mismatch if levels))
    axes = Axes(**{**asked, **lists})
    pipeline = Pipeline.default(configuration(args, args.weights))
    model = load_model(args.weights, pipeline) if args.weights else None
    with progress("cells") as bar:
        record = sweep(pipeline, model, axes, args.out, progress=bar)
    cells = len(record["cells"])
    say(f"{cells} cell{'s' * (cells != 1)} of {axes.cell_scenes} scenes in {record['seconds']:.0f} s")
    say(f"read {args.out / 'sweep.md'}; figures in sweep.json and sweep.csv, pictures beside them")
    return 0
