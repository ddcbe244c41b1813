"""Reading a folder of Python files as syntax trees, without importing any of it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

SKIPPED = {"__pycache__", "node_modules", "build", "dist", "site-packages"}


@dataclass(frozen=True)
class SourceFile:
    """One file.

    Args:
        name: path relative to the folder, with forward slashes.
        tree: syntax tree, None where it could not be parsed.
        error: why not.
        line: where the error is.
    """

    name: str
    text: str
    tree: ast.Module | None
    error: str = ""
    line: int = 0

    def at(self, node: ast.AST | int) -> str:
        """Return `file:line` of a node."""
        return f"{self.name}:{node if isinstance(node, int) else getattr(node, 'lineno', 0)}"


@dataclass(frozen=True)
class Tree:
    """All Python files of a folder, in order of their names."""

    folder: Path
    files: tuple[SourceFile, ...]

    @cached_property
    def parsed(self) -> list[tuple[SourceFile, ast.Module]]:
        """The files that could be parsed, with their trees."""
        return [(file, file.tree) for file in self.files if file.tree is not None]


def read_tree(folder: Path) -> Tree:
    """Read every `.py` file below a folder; hidden, cache and build folders are left out."""
    return Tree(folder, tuple(read_file(path, folder) for path in _python_files(folder)))


def _python_files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).parts
        if path.is_file() and not any(part in SKIPPED or part.startswith(".") for part in parts):
            yield path


def read_file(path: Path, folder: Path) -> SourceFile:
    """Read one file; what stops the parser is kept as its error."""
    name = path.relative_to(folder).as_posix()
    try:
        text = path.read_bytes().decode("utf-8-sig")
        return SourceFile(name, text, ast.parse(text))
    except SyntaxError as error:
        return SourceFile(name, "", None, f"syntax error: {error.msg}", error.lineno or 0)
    except (UnicodeDecodeError, ValueError, OSError, RecursionError, MemoryError) as error:
        return SourceFile(name, "", None, f"cannot be read: {error}", 0)


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield every function of a tree, nested ones too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def called_name(node: ast.expr) -> str:
    """Return the last part of the name that a call's function is written as, else an empty text."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def imported_modules(tree: ast.AST) -> set[str]:
    """Return the names that `import` statements bind to modules."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    return found
