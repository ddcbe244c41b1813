"""Every line of the launch checklist by number, so that lines without a rule can be counted."""

from __future__ import annotations

LINES = {
    "RV01": 5, "RV02": 2, "RV03": 2, "RV04": 4, "RV05": 6, "RV06": 4, "RV07": 7, "RV08": 5, "RV09": 6, "RV10": 6,
    "RV11": 1, "RV12": 4, "RV13": 8, "RV14": 5, "RV16": 9, "RV15": 1,
}  # fmt: skip

SECTIONS = {
    "RV01": "Configuration names", "RV02": "Names and lifetimes", "RV03": "Hybrid proof", "RV04": "Optimiser groups",
    "RV05": "Gradient flow", "RV06": "Loss", "RV07": "Shapes", "RV08": "Training and inference agree", "RV09": "HPO",
    "RV10": "Data", "RV11": "Static", "RV12": "Forward and validation path", "RV13": "First epoch", "RV14": "Risks",
    "RV15": "Launch", "RV16": "Outcome",
}  # fmt: skip


def checklist_lines() -> list[str]:
    """Return the numbers of all lines in order."""
    return sorted(f"{section}{line:02d}" for section, count in LINES.items() for line in range(1, count + 1))
