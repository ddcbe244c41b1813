"""What is certain without following any branch: loops that run, calls that end, statements that cannot fail."""

from __future__ import annotations

import ast

from ris_verified.audit.static.facts import path
from ris_verified.audit.static.index import children
from ris_verified.audit.static.syntax import called_name

ENDS = {"exit", "_exit", "quit", "abort", "assert_never", "skipTest"}
TEST_ENDS = {"fail", "skip", "xfail"}
WRAPS = {"enumerate", "reversed", "sorted", "list", "tuple", "iter", "set", "tqdm"}


def never_returns(call: ast.Call, ends: set[str]) -> bool:
    """Whether a call is known to raise or to end the process."""
    name = called_name(call.func)
    if name in ENDS or name in ends:
        return True
    owner = path(call.func.value) if isinstance(call.func, ast.Attribute) else ""
    if name == "error":
        return "pars" in owner.lower() or owner in ("ap", "p")
    return name in TEST_ENDS and owner in ("pytest", "self", "unittest")


def never_empty(node: ast.expr, filled: set[str]) -> bool:
    """Whether a loop over an expression surely runs."""
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        return any(not isinstance(item, ast.Starred) for item in node.elts)
    if isinstance(node, ast.Dict):
        return any(key is not None for key in node.keys)
    if isinstance(node, ast.Constant):
        return bool(node.value)
    if isinstance(node, ast.Name):
        return node.id in filled
    if not isinstance(node, ast.Call):
        return False
    name = called_name(node.func)
    if name in WRAPS:
        return bool(node.args) and never_empty(node.args[0], filled)
    if name == "zip":
        return all(never_empty(item, filled) for item in node.args)
    if name in ("items", "keys", "values") and isinstance(node.func, ast.Attribute):
        return never_empty(node.func.value, filled)
    if name == "range":
        return _range(node)
    return name in ("count", "cycle", "product") and all(never_empty(a, filled) or name == "count" for a in node.args)


def runs_if(node: ast.expr) -> list[ast.expr]:
    """Return tests of which each says, where it is false, that a loop over an expression runs at least once."""
    while isinstance(node, ast.Call) and called_name(node.func) in WRAPS and node.args:
        node = node.args[0]
    if isinstance(node, ast.Call) and called_name(node.func) == "range" and len(node.args) == 1:
        number = node.args[0]
    elif isinstance(node, ast.Name | ast.Attribute):
        number = ast.Call(ast.Name("len", ast.Load()), [node], [])
    else:
        return []
    return [
        ast.Compare(number, [op], [ast.Constant(edge)]) for op, edge in ((ast.LtE(), 0), (ast.Lt(), 1), (ast.Eq(), 0))
    ]


def is_safe(node: ast.stmt) -> bool:
    """Whether a statement cannot raise, so that it need not be thought of as interrupted."""
    if isinstance(node, ast.Pass | ast.Global | ast.Nonlocal):
        return True
    if not isinstance(node, ast.Assign) or not all(isinstance(t, ast.Name) for t in node.targets):
        return False
    value = node.value
    empty = isinstance(value, ast.List | ast.Tuple | ast.Dict) and not children(value)
    return isinstance(value, ast.Constant | ast.Name) or empty


def _range(node: ast.Call) -> bool:
    values = [a.value if isinstance(a, ast.Constant) and isinstance(a.value, int) else None for a in node.args]
    if len(values) == 1:
        return values[0] is not None and values[0] > 0
    return len(values) == 2 and None not in values and values[0] < values[1]  # type: ignore[operator]


def matches_all(pattern: ast.pattern) -> bool:
    """Whether a pattern matches whatever it is given."""
    if isinstance(pattern, ast.MatchAs):
        return pattern.pattern is None or matches_all(pattern.pattern)
    return isinstance(pattern, ast.MatchOr) and any(matches_all(p) for p in pattern.patterns)
