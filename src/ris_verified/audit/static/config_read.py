"""Collecting the configuration of a tree; here its classes."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from ris_verified.audit.static.config_made import made_by, named
from ris_verified.audit.static.config_schema import CONFIG_CLASS, DATA_CLASS, Schema, Section
from ris_verified.audit.static.config_values import read_arguments, read_files, read_modules, read_values
from ris_verified.audit.static.syntax import SourceFile, Tree, called_name, dotted, root_name, text_of

Every = dict[str, list[tuple[SourceFile, ast.ClassDef]]]
CLOSED = {
    "object", "NamedTuple", "BaseModel", "BaseSettings", "ABC", "Generic", "Protocol", "TypedDict", "Struct", "Enum",
    "IntEnum", "StrEnum", "FrozenModel",
}  # fmt: skip
STRICT = {"dataclass", "define", "frozen", "attrs", "s", "mutable", "NamedTuple", "BaseModel", "BaseSettings", "Struct"}


def read_schema(tree: Tree) -> Schema:
    """Collect everything that defines configuration names."""
    schema = Schema()
    _classes(tree, schema)
    for file, module in tree.parsed:
        read_arguments(file, schema)
        read_values(file, module, schema)
    read_modules(tree, schema)
    read_files(tree, schema)
    return schema


def _classes(tree: Tree, schema: Schema) -> None:
    every: Every = {}
    for file, _ in tree.parsed:
        for node in file.index.of(ast.ClassDef):
            every.setdefault(node.name, []).append((file, node))
    functions = {f.name for file, _ in tree.parsed for f in file.index.functions}
    todo = [name for name, nodes in every.items() if _is_config(name, nodes)]
    heirs = _heirs(every)
    while todo:
        name = todo.pop()
        if name in schema.sections:
            continue
        todo += heirs.get(name, ())
        section = schema.sections[name] = Section(name)
        for file, node in every[name]:
            todo += _read_class(file, node, section, every)
        section.strict = section.strict and len(every[name]) == 1 and name not in functions
    for section in schema.sections.values():
        for name, inner in section.members.items():
            if inner and inner not in schema.sections:
                section.members[name] = ""
        above = any(schema.sections[base].strict for base in section.bases if base in schema.sections)
        section.strict = (section.strict or above) and not section.own_init


def _bases(file: SourceFile, node: ast.ClassDef) -> set[str]:
    other = {a.asname: a.name for i in file.index.of(ast.ImportFrom) for a in i.names if a.asname}
    names = [called_name(b.value if isinstance(b, ast.Subscript) else b) for b in node.bases]
    return {other.get(name, name) for name in names}


def _heirs(every: Every) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, nodes in every.items():
        for file, node in nodes:
            for base in _bases(file, node):
                found.setdefault(base, []).append(name)
    return found


def _is_config(name: str, nodes: list[tuple[SourceFile, ast.ClassDef]]) -> bool:
    if CONFIG_CLASS.search(name):
        return any(_holds(node) for _, node in nodes)
    return bool(DATA_CLASS.search(name)) and _is_data(nodes)


def _holds(node: ast.ClassDef) -> bool:
    methods = {getattr(item, "name", "") for item in node.body}
    error = any(called_name(base).endswith(("Error", "Exception", "Module", "TestCase")) for base in node.bases)
    return not error and not methods & {"forward", "setUp", "run", "__call__"}


def _read_class(file: SourceFile, node: ast.ClassDef, section: Section, every: Every) -> Iterator[str]:
    """Fill a section from one class; yield the classes that belong to it."""
    decorators = {called_name(d.func if isinstance(d, ast.Call) else d) for d in node.decorator_list}
    bases = _bases(file, node)
    own_init = any(isinstance(item, ast.FunctionDef) and item.name in ("__init__", "__new__") for item in node.body)
    section.own_init |= own_init
    section.strict = bool((decorators | bases) & STRICT) and not own_init
    for base in bases:
        if base in every:
            section.bases.append(base)
            yield base
        elif base not in CLOSED:
            section.open = True
    for item in node.body:
        yield from _member(file, item, section, every)
    for inner in file.index.below(node):
        _self_member(file, node, inner, section)


def _member(file: SourceFile, item: ast.stmt, section: Section, every: Every) -> Iterator[str]:
    if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
        kind = next(
            (n for n in (*named(item.annotation), *made_by(item.value)) if n in every and _is_data(every[n])), ""
        )
        section.add(item.target.id, file.at(item), kind)
        yield from [kind] if kind else []
    elif isinstance(item, ast.Assign):
        kind = next((n for n in made_by(item.value) if n in every and _is_data(every[n])), "")
        for target in item.targets:
            for name in (t for t in ast.walk(target) if isinstance(t, ast.Name)):
                section.add(name.id, file.at(item), kind)
        yield from [kind] if kind else []
    elif isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef):
        section.add(item.name, file.at(item), value=False)
        section.open |= item.name in ("__getattr__", "__getattribute__", "__getitem__")
    elif isinstance(item, ast.ClassDef):
        data = any(isinstance(inner, ast.Assign | ast.AnnAssign) for inner in item.body)
        if item.name in ("Config", "Meta") and (item.name == "Meta" or section.strict):
            return
        section.add(item.name, file.at(item), item.name if data else "", value=False)
        yield from [item.name] if data else []
    elif isinstance(item, ast.If | ast.Try):
        for inner in ast.iter_child_nodes(item):
            if isinstance(inner, ast.stmt):
                yield from _member(file, inner, section, every)


def _is_data(nodes: list[tuple[SourceFile, ast.ClassDef]]) -> bool:
    for _, node in nodes:
        decorators = {called_name(d.func if isinstance(d, ast.Call) else d) for d in node.decorator_list}
        bases = {called_name(b) for b in node.bases}
        if CONFIG_CLASS.search(node.name) or (decorators | bases) & STRICT:
            return not any(b.endswith("Enum") for b in bases)
    return False


def _self_member(file: SourceFile, owner: ast.ClassDef, node: ast.AST, section: Section) -> None:
    pairs = [(t, node.value) for t in node.targets] if isinstance(node, ast.Assign) else []
    if isinstance(node, ast.AnnAssign):
        pairs = [(node.target, node.value)] if node.value is not None else []
    for target, value in pairs:
        if isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name) and target.value.id == "self":
            kind = next(iter(made_by(value)), "")
            section.add(target.attr, file.at(node), kind)
    if isinstance(node, ast.Call):
        name, given = called_name(node.func), node.args
        about_self = bool(given) and isinstance(given[0], ast.Name) and given[0].id in ("self", "cls")
        updates = name == "update" and isinstance(node.func, ast.Attribute) and root_name(node.func) == "self"
        if name in ("setattr", "__setattr__") and about_self and len(given) > 1:
            text = text_of(given[1])
            if text:
                section.add(text, file.at(node))
            elif owner.name == section.label:
                section.open = section.open or not section.strict
        elif updates and ("__dict__" in dotted(node.func) or dotted(node.func) == "self.update"):
            section.open = True
