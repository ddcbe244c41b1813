"""What the pages of audits, trainings and evaluations share: where templates lie, one style, pictures inside."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import BaseLoader
    from matplotlib.figure import Figure


def templates(package: str) -> BaseLoader:
    """Return a loader of a package's templates and of `page.css`, which they include.

    Args:
        package: such as `ris_verified.evaluate`; the templates lie beside its modules.
    """
    import jinja2

    return jinja2.ChoiceLoader([jinja2.PackageLoader(name, ".") for name in (package, "ris_verified")])


def as_png(figure: Figure, dpi: int) -> bytes:
    """Return a figure as the bytes of a PNG picture, to be written in one step."""
    content = io.BytesIO()
    figure.savefig(content, dpi=dpi, format="png")
    return content.getvalue()


def embedded(png: bytes) -> str:
    """Return a PNG picture as the address of an `img` that needs no file."""
    return "data:image/png;base64," + base64.b64encode(png).decode()
