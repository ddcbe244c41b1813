"""Collecting the configuration of a tree: classes, namespaces, dictionaries, options and files."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from ris_verified.audit.config_schema import (
    ARGUMENTS, CONFIG_CLASS, CONFIG_FILE, CONFIG_NAME, DATA_CLASS, FILES, MAKER, Schema, Section,
)  # fmt: skip
from ris_verified.audit.imports import module_names
from ris_verified.audit.syntax import SourceFile, Tree, called_name, dotted, root_name, text_of

CLOSED = {
    "object", "NamedTuple", "BaseModel", "BaseSettings", "ABC", "Generic", "Protocol", "TypedDict", "Struct", "Enum",
    "IntEnum", "StrEnum", "FrozenModel",
}  # fmt: skip
NAMESPACES = {
    "SimpleNamespace", "Namespace", "EasyDict", "edict", "AttrDict", "DotDict", "Munch", "munchify", "Box", "DotMap",
    "ConfigDict", "FrozenConfigDict", "CfgNode", "CN", "create", "DictConfig", "dict", "OrderedDict", "HParams",
}  # fmt: skip
STRICT = {"dataclass", "define", "frozen", "attrs", "s", "mutable", "NamedTuple", "BaseModel", "BaseSettings", "Struct"}
YAML_KEY = re.compile(r"^\s*(?:-\s+)?[\"']?([A-Za-z_]\w*)[\"']?\s*[:=]", re.MULTILINE)
LARGEST, MOST = 200_000, 500  # bytes of a file that people write by hand, and how many are looked at


def read_schema(tree: Tree) -> Schema:
    """Collect everything that defines configuration names."""
    schema = Schema()
    _classes(tree, schema)
    for file, module in tree.parsed:
        _arguments(file, schema)
        _values(file, module, schema)
    _instances(tree, schema)
    _yaml(tree, schema)
    return schema


# Classes


def _classes(tree: Tree, schema: Schema) -> None:
    every: dict[str, list[tuple[SourceFile, ast.ClassDef]]] = {}
    for file, _ in tree.parsed:
        for node in file.index.of(ast.ClassDef):
            every.setdefault(node.name, []).append((file, node))
    functions = {f.name for file, _ in tree.parsed for f in file.index.functions}
    todo = [name for name, nodes in every.items() if _is_config(name, nodes)]
    while todo:
        name = todo.pop()
        if name in schema.sections:
            continue
        section = schema.sections[name] = Section(name)
        for file, node in every[name]:
            todo += _read_class(file, node, section, every)
        section.strict = section.strict and len(every[name]) == 1 and name not in functions
    for section in schema.sections.values():
        for name, inner in section.members.items():
            if inner and inner not in schema.sections:
                section.members[name] = ""
        section.strict = section.strict or any(schema.sections[b].strict for b in section.bases if b in schema.sections)


def _is_config(name: str, nodes: list[tuple[SourceFile, ast.ClassDef]]) -> bool:
    if CONFIG_CLASS.search(name):
        return any(_holds(node) for _, node in nodes)
    return bool(DATA_CLASS.search(name)) and _is_data(nodes)


def _holds(node: ast.ClassDef) -> bool:
    methods = {getattr(item, "name", "") for item in node.body}
    error = any(called_name(base).endswith(("Error", "Exception", "Module", "TestCase")) for base in node.bases)
    return not error and not methods & {"forward", "setUp", "run", "__call__"}


def _read_class(
    file: SourceFile, node: ast.ClassDef, section: Section, every: dict[str, list[tuple[SourceFile, ast.ClassDef]]]
) -> Iterator[str]:  # noqa: E501
    """Fill a section from one class; yield the classes that belong to it."""
    decorators = {called_name(d.func if isinstance(d, ast.Call) else d) for d in node.decorator_list}
    bases = {called_name(b.value if isinstance(b, ast.Subscript) else b) for b in node.bases}
    own_init = any(isinstance(item, ast.FunctionDef) and item.name in ("__init__", "__new__") for item in node.body)
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


def _member(
    file: SourceFile, item: ast.stmt, section: Section, every: dict[str, list[tuple[SourceFile, ast.ClassDef]]]
) -> Iterator[str]:  # noqa: E501
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


def named(node: ast.expr | None) -> list[str]:
    """Return the class names in an annotation, forward references too."""
    if node is None:
        return []
    text = text_of(node)
    if text is not None:
        return re.findall(r"[A-Za-z_]\w*", text)
    if isinstance(node, ast.Subscript):
        outer = called_name(node.value)
        return named(node.slice) if outer in ("Optional", "Union", "Annotated", "Final", "ClassVar") else []
    if isinstance(node, ast.Tuple):
        return [name for item in node.elts for name in named(item)]
    if isinstance(node, ast.BinOp):
        return [*named(node.left), *named(node.right)]
    return [called_name(node)] if called_name(node) else []


def made_by(node: ast.expr | None) -> list[str]:
    """Return the class that an expression makes: `C()`, `field(default_factory=C)`, `x or C()`."""
    if isinstance(node, ast.BoolOp):
        return [name for value in node.values for name in made_by(value)]
    if not isinstance(node, ast.Call):
        return []
    for keyword in node.keywords:
        if keyword.arg in ("default_factory", "factory", "default"):
            value = keyword.value
            return made_by(value.body) if isinstance(value, ast.Lambda) else [called_name(value)] + made_by(value)
    return [called_name(node.func)]


# Options of a command line


def _arguments(file: SourceFile, schema: Schema) -> None:
    calls = [
        c
        for c in file.index.of(ast.Call)
        if called_name(c.func)
        in ("add_argument", "set_defaults", "add_subparsers", "HfArgumentParser", "DEFINE_string", "option")
    ]  # noqa: E501
    if not calls:
        return
    here = schema.sections.setdefault(f"{ARGUMENTS} of {file.name}", Section(f"{ARGUMENTS} of {file.name}"))
    pool = schema.sections.setdefault(ARGUMENTS, Section(ARGUMENTS, kind="arguments"))
    here.kind = "arguments"
    for call in calls:
        names, certain = _options(call)
        for name in names:
            here.add(name, file.at(call))
            pool.add(name, file.at(call))
        here.open |= not certain
        pool.open |= not certain
    known = {"parents", "argument_default"}
    for call in file.index.of(ast.Call):
        if called_name(call.func) == "ArgumentParser":
            here.open |= any(k.arg in known for k in call.keywords)
        elif re.match(r"add_\w*(args|arguments|options)", called_name(call.func)):
            here.open = True


def _options(call: ast.Call) -> tuple[list[str], bool]:
    name = called_name(call.func)
    keywords = {k.arg: k.value for k in call.keywords}
    if name == "set_defaults":
        return [k for k in keywords if k is not None], None not in keywords
    if name == "HfArgumentParser":
        return [], False
    given = text_of(keywords.get("dest"))
    if given is not None:
        return [given], True
    flags = [text for a in call.args if (text := text_of(a)) is not None]
    if name == "add_subparsers" or not call.args:
        return [], True
    if len(flags) < len([a for a in call.args if not isinstance(a, ast.Starred)]) or not flags:
        return [], False
    long = [f for f in flags if f.startswith("--")] or flags
    return [long[0].lstrip("-").replace("-", "_")], True


# Namespaces and dictionaries


def _values(file: SourceFile, module: ast.Module, schema: Schema) -> None:
    scopes: list[tuple[str, list[ast.stmt], bool]] = [(file.name, module.body, True)]
    scopes += [(f"{file.name}:{f.name}", f.body, False) for f in file.index.functions]
    for prefix, body, top in scopes:
        own: dict[str, str] = {}
        for item in _straight(body):
            if isinstance(item, ast.Assign | ast.AnnAssign) and item.value is not None:
                targets = item.targets if isinstance(item, ast.Assign) else [item.target]
                for target in targets:
                    _value(file, prefix, target, item.value, own, schema)
            elif isinstance(item, ast.Return) and isinstance(item.value, ast.Name) and item.value.id in own and not top:
                name = prefix.rsplit(":", 1)[1]
                if MAKER.search(name):
                    schema.makers[name] = own[item.value.id]
        if top:
            schema.modules[file.name] = own


def _straight(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for item in body:
        if isinstance(item, ast.If | ast.With | ast.Try | ast.For):
            yield from _straight(item.body)
            yield from _straight(getattr(item, "orelse", []))
        else:
            yield item


def _value(
    file: SourceFile, prefix: str, target: ast.expr, value: ast.expr, own: dict[str, str], schema: Schema
) -> None:
    if isinstance(target, ast.Name):
        made = next((n for n in made_by(value) if n in schema.sections), "")
        if isinstance(value, ast.Name) and value.id in own:
            own[target.id] = own[value.id]
        elif made and isinstance(value, ast.Call):
            own[target.id] = made
        elif _literal(value) is not None and (CONFIG_NAME.search(target.id) or _is_namespace(value)):
            own[target.id] = _section(file, f"{prefix}:{target.id}", target.id, value, schema)
        elif target.id in own:
            del own[target.id]
        return
    owner = own.get(root_name(target), "")
    if not owner or not isinstance(target, ast.Attribute | ast.Subscript):
        return
    for part in _steps(target.value):
        owner = schema.sections[owner].members.get(part, "") if owner in schema.sections else ""
    name = target.attr if isinstance(target, ast.Attribute) else text_of(target.slice)
    if owner in schema.sections and name and schema.sections[owner].kind == "value":
        inner = ""
        if _literal(value) is not None:
            inner = _section(file, f"{owner}.{name}", f"{schema.sections[owner].label}.{name}", value, schema)
        schema.sections[owner].add(name, file.at(target), inner)


def _steps(node: ast.expr) -> list[str]:
    steps: list[str] = []
    while isinstance(node, ast.Attribute | ast.Subscript):
        steps.append(node.attr if isinstance(node, ast.Attribute) else text_of(node.slice) or "")
        node = node.value
    return steps[::-1]


def _is_namespace(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and called_name(node.func) in NAMESPACES - {"dict", "OrderedDict", "create"}


def _literal(node: ast.expr) -> list[tuple[str | None, ast.expr]] | None:
    """Return names and values of a dictionary or namespace that is written out; a None name is unknown."""
    if isinstance(node, ast.Dict):
        return [(text_of(k) if k is not None else None, v) for k, v in zip(node.keys, node.values, strict=True)]
    if isinstance(node, ast.Call) and called_name(node.func) in NAMESPACES:
        found: list[tuple[str | None, ast.expr]] = [(k.arg, k.value) for k in node.keywords]
        for item in node.args:
            inner = _literal(item)
            found += inner if inner is not None else [(None, item)]
        return found
    return None


def _section(file: SourceFile, id: str, label: str, node: ast.expr, schema: Schema) -> str:
    section = schema.sections.setdefault(id, Section(label, kind="value"))
    for name, value in _literal(node) or ():
        if name is None:
            section.open = True
            continue
        inner = _section(file, f"{id}.{name}", f"{label}.{name}", value, schema) if _literal(value) else ""
        section.add(name, file.at(value), inner)
    return id


def _instances(tree: Tree, schema: Schema) -> None:
    """Note which sections are reached by name from other modules."""
    seen: dict[str, set[str]] = {}
    for own in schema.modules.values():
        for name, section in own.items():
            seen.setdefault(name, set()).add(section)
    schema.instances = {n: found.pop() for n, found in seen.items() if len(found) == 1 and CONFIG_NAME.search(n)}
    modules = module_names(tree)
    trees = {file.name: module for file, module in tree.parsed}
    for module, name in modules.items():
        if CONFIG_FILE.search(name) and name in trees:
            section = Section(module, kind="module")
            _module(trees[name], section, name)
            section.members |= schema.modules.get(name, {})
            schema.sections[f"module {module}"] = section
    for file, _ in tree.parsed:
        for function in file.index.functions:
            kinds = [n for n in named(function.returns) if n in schema.sections]
            made = [n for s in function.body if isinstance(s, ast.Return) for n in made_by(s.value)]
            found = kinds or [n for n in made if n in schema.sections]
            if found and MAKER.search(function.name):
                schema.makers.setdefault(function.name, found[0])


def _module(tree: ast.Module, section: Section, file: str) -> None:
    for node in _straight(tree.body):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                section.open |= alias.name == "*"
                section.add(alias.asname or alias.name.split(".")[0], f"{file}:{node.lineno}", value=False)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            section.add(node.name, f"{file}:{node.lineno}", value=False)
            section.open |= node.name == "__getattr__"
        else:
            for name in ast.walk(node):
                if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store):
                    section.add(name.id, f"{file}:{node.lineno}")
                elif isinstance(name, ast.Call) and called_name(name.func) in (
                    "globals",
                    "exec",
                    "vars",
                    "setattr",
                    "install_config_module",
                ):  # noqa: E501
                    section.open = True
    for node in ast.walk(tree):
        if isinstance(node, ast.Global):
            for text in node.names:
                section.add(text, f"{file}:{node.lineno}", value=False)


# Files


def _yaml(tree: Tree, schema: Schema) -> None:
    """Accept every key of the configuration files beside the source."""
    paths = [p for ending in ("*.yaml", "*.yml", "*.toml") for p in sorted(tree.folder.rglob(ending))]
    section = Section(FILES, kind="files")
    for path in paths[:MOST]:
        parts = path.relative_to(tree.folder).parts
        try:
            if any(part.startswith(".") for part in parts) or path.stat().st_size > LARGEST:
                continue
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        for match in YAML_KEY.finditer(text):
            section.add(match.group(1), path.relative_to(tree.folder).as_posix())
    if section.fields:
        schema.sections[FILES] = section
