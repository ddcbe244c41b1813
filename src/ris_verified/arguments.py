"""Types of command-line arguments: what argparse itself takes without a word is refused by name."""

from __future__ import annotations

import argparse
from pathlib import Path


def named_path(text: str) -> Path:
    """Return a path; an empty one would silently be the present folder."""
    if not text:
        raise argparse.ArgumentTypeError("is empty: name a file or folder")
    return Path(text)


def reason(text: str) -> str:
    """Return a reason; an empty one would silently be none."""
    if not text.strip():
        raise argparse.ArgumentTypeError("is empty: say why")
    return text


def whole_number(text: str) -> int:
    """Return a whole number of at least one."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least one")
    return int(text)
