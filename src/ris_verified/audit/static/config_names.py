"""Which configuration names a source tree reads and writes, and from which section."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable

from ris_verified.audit.static.config_calls import Calls
from ris_verified.audit.static.config_made import named
from ris_verified.audit.static.config_schema import ARGUMENTS, CONFIG_NAME, Schema
from ris_verified.audit.static.config_uses import Kind, Modules, Uses
from ris_verified.audit.static.index import children
from ris_verified.audit.static.readers import readers_of
from ris_verified.audit.static.scopes import COMPREHENSIONS
from ris_verified.audit.static.syntax import Function, Tree, arguments, called_name, dotted, text_of

LOOSE = {
    "Any", "dict", "Dict", "Mapping", "MutableMapping", "Namespace", "SimpleNamespace", "DictConfig", "object",
    "ConfigDict", "CfgNode", "EasyDict", "Box", "ListConfig",
}  # fmt: skip


class _Reader(Calls):
    """Walks through one file and records every use of a configuration."""

    def function(self, node: Function | ast.Lambda) -> None:
        """Read a function in a scope of its own."""
        if not isinstance(node, ast.Lambda):
            self.all_of(node.decorator_list)
        self.all_of([*node.args.defaults, *node.args.kw_defaults])
        scope: dict[str, Kind | None] = {}
        special = {a.arg for a in (node.args.vararg, node.args.kwarg) if a is not None}
        for argument in arguments(node.args):
            # A hook of pytest is given pytest's own configuration.
            foreign = argument.arg in special or getattr(node, "name", "").startswith("pytest_")
            scope[argument.arg] = None if foreign else self._argument(argument)
        if self.classes and not isinstance(node, ast.Lambda):
            first = arguments(node.args)[:1]
            own = self.classes[-1][0]
            if first and first[0].arg in ("self", "cls") and own in self.schema.sections:
                scope[first[0].arg] = Kind(own)
            elif first and first[0].arg in ("self", "cls"):
                del scope[first[0].arg]
        self.scopes.append(scope)
        self.inside.append(node)
        self.all_of(node.body if isinstance(node.body, list) else [node.body])
        self.inside.pop()
        self.scopes.pop()

    def _argument(self, argument: ast.arg) -> Kind | None:
        if argument.annotation is None:
            return self.by_name(argument.arg)
        names, found = named(argument.annotation), self.classes_of(argument.annotation)
        if found:
            return Kind(found[0])
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
                    found = self.classes_of(function.annotation)
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
                ]
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
            found = self.classes_of(node.annotation)
            kind = Kind(found[0], fresh=True) if found else None
        if kind is None and CONFIG_NAME.search(name) and self._weak_value(value):
            kind = self.by_name(name)
        scope[name] = kind

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
        owner = self.kind(node.value)
        if owner is None:
            return
        reads = isinstance(node.ctx, ast.Load)
        if not isinstance(node.slice, ast.Constant):
            self.uses.whole.add(owner.section)
        for text in self.texts.of(node.slice, self.inside) if reads or isinstance(node.slice, ast.Constant) else ():
            self.record(owner, text, node.lineno, not reads)

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
        section = self.class_of(called_name(node.cls))
        if section:
            for name in node.kwd_attrs:
                self.record(Kind(section), name, node.lineno)
        self.all_of(children(node))


HANDLERS: dict[type, Callable[..., None]] = {
    ast.FunctionDef: _Reader.function, ast.AsyncFunctionDef: _Reader.function, ast.Lambda: _Reader.function,
    ast.ClassDef: _Reader.class_, **dict.fromkeys(COMPREHENSIONS, _Reader.comprehension), ast.Assign: _Reader.assign,
    ast.AnnAssign: _Reader.assign, ast.Import: _Reader.imports, ast.ImportFrom: _Reader.imports,
    ast.For: _Reader.loop, ast.AsyncFor: _Reader.loop,
    ast.Attribute: _Reader.attribute, ast.Subscript: _Reader.subscript, ast.AugAssign: _Reader.augmented,
    ast.Compare: _Reader.compare, ast.MatchClass: _Reader.pattern, ast.Call: _Reader.call,
}  # fmt: skip  # fmt: skip
_Reader.handlers = HANDLERS


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
    readers = tree.once("readers by name", readers_of)
    for file, module in tree.parsed:
        if not mentioned.search(file.text):
            uses.loose |= {node.attr for node in file.index.of(ast.Attribute) if isinstance(node.ctx, ast.Load)}
            continue
        try:
            _Reader(file, schema, modules, uses, readers).all_of(module.body)
        except RecursionError:
            continue
    return uses
