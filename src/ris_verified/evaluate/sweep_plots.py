"""Pictures of a sweep: error against SNR with its bound, and against the level of each mismatch."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

from ris_verified.evaluate.sweep_table import described
from ris_verified.files import atomic_write
from ris_verified.page import as_png

# Okabe and Ito's colours, told apart by people of every colour vision, and by marker in print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
WIDE = 3
UNITS = {"phase": "rad rms", "position": "m rms", "amplitude": "0 unit, 1 spherical"}


def canvas(count: int, label: str) -> tuple[Figure, list[Axes]]:
    """Return a figure with `count` panels in about as many rows as columns, three columns at most."""
    columns = min(math.ceil(math.sqrt(count)), WIDE)
    rows = -(-count // columns)
    figure = Figure(figsize=(max(6.0, 4.2 * columns), 3.9 * rows + 0.8), layout="constrained")
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(rows, columns, squeeze=False, sharey=True).flat)
    for spare in panels[count:]:
        spare.set_visible(False)
    for first in panels[:count:columns]:
        first.set_ylabel(label)
    return figure, panels[:count]


def _line(axis: Axes, points: list[tuple[float, dict[str, Any]]], number: int, name: str, style: str) -> None:
    known = [(x, f) for x, f in points if f["value"] is not None]
    x, y = [x for x, _ in known], [f["value"] for _, f in known]
    colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
    axis.plot(x, y, style, color=colour, marker=marker, ms=5, mfc=colour if style == "-" else "white", label=name)
    sure = [(x, f) for x, f in known if f["low"] is not None]
    low, high = [f["low"] for _, f in sure], [f["high"] for _, f in sure]
    axis.fill_between([x for x, _ in sure], low, high, color=colour, alpha=0.15, lw=0)


def _panels(cells: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Group cells by range and separation; a single source, which has no separation, joins each of its range."""
    places = {(c["range"], c["separation"]) for c in cells if c["K"] > 1} or {(c["range"], None) for c in cells}
    ordered = sorted(places, key=lambda p: (p[0] or 0, p[1] or 0))
    groups = {}
    for reach, separation in ordered:
        members = [c for c in cells if c["range"] == reach and (c["separation"] == separation or c["K"] == 1)]
        title = next((c for c in members if c["K"] > 1), members[0])
        groups[described({**title, "mismatch": "exact"})] = members
    return groups


def _logarithmic(axis: Axes) -> None:
    axis.set_yscale("log")
    # Some figures span less than a decade, in which powers of ten would label nothing.
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=30))
    axis.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.grid(alpha=0.3, which="both")


def _legend(figure: Figure, panel: Axes, columns: int) -> None:
    handles, names = panel.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=columns, fontsize=9)


def draw_rmse(record: dict[str, Any], picture: Path) -> None:
    """Draw position RMSE against SNR, one line for each number of sources, the bound dashed.

    Args:
        record: content of `sweep.json`; its first mismatch, the nominal model by default, is shown.
        picture: the PNG to write.
    """
    first = record["cells"][0]["mismatch"]
    groups = _panels([cell for cell in record["cells"] if cell["mismatch"] == first])
    figure, panels = canvas(len(groups), "position RMSE (m), 95 % interval shaded")
    for axis, (title, cells) in zip(panels, groups.items(), strict=True):
        for number, K in enumerate(sorted({c["K"] for c in cells})):
            mine = sorted((c for c in cells if c["K"] == K), key=lambda c: c["snr_db"])
            for method, style in zip(record["labels"], ("-", ":"), strict=False):
                points = [(c["snr_db"], c["methods"][method]["position_rmse"]) for c in mine]
                _line(axis, points, number, f"K = {K}" + (f", {method}" if len(record["labels"]) > 1 else ""), style)
            bound = [c["bound"]["position"] for c in mine]
            colour = COLOURS[number % len(COLOURS)]
            axis.plot([c["snr_db"] for c in mine], bound, "--", color=colour, lw=1, label=f"bound, K = {K}")
        axis.set(title=title, xlabel="SNR (dB)", xticks=sorted({c["snr_db"] for c in cells}))
        _logarithmic(axis)
    figure.suptitle("Position error and Cramér–Rao bound, known K" + ("" if first == "exact" else f", {first}"))
    _legend(figure, panels[0], len({c["K"] for c in record["cells"]}))
    atomic_write(picture, as_png(figure, 100))


def _levels(cells: list[dict[str, Any]]) -> dict[str, dict[float, str]]:
    """Return by mismatch its levels and how each is written; 0 is the nominal model, combinations are left out."""
    found: dict[str, dict[float, str]] = {}
    for written in dict.fromkeys(c["mismatch"] for c in cells):
        if written != "exact" and "+" not in written.replace("e+", ""):
            name, _, level = written.partition("=")
            found.setdefault(name, {0.0: "exact"})[float(level)] = written
    return found


def draw_mismatch(record: dict[str, Any], picture: Path) -> None:
    """Draw the median position error over its bound against the level of each mismatch.

    Args:
        record: content of `sweep.json`; the highest SNR and the first range and separation are shown.
        picture: the PNG to write; nothing is written where only combinations were asked for.
    """
    cells = record["cells"]
    top, levels = max(c["snr_db"] for c in cells), _levels(cells)
    if not levels:
        return
    title, shown = next(iter(_panels([c for c in cells if c["snr_db"] == top]).items()))
    figure, panels = canvas(len(levels), "median position error over bound")
    for axis, (name, written) in zip(panels, levels.items(), strict=True):
        for number, K in enumerate(sorted({c["K"] for c in shown})):
            for method, style in zip(record["labels"], ("-", ":"), strict=False):
                by_label = {c["mismatch"]: c["methods"][method] for c in shown if c["K"] == K}
                points = [
                    (x, by_label[w]["error_over_bound_median"]) for x, w in sorted(written.items()) if w in by_label
                ]
                _line(axis, points, number, f"K = {K}" + (f", {method}" if len(record["labels"]) > 1 else ""), style)
        axis.axhline(1, color="k", lw=0.8, ls="--")
        axis.set(title=name, xlabel=f"level ({UNITS.get(name, 'relative, rms')})")
        _logarithmic(axis)
    figure.suptitle(f"Model mismatch at {top:g} dB, {title}")
    _legend(figure, panels[0], len({c["K"] for c in record["cells"]}))
    atomic_write(picture, as_png(figure, 100))
