"""Reading a folder of Python files as syntax trees, without importing any of it."""

from __future__ import annotations

import ast
import gc
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from ris_verified.audit.static.index import Index

SKIPPED = {"__pycache__", "node_modules", "build", "dist", "site-packages"}
Function = ast.FunctionDef | ast.AsyncFunctionDef
Made = TypeVar("Made")


@dataclass(frozen=True)
class SourceFile:
    """One file.

    Args:
        name: path relative to the folder, with forward slashes.
        text: as decoded.
        tree: syntax tree, None where it could not be parsed.
        error: why not.
        line: where the error is.
    """

    name: str
    text: str
    tree: ast.Module | None
    error: str = ""
    line: int = 0

    @cached_property
    def index(self) -> Index:
        """The nodes of the tree by type, found in one walk."""
        return Index(self.tree or ast.Module([], []))

    def at(self, node: ast.AST | int) -> str:
        """Return `file:line` of a node."""
        return f"{self.name}:{node if isinstance(node, int) else getattr(node, 'lineno', 0)}"


@dataclass(frozen=True)
class Tree:
    """All Python files of a folder, in order of their names."""

    folder: Path
    files: tuple[SourceFile, ...]
    memo: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def once(self, name: str, make: Callable[[Tree], Made]) -> Made:
        """Return what a function makes of this tree, made once."""
        if name not in self.memo:
            with uncollected():
                self.memo[name] = make(self)
        found: Made = self.memo[name]
        return found

    @cached_property
    def parsed(self) -> list[tuple[SourceFile, ast.Module]]:
        """The files that could be parsed, with their trees."""
        return [(file, file.tree) for file in self.files if file.tree is not None]


def read_tree(folder: Path) -> Tree:
    """Read every `.py` file below a folder; hidden, cache and build folders and linked folders are left out."""
    with uncollected(), warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        return Tree(folder, tuple(read_file(path, folder) for path in _python_files(folder)))


@contextmanager
def uncollected() -> Iterator[None]:
    """Keep the collector of cycles off: trees hold none, and its walks through millions of nodes take longest."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _python_files(folder: Path) -> list[Path]:
    found = []
    for here, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in SKIPPED and not name.startswith(".")]
        found += [Path(here, name) for name in names if name.endswith(".py") and not name.startswith(".")]
    return sorted(path for path in found if path.is_file() or path.is_symlink())


def read_file(path: Path, folder: Path) -> SourceFile:
    """Read one file; what stops the parser is kept as its error."""
    name = path.relative_to(folder).as_posix()
    text = ""
    try:
        content = path.read_bytes()
        # The parser sees bytes, so that it obeys a byte-order mark and a coding line as the interpreter does.
        tree = ast.parse(content)
        text = content.decode("utf-8-sig", "replace")
        file = SourceFile(name, text, tree)
        file.index.of(ast.Module)
        return file
    except SyntaxError as error:
        return SourceFile(name, "", None, f"syntax error: {error.msg}", error.lineno or 0)
    except (UnicodeDecodeError, ValueError, LookupError, OSError) as error:
        return SourceFile(name, "", None, f"cannot be read: {error}", 0)
    except (RecursionError, MemoryError):
        return SourceFile(name, "", None, "cannot be read: it is nested too deeply for the parser", 0)


def functions(tree: ast.AST) -> Iterator[Function]:
    """Yield every function of a tree, nested ones too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def called_name(node: ast.expr) -> str:
    """Return the last part of the name that a call's function is written as, else an empty text."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def dotted(node: ast.AST | None) -> str:
    """Return `a.b.c` for a chain of attributes of a name, else an empty text."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""


def root_name(node: ast.AST | None) -> str:
    """Return the name at the bottom of attributes, subscripts and calls, else an empty text."""
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call | ast.Starred):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def text_of(node: ast.AST | None) -> str | None:
    """Return the text of a string literal, else None."""
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def arguments(args: ast.arguments) -> list[ast.arg]:
    """Return every parameter, `*args` and `**kwargs` too."""
    extra = [a for a in (args.vararg, args.kwarg) if a is not None]
    return [*args.posonlyargs, *args.args, *args.kwonlyargs, *extra]
