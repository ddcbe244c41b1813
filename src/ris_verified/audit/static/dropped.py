"""Failures that statements drop without a word: in `finally`, in `__exit__`, around a training step, after a test."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from ris_verified.audit.static.index import children
from ris_verified.audit.static.swallow import BROAD, EXPECTED, asks_missing, function_around, is_number, is_status
from ris_verified.audit.static.syntax import Function, SourceFile, called_name

Finding = tuple[int, str]
# What a run is for: a failure there is the run's.
TRAINING = {"backward", "step", "train_step", "training_step", "train", "fit", "loss", "forward", "optimize"}
STOPS = EXPECTED | {"TrialPruned", "StopAsyncIteration", "GeneratorExit", "EOFError"}
SCOPES = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef


def dropped_failures(file: SourceFile) -> Iterator[Finding]:
    """Yield line and message for every statement that lets a failure go on unseen."""
    for block in file.index.of(ast.Try):
        yield from ((node.lineno, f"{word} in finally drops the exception") for node, word in _leaving(block.finalbody))
        if _trains(block.body):
            yield from ((h.lineno, "a failed training step is dropped") for h in block.handlers if _silent(h))
    for item in file.index.of(ast.With):
        if _trains(item.body) and any(map(_suppresses, item.items)):
            yield item.lineno, "a failed training step is dropped"
    for function in file.index.functions:
        if function.name in ("__exit__", "__aexit__") and _always_true(function, file):
            yield function.lineno, f"{function.name} returns True and so drops every exception"
    for test in file.index.of(ast.If):
        # Among other conditions the number is a decision.
        if asks_missing(test.test) and not any(isinstance(node, ast.BoolOp) for node in ast.walk(test.test)):
            yield from _number_returned(test, file)


def _leaving(body: list[ast.stmt]) -> Iterator[tuple[ast.Return | ast.Break | ast.Continue, str]]:
    """Yield what leaves a `finally`; a loop inside it has its own break and continue."""
    stack: list[tuple[ast.AST, bool]] = [(statement, False) for statement in body]
    while stack:
        node, looped = stack.pop()
        if isinstance(node, ast.Return) or (isinstance(node, ast.Break | ast.Continue) and not looped):
            yield node, type(node).__name__.lower()
        if not isinstance(node, SCOPES):
            inside = looped or isinstance(node, ast.For | ast.AsyncFor | ast.While)
            stack += [(child, inside) for child in children(node)]


def _trains(body: list[ast.stmt]) -> bool:
    calls = (node for statement in body for node in ast.walk(statement) if isinstance(node, ast.Call))
    return any(called_name(call.func) in TRAINING for call in calls)


def _silent(handler: ast.ExceptHandler) -> bool:
    types = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    names = {called_name(t) if t is not None else "BaseException" for t in types}
    # Broad ones are found wherever they are.
    if names <= STOPS or names & BROAD:
        return False
    empty = ast.Pass | ast.Continue
    return all(isinstance(s, empty) or (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))
               for s in handler.body)  # fmt: skip


def _suppresses(item: ast.withitem) -> bool:
    call = item.context_expr
    if not isinstance(call, ast.Call) or called_name(call.func) != "suppress":
        return False
    return any(called_name(kind) not in STOPS for kind in call.args)


def _always_true(function: Function, file: SourceFile) -> bool:
    """Whether a function ends with `return True` and has no other way out."""
    last = function.body[-1]
    true = isinstance(last, ast.Return) and isinstance(last.value, ast.Constant) and last.value.value is True
    ways = [node for node in file.index.below(function) if isinstance(node, ast.Return | ast.Raise)]
    return true and len(ways) == 1


def _number_returned(test: ast.If, file: SourceFile) -> Iterator[Finding]:
    function = function_around(test, file)
    for statement in [*test.body, *test.orelse]:
        number = isinstance(statement, ast.Return) and is_number(statement.value)
        if number and function is not None and not is_status(function, file):
            yield statement.lineno, "a number is returned for a missing value"
