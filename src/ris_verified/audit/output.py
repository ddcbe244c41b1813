"""Where a report goes: a file, a terminal or a pipe."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

COLOURS = {"PASS": "green", "FAIL": "red", "ERROR": "red", "WARN": "yellow", "GO:": "green", "NO-GO:": "red"}


def emit(text: str, output: Path | None, format: str = "text") -> None:
    """Write a text to a file or to standard output; colours only for a person at a terminal.

    Args:
        text: what to write.
        output: file, standard output where None.
        format: of the text; all but `text` state that they are UTF-8 and are written so on every terminal.

    Raises:
        StorageError: the file cannot be written.
    """
    if output is not None:
        from ris_verified.files import atomic_write

        atomic_write(output, text.encode())
        sys.stderr.write(f"{output} written\n")
    elif format != "text" and isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.flush()
        sys.stdout.buffer.write(text.encode())
        sys.stdout.flush()
    else:
        # A Greek letter must not stop a report on a terminal that has none.
        encoding = sys.stdout.encoding or "utf-8"
        shown = text.encode(encoding, "backslashreplace").decode(encoding)
        if format == "text" and sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
            _paint(shown)
        else:
            sys.stdout.write(shown)


def _paint(text: str) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    for line in text.splitlines():
        word = line.partition(" ")[0]
        painted = Text(line)
        painted.stylize(COLOURS.get(word, ""), 0, len(word))
        console.print(painted)
