"""Writes into tensors that a function was given."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from ris_verified.audit.static.syntax import Function, called_name, dotted, root_name
from ris_verified.audit.static.tensors import Tensors

Write = tuple[ast.stmt | ast.expr, str, str]
WRITES = re.compile(r"^[a-z][a-z0-9_]*[a-z0-9]_$")
NO_WRITES = {"requires_grad_", "retain_grad_", "share_memory_", "rename_"}
MADE = {
    "zeros", "ones", "empty", "full", "eye", "arange", "linspace", "zeros_like", "ones_like", "empty_like", "full_like",
    "rand", "randn", "rand_like", "randn_like", "randint", "new_zeros", "new_ones", "new_empty", "new_full", "clone",
    "new_tensor", "tensor", "cat", "stack", "concat", "diag_embed", "polar", "complex", "where", "tril", "triu",
    "einsum", "kron", "matmul", "bmm", "randperm", "logspace", "repeat", "deepcopy", "copy",
}  # fmt: skip
VIEWS = {
    "view", "reshape", "squeeze", "unsqueeze", "transpose", "permute", "flatten", "expand", "narrow", "select",
    "view_as",
    "diagonal", "contiguous", "to", "float", "detach", "T", "mT", "mH", "real", "imag", "data",
}  # fmt: skip


def written_in_place(function: Function, body: list[ast.AST], tensors: Tensors) -> Iterator[Write]:
    """Yield the statement, what is written into, and how, unless the function made it itself."""
    fresh, given = _origins(body, tensors)
    for node in body:
        if isinstance(node, ast.Call):
            yield from _method(node, fresh, tensors)
        elif isinstance(node, ast.Assign | ast.AugAssign):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                yield from _assigned(target, node, given, tensors)


def written(owner: ast.expr) -> ast.expr:
    """Return what a chain of writes in place, such as `x.mul_(a).add_(b)`, goes into."""
    while isinstance(owner, ast.Call) and isinstance(owner.func, ast.Attribute) and owner.func.attr.endswith("_"):
        owner = owner.func.value
    return owner


def _origins(body: list[ast.AST], tensors: Tensors) -> tuple[set[str], set[str]]:
    """Return the names that hold what was made here, and those that hold an input or a view of one."""
    values: dict[str, list[ast.expr]] = {}
    for node in body:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    values.setdefault(target.id, []).append(node.value)
    fresh = {name for name, found in values.items() if all(_is_made(value) for value in found)}
    given = {name for name in tensors.inputs if name in tensors.names or name not in values}
    given -= {name for name, found in values.items() if name in given and all(not _is_view(v, given) for v in found)}
    given |= {name for name, found in values.items() if any(_is_view(value, given) for value in found)}
    return fresh, given


def _is_made(value: ast.expr) -> bool:
    if isinstance(value, ast.BinOp):
        return True
    while isinstance(value, ast.Call):
        if called_name(value.func) in MADE:
            return True
        if not isinstance(value.func, ast.Attribute):
            return False
        value = value.func.value
    return False


def _is_view(value: ast.expr, given: set[str]) -> bool:
    while isinstance(value, ast.Call | ast.Attribute | ast.Subscript):
        if isinstance(value, ast.Call):
            if called_name(value.func) not in VIEWS:
                return False
            value = value.func
        elif isinstance(value, ast.Attribute) and not (value.attr in VIEWS or isinstance(value.value, ast.Name)):
            return False
        else:
            value = value.value
    return isinstance(value, ast.Name) and value.id in given


def _method(node: ast.Call, fresh: set[str], tensors: Tensors) -> Iterator[Write]:
    if not isinstance(node.func, ast.Attribute):
        return
    name = node.func.attr
    if not WRITES.match(name) or name in NO_WRITES or name == "detach_":
        return
    owner = node.func.value
    if dotted(owner).split(".")[0] in ("torch", "nn", "init", "np") or _is_made(owner):
        return
    root = root_name(owner)
    if root and root not in fresh:
        yield node, dotted(written(owner)), f"writes in place with {name} into {root!r}, which it did not make"


def _assigned(target: ast.expr, node: ast.Assign | ast.AugAssign, given: set[str], tensors: Tensors) -> Iterator[Write]:
    if isinstance(target, ast.Subscript):
        keys = [n.value for n in ast.walk(target.slice) if isinstance(n, ast.Constant)]
        owner = target.value
        while isinstance(owner, ast.Subscript) or (isinstance(owner, ast.Attribute) and owner.attr in VIEWS):
            owner = owner.value
        if any(isinstance(key, str) for key in keys) or not isinstance(owner, ast.Name):
            return
        if owner.id in given and (owner.id in tensors.names or owner.id not in tensors.inputs):
            yield node, owner.id, f"writes in place into a part of its input {owner.id!r}"
    elif isinstance(target, ast.Name) and isinstance(node, ast.AugAssign):
        if target.id in given and target.id in tensors.names:
            yield node, target.id, f"writes in place into its input {target.id!r} with an augmented assignment"
    elif isinstance(target, ast.Attribute) and target.attr == "data":
        yield node, dotted(target), f"writes into {root_name(target)!r} through .data"
