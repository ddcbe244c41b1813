"""The page of a run: verdict, what learning did, the table and the pictures, in one file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jinja2

from ris_verified.errors import DataError
from ris_verified.evaluate.table import COLUMNS, LEGEND, learning_notes, method_rows
from ris_verified.files import atomic_write
from ris_verified.page import embedded, templates


def _read(path: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return record
    except (OSError, ValueError) as error:
        raise DataError(
            f"cannot be read: {error}",
            where=str(path),
            expected="the folder of a finished `ris-verified launch`",
        ) from error


def write_report(folder: Path) -> Path:
    """Write `report.html` from what a launch left in its folder.

    Args:
        folder: holds `audit.json` and `evaluation.json`; `evaluation.png` and `train/curves.png` where they are.

    Returns:
        The page; it needs no other file and no network.

    Raises:
        DataError: one of the two is missing or damaged; names it.
    """
    audit, figures = _read(folder / "audit.json"), _read(folder / "evaluation.json")
    pictures = {"Evaluation": folder / "evaluation.png", "Training": folder / "train" / "curves.png"}
    shown = [(name, embedded(path.read_bytes())) for name, path in pictures.items() if path.is_file()]
    results = audit["results"]
    environment = jinja2.Environment(loader=templates("ris_verified.evaluate"), autoescape=True)
    page = environment.get_template("report.html.j2").render(
        verdict=audit["verdict"],
        checks=len(results),
        skipped=sum(r["status"] == "skip" for r in results),
        passed=sum(r["status"] == "pass" for r in results),
        failures=[r for r in results if r["status"] in ("fail", "error")],
        notes=learning_notes(figures),
        columns=COLUMNS,
        rows=method_rows(figures),
        legend=LEGEND.format(scenes=figures["scenes"]),
        pictures=shown,
        config_hash=figures["config_hash"],
        scenes=figures["scenes"],
    )
    atomic_write(folder / "report.html", page.encode())
    return folder / "report.html"
