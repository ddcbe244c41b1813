"""Writes the table of stages in `bring_your_pipeline.md` from `Pipeline`: `python docs/guide/stages.py`."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path

from ris_verified.pipeline import Pipeline

GUIDE = Path(__file__).with_name("bring_your_pipeline.md")
BEGIN, END = "<!-- stages: begin -->\n", "<!-- stages: end -->\n"


def described() -> dict[str, str]:
    """Return what the docstring of `Pipeline` says of each argument."""
    text = (inspect.getdoc(Pipeline) or "").partition("Args:\n")[2]
    entries = re.findall(r"^    (\w[\w, ]*): (.*(?:\n {8,}.*)*)", text, re.MULTILINE)
    return {name: re.sub(r"\s+", " ", said) for names, said in entries for name in names.split(", ")}


def table() -> str:
    """Return one row for each field: name, what it is called with and returns, annotation."""
    said = described()
    head = ["| stage | what it is given → what it returns | type |", "|---|---|---|"]
    rows = [
        f"| `{field.name}` | {said.get(field.name, '**not described**')} | `{field.type}` |"
        for field in dataclasses.fields(Pipeline)
    ]
    return "\n".join([*head, *rows]) + "\n"


def written(guide: str) -> str:
    """Return the guide's text with the present table."""
    before, _, rest = guide.partition(BEGIN)
    return before + BEGIN + table() + END + rest.partition(END)[2]


if __name__ == "__main__":
    GUIDE.write_text(written(GUIDE.read_text(encoding="utf-8")), encoding="utf-8")
