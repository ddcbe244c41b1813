"""Where a source tree gives a quantity its default."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterator
from typing import Literal

from ris_verified.audit.static.config_schema import ARGUMENT_NAME, ARGUMENTS, CONFIG_NAME, Schema
from ris_verified.audit.static.syntax import SourceFile, Tree, called_name, text_of

Value = float | bool | str
# Whose a default is: local ones are a parameter's or a constant's; each command may have an option of the same name.
Owner = Literal["", "local", "option"]
Default = tuple[str, Value, int, Owner]  # name, value, line, owner
OPERATORS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul,
}  # fmt: skip
# Names that every second function uses for something of its own.
GENERIC = {
    "eps", "epsilon", "dim", "axis", "size", "seed", "start", "stop", "step", "n", "k", "p", "x", "y", "name", "mode",
    "verbose", "index", "count", "scale", "weight", "bias", "alpha", "gamma", "shape", "length", "width", "height",
    "depth", "order", "rank", "device", "dtype", "key", "value", "type", "kind", "level", "timeout", "inplace", "tol",
    "atol", "rtol", "min", "max", "low", "high", "num", "training", "version", "rate", "debug",
}  # fmt: skip


def conflicts(tree: Tree, schema: Schema, further: set[str]) -> Iterator[tuple[str, str, int]]:
    """Yield place, message and number of values of every quantity with more than one default.

    Args:
        tree: the source.
        schema: its configuration names; each class that has a name may have its own default.
        further: names that count as configuration names besides.
    """
    holders = {
        i: {n.lower() for n in s.fields}
        for i, s in schema.sections.items()
        if s.kind in ("class", "value", "arguments") and i != ARGUMENTS and not (s.foreign and schema.lent)
    }
    options = {i for i, s in schema.sections.items() if s.kind == "arguments"}
    known = {n for names in holders.values() for n in names} | {n.lower() for n in further}
    places: dict[str, dict[tuple[str, Value], str]] = {}
    of_options: dict[str, set[tuple[str, Value]]] = {}
    classes = {i for i, s in schema.sections.items() if s.kind == "class"}
    for file, _ in tree.parsed:
        for name, value, line, owner in defaults(file, classes):
            lower, typed = name.lower(), (type(value).__name__, value)
            common = owner == "local" and (lower in GENERIC or len(lower) < 3 or isinstance(value, str | bool))
            if lower in known and not common:
                places.setdefault(lower, {}).setdefault(typed, file.at(line))
                if owner == "option":
                    of_options.setdefault(lower, set()).add(typed)
    for name, values in places.items():
        owners = [i for i, names in holders.items() if name in names]
        # That this package has a field of this name gives the tree's own no second default.
        owners = [i for i in owners if not schema.is_foreign(i)] or owners
        # Where only options have the name, each command may have its own; what else has it must have one of theirs.
        allowed = len([i for i in owners if i not in options]) or len(of_options.get(name, owners))
        if len(values) > max(1, allowed):
            shown = ", ".join(f"{_show(value)} at {where}" for (_, value), where in values.items())
            yield list(values.values())[-1], f"{name} has {len(values)} defaults: {shown}", len(values)


def _show(value: Value) -> str:
    return f"{value:g}" if isinstance(value, float) else repr(value)


def literal(node: ast.expr | None) -> Value | None:
    """Return the value of a literal, or of simple arithmetic with literals, else None."""
    if isinstance(node, ast.Constant) and isinstance(node.value, bool | str):
        return node.value
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return float(node.value) if abs(node.value) < 1e300 else None
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = literal(node.operand)
        return -value if isinstance(value, float) else None
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        left, right = literal(node.left), literal(node.right)
        if isinstance(left, float) and isinstance(right, float):
            return OPERATORS[type(node.op)](left, right)
    return None


def defaults(file: SourceFile, classes: set[str]) -> Iterator[Default]:
    """Yield every default of a file; those of other classes than the configuration's are as local as a parameter's."""
    for name, node, owner in _named_values(file, classes):
        value = literal(node)
        if value is not None and node is not None:
            yield name, value, node.lineno, owner


def _named_values(file: SourceFile, classes: set[str]) -> Iterator[tuple[str, ast.expr | None, Owner]]:
    for scope in file.index.of(ast.Module, ast.ClassDef):
        local: Owner = "" if isinstance(scope, ast.ClassDef) and scope.name in classes else "local"
        for item in scope.body:  # type: ignore[attr-defined]
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                yield item.target.id, _field(item.value), local
            elif isinstance(item, ast.Assign):
                yield from ((t.id, item.value, local) for t in item.targets if isinstance(t, ast.Name))
    for function in file.index.functions:
        names = [a.arg for a in [*function.args.posonlyargs, *function.args.args]]
        given = zip(reversed(names), reversed(function.args.defaults), strict=False)
        yield from ((name, value, "local") for name, value in given)
        named = zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True)
        yield from ((argument.arg, value, "local") for argument, value in named)
    for call in file.index.of(ast.Call):
        yield from _of_call(call)


def _field(node: ast.expr | None) -> ast.expr | None:
    # `x: float = field(default=1.0)` and pydantic's `Field(1.0)`.
    if isinstance(node, ast.Call) and called_name(node.func) in ("field", "Field", "ib", "attrib"):
        given = [k.value for k in node.keywords if k.arg == "default"]
        return given[0] if given else node.args[0] if node.args else None
    return node


def _of_call(call: ast.Call) -> Iterator[tuple[str, ast.expr | None, Owner]]:
    name = called_name(call.func)
    if name == "add_argument":
        keywords = {k.arg: k.value for k in call.keywords}
        flags = [t for a in call.args if (t := text_of(a)) and t.startswith("--")]
        dest = text_of(keywords.get("dest")) or (flags[0].lstrip("-").replace("-", "_") if flags else "")
        if dest and "default" in keywords:
            yield dest, keywords["default"], "option"
    elif name in ("getattr", "get", "pop", "setdefault") and len(call.args) >= 2:
        owner = call.args[0] if name == "getattr" else call.func.value if isinstance(call.func, ast.Attribute) else None
        key, default = call.args[-2:]
        said = called_name(owner) if owner is not None else ""
        text = text_of(key)
        if text and (CONFIG_NAME.search(said) or ARGUMENT_NAME.match(said) or said in ("kwargs", "params")):
            yield text, default, ""
    elif name == "set_defaults":
        yield from ((k.arg, k.value, "option") for k in call.keywords if k.arg)
