"""One report, six formats; a failure is a failure in each of them."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ris_verified.audit.result import Report

FORMATS = ("text", "json", "junit", "sarif", "markdown", "html")


def render(report: Report, name: str) -> str:
    """Return a report in a format.

    Args:
        report: what an audit found.
        name: one of `FORMATS`.
    """
    if name == "text":
        return report.to_text()
    if name == "json":
        return report.to_json()
    write: Callable[[Report], str] = importlib.import_module(f"{__name__}.{name}").render
    return write(report)
