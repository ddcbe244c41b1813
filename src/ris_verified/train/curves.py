"""Training curves as a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ris_verified.train.log import read_log


def draw_curves(log: Path, picture: Path) -> None:
    """Draw loss, terms, gradient norm, learning rates and validation figures against the step.

    Args:
        log: `log.jsonl` of a run.
        picture: the PNG to write.
    """
    # Half a second that only a finished run needs.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    steps, epochs = read_log(log)
    good = [record for record in steps if not record["skipped"]]
    x = np.array([record["step"] for record in good])
    figure = Figure(figsize=(11, 7), layout="constrained")
    FigureCanvasAgg(figure)
    (total, terms), (rates, quality) = figure.subplots(2, 2)
    total.plot(x, [r["loss"] for r in good], lw=0.6, alpha=0.4, color="C0")
    _smooth(total, x, [r["loss"] for r in good], "training loss")
    total.plot([e["step"] for e in epochs], [e["validation"]["loss"] for e in epochs], "ko", label="validation")
    for name in good[0]["terms"] if good else ():
        _smooth(terms, x, [r["terms"][name] for r in good], name)
    for name in good[0]["learning_rates"] if good else ():
        rates.plot(x, [r["learning_rates"][name] for r in good], label=f"rate {name}")
    for name in ("capture", "order", "nmse"):
        quality.plot([e["step"] for e in epochs], [e["validation"][name] for e in epochs], "o-", label=name)
    for axis, title in zip(
        (total, terms, rates, quality), ("Loss", "Terms", "Learning rates", "Validation"), strict=True
    ):
        axis.set(title=title, xlabel="step")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    rates.set_yscale("log")
    figure.savefig(picture, dpi=110)


def _smooth(axis: object, x: np.ndarray, values: list[float], label: str) -> None:
    width = max(1, len(values) // 40)
    kernel = np.ones(width) / width
    axis.plot(x[width - 1 :], np.convolve(values, kernel, "valid"), label=label)  # type: ignore[attr-defined]
