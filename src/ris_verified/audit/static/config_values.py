"""Configuration that is no class: namespaces, dictionaries, options, modules and files."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from ris_verified.audit.static.config_made import made_by, named
from ris_verified.audit.static.config_schema import ARGUMENTS, CONFIG_FILE, CONFIG_NAME, FILES, MAKER, Schema, Section
from ris_verified.audit.static.imports import module_names
from ris_verified.audit.static.syntax import SourceFile, Tree, called_name, root_name, text_of

NAMESPACES = {
    "SimpleNamespace", "Namespace", "EasyDict", "edict", "AttrDict", "DotDict", "Munch", "munchify", "Box", "DotMap",
    "ConfigDict", "FrozenConfigDict", "CfgNode", "CN", "create", "DictConfig", "dict", "OrderedDict", "HParams",
}  # fmt: skip
YAML_KEY = re.compile(r"^\s*(?:-\s+)?[\"']?([A-Za-z_]\w*)[\"']?\s*[:=]", re.MULTILINE)
LARGEST, MOST = 200_000, 500  # bytes of a file that people write by hand, and how many are looked at


def read_arguments(file: SourceFile, schema: Schema) -> None:
    calls = [
        c
        for c in file.index.of(ast.Call)
        if called_name(c.func)
        in ("add_argument", "set_defaults", "add_subparsers", "HfArgumentParser", "DEFINE_string", "option")
    ]
    if not calls:
        return
    pool = schema.sections.setdefault(ARGUMENTS, Section(ARGUMENTS, kind="arguments"))
    # Who adds to a parser made elsewhere is given its other arguments, too.
    own = f"{ARGUMENTS} of {file.name}" if any(_makes_parser(c) for c in file.index.of(ast.Call)) else ARGUMENTS
    here = schema.sections.setdefault(own, Section(own))
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


def _makes_parser(call: ast.Call) -> bool:
    name = called_name(call.func)
    return name.endswith("Parser") or name in ("add_parser", "DEFINE_string", "option")


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


def read_values(file: SourceFile, module: ast.Module, schema: Schema) -> None:
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
    # A chain of elif is a tower of branches: a stack of its own instead of the interpreter's.
    stack = list(reversed(body))
    while stack:
        item = stack.pop()
        if isinstance(item, ast.If | ast.With | ast.Try | ast.For):
            stack += reversed([*item.body, *getattr(item, "orelse", [])])
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


def read_modules(tree: Tree, schema: Schema) -> None:
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
            constants = Section(module, kind="module")
            _module(trees[name], constants, name)
            constants.members |= schema.modules.get(name, {})
            schema.sections[f"module {module}"] = constants
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
                ):
                    section.open = True
    for inner in ast.walk(tree):
        if isinstance(inner, ast.Global):
            for text in inner.names:
                section.add(text, f"{file}:{inner.lineno}", value=False)


def read_files(tree: Tree, schema: Schema) -> None:
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
