"""Which expressions of a file are configurations."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable
from typing import ClassVar

from ris_verified.audit.static.config_made import named
from ris_verified.audit.static.config_schema import ARGUMENT_NAME, ARGUMENTS, CONFIG_NAME, Schema
from ris_verified.audit.static.config_uses import Kind, Modules, Read, Uses
from ris_verified.audit.static.index import LEAVES, children
from ris_verified.audit.static.readers import Reader
from ris_verified.audit.static.syntax import SourceFile, called_name, dotted, root_name, text_of
from ris_verified.audit.static.texts import Scope, Texts

SAME = {"deepcopy", "copy", "clone", "replace", "_replace", "evolve", "model_copy", "merge", "to_container", "cast"}
LOADERS = re.compile(r"(load|get|make|build|parse|read|compose|from|create|fromfile)_?\w*", re.IGNORECASE)


class Kinds:
    """Follows configuration values through one file by their names, annotations and assignments."""

    handlers: ClassVar[dict[type, Callable[..., None]]] = {}

    def __init__(
        self, file: SourceFile, schema: Schema, modules: Modules, uses: Uses, readers: dict[str, list[Reader]]
    ) -> None:
        self.file, self.schema, self.uses = file, schema, uses
        self.modules, self.readers = modules, readers
        self.texts, self.inside = Texts(file), list[Scope]()
        self.top: dict[str, Kind | None] = {}
        uses.reads += [Read(file, line, owner, name, how="import") for owner, name, line in modules.missing(file)]
        self.top |= {name: Kind(section) for name, section in schema.modules.get(file.name, {}).items()}
        self.scopes: list[dict[str, Kind | None]] = [self.top]
        self.classes: list[tuple[str, dict[str, Kind | None]]] = []
        self.silent: set[int] = set()
        own = f"{ARGUMENTS} of {file.name}"
        self.arguments = own if own in schema.sections else ARGUMENTS if ARGUMENTS in schema.sections else ""

    def kind(self, node: ast.expr | None) -> Kind | None:
        """Return what an expression is thought to be, None where it is no configuration."""
        if isinstance(node, ast.Name):
            return self._name(node.id)
        if isinstance(node, ast.Constant):
            return None
        if isinstance(node, (ast.Attribute, ast.Subscript)):
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

    def class_of(self, name: str) -> str:
        """Return the configuration class that a name means here, also under another name, else an empty text."""
        held = next((scope[name] for scope in reversed(self.scopes) if name in scope), None)
        id = held.section if held is not None and not held.weak else name
        section = self.schema.sections.get(id)
        return id if section is not None and section.kind == "class" else ""

    def classes_of(self, annotation: ast.expr | None) -> list[str]:
        """Return the configuration classes in an annotation."""
        return [found for name in named(annotation) if (found := self.class_of(name))]

    def _part(self, node: ast.Attribute | ast.Subscript) -> Kind | None:
        owner = self.kind(node.value)
        name = node.attr if isinstance(node, ast.Attribute) else text_of(node.slice)
        if owner is not None:
            if name == "__dict__":
                return self.unveiled(owner)
            inner = self.schema.member(owner.section, name) if name else None
            return Kind(inner, owner.weak, owner.fresh) if inner else None
        if not isinstance(node, ast.Attribute):
            return None
        if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls") and self.classes:
            known = self.classes[-1][1]
            if node.attr in known:
                return known[node.attr]
        elif (root := root_name(node)) in self.top and self._name(root) is None:
            if self.schema.is_foreign(node.attr) and dotted(node) == f"{root}.{node.attr}":
                return Kind(node.attr)
            return None  # an attribute of an imported module that is not part of the tree's configuration
        return Kind(self.schema.root, node.attr) if CONFIG_NAME.search(node.attr) else None

    def _call(self, node: ast.Call) -> Kind | None:
        name = called_name(node.func)
        made = self.class_of(name)
        if made:
            return Kind(made, fresh=True)
        owner = node.func.value if isinstance(node.func, ast.Attribute) else None
        if name in SAME:
            first = node.args[-1] if name == "cast" and node.args else node.args[0] if node.args else None
            found = self.kind(owner) or self.kind(first)
            return found._replace(fresh=name not in ("cast", "to_container")) if found else None
        if name in ("vars", "asdict", "as_dict", "model_dump", "to_dict"):
            found = self.kind(node.args[0]) if node.args else self.kind(owner)
            return found and (self.unveiled(found) if name == "vars" else found._replace(fresh=True))
        if name == "getattr" and len(node.args) > 1:
            inner = self.kind(node.args[0])
            text = text_of(node.args[1])
            part = self.schema.member(inner.section, text) if inner and text else None
            return Kind(part, inner.weak) if inner and part else None
        if name in ("parse_args", "parse_known_args", "parse_intermixed_args") and self.arguments:
            return Kind(self.arguments, fresh=True)
        if name in self.schema.makers:
            return Kind(self.schema.makers[name], fresh=True)
        held = self.kind(owner) if LOADERS.match(name) else None
        section = self.schema.sections.get(held.section) if held else None
        return held._replace(fresh=True) if held and section and section.kind == "class" else None

    def unveiled(self, kind: Kind) -> Kind:
        """Return what is beneath a value; a frozen one is not filled in there either, however new it is."""
        return kind._replace(fresh=kind.fresh and not self.schema.is_foreign(kind.section))

    def _weak_value(self, value: ast.expr | None) -> bool:
        if not isinstance(value, ast.Call):
            return isinstance(value, ast.Name) and self._name(value.id) is None and value.id not in self.top
        name = called_name(value.func)
        text = dotted(value.func).lower()
        return bool(LOADERS.fullmatch(name)) and bool(re.search(r"cfg|conf|yaml|hydra|toml|compose", text))

    def visit(self, node: ast.AST | None) -> None:
        """Read one node."""
        kind: type = type(node)
        handler = self.handlers.get(kind)
        if handler is not None:
            handler(self, node)
        elif node is not None and kind not in LEAVES:
            for child in children(node):
                self.visit(child)

    def all_of(self, nodes: Iterable[ast.AST | None]) -> None:
        """Read several nodes."""
        for node in nodes:
            self.visit(node)
