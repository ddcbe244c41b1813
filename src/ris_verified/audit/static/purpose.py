"""What leaves the graph of gradients on purpose: choices, counts, constants, weights and statistics of one's own."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from ris_verified.audit.static.syntax import SourceFile, called_name, dotted, text_of

# What gives indices, which never carry a gradient.
CHOICES = {"argmin", "argmax", "argsort", "linear_sum_assignment", "long", "randperm", "nonzero", "searchsorted"}
# Constants that a loss or a blend compares with: no gradient belongs there.
CONSTANT = re.compile(
    r"samp|sample|target|truth|true|label|(^|_)gt|teacher|ema|momentum|weight|mask|scale|norm|ref|measured|observ|data|"
    r"noise|old|prior|_t$|baseline|count|step|valid|threshold|temperature|stat|anchor|batch|length",
    re.IGNORECASE,
)
COUNT = re.compile(r"mask|length|count|valid|size|(^|[._])(n|num|k)(_|$)", re.IGNORECASE)
WEIGHT = re.compile(r"(^|_)(w|weights?|balance|focal|coef|coefficients?|alpha|gamma)(_|$)", re.IGNORECASE)
NUMBERS = {"item", "tolist", "numpy", "float() of a tensor", "int() of a tensor"}
LIBRARIES = {"torch", "np", "numpy", "math", "nn", "F"}
SETTINGS = ("cfg.", "config.", "args.", "self.cfg.", "self.config.")


def is_constant(node: ast.AST, pattern: re.Pattern[str] = CONSTANT) -> bool:
    """Whether all that leaves the graph here is constant by its name; settings and comparisons are in any case."""
    owner = node.func if isinstance(node, ast.Call) else node
    value = owner.value if isinstance(owner, ast.Attribute) else None
    if isinstance(node, ast.Call) and node.args and dotted(value) in (*LIBRARIES, ""):
        value = node.args[0]
    if value is None:
        return False
    names = list(_leaves(value))
    compared = any(isinstance(inner, ast.Compare) for inner in ast.walk(value))
    return all(pattern.search(name) for name in names) if names else compared


def _leaves(node: ast.AST) -> Iterator[str]:
    """Yield the names and attributes that an expression is made of, without functions, methods and indices."""
    if isinstance(node, ast.Call):
        if isinstance(node.func, ast.Attribute) and dotted(node.func.value).split(".")[0] not in LIBRARIES:
            yield from _leaves(node.func.value)
        for part in (*node.args, *(keyword.value for keyword in node.keywords)):
            yield from _leaves(part)
    elif isinstance(node, ast.Name | ast.Attribute) and (text := dotted(node)):
        if not text.startswith(SETTINGS) and text.split(".")[0] not in LIBRARIES:
            yield text
    elif isinstance(node, ast.Attribute | ast.Subscript):
        yield from _leaves(node.value)
    elif not isinstance(node, ast.Compare):
        for child in ast.iter_child_nodes(node):
            yield from _leaves(child)


def buffers(file: SourceFile) -> set[str]:
    """Return what the classes of a file keep beside their parameters, as `self.name`."""
    named = [c.args[0] for c in file.index.of(ast.Call) if called_name(c.func) == "register_buffer" and c.args]
    return {f"self.{text_of(node)}" for node in named if text_of(node)}


class Purpose:
    """What of a function may leave the graph.

    Args:
        body: all nodes of the function.
        kept: attributes that hold statistics, as `self.name`.
    """

    def __init__(self, body: list[ast.AST], kept: set[str]) -> None:
        self.body, self.kept = body, kept
        self._blocks = {
            id(item.context_expr): {id(n): n for s in node.body for n in ast.walk(s)}
            for node in body
            if isinstance(node, ast.With)
            for item in node.items
        }
        calls = [n for n in body if isinstance(n, ast.Call) and called_name(n.func) in CHOICES]
        self._allowed = {id(inner) for call in calls for inner in ast.walk(call)}
        products = [n for n in body if isinstance(n, ast.BinOp) and isinstance(n.op, ast.Mult | ast.Div)]
        self._factors = {id(_root(part)) for n in products for part in (n.left, n.right)}
        self._statistics()
        self._grow()

    def meant(self, node: ast.AST, what: str) -> bool:
        """Whether what leaves the graph here only chooses, counts, or keeps a statistic."""
        return id(node) in self._allowed or (what in NUMBERS and is_constant(node, COUNT))

    def weighs(self, node: ast.AST) -> bool:
        """Whether an expression is part of what a name is given that weighs the terms of a loss."""
        given = [n for n in self.body if isinstance(n, ast.Assign) and all(map(self._weight, n.targets))]
        return any(inner is node for n in given for inner in ast.walk(n.value))

    def _weight(self, target: ast.expr) -> bool:
        if not (isinstance(target, ast.Name) and WEIGHT.search(target.id)):
            return False
        # A weight multiplies; alone it would be the loss.
        return all(id(load) in self._factors for load in self._loads(target.id))

    def block_meant(self, call: ast.AST, *, loss: bool) -> bool:
        """Whether nothing that a `with` on this call makes is read later but indices, statistics and weights."""
        block = self._blocks.get(id(call), {})
        stores = [n for n in block.values() if isinstance(getattr(n, "ctx", None), ast.Store)]
        if not block or any(isinstance(n, ast.Return | ast.Yield) for n in block.values()):
            return False
        return all(self._store_meant(node, block, loss) for node in stores)

    def writes_meant(self, node: ast.AST, owner: str) -> bool:
        """Whether a write in place is one of what has no gradient into a statistic."""
        if owner not in self.kept or not isinstance(node, ast.Call):
            return False
        cut = [any(called_name(n.func) == "detach" for n in ast.walk(a) if isinstance(n, ast.Call)) for a in node.args]
        plain = [isinstance(a, ast.Constant) or c for a, c in zip(node.args, cut, strict=True)]
        return all(plain) or any(id(node) in block for block in self._blocks.values())

    def _store_meant(self, node: ast.AST, block: dict[int, ast.AST], loss: bool) -> bool:
        if not isinstance(node, ast.Name):
            return isinstance(node, ast.Tuple | ast.List) or dotted(node) in self.kept
        loads = [n for n in self._loads(node.id) if id(n) not in block]
        if all(map(_chooses, self._values(node.id))) or all(id(n) in self._allowed for n in loads):
            return True
        return loss and bool(CONSTANT.search(node.id) or self._weight(node))

    def _loads(self, name: str) -> list[ast.Name]:
        named = [n for n in self.body if isinstance(n, ast.Name) and n.id == name]
        return [n for n in named if isinstance(n.ctx, ast.Load)]

    def _values(self, name: str) -> list[ast.expr]:
        given = [n for n in self.body if isinstance(n, ast.Assign)]
        return [n.value for n in given if any(name in _names(target) for target in n.targets)]

    def _statistics(self) -> None:
        for node in self.body:
            value: ast.AST | None = None
            if isinstance(node, ast.Assign) and all(dotted(target) in self.kept for target in node.targets):
                value = node.value
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr.endswith("_"):
                value = node if dotted(node.func.value) in self.kept else None
            if value is not None:
                self._allowed |= {id(inner) for inner in ast.walk(value)}

    def _grow(self) -> None:
        """Allow what is given to names that are read by choices only."""
        given = [n for n in self.body if isinstance(n, ast.Assign) and all(map(_names, n.targets))]
        before = -1
        while len(self._allowed) > before:
            before = len(self._allowed)
            for node in given:
                loads = [n for target in node.targets for name in _names(target) for n in self._loads(name)]
                if loads and all(id(n) in self._allowed for n in loads):
                    self._allowed |= {id(inner) for inner in ast.walk(node.value)}


def _root(node: ast.expr) -> ast.expr:
    while isinstance(node, ast.Subscript | ast.Attribute | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node


def _names(target: ast.expr) -> list[str]:
    parts = target.elts if isinstance(target, ast.Tuple) else [target]
    return (
        [part.id for part in parts if isinstance(part, ast.Name)] if all(isinstance(p, ast.Name) for p in parts) else []
    )


def _chooses(value: ast.expr) -> bool:
    return isinstance(value, ast.Call) and called_name(value.func) in CHOICES
