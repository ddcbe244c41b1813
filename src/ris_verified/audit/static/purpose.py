"""What leaves the graph of gradients on purpose: choices, counts, constants, weights and statistics of one's own."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from ris_verified.audit.static.inplace import written
from ris_verified.audit.static.syntax import SourceFile, called_name, dotted, text_of

# What gives indices, which never carry a gradient.
CHOICES = {"argmin", "argmax", "argsort", "linear_sum_assignment", "long", "randperm", "nonzero", "searchsorted"}
COUNTS = CHOICES | {"bincount", "histc", "one_hot"}
# Networks that are not trained here.
STILL = re.compile(r"teacher|frozen|(^|_)ema(_|$)|momentum|pretrain|target", re.IGNORECASE)
# Constants that a loss or a blend compares with: no gradient belongs there.
CONSTANT = re.compile(
    r"samp|sample|target|truth|true|label|(^|_)gt|teacher|ema|momentum|weight|mask|scale|norm|ref|measured|observ|data|"
    r"noise|old|prior|_t$|baseline|count|step|valid|threshold|temperature|stat|anchor|batch|length|(^|[._])ptr$",
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
        self._factors = {id(link) for n in products for part in (n.left, n.right) for link in _chain(part)}
        self._pairs = list(_pairs(body))
        self._allowed |= {id(inner) for part in _reports(body) for inner in ast.walk(part)}
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

    def compared(self, node: ast.AST) -> bool:
        """Whether what leaves the graph is only ever compared with what stays: a target, not the error."""
        given = [n for n in self.body if isinstance(n, ast.Assign) and any(i is node for i in ast.walk(n.value))]
        if not given:
            return self._beside_live(node, set())
        names = {name for n in given for target in n.targets for name in _names(target)}
        return bool(names) and all(self._only_compared(name, {}, names) for name in names)

    def _only_compared(self, name: str, block: dict[int, ast.AST], cut: set[str]) -> bool:
        loads = [n for n in self._loads(name) if id(n) not in block]
        return bool(loads) and all(self._beside_live(load, cut) for load in loads)

    def _beside_live(self, node: ast.AST, cut: set[str]) -> bool:
        return any(_live(partner, cut) for part, partner in self._pairs if any(node is n for n in _chain(part)))

    def block_meant(self, call: ast.AST, *, loss: bool) -> bool:
        """Whether nothing that a `with` on this call makes is read later but indices, statistics and weights."""
        block = self._blocks.get(id(call), {})
        stores = [n for n in block.values() if isinstance(vars(n).get("ctx"), ast.Store)]
        if not block or any(isinstance(n, ast.Return | ast.Yield) for n in block.values()):
            return False
        return all(self._store_meant(node, block, loss) for node in stores)

    def writes_meant(self, node: ast.AST, owner: str) -> bool:
        """Whether a write in place is one of what has no gradient into a statistic."""
        if owner not in self.kept or not isinstance(node, ast.Call):
            return False
        cut = {"detach", *COUNTS}
        plain = [_calls(a, cut) or all(name.startswith("self.") for name in _leaves(a)) for a in node.args]
        return all(plain) or any(id(node) in block for block in self._blocks.values())

    def _store_meant(self, node: ast.AST, block: dict[int, ast.AST], loss: bool) -> bool:
        if not isinstance(node, ast.Name):
            return isinstance(node, ast.Tuple | ast.List) or dotted(node) in self.kept
        loads = [n for n in self._loads(node.id) if id(n) not in block]
        made = self._values(node.id)
        if all(map(_chooses, made)) or all(id(n) in self._allowed for n in loads) or all(map(_still, made)):
            return True
        if not loss:
            return False
        return bool(CONSTANT.search(node.id)) or self._weight(node) or self._only_compared(node.id, block, {node.id})

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
                value = node if dotted(written(node.func.value)) in self.kept else None
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


def _pairs(body: list[ast.AST]) -> Iterator[tuple[ast.expr, ast.expr]]:
    """Yield what stands beside what: both sides of a difference, and each two arguments of a call."""
    for node in body:
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub):
            yield from ((node.left, node.right), (node.right, node.left))
        elif isinstance(node, ast.Call):
            given = [*node.args, *(keyword.value for keyword in node.keywords)]
            yield from ((one, other) for one in given for other in given if one is not other)


def _reports(body: list[ast.AST]) -> Iterator[ast.expr]:
    """Yield dictionaries that are returned beside something else: figures for a log."""
    for node in body:
        if isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple):
            yield from (part for part in node.value.elts[1:] if isinstance(part, ast.Dict | ast.DictComp))


def _chain(node: ast.expr) -> Iterator[ast.expr]:
    """Yield an expression and what its methods, attributes and indices are of."""
    yield node
    while isinstance(node, ast.Subscript | ast.Attribute | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
        yield node


def _live(node: ast.expr, cut: set[str]) -> bool:
    """Whether an expression carries a gradient by its names."""
    if _calls(node, {"detach"}):
        return False
    return any(not CONSTANT.search(name) and name.split(".")[0] not in cut for name in _leaves(node))


def _calls(node: ast.expr, names: set[str]) -> bool:
    return any(isinstance(n, ast.Call) and called_name(n.func) in names for n in ast.walk(node))


def _still(value: ast.expr) -> bool:
    return any(isinstance(n, ast.Call) and STILL.search(dotted(n.func)) for n in ast.walk(value))


def _names(target: ast.expr) -> list[str]:
    parts = target.elts if isinstance(target, ast.Tuple) else [target]
    return (
        [part.id for part in parts if isinstance(part, ast.Name)] if all(isinstance(p, ast.Name) for p in parts) else []
    )


def _chooses(value: ast.expr) -> bool:
    return isinstance(value, ast.Call) and called_name(value.func) in CHOICES
