"""Section 11 and RV1607: source that parses, imports without cycles and swallows no failure."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from ris_verified.audit.context import Context
from ris_verified.audit.imports import cycles
from ris_verified.audit.rule import Measurement, rule
from ris_verified.audit.rules.names import clean, require_source
from ris_verified.audit.syntax import called_name

BROAD = {"Exception", "BaseException"}


@rule(
    "RV1101",
    "Every module parses and no imports form a cycle",
    law="every file is valid Python; the graph of imports at module level has no cycle",
    why="A cycle works from one entry point and fails from another.",
    how="Syntax trees: strongly connected components of module-level imports; imports inside functions and under "
    "TYPE_CHECKING do not run at import. Bound: none. Linter and type checker run in CI, not here.",
    remedy="repair the file, or move the shared part below both modules",
    needs="source",
)
def parses(context: Context) -> Sequence[Measurement]:
    """Bound 0 is exact: files and cycles are counted."""
    require_source(context)
    found = [
        Measurement(1.0, 0.0, False, file.error, where=file.at(file.line)) for file in context.tree.files if file.error
    ]
    for cycle in cycles(context.tree):
        message = "import cycle " + " → ".join([*cycle, cycle[0]])
        found.append(Measurement(float(len(cycle)), 1.0, False, message, "modules", cycle[0]))
    return found or [clean(context, "every file parses and no import cycle exists")]


@rule(
    "RV1607",
    "No swallowed exception, no zero for a failure",
    law="no broad handler that drops the exception; no handler that returns or assigns a number",
    why="`except Exception: loss = 0.0` is the best trial of every study.",
    how="Syntax trees: bare and broad handlers that neither raise nor use the exception; handlers of any type that "
    "put a number or None in place of the result; suppress(Exception); nan_to_num that writes zero. Bound: "
    "none.",
    remedy="handle the exceptions that are expected, record them, and mark the result as missing",
    needs="source",
)
def swallowed(context: Context) -> Sequence[Measurement]:
    """Bound 0 is exact: handlers are counted."""
    require_source(context)
    found = [
        Measurement(1.0, 0.0, False, message, where=file.at(line))
        for file, tree in context.tree.parsed
        for line, message in _swallowing(tree)
    ]
    return found or [clean(context, "no exception is swallowed")]


def _swallowing(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            broad = node.type is None or any(
                called_name(n) in BROAD for n in ast.walk(node.type) if isinstance(n, ast.expr)
            )
            uses = any(
                isinstance(n, ast.Raise) or (isinstance(n, ast.Name) and n.id == node.name)
                for s in node.body
                for n in ast.walk(s)
            )
            if broad and not uses:
                yield node.lineno, "a broad handler drops its exception"
            elif any(_number_for_failure(s) for s in node.body):
                yield node.lineno, "a number stands in for a failure"
        elif isinstance(node, ast.Call) and called_name(node.func) == "suppress":
            if any(called_name(a) in BROAD for a in node.args):
                yield node.lineno, "suppress hides every exception"
        elif isinstance(node, ast.Call) and called_name(node.func) == "nan_to_num":
            given = [k.value for k in node.keywords if k.arg == "nan"]
            if not given or (isinstance(given[0], ast.Constant) and given[0].value == 0):
                yield node.lineno, "nan_to_num writes zero for a missing value"


def _number_for_failure(statement: ast.stmt) -> bool:
    value = statement.value if isinstance(statement, ast.Return | ast.Assign) else None
    if isinstance(value, ast.UnaryOp):
        value = value.operand
    number = isinstance(value, ast.Constant) and isinstance(value.value, int | float)
    return number and not isinstance(value.value, bool)  # type: ignore[union-attr]
