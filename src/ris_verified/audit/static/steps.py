"""What a training step does between `zero_grad`, `backward` and `step`, read from syntax trees."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from ris_verified.audit.static.graph import breaks
from ris_verified.audit.static.purpose import is_constant
from ris_verified.audit.static.reaching import Flows
from ris_verified.audit.static.syntax import Function, SourceFile, called_name, dotted
from ris_verified.audit.static.tensors import Tensors

Finding = tuple[int, str]
# What is meant as a call wherever it stands alone.
CALLED = {"step", "backward", "zero_grad", "eval", "train"}
NUMBERS = {"item", "tolist", "numpy", "torch.tensor", "np.array"}
# What may compute gradients elsewhere.
GRADIENTS = re.compile(r"backward|gradients|accumulate|closure|train", re.IGNORECASE)


def step_slips(file: SourceFile) -> Iterator[Finding]:
    """Yield line and fault of every training step that cannot train."""
    if "backward" not in file.text:
        return
    for node in file.index.of(ast.Expr):
        if isinstance(node.value, ast.Attribute) and node.value.attr in CALLED:
            yield node.lineno, f"{dotted(node.value) or node.value.attr} is named and not called"
    for function in file.index.functions:
        body = file.index.below(function)
        backward = [n.func.value for n in body if isinstance(n, ast.Call) and _is_backward(n.func)]  # type: ignore[attr-defined]
        if backward:
            yield from _off_the_graph(function, body, backward)
            for block in _blocks(body):
                yield from _cleared(block)


def _is_backward(function: ast.expr) -> bool:
    return isinstance(function, ast.Attribute) and function.attr == "backward"


def _off_the_graph(function: Function, body: list[ast.AST], backward: list[ast.expr]) -> Iterator[Finding]:
    """Yield what turns tensors on the way to `backward` into numbers, or into leaves whose gradient nobody reads."""
    tensors, flows = Tensors(function, body, inputs=True), Flows(body, backward)
    read = {
        n.value.id for n in body if isinstance(n, ast.Attribute) and n.attr == "grad" and isinstance(n.value, ast.Name)
    }
    for node in body:
        what = breaks(node, tensors)
        if what in NUMBERS and not is_constant(node) and flows.reaches(node):
            yield node.lineno, f"{function.name} calls backward on what left the graph with {what}"  # type: ignore[attr-defined]
    for item in body:
        if isinstance(item, ast.Assign) and _is_cut(item.value) and flows.reaches(item.value):
            names = {target.id for target in item.targets if isinstance(target, ast.Name)}
            if not names & read:
                yield item.lineno, f"{function.name} calls backward on a detached leaf; nothing reads its gradient"


def _is_cut(value: ast.expr) -> bool:
    """Whether an expression is `x.detach().requires_grad_()`."""
    names = []
    while isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute):
        names.append(value.func.attr)
        value = value.func.value
    return names[:1] == ["requires_grad_"] and "detach" in names


def _blocks(body: list[ast.AST]) -> Iterator[list[ast.stmt]]:
    for node in body:
        for name in ("body", "orelse", "finalbody"):
            block = getattr(node, name, None)
            if isinstance(block, list) and block and isinstance(block[0], ast.stmt):
                yield block


def _cleared(block: list[ast.stmt]) -> Iterator[Finding]:
    """Yield where gradients are cleared and the same optimiser steps before any are computed."""
    cleared: set[str] = set()
    for statement in block:
        owner, name = _method(statement)
        if name == "step" and owner in cleared:
            yield statement.lineno, f"{owner} steps on gradients that were just cleared"
        if name == "zero_grad":
            cleared.add(owner)
        elif any(isinstance(n, ast.Call) and GRADIENTS.search(called_name(n.func)) for n in ast.walk(statement)):
            cleared.clear()


def _method(statement: ast.stmt) -> tuple[str, str]:
    """Return owner and name of a statement that is a call of a method; a step with a closure computes gradients."""
    call = statement.value if isinstance(statement, ast.Expr) else None
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
        return "", ""
    given = call.func.attr == "step" and bool(call.args or call.keywords)
    return dotted(call.func.value), "" if given else call.func.attr
