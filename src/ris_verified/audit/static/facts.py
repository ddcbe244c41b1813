"""What a branch tells about names: tests that are met again have the answer that they had."""

from __future__ import annotations

import ast

from ris_verified.audit.static.syntax import called_name

Key = tuple[str, str, object]
Fact = tuple[Key, bool]
Facts = frozenset[Fact]
EITHER = {
    "any", "all", "min", "max", "abs", "type", "float", "int", "bool", "is_available", "isdir", "isfile", "exists",
    "is_floating_point",
}  # fmt: skip
FUNCTIONS = EITHER | {
    "len", "isinstance", "issubclass", "hasattr", "callable", "range", "enumerate", "zip", "sorted", "reversed", "list",
    "tuple", "set", "str", "id", "getattr",
}  # fmt: skip
METHODS = EITHER | {
    "startswith", "endswith", "items", "keys", "values", "dim", "numel", "ndimension", "count", "lower", "upper",
    "strip", "size",
}  # fmt: skip
MUTATORS = {
    "append", "extend", "insert", "pop", "popleft", "appendleft", "remove", "clear", "add", "discard", "update",
    "setdefault", "sort", "push", "put",
}  # fmt: skip
SIGNS: dict[type[ast.cmpop], tuple[str, bool]] = {
    ast.Eq: ("==", True), ast.NotEq: ("==", False), ast.Is: ("==", True), ast.IsNot: ("==", False),
    ast.Lt: ("<", True), ast.GtE: ("<", False), ast.Gt: (">", True), ast.LtE: (">", False),
    ast.In: ("in", True), ast.NotIn: ("in", False),
}  # fmt: skip


def path(node: ast.AST | None) -> str:
    """Return a text for an expression that has the same value when met again, else an empty text."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Constant):
        return repr(node.value)
    if isinstance(node, ast.Attribute):
        owner = path(node.value)
        return owner and f"{owner}.{node.attr}"
    if isinstance(node, ast.Subscript):
        owner, key = path(node.value), path(node.slice)
        return f"{owner}[{key}]" if owner and key else ""
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        parts = [path(item) for item in node.elts]
        return f"({', '.join(parts)})" if all(parts) else ""
    if isinstance(node, ast.BinOp | ast.UnaryOp):
        sides = [node.left, node.right] if isinstance(node, ast.BinOp) else [node.operand]
        parts = [path(side) for side in sides]
        return f"{type(node.op).__name__}({', '.join(parts)})" if all(parts) else ""
    return _call(node) if isinstance(node, ast.Call) else ""


def _call(node: ast.Call) -> str:
    name = called_name(node.func)
    pure = METHODS if isinstance(node.func, ast.Attribute) else FUNCTIONS
    if node.keywords or not (name in pure or name.startswith(("is_", "has_", "isinstance"))):
        return ""
    parts = [path(node.func), *(path(item) for item in node.args)]
    return f"{parts[0]}({', '.join(parts[1:])})" if all(parts) else ""


def fact_of(test: ast.expr) -> Fact | None:
    """Return what a test asks, and the answer that makes it true."""
    if isinstance(test, ast.Compare):
        if len(test.ops) != 1 or type(test.ops[0]) not in SIGNS:
            return None
        name, sign = SIGNS[type(test.ops[0])]
        left, right = test.left, test.comparators[0]
        if isinstance(left, ast.Constant) and name == "==":
            left, right = right, left
        return _comparison(name, sign, left, right)
    text = path(test)
    return ((text, "true", None), True) if text else None


def _comparison(name: str, sign: bool, left: ast.expr, right: ast.expr) -> Fact | None:
    owner, other = path(left), path(right)
    if not (owner and other):
        return None
    if isinstance(right, ast.Constant) and name == "==":
        return ((owner, name, (type(right.value).__name__, right.value)), sign)
    items = right.elts if isinstance(right, ast.Tuple | ast.List | ast.Set) else []
    if name == "in" and items and all(isinstance(item, ast.Constant) for item in items):
        values = tuple((type(i.value).__name__, i.value) for i in items if isinstance(i, ast.Constant))
        return ((owner, "in", values), sign)
    return ((owner, name, other), sign)


def known(facts: Facts, key: Key) -> bool | None:
    """Return the answer to a test that the facts imply, None where they imply none."""
    if (key, True) in facts:
        return True
    if (key, False) in facts:
        return False
    owner, kind, value = key
    equal = [k[2] for k, answer in facts if k[0] == owner and k[1] == "==" and answer and isinstance(k[2], tuple)]
    if equal:
        return _of_value(equal[0], kind, value)
    if kind == "==" and isinstance(value, tuple) and not value[1] and ((owner, "true", None), True) in facts:
        return False
    return None


def _of_value(equal: tuple[object, object], kind: str, value: object) -> bool | None:
    if kind == "true":
        return bool(equal[1])
    if kind == "==" and isinstance(value, tuple):
        return equal == value
    if kind == "in" and isinstance(value, tuple):
        return equal in value
    return None


def constant_fact(name: str, value: ast.expr | None) -> Facts:
    """Return what an assignment of a literal tells of a name."""
    if isinstance(value, ast.Constant):
        return frozenset({((name, "==", (type(value.value).__name__, value.value)), True)})
    if isinstance(value, ast.List | ast.Tuple | ast.Set) and value.elts:
        return frozenset({((name, "true", None), True)})
    if isinstance(value, ast.List | ast.Tuple) or (isinstance(value, ast.Dict) and not value.keys):
        return frozenset({((name, "true", None), False)})
    return frozenset()


def mentions(text: str, name: str) -> bool:
    """Whether a text of `path` depends on a name or on an attribute of it."""
    start = text.find(name)
    while start >= 0:
        end = start + len(name)
        before = text[start - 1] if start else " "
        after = text[end] if end < len(text) else " "
        if not (before.isalnum() or before in "_.") and not (after.isalnum() or after == "_"):
            return True
        start = text.find(name, start + 1)
    return False


def without(facts: Facts, names: set[str]) -> Facts:
    """Return the facts that do not depend on some names."""
    if not facts:
        return facts
    gone = [fact for fact in facts if any(_depends(fact[0], name) for name in names)]
    return facts.difference(gone) if gone else facts


def _depends(key: Key, name: str) -> bool:
    return (name in key[0] and mentions(key[0], name)) or (isinstance(key[2], str) and mentions(key[2], name))
