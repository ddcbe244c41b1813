"""A sweep as Markdown for people and as CSV for programs."""

from __future__ import annotations

import csv
import io
import itertools
import math
from typing import Any

LEGEND = (
    "{scenes} scenes a cell, each figure with its {confidence:.0%} interval (Wilson for shares, bootstrap over scenes "
    "for the rest). RMSE over all sources and error over Cramér–Rao bound are for known K: RMS where all sources are "
    "found (within 4 bounds), median over all. Precision, recall and GOSPA (p = 2, α = 2, c = {cutoff:g} m) "
    "are for estimated K; order is how often that is right."
)
# Heading, key, scale, format.
COLUMNS = (
    ("position m", "position_rmse", 1.0, ".3g"),
    ("azimuth °", "azimuth_rmse", 180 / math.pi, ".3g"),
    ("elevation °", "elevation_rmse", 180 / math.pi, ".3g"),
    ("range m", "range_rmse", 1.0, ".3g"),
    ("error/bound", "error_over_bound_found", 1.0, ".2f"),
    ("median", "error_over_bound_median", 1.0, ".2f"),
    ("all found %", "found", 100.0, ".0f"),
    ("precision %", "precision", 100.0, ".0f"),
    ("recall %", "recall", 100.0, ".0f"),
    ("GOSPA m", "gospa", 1.0, ".3g"),
    ("order %", "order", 100.0, ".0f"),
)
AXES = ("K", "snr_db", "range", "separation", "mismatch")


def text(figure: dict[str, float | None], scale: float, form: str) -> str:
    """Write a figure with its interval, `–` where it could not be measured."""
    value, low, high = (figure[name] for name in ("value", "low", "high"))
    if value is None:
        return "–"
    written = format(value * scale, form)
    if low is None or high is None:
        return written
    return f"{written} ({low * scale:{form}}–{high * scale:{form}})"


def described(cell: dict[str, Any]) -> str:
    """Name the scenes of a cell beside K and SNR: range, separation and mismatch."""
    parts = [
        "whole range of the view" if cell["range"] is None else f"range {cell['range']:g} m ± 10 %",
        "" if cell["separation"] is None else f"separation {math.degrees(cell['separation']):.3g}°",
        "" if cell["mismatch"] == "exact" else f"mismatch {cell['mismatch']}",
    ]
    return ", ".join(part for part in parts if part)


def to_markdown(record: dict[str, Any]) -> str:
    """Render a sweep.

    Args:
        record: content of `sweep.json`.

    Returns:
        Markdown, one table for each range, separation and mismatch.
    """
    lines = ["# Sweep", "", LEGEND.format(**record)]
    many = len(record["labels"]) > 1
    heads = ["K", "SNR dB", *(["method"] if many else []), *(column[0] for column in COLUMNS)]
    for title, cells in itertools.groupby(record["cells"], described):
        lines += ["", f"## {title[0].upper()}{title[1:]}", "", f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
        for cell in cells:
            for name, measured in cell["methods"].items():
                place = [str(cell["K"]), f"{cell['snr_db']:g}", *([name] if many else [])]
                row = place + [text(measured[key], scale, form) for _, key, scale, form in COLUMNS]
                lines.append(f"| {' | '.join(row)} |")
    lines += ["", *(f"- {name}: {what}" for name, what in record["labels"].items())]
    return "\n".join(lines) + "\n"


def to_csv(record: dict[str, Any]) -> str:
    """Write a sweep as one row for each cell, method and figure; SI units and radians.

    Args:
        record: content of `sweep.json`.

    Returns:
        CSV with a heading; empty where an axis is free or a figure could not be measured.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*AXES, "method", "figure", "value", "low", "high"])
    for cell in record["cells"]:
        place = [cell[name] for name in AXES]
        for coordinate, value in cell["bound"].items():
            writer.writerow([*place, "bound", f"{coordinate}_rmse", value, "", ""])
        for method, measured in cell["methods"].items():
            for name, figure in measured.items():
                writer.writerow([*place, method, name, figure["value"], figure["low"], figure["high"]])
    return file.getvalue()
