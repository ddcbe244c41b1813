"""Failures that leave no trace: swallowed exceptions, and numbers in place of what is missing."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from ris_verified.audit.static.syntax import Function, SourceFile, called_name, dotted, root_name

Finding = tuple[int, str]
BROAD = {"Exception", "BaseException"}
# Showing an exception on a terminal is not handling it: nothing that goes on can tell that something failed.
SHOWN = {
    "print", "pprint", "print_exc", "print_exception", "write", "debug", "info", "warning", "warn", "error",
    "exception", "critical", "log", "echo", "secho", "flush", "format_exc",
}  # fmt: skip
EXPECTED = {"ImportError", "ModuleNotFoundError", "KeyboardInterrupt", "StopIteration"}  # no failure of a computation
MISSING = {"isnan", "isinf", "isfinite", "isnull", "isna"}


def swallowed_failures(file: SourceFile) -> Iterator[Finding]:
    """Yield line and message for every failure that is made to look like a result."""
    for handler in file.index.of(ast.ExceptHandler):
        yield from _handler(handler, file)
    for call in file.index.of(ast.Call):
        if not (called_name(call.func) == "nan_to_num" and _recorded(call, file)):
            yield from _call(call)
    for node in file.index.of(ast.Assign):
        if is_number(node.value) and any(_masked(target) for target in node.targets):
            yield node.lineno, "a number is written over missing values"


def _handler(handler: ast.ExceptHandler, file: SourceFile) -> Iterator[Finding]:
    types = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    broad = any(t is None or called_name(t) in BROAD for t in types)
    expected = all(t is not None and called_name(t) in EXPECTED for t in types)
    numbers = [statement for statement in _statements(handler.body) if _number_for_failure(statement)]
    around = function_around(handler, file) if numbers else None
    status = around is not None and is_status(around, file)
    stand_ins = [n for n in numbers if not (status and _status(n)) and not _is_code(n, around, file)]
    if not expected and stand_ins:
        yield handler.lineno, "a number stands in for a failure"
    elif broad and not _handles(handler, file) and not _ends_with_status(handler, file):
        yield handler.lineno, "a broad handler drops its exception"


def function_around(node: ast.AST, file: SourceFile) -> Function | None:
    """Return the innermost function that holds a node."""
    around = [function for function in file.index.functions if node in file.index.below(function)]
    return around[-1] if around else None


def is_status(function: Function, file: SourceFile) -> bool:
    """Whether what a function returns are exit statuses: integers that are written out, or nothing."""
    inside = file.index.below(function)
    nested = {n for f in file.index.functions if f is not function and f in inside for n in file.index.below(f)}
    own = [node for node in inside if node not in nested]
    generates = any(isinstance(node, ast.Yield | ast.YieldFrom) for node in own)
    return not generates and all(_status(node) is not None for node in own if isinstance(node, ast.Return))


def _status(statement: ast.stmt) -> int | None:
    """Return the status that a function ends with, None where it is none."""
    if not isinstance(statement, ast.Return):
        return None
    if statement.value is None:
        return 0
    if isinstance(statement.value, ast.Name) and statement.value.id.isupper():
        return 1
    if not isinstance(statement.value, ast.Constant):
        return None
    number = 0 if statement.value.value is None else statement.value.value
    return number if type(number) is int else None


def _ends_with_status(handler: ast.ExceptHandler, file: SourceFile) -> bool:
    """Whether a handler ends its function, as the process will, with the status of a failure."""
    around = function_around(handler, file)
    return bool(_status(handler.body[-1])) and around is not None and is_status(around, file)


def _is_code(statement: ast.stmt, around: Function | None, file: SourceFile) -> bool:
    """Whether a statement sets the status that a function or module ends with: a name that only ever is a status."""
    target = statement.targets[0] if isinstance(statement, ast.Assign) else None
    if not (isinstance(statement, ast.Assign) and isinstance(target, ast.Name) and _whole(statement.value)):
        return False
    inside = file.index.below(around) if around else file.index.nodes
    ends = [n.value for n in inside if isinstance(n, ast.Return)] + [
        argument for n in inside if isinstance(n, ast.Call) and called_name(n.func) == "exit" for argument in n.args
    ]
    values = [n.value for n in inside if isinstance(n, ast.Assign) and target.id in map(_name, n.targets)]
    read = [n for n in inside if _name(n) == target.id and isinstance(n.ctx, ast.Load)]  # type: ignore[attr-defined]
    failed = statement.value.value != 0  # type: ignore[attr-defined]
    return failed and bool(read) and {*map(id, read)} <= {*map(id, ends)} and all(map(_whole, values))


def _name(node: ast.AST) -> str:
    return node.id if isinstance(node, ast.Name) else ""


def _whole(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and type(value.value) is int


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for statement in body:
        yield statement
        if isinstance(statement, ast.If | ast.With):
            yield from _statements([*statement.body, *getattr(statement, "orelse", [])])


def _handles(handler: ast.ExceptHandler, file: SourceFile) -> bool:
    """Whether a handler raises, ends the process, or does more with its exception than show it."""
    shown = _kept_unread(handler, file)
    for node in file.index.below(handler):
        if isinstance(node, ast.Raise):
            return True
        if isinstance(node, ast.Call):
            name = called_name(node.func)
            if name in ("exit", "_exit", "abort", "fail", "set_exception", "rollback", "skip", "xfail"):
                return True
            if name in SHOWN:
                shown |= {id(inner) for a in [*node.args, *(k.value for k in node.keywords)] for inner in ast.walk(a)}
        elif isinstance(node, ast.Name) and node.id == handler.name and id(node) not in shown:
            return True
        if (
            isinstance(node, ast.Call)
            and called_name(node.func) in ("exc_info", "format_exc")
            and id(node) not in shown
        ):
            return True
    return False


def _kept_unread(handler: ast.ExceptHandler, file: SourceFile) -> set[int]:
    """Return the places where the exception is given to a name that nothing reads."""
    around = function_around(handler, file)
    body = file.index.below(around) if around else file.index.nodes
    read = {n.id for n in body if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    read |= {name for n in body if isinstance(n, ast.Global | ast.Nonlocal) for name in n.names}
    return {
        id(inner)
        for node in file.index.below(handler)
        if around and isinstance(node, ast.Assign)
        if not any(name in read or not name for name in map(_name, node.targets))
        for inner in ast.walk(node.value)
    }


def _number_for_failure(statement: ast.stmt) -> bool:
    value = statement.value if isinstance(statement, ast.Return | ast.Assign | ast.AnnAssign) else None
    return is_number(value) or (isinstance(value, ast.Tuple) and bool(value.elts) and all(map(is_number, value.elts)))


def is_number(value: ast.expr | None) -> bool:
    """Whether an expression is a number that looks like a result; NaN does not."""
    if isinstance(value, ast.UnaryOp):
        value = value.operand
    if isinstance(value, ast.Call):
        name = called_name(value.func)
        if name in ("zeros", "zeros_like", "ones", "new_zeros"):
            return True
        if name in ("float", "int", "tensor", "array", "asarray", "float32", "float64") and value.args:
            text = value.args[0]
            infinite = isinstance(text, ast.Constant) and isinstance(text.value, str) and "inf" in text.value.lower()
            return infinite or is_number(text)
        return False
    if isinstance(value, ast.Attribute):
        return value.attr in ("inf", "infty") and root_name(value) in ("math", "np", "numpy", "torch")
    number = isinstance(value, ast.Constant) and isinstance(value.value, int | float)
    return number and not isinstance(value.value, bool)  # type: ignore[union-attr]


def _call(call: ast.Call) -> Iterator[Finding]:
    name = called_name(call.func)
    keywords = {k.arg: k.value for k in call.keywords}
    if name == "suppress" and any(called_name(a) in BROAD for a in call.args):
        yield call.lineno, "suppress hides every exception"
    elif name in ("nan_to_num", "nan_to_num_"):
        nan = keywords.get("nan", call.args[2] if len(call.args) > 2 and "torch" not in dotted(call.func) else None)
        # A value that was chosen, such as a cap on the error, is a decision; zero is what happens without one.
        if nan is None or (isinstance(nan, ast.Constant) and nan.value == 0):
            yield call.lineno, "nan_to_num writes zero for a missing value"
    elif name == "fillna" and call.args and is_number(call.args[0]):
        yield call.lineno, "fillna writes a number for a missing value"
    elif name == "where" and len(call.args) == 3 and asks_missing(call.args[0]):
        if any(is_number(value) for value in call.args[1:]):
            yield call.lineno, "where writes a number for a missing value"
    elif name in ("masked_fill", "masked_fill_") and call.args and any(map(asks_missing, call.args)):
        if is_number(call.args[-1]):
            yield call.lineno, "masked_fill writes a number for a missing value"
    elif "errors" in keywords and name in ("decode", "encode", "open", "read_text", "to_numeric", "str"):
        value = keywords["errors"]
        if isinstance(value, ast.Constant) and value.value == "ignore":
            yield call.lineno, "errors='ignore' drops what cannot be read"


def _recorded(call: ast.Call, file: SourceFile) -> bool:
    """Whether a mask of what is missing is made of the same name beforehand and used for more than a test."""
    name, around = root_name(call.args[0]) if call.args else "", function_around(call, file)
    body = file.index.below(around) if around and name else []
    tested = {id(n) for s in body if isinstance(s, ast.If | ast.While | ast.Assert) for n in ast.walk(s.test)}
    masks = {
        target.id
        for node in body
        if isinstance(node, ast.Assign) and asks_missing(node.value) and node.lineno <= call.lineno
        for target in node.targets
        if isinstance(target, ast.Name) and name in {n.id for n in ast.walk(node.value) if isinstance(n, ast.Name)}
    }
    return any(
        isinstance(n, ast.Name) and n.id in masks and isinstance(n.ctx, ast.Load) and id(n) not in tested for n in body
    )


def _masked(target: ast.expr) -> bool:
    return isinstance(target, ast.Subscript) and asks_missing(target.slice)


def asks_missing(node: ast.expr) -> bool:
    """Whether an expression asks if something is missing."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Call) and called_name(inner.func) in MISSING:
            return True
        unequal = isinstance(inner, ast.Compare) and len(inner.ops) == 1 and isinstance(inner.ops[0], ast.NotEq)
        if unequal and ast.dump(inner.left) == ast.dump(inner.comparators[0]):  # type: ignore[attr-defined]
            return True  # x != x holds for NaN only
    return False
