"""Which classes an annotation names and an expression makes."""

from __future__ import annotations

import ast
import re

from ris_verified.audit.static.syntax import called_name, text_of


def named(node: ast.expr | None) -> list[str]:
    """Return the class names in an annotation, forward references too."""
    if node is None:
        return []
    text = text_of(node)
    if text is not None:
        return re.findall(r"[A-Za-z_]\w*", text)
    if isinstance(node, ast.Subscript):
        outer = called_name(node.value)
        return named(node.slice) if outer in ("Optional", "Union", "Annotated", "Final", "ClassVar") else []
    if isinstance(node, ast.Tuple):
        return [name for item in node.elts for name in named(item)]
    if isinstance(node, ast.BinOp):
        return [*named(node.left), *named(node.right)]
    return [called_name(node)] if called_name(node) else []


def made_by(node: ast.expr | None) -> list[str]:
    """Return the class that an expression makes: `C()`, `field(default_factory=C)`, `x or C()`."""
    if isinstance(node, ast.BoolOp):
        return [name for value in node.values for name in made_by(value)]
    if not isinstance(node, ast.Call):
        return []
    for keyword in node.keywords:
        if keyword.arg in ("default_factory", "factory", "default"):
            value = keyword.value
            return made_by(value.body) if isinstance(value, ast.Lambda) else [called_name(value), *made_by(value)]
    return [called_name(node.func)]
