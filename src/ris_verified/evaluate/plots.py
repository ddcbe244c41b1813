"""Pictures of an evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ris_verified.files import atomic_write
from ris_verified.page import as_png

SHOWN = ("music_R_samp", "music_R_blend", "newton", "mle", "classical")


def _against_snr(figures: dict[str, Any], name: str, key: str) -> tuple[list[float], list[float]]:
    centres = sorted({sum(cell["snr_db"]) / 2 for cell in figures["cells"]})
    x, y = [], []
    for centre in centres:
        cells = [c["methods"][name] for c in figures["cells"] if sum(c["snr_db"]) / 2 == centre]
        known = [(c["scenes"], c[key]) for c in cells if c.get(key) is not None]
        if known:
            x.append(centre)
            y.append(sum(n * value for n, value in known) / sum(n for n, _ in known))
    return x, y


def draw_evaluation(figures: dict[str, Any], picture: Path) -> None:
    """Draw share found, position RMSE, median error over bound and subspace capture.

    Args:
        figures: content of `evaluation.json`.
        picture: the PNG to write.
    """
    figure = Figure(figsize=(11, 7), layout="constrained")
    FigureCanvasAgg(figure)
    (found, rmse), (ratio, capture) = figure.subplots(2, 2)
    for axis, key, title in (
        (found, "found_strictly", "Share of scenes with all sources found (each coordinate)"),
        (rmse, "position_rmse", "Position RMSE of matched sources (m)"),
        (ratio, "error_over_bound_median", "Median position error over bound"),
    ):
        for name in SHOWN:
            axis.plot(*_against_snr(figures, name, key), "o-", ms=4, label=figures["labels"][name])
        axis.set(title=title, xlabel="SNR (dB)")
        axis.grid(alpha=0.3)
    rmse.set_yscale("log")
    ratio.set_yscale("log")
    ratio.axhline(1, color="k", lw=0.8, ls="--")
    figure.legend(*found.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9)
    held = figures["subspace_capture"]
    bars = capture.bar(range(len(held)), held.values(), color="C0")
    capture.bar_label(bars, fmt="%.2f")
    capture.set_xticks(range(len(held)), held.keys(), fontsize=8)
    capture.set(title="Share of true steering vectors in the top-K subspace", ylim=(0, 1))
    atomic_write(picture, as_png(figure, 110))
