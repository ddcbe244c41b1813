"""Which configuration names a source tree reads and writes, and from which section."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from ris_verified.audit.config_read import named
from ris_verified.audit.config_schema import ARGUMENT_NAME, ARGUMENTS, CONFIG_NAME, Schema
from ris_verified.audit.imports import import_base, module_names
from ris_verified.audit.index import children
from ris_verified.audit.scopes import COMPREHENSIONS
from ris_verified.audit.syntax import Function, SourceFile, Tree, arguments, called_name, dotted, root_name, text_of

READERS = {"getattr", "hasattr", "attrgetter", "select", "deepgetattr", "rgetattr"}
SAME = {"deepcopy", "copy", "clone", "replace", "_replace", "evolve", "model_copy", "merge", "to_container", "cast"}
LOADERS = re.compile(r"(load|get|make|build|parse|read|compose|from|create|fromfile)_?\w*", re.IGNORECASE)
VALUES = {"cfg", "CFG", "mdl_cfg", "conf"}  # what is imported under these names is no module
LOOSE = {
    "Any", "dict", "Dict", "Mapping", "MutableMapping", "Namespace", "SimpleNamespace", "DictConfig", "object",
    "ConfigDict", "CfgNode", "EasyDict", "Box", "ListConfig",
}  # fmt: skip
SINKS = {
    "dump", "dumps", "init", "log", "info", "debug", "print", "pprint", "pformat", "save", "write", "safe_dump", "str",
    "repr", "log_hyperparams", "save_hyperparameters", "config_update", "encode", "log_params", "add_hparams", "hash",
    "to_yaml", "warning", "digest",
}  # fmt: skip


class Kind(NamedTuple):
    """What an expression is thought to be.

    Args:
        section: id of its section, or ANY.
        weak: the name that it is known by where nothing but the name says so.
        fresh: made in the same function, so that it may still be filled in.
    """

    section: str
    weak: str = ""
    fresh: bool = False


@dataclass(frozen=True)
class Read:
    """One use of a configuration name.

    Args:
        file, line: where.
        owner: id of the section, or ANY.
        name: what is asked for.
        weak: the name of the variable where only that says what it is.
        how: `read`, `write`, `fresh` (a write to what was just made), `keyword` or `import`.
    """

    file: SourceFile
    line: int
    owner: str
    name: str
    weak: str = ""
    how: str = "read"


@dataclass
class Uses:
    """Everything that a tree does with its configuration.

    Args:
        reads: uses of names that can be followed.
        whole: sections that are read as a whole, or by a name known at run time only.
        loose: attribute names that are read from a value that cannot be followed.
    """

    reads: list[Read] = field(default_factory=list)
    whole: set[str] = field(default_factory=set)
    loose: set[str] = field(default_factory=set)

    @cached_property
    def _owners(self) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for read in self.reads:
            if read.how in ("read", "import"):
                found.setdefault(read.name, set()).add(read.owner)
        return found

    def asked(self, name: str) -> set[str]:
        """Return the sections that are asked for a name."""
        return self._owners.get(name, set())


class Modules:
    """Modules of a tree and the sections in them."""

    def __init__(self, tree: Tree, schema: Schema) -> None:
        self.files, self.schema, self.folder = module_names(tree), schema, tree.folder.name
        self.names = {file: name for name, file in self.files.items()}

    def find(self, target: str) -> str | None:
        """Return the module in the tree that a dotted name means, else None."""
        target = target.removeprefix(f"{self.folder}.")
        while target and target not in self.files:
            target = target.partition(".")[2]
        return target or None

    def base(self, node: ast.ImportFrom, file: SourceFile) -> str:
        """Return the dotted module that a `from … import` of a file names."""
        return import_base(node, self.names.get(file.name, ""), file.name.endswith("__init__.py"))

    def bound(self, node: ast.Import | ast.ImportFrom, file: SourceFile) -> Iterator[tuple[str, Kind | None]]:
        """Yield name and kind of what an import brings; of a name that only says what it is, nothing."""
        if isinstance(node, ast.Import):
            for alias in node.names:
                section = f"module {self.find(alias.name)}"
                known = section in self.schema.sections and (alias.asname is not None or "." not in alias.name)
                yield alias.asname or alias.name.split(".")[0], Kind(section) if known else None
            return
        module = self.find(self.base(node, file))
        for alias in node.names:
            kind = self._from(module, alias.name)
            unknown = module is not None and f"module {module}" not in self.schema.sections
            if kind is not None or not (CONFIG_NAME.search(alias.name) and (unknown or alias.name in VALUES)):
                yield alias.asname or alias.name, kind

    def taken(self, file: SourceFile) -> Iterator[tuple[str | None, ast.alias, int]]:
        """Yield module, name and line of every `from … import`."""
        for node in file.index.of(ast.ImportFrom):
            module = self.find(self.base(node, file))
            yield from ((module, alias, node.lineno) for alias in node.names)

    def missing(self, file: SourceFile) -> Iterator[tuple[str, str, int]]:
        """Yield section, name and line of every name that a module of constants is asked for and does not have."""
        for module, alias, line in self.taken(file):
            holder = self.schema.sections.get(f"module {module}")
            if holder is None or holder.open or alias.name == "*" or alias.name in holder.members:
                continue
            if f"{module}.{alias.name}".strip(".") not in self.files and not alias.name.startswith("__"):
                yield f"module {module}", alias.name, line

    def _from(self, module: str | None, name: str) -> Kind | None:
        if module is None:
            return None
        inside = self.schema.modules.get(self.files[module], {})
        if name in inside:
            return Kind(inside[name])
        section = f"module {f'{module}.{name}'.strip('.')}"
        return next((Kind(known) for known in (section, name) if known in self.schema.sections), None)


class _Reader:
    """Follows configuration values through one file by their names, annotations and assignments."""

    def __init__(self, file: SourceFile, schema: Schema, modules: Modules, uses: Uses) -> None:
        self.file, self.schema, self.uses = file, schema, uses
        self.modules = modules
        self.top: dict[str, Kind | None] = {}
        uses.reads += [Read(file, line, owner, name, how="import") for owner, name, line in modules.missing(file)]
        self.top |= {name: Kind(section) for name, section in schema.modules.get(file.name, {}).items()}
        self.scopes: list[dict[str, Kind | None]] = [self.top]
        self.classes: list[tuple[str, dict[str, Kind | None]]] = []
        self.silent: set[int] = set()
        own = f"{ARGUMENTS} of {file.name}"
        self.arguments = own if own in schema.sections else ARGUMENTS if ARGUMENTS in schema.sections else ""

    # What an expression is

    def kind(self, node: ast.expr | None) -> Kind | None:
        """Return what an expression is thought to be, None where it is no configuration."""
        if isinstance(node, ast.Name):
            return self._name(node.id)
        if isinstance(node, ast.Attribute | ast.Subscript):
            return self._part(node)
        if isinstance(node, ast.Call):
            return self._call(node)
        if isinstance(node, ast.BoolOp):
            return next((k for v in node.values if (k := self.kind(v))), None)
        if isinstance(node, ast.IfExp):
            return self.kind(node.body) or self.kind(node.orelse)
        return self.kind(node.value) if isinstance(node, ast.NamedExpr | ast.Await) else None

    def _name(self, name: str) -> Kind | None:
        for scope in reversed(self.scopes):
            if name in scope:
                return scope[name]
        return Kind(name) if name in self.schema.sections else self.by_name(name)

    def by_name(self, name: str) -> Kind | None:
        """Return what nothing but a name says."""
        schema = self.schema
        held = schema.instances.get(name)
        if CONFIG_NAME.search(name):
            generic = name.lower().lstrip("_") in ("cfg", "config", "conf")
            return Kind(held if held and not generic else schema.root, name)
        if ARGUMENT_NAME.match(name) and self.arguments:
            # Everybody calls something `args`: one file's use of the name says nothing about another's.
            return Kind(self.arguments, f"{name} in {self.file.name}")
        return None

    def _part(self, node: ast.Attribute | ast.Subscript) -> Kind | None:
        owner = self.kind(node.value)
        name = node.attr if isinstance(node, ast.Attribute) else text_of(node.slice)
        if owner is not None:
            if name == "__dict__":
                return owner
            inner = self.schema.member(owner.section, name) if name else None
            return Kind(inner, owner.weak, owner.fresh) if inner else None
        if not isinstance(node, ast.Attribute):
            return None
        if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls") and self.classes:
            known = self.classes[-1][1]
            if node.attr in known:
                return known[node.attr]
        elif (root := root_name(node)) in self.top and self._name(root) is None:
            return None  # an attribute of an imported module that is not part of the tree's configuration
        return Kind(self.schema.root, node.attr) if CONFIG_NAME.search(node.attr) else None

    def _call(self, node: ast.Call) -> Kind | None:
        name = called_name(node.func)
        section = self.schema.sections.get(name)
        if section is not None and section.kind == "class":
            return Kind(name, fresh=True)
        owner = node.func.value if isinstance(node.func, ast.Attribute) else None
        if name in SAME:
            first = node.args[-1] if name == "cast" and node.args else node.args[0] if node.args else None
            found = self.kind(owner) or self.kind(first)
            return found._replace(fresh=name not in ("cast", "to_container")) if found else None
        if name in ("vars", "asdict", "as_dict", "model_dump", "to_dict"):
            return self.kind(node.args[0]) if node.args else self.kind(owner)
        if name == "getattr" and len(node.args) > 1:
            inner = self.kind(node.args[0])
            text = text_of(node.args[1])
            part = self.schema.member(inner.section, text) if inner and text else None
            return Kind(part, inner.weak) if inner and part else None
        if name in ("parse_args", "parse_known_args", "parse_intermixed_args") and self.arguments:
            return Kind(self.arguments, fresh=True)
        if name in self.schema.makers:
            return Kind(self.schema.makers[name], fresh=True)
        if owner is not None and (made := self.kind(owner)) and made.section in self.schema.sections:
            if self.schema.sections[made.section].kind == "class" and LOADERS.match(name):
                return made._replace(fresh=True)
        return None

    # Scopes

    def function(self, node: Function | ast.Lambda) -> None:
        """Read a function in a scope of its own."""
        if not isinstance(node, ast.Lambda):
            self.all_of(node.decorator_list)
        self.all_of([*node.args.defaults, *node.args.kw_defaults])
        scope: dict[str, Kind | None] = {}
        special = {a.arg for a in (node.args.vararg, node.args.kwarg) if a is not None}
        for argument in arguments(node.args):
            scope[argument.arg] = None if argument.arg in special else self._argument(argument)
        if self.classes and not isinstance(node, ast.Lambda):
            first = arguments(node.args)[:1]
            own = self.classes[-1][0]
            if first and first[0].arg in ("self", "cls") and own in self.schema.sections:
                scope[first[0].arg] = Kind(own)
            elif first and first[0].arg in ("self", "cls"):
                del scope[first[0].arg]
        self.scopes.append(scope)
        self.all_of(node.body if isinstance(node.body, list) else [node.body])
        self.scopes.pop()

    def _argument(self, argument: ast.arg) -> Kind | None:
        if argument.annotation is None:
            return self.by_name(argument.arg)
        names = named(argument.annotation)
        found = next((n for n in names if n in self.schema.sections), None)
        if found:
            return Kind(found)
        return self.by_name(argument.arg) if set(names) & LOOSE else None

    def class_(self, node: ast.ClassDef) -> None:
        """Read a class; what its methods put into `self` is known to all of them."""
        section = self.schema.sections.get(node.name)
        own = node.name if section is not None and section.kind == "class" else ""
        known: dict[str, Kind | None] = {}
        self.classes.append((own, known))
        if not own:
            self._attributes(node, known)
        self.all_of([*node.decorator_list, *node.bases, *node.keywords])
        self.scopes.append({})
        self.all_of(node.body)
        self.scopes.pop()
        self.classes.pop()

    def _attributes(self, node: ast.ClassDef, known: dict[str, Kind | None]) -> None:
        for function in node.body:
            if not isinstance(function, ast.FunctionDef):
                if isinstance(function, ast.AnnAssign) and isinstance(function.target, ast.Name):
                    found = [n for n in named(function.annotation) if n in self.schema.sections]
                    if found:
                        known[function.target.id] = Kind(found[0])
                continue
            scope = {a.arg: self._argument(a) for a in arguments(function.args)}
            self.scopes.append(scope)
            for item in function.body:
                if isinstance(item, ast.Assign | ast.AnnAssign) and item.value is not None:
                    targets = item.targets if isinstance(item, ast.Assign) else [item.target]
                    for target in targets:
                        if isinstance(target, ast.Attribute) and dotted(target) == f"self.{target.attr}":
                            kind = self.kind(item.value)
                            if kind is not None or CONFIG_NAME.search(target.attr):
                                known[target.attr] = kind and kind._replace(fresh=False)
                                if kind is None and self._weak_value(item.value):
                                    del known[target.attr]
            self.scopes.pop()

    def comprehension(self, node: ast.expr) -> None:
        """Read a comprehension; its targets hide outer names."""
        scope: dict[str, Kind | None] = {}
        for part in node.generators:  # type: ignore[attr-defined]
            for target in ast.walk(part.target):
                if isinstance(target, ast.Name):
                    scope[target.id] = None
        self.scopes.append(scope)
        self.all_of(children(node))
        self.scopes.pop()

    # Statements

    def assign(self, node: ast.Assign | ast.AnnAssign) -> None:
        """Follow `s = cfg.scene` and `m, s = cfg.model, cfg.scene`."""
        self.visit(node.value)
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        for target in targets:
            pairs: list[tuple[ast.expr, ast.expr | None]] = [(target, node.value)]
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                pairs = list(zip(target.elts, node.value.elts, strict=False))
            elif isinstance(target, ast.Tuple) and isinstance(node.value, ast.Call):
                pairs = [
                    (t, node.value if i == 0 and "known" in called_name(node.value.func) else None)
                    for i, t in enumerate(target.elts)
                ]  # noqa: E501
            for left, right in pairs:
                if isinstance(left, ast.Name):
                    self._bind(left.id, right, node)
                else:
                    self.visit(left)

    def _bind(self, name: str, value: ast.expr | None, node: ast.Assign | ast.AnnAssign) -> None:
        scope = self.scopes[-1]
        if scope is self.top and name in self.schema.modules.get(self.file.name, {}):
            return
        kind = self.kind(value)
        if kind is None and isinstance(node, ast.AnnAssign):
            found = [n for n in named(node.annotation) if n in self.schema.sections]
            kind = Kind(found[0], fresh=True) if found else None
        if kind is None and CONFIG_NAME.search(name) and self._weak_value(value):
            kind = self.by_name(name)
        scope[name] = kind

    def _weak_value(self, value: ast.expr | None) -> bool:
        if not isinstance(value, ast.Call):
            return isinstance(value, ast.Name) and self._name(value.id) is None and value.id not in self.top
        name = called_name(value.func)
        text = dotted(value.func).lower()
        return bool(LOADERS.fullmatch(name)) and bool(re.search(r"cfg|conf|yaml|hydra|toml|compose", text))

    def imports(self, node: ast.Import | ast.ImportFrom) -> None:
        """Follow an import."""
        self.scopes[-1].update(self.modules.bound(node, self.file))

    def loop(self, node: ast.For | ast.AsyncFor) -> None:
        """Read a loop; its targets hide outer names."""
        self.visit(node.iter)
        for target in ast.walk(node.target):
            if isinstance(target, ast.Name):
                self.scopes[-1][target.id] = None
        self.all_of([*node.body, *node.orelse])

    def attribute(self, node: ast.Attribute) -> None:
        """Record `cfg.name`."""
        self.visit(node.value)
        owner = self.kind(node.value)
        if owner is not None:
            self.record(owner, node.attr, node.lineno, not isinstance(node.ctx, ast.Load))
        elif isinstance(node.ctx, ast.Load) and not (isinstance(node.value, ast.Name) and node.value.id in self.top):
            self.uses.loose.add(node.attr)

    def subscript(self, node: ast.Subscript) -> None:
        """Record `cfg["name"]`."""
        self.visit(node.value)
        self.visit(node.slice)
        owner, text = self.kind(node.value), text_of(node.slice)
        if owner is not None and text is not None:
            self.record(owner, text, node.lineno, not isinstance(node.ctx, ast.Load))
        elif owner is not None and not isinstance(node.slice, ast.Constant):
            self.uses.whole.add(owner.section)

    def augmented(self, node: ast.AugAssign) -> None:
        """Read `cfg.name += 1`, a write."""
        self.visit(node.value)
        self.visit(node.target)

    def compare(self, node: ast.Compare) -> None:
        """Record `"name" in cfg`."""
        self.all_of(children(node))
        text = text_of(node.left)
        if text is not None and isinstance(node.ops[0], ast.In | ast.NotIn) and text.isidentifier():
            owner = self.kind(node.comparators[0])
            if owner is not None:
                self.record(owner, text, node.lineno)

    def pattern(self, node: ast.MatchClass) -> None:
        """Record `case Config(name=value)`."""
        section = called_name(node.cls)
        if section in self.schema.sections:
            for name in node.kwd_attrs:
                self.record(Kind(section), name, node.lineno)
        self.all_of(children(node))

    def call(self, node: ast.Call) -> None:
        """Record calls that read or write by name."""
        name, args = called_name(node.func), node.args
        owner = node.func.value if isinstance(node.func, ast.Attribute) else None
        if name in SINKS:
            self.silent |= {id(inner) for a in [*args, *(k.value for k in node.keywords)] for inner in _outer(a)}
        about = self.kind(args[0]) if args else None
        if name in READERS and len(args) > 1 and about is not None:
            self._text(about, args[1], node.lineno)
        elif name in ("setattr", "__setattr__", "delattr", "update") and len(args) > 1 and about is not None:
            self._text(about, args[1], node.lineno, write=True)
        elif owner is not None and name in ("get", "pop", "setdefault") and args and (held := self.kind(owner)):
            self._text(held, args[0], node.lineno, write=name != "get")
        elif owner is not None and name == "update" and (held := self.kind(owner)):
            self._update(held, node)
        elif name in ("vars", "fields", "asdict", "astuple", "iter", "to_container") and about is not None:
            if id(node) not in self.silent:
                self.uses.whole.add(about.section)
        elif (
            owner is not None
            and name in ("items", "values", "to_dict", "model_dump", "_asdict")
            and id(node) not in self.silent
        ):  # noqa: E501
            if held := self.kind(owner):
                self.uses.whole.add(held.section)
        self._keywords(node, name, about, owner)
        for keyword in node.keywords:
            if keyword.arg is None and id(node) not in self.silent and (held := self.kind(keyword.value)):
                self.uses.whole.add(held.section)
        self.all_of(children(node))

    def _update(self, held: Kind, node: ast.Call) -> None:
        names = [k.arg for k in node.keywords if k.arg]
        for item in node.args:
            names += [t for k in item.keys if (t := text_of(k))] if isinstance(item, ast.Dict) else []
        for name in names:
            self.record(held, name, node.lineno, write=True)

    def _keywords(self, node: ast.Call, name: str, about: Kind | None, owner: ast.expr | None) -> None:
        section = self.schema.sections.get(name)
        target = name if section is not None and section.strict and section.kind == "class" else ""
        if name in ("replace", "evolve") and about is not None and not about.weak:
            target = about.section
        elif name == "_replace" and owner is not None and (held := self.kind(owner)):
            target = held.section
        if target:
            for keyword in node.keywords:
                if keyword.arg is not None:
                    self.uses.reads.append(Read(self.file, node.lineno, target, keyword.arg, how="keyword"))

    def _text(self, owner: Kind, node: ast.expr, line: int, write: bool = False) -> None:
        text = text_of(node)
        if text is None:
            self.uses.whole.add(owner.section)
            return
        held: Kind | None = owner
        *outer, last = text.split(".")
        for part in outer:
            if held is None:
                return
            self.record(held, part, line)
            inner = self.schema.member(held.section, part)
            held = Kind(inner, held.weak) if inner else None
        if held is not None:
            self.record(held, last, line, write)

    def record(self, owner: Kind, name: str, line: int, write: bool = False) -> None:
        """Note one use."""
        section = self.schema.sections.get(owner.section)
        inside = bool(self.classes) and self.classes[-1][0] == owner.section and not owner.weak
        how = "read"
        if write:
            building = len(self.scopes) == 1 and owner.section in self.schema.modules.get(self.file.name, {}).values()
            building |= section is not None and section.kind == "arguments"
            how = "fresh" if owner.fresh or inside or building else "write"
            if section is not None and section.kind == "arguments":
                section.add(name, self.file.at(line))
        self.uses.reads.append(Read(self.file, line, owner.section, name, owner.weak, how))

    # The walk

    def visit(self, node: ast.AST | None) -> None:
        """Read one node."""
        if node is None:
            return
        handler = HANDLERS.get(type(node))
        if handler is not None:
            handler(self, node)
        else:
            for child in children(node):
                self.visit(child)

    def all_of(self, nodes: Iterable[ast.AST | None]) -> None:
        """Read several nodes."""
        for node in nodes:
            self.visit(node)


def _outer(node: ast.expr) -> Iterator[ast.expr]:
    """Yield an argument and what it passes on as a whole."""
    yield node
    if isinstance(node, ast.Call):
        for item in [*node.args, *(k.value for k in node.keywords)]:
            yield from _outer(item)
        if isinstance(node.func, ast.Attribute):
            yield from _outer(node.func.value)
    elif isinstance(node, ast.Dict):
        for value in node.values:
            yield from _outer(value)


HANDLERS: dict[type, Callable[..., None]] = {
    ast.FunctionDef: _Reader.function, ast.AsyncFunctionDef: _Reader.function, ast.Lambda: _Reader.function,
    ast.ClassDef: _Reader.class_, **dict.fromkeys(COMPREHENSIONS, _Reader.comprehension), ast.Assign: _Reader.assign,
    ast.AnnAssign: _Reader.assign, ast.Import: _Reader.imports, ast.ImportFrom: _Reader.imports, ast.For: _Reader.loop, ast.AsyncFor: _Reader.loop,
    ast.Attribute: _Reader.attribute, ast.Subscript: _Reader.subscript, ast.AugAssign: _Reader.augmented,
    ast.Compare: _Reader.compare, ast.MatchClass: _Reader.pattern, ast.Call: _Reader.call,
}  # fmt: skip


def read_uses(tree: Tree, schema: Schema) -> Uses:
    """Follow the configuration through every file of a tree that mentions it."""
    uses, modules = Uses(), Modules(tree, schema)
    words = (
        {"cfg", "conf", "CFG", "Cfg", "Conf", "CONF", "hparams", "settings"}
        | set(schema.instances)
        | set(schema.makers)
    )
    words |= {name for name, s in schema.sections.items() if s.kind == "class"}
    words |= {"args", "opt", "flags", "hyp", "hps"} if ARGUMENTS in schema.sections else set()
    mentioned = re.compile("|".join(map(re.escape, sorted(words))))
    for file, module in tree.parsed:
        if not mentioned.search(file.text):
            uses.loose |= {node.attr for node in file.index.of(ast.Attribute) if isinstance(node.ctx, ast.Load)}
            continue
        try:
            _Reader(file, schema, modules, uses).all_of(module.body)
        except RecursionError:
            continue
    return uses


def reads(tree: Tree, schema: Schema) -> Iterator[Read]:
    """Yield every use of a configuration name that can be followed."""
    yield from read_uses(tree, schema).reads
