"""What leaves the graph of gradients in a network's forward, read from syntax trees."""

from __future__ import annotations

import ast

from ris_verified.audit.syntax import called_name, functions

BREAKS = {"detach", "detach_", "numpy", "item", "tolist", "no_grad", "inference_mode"}
Function = ast.FunctionDef | ast.AsyncFunctionDef


def forward_functions(tree: ast.Module) -> list[Function]:
    """Return every `forward` of a class and the functions of the same file that it calls."""
    by_name: dict[str, Function] = {f.name: f for f in functions(tree)}
    todo: list[Function] = [f for c in ast.walk(tree) if isinstance(c, ast.ClassDef) for f in c.body
            if isinstance(f, ast.FunctionDef) and f.name == "forward"]  # fmt: skip
    if not any(_is_module(c) for c in ast.walk(tree) if isinstance(c, ast.ClassDef)):
        return []
    reached: dict[int, Function] = {}
    while todo:
        function = todo.pop()
        if id(function) in reached:
            continue
        reached[id(function)] = function
        calls = {called_name(node.func) for node in ast.walk(function) if isinstance(node, ast.Call)}
        todo += [by_name[name] for name in calls & set(by_name)]
    return list(reached.values())


def _is_module(node: ast.ClassDef) -> bool:
    names = {called_name(base) for base in node.bases}
    return any(n == "forward" for n in (getattr(f, "name", "") for f in node.body)) and bool(names)


def graph_breaks(function: Function) -> list[tuple[int, str]]:
    """Return line and name of everything in a function that leaves the graph."""
    found = []
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and called_name(node.func) in BREAKS:
            found.append((node.lineno, called_name(node.func)))
        elif isinstance(node, ast.Attribute) and node.attr == "data" and isinstance(node.ctx, ast.Load):
            found.append((node.lineno, ".data"))
    return found + [(function.lineno, "no_grad") for d in function.decorator_list if "no_grad" in ast.dump(d)]
