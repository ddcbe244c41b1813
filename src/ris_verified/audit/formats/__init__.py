"""One report, six formats; a failure is a failure in each of them."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ris_verified.audit.result import Report


def _later(name: str) -> Callable[[Report], str]:
    """Return a renderer whose module is imported when it is first needed, so that `--help` stays fast."""

    def write(report: Report) -> str:
        text: str = importlib.import_module(f"{__name__}.{name}").render(report)
        return text

    return write


FORMATS: dict[str, Callable[[Report], str]] = {
    "text": _later("text"),
    "json": lambda report: report.to_json(),
    "junit": _later("junit"),
    "sarif": _later("sarif"),
    "markdown": _later("markdown"),
    "html": _later("html"),
}


def render(report: Report, name: str) -> str:
    """Return a report in a format, as text that UTF-8 can encode.

    Args:
        report: what an audit found.
        name: one of `FORMATS`.
    """
    return FORMATS[name](report)
