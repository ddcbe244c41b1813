"""The evaluation as Markdown, with a line for every place where learning does not help."""

from __future__ import annotations

import math
from typing import Any

LEGEND = (
    "{scenes} scenes, true K given to the search; RMSE over matched sources; error/bound is RMS of position error over "
    "its Cramér–Rao bound in scenes where all sources are found (every position within 4 bounds; strictly: azimuth, "
    "elevation and range each), median is over all matched sources; order is the share "
    "of scenes whose K the K head (a–e) or the residual criterion (–) gets right."
)
# Standard errors beyond which a difference is none of chance.
SURE = 1.96
COLUMNS = ("azimuth °", "elevation °", "range m", "error/bound", "median", "all found", "strictly", "order")


def _text(value: float | None, form: str, scale: float = 1.0) -> str:
    return "–" if value is None else format(value * scale, form)


def _cells(label: str, figures: dict[str, Any], order: float | None) -> list[str]:
    degrees = 180 / math.pi
    return [
        label,
        _text(figures.get("azimuth_rmse"), ".2f", degrees),
        _text(figures.get("elevation_rmse"), ".2f", degrees),
        _text(figures.get("range_rmse"), ".2f"),
        _text(figures.get("error_over_bound_found"), ".2f"),
        _text(figures.get("error_over_bound_median"), ".2f"),
        _text(figures.get("found"), ".0%"),
        _text(figures.get("found_strictly"), ".0%"),
        _text(order, ".0%"),
    ]


def method_rows(figures: dict[str, Any]) -> list[list[str]]:
    """Return the table over all scenes, a row a method, cells as in `COLUMNS` behind the label."""
    order = figures["order_accuracy"]
    return [
        _cells(label, figures["methods"][name], order["residual" if name == "classical" else "head"]["all"])
        for name, label in figures["labels"].items()
    ]


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _sign(figures: dict[str, Any], name: str) -> int | None:
    """Return whether a difference on the same scenes is surely above zero, 1, or below, −1; None if not recorded."""
    if "differences" not in figures:
        return None
    difference = figures["differences"][name]
    mean, error = difference["mean"], difference["standard_error"]
    if error is None or abs(mean) <= SURE * error:
        return 0
    return 1 if mean > 0 else -1


def _verdict(sign: int | None, less: str) -> str:
    return {None: "", 0: ": no difference that these scenes show", 1: ": learning helps", -1: f": {less}"}[sign]


def learning_notes(figures: dict[str, Any]) -> list[str]:
    """Return one sentence for each comparison, saying plainly where learning does not help."""
    capture, methods = figures["subspace_capture"], figures["methods"]
    trained = _verdict(_sign(figures, "training_capture"), "learning does not help")
    found = _verdict(_sign(figures, "learned_found"), "learning does not help the share found")
    notes = [
        (
            f"Training moves the subspace capture of R_blend from {capture['R_blend_untrained']:.3f} (random weights "
            f"on the same physics features) to {capture['R_blend']:.3f}; R_samp alone holds "
            f"{capture['R_samp']:.3f}{trained}."
        )
    ]
    if _sign(figures, "blend_capture") == -1:
        notes.append(f"R_pred alone holds {capture['R_pred']:.3f}: here the blend with R_samp does not help.")
    learned, classical = methods["mle"]["found"], methods["classical"]["found"]
    notes.append(
        f"All sources found: {learned:.0%} from the learned search, {classical:.0%} from the greedy search{found}."
    )
    worse = [c for c in figures["cells"] if c["methods"]["mle"]["found"] < c["methods"]["classical"]["found"]]
    notes.append(
        f"Cells of evaluation.md in which the learned search finds fewer: {len(worse)} of {len(figures['cells'])}."
    )
    return notes


def to_markdown(figures: dict[str, Any]) -> str:
    """Render an evaluation.

    Args:
        figures: content of `evaluation.json`.

    Returns:
        Markdown.
    """
    order = figures["order_accuracy"]
    head = "| method | " + " | ".join(COLUMNS) + " |\n|" + "---|" * (len(COLUMNS) + 1)
    lines = [
        "# Evaluation on unseen scenes",
        "",
        LEGEND.format(scenes=figures["scenes"]),
        "",
        *(f"- {note}" for note in learning_notes(figures)),
        f"- Order accuracy: K head {order['head']['all']:.0%}, residual criterion {order['residual']['all']:.0%}.",
        "",
        head,
    ]
    lines += [_line(row) for row in method_rows(figures)]
    for cell in figures["cells"]:
        low, high = cell["snr_db"]
        scenes = next(iter(cell["methods"].values()))["scenes"]
        snr = f"{low:g} to {high:g}" if low < high else f"{low:g}"
        lines += ["", f"## K = {cell['K']}, SNR {snr} dB ({scenes} scenes)", "", head]
        for name, label in figures["labels"].items():
            helped = cell["methods"]["mle"]["found"] >= cell["methods"]["classical"]["found"]
            mark = " (learning does not help here)" if name == "mle" and not helped else ""
            guess = cell["order_residual" if name == "classical" else "order_head"]
            lines.append(_line(_cells(label + mark, cell["methods"][name], guess)))
    return "\n".join(lines) + "\n"
