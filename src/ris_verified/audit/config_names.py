"""Which configuration names a source tree defines, and which it reads."""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ris_verified._config_load import HISTORICAL
from ris_verified.audit.syntax import SourceFile, Tree, called_name, imported_modules

CONFIG_CLASS = re.compile(r"(config|cfg|conf)s?$", re.IGNORECASE)
CONFIG_NAME = re.compile(r"(^|_)(cfg|config|conf)$", re.IGNORECASE)
ANY = "any configuration"
READERS = {"getattr", "hasattr"}
COMMON = {"get", "items", "keys", "values", "copy", "update", "dict", "json", "model_dump"}


@dataclass(frozen=True)
class Read:
    """One read of a configuration name."""

    file: SourceFile
    line: int
    owner: str
    name: str


@dataclass
class Schema:
    """The configuration classes of a tree.

    Args:
        classes: members of each class, with the class of a member where that is a configuration too.
        fields: names of each class that hold a value (no methods).
        instances: module-level names bound to an instance.
        where: `file:line` of each field, by class and name.
    """

    classes: dict[str, dict[str, str]] = field(default_factory=dict)
    fields: dict[str, list[str]] = field(default_factory=dict)
    instances: dict[str, str] = field(default_factory=dict)
    where: dict[tuple[str, str], str] = field(default_factory=dict)

    @property
    def root(self) -> str:
        """The class of a value that is only called a configuration."""
        nested = [c for c, members in self.classes.items() if any(members.values())]
        return nested[0] if len(nested) == 1 else next(iter(self.classes)) if len(self.classes) == 1 else ANY

    def knows(self, owner: str, name: str) -> bool:
        """Whether a class has a member of this name."""
        if name.startswith("__") or name in COMMON:
            return True
        if owner == ANY:
            return any(name in members for members in self.classes.values())
        return name in self.classes[owner]

    def member(self, owner: str, name: str) -> str | None:
        """Return the configuration class of a member, None where it is a plain value."""
        if owner == ANY:
            found = {members[name] for members in self.classes.values() if members.get(name)}
            return found.pop() if len(found) == 1 else None
        return self.classes[owner].get(name) or None

    def names(self) -> dict[str, str]:
        """Return every field, dotted below the root, with its class."""
        root = self.root
        if root == ANY:
            return {name: c for c, names in self.fields.items() for name in names}
        found = {n: root for n in self.fields[root] if not self.classes[root][n]}
        for section in self.fields[root]:
            inner = self.classes[root][section]
            found |= {f"{section}.{n}": inner for n in self.fields.get(inner, ())}
        return found


def read_schema(tree: Tree) -> Schema:
    """Collect the classes whose name ends in Config, Cfg or Conf."""
    schema = Schema()
    nodes = [(f, n) for f, t in tree.parsed for n in ast.walk(t) if isinstance(n, ast.ClassDef)]
    known = {n.name for _, n in nodes if CONFIG_CLASS.search(n.name)}
    for file, node in nodes:
        if node.name in known:
            _read_class(file, node, known, schema)
    for _, module in tree.parsed:
        for statement in module.body:
            if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Call):
                made = called_name(statement.value.func)
                if made in known:
                    schema.instances |= {t.id: made for t in statement.targets if isinstance(t, ast.Name)}
    return schema


def _read_class(file: SourceFile, node: ast.ClassDef, known: set[str], schema: Schema) -> None:
    members, fields = schema.classes.setdefault(node.name, {}), schema.fields.setdefault(node.name, [])

    def add(target: ast.expr, kind: str, line: int) -> None:
        own = isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name) and target.value.id == "self"
        name = target.id if isinstance(target, ast.Name) else target.attr if own else ""  # type: ignore[attr-defined]
        if name and name not in members:
            fields.append(name)
            members[name] = kind
            schema.where[node.name, name] = file.at(line)

    for item in ast.walk(node):
        if isinstance(item, ast.AnnAssign) and (item in node.body or isinstance(item.target, ast.Attribute)):
            kind = item.annotation.id if isinstance(item.annotation, ast.Name) else ""
            add(item.target, kind if kind in known else "", item.lineno)
        elif isinstance(item, ast.Assign) and (item in node.body or isinstance(item.targets[0], ast.Attribute)):
            made = called_name(item.value.func) if isinstance(item.value, ast.Call) else ""
            for target in item.targets:
                add(target, made if made in known else "", item.lineno)
        elif isinstance(item, ast.FunctionDef):
            members.setdefault(item.name, "")


class _Reader(ast.NodeVisitor):
    """Follows configuration values through one file by their names, annotations and assignments."""

    def __init__(self, file: SourceFile, tree: ast.Module, schema: Schema) -> None:
        self.file, self.schema = file, schema
        self.scopes: list[dict[str, str | None]] = [dict.fromkeys(imported_modules(tree))]
        self.reads: list[Read] = []

    def kind(self, node: ast.expr | None) -> str | None:
        """Return the configuration class of an expression, or None."""
        if isinstance(node, ast.Name):
            for scope in reversed(self.scopes):
                if node.id in scope:
                    return scope[node.id]
            known = self.schema.instances.get(node.id)
            return known or (self.schema.root if CONFIG_NAME.search(node.id) else None)
        if isinstance(node, ast.Attribute):
            owner = self.kind(node.value)
            if owner:
                return self.schema.member(owner, node.attr)
            return self.schema.root if CONFIG_NAME.search(node.attr) else None
        if isinstance(node, ast.Call):
            return self._made(node)
        return None

    def _made(self, node: ast.Call) -> str | None:
        name = called_name(node.func)
        if name in self.schema.classes:
            return name
        if name == "replace" and node.args:
            return self.kind(node.args[0])
        if name == "load" and isinstance(node.func, ast.Attribute):
            return self.kind(node.func.value) or self._class(node.func.value)
        return None

    def _class(self, node: ast.expr | None) -> str | None:
        text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None
        name = text or (called_name(node) if node is not None else "")
        return name if name in self.schema.classes else None

    def _enter(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        scope: dict[str, str | None] = {}
        for argument in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]:
            if argument.annotation is not None:
                scope[argument.arg] = self._class(argument.annotation)
        self.scopes.append(scope)
        self.generic_visit(node)
        self.scopes.pop()

    visit_FunctionDef = visit_AsyncFunctionDef = _enter

    def visit_Assign(self, node: ast.Assign) -> None:
        """Follow `s = cfg.scene` and `m, s = cfg.model, cfg.scene`."""
        self.generic_visit(node)
        for target in node.targets:
            pairs = [(target, node.value)]
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                pairs = list(zip(target.elts, node.value.elts, strict=False))
            for left, right in pairs:
                if isinstance(left, ast.Name) and not (len(self.scopes) == 1 and left.id in self.schema.instances):
                    self.scopes[-1][left.id] = self.kind(right)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        """Record `cfg.name`."""
        self.generic_visit(node)
        owner = self.kind(node.value)
        if owner and isinstance(node.ctx, ast.Load):
            self.reads.append(Read(self.file, node.lineno, owner, node.attr))

    def visit_Call(self, node: ast.Call) -> None:
        """Record `getattr(cfg, "name", default)`, `cfg.get("name")` and whole-section readers."""
        self.generic_visit(node)
        name = called_name(node.func)
        if name in READERS and len(node.args) > 1:
            self._text(self.kind(node.args[0]), node.args[1], node.lineno)
        elif name == "get" and isinstance(node.func, ast.Attribute) and node.args:
            self._text(self.kind(node.func.value), node.args[0], node.lineno)
        elif name in ("vars", "fields", "asdict") and node.args:
            owner = self.kind(node.args[0])
            for inner in self.schema.fields.get(owner or "", ()):
                self.reads.append(Read(self.file, node.lineno, str(owner), inner))

    def visit_Subscript(self, node: ast.Subscript) -> None:
        """Record `cfg["name"]`."""
        self.generic_visit(node)
        self._text(self.kind(node.value), node.slice, node.lineno)

    def _text(self, owner: str | None, node: ast.expr, line: int) -> None:
        if owner and isinstance(node, ast.Constant) and isinstance(node.value, str):
            self.reads.append(Read(self.file, line, owner, node.value))


def reads(tree: Tree, schema: Schema) -> Iterator[Read]:
    """Yield every read of a configuration name that can be followed."""
    for file, module in tree.parsed:
        reader = _Reader(file, module, schema)
        reader.visit(module)
        yield from reader.reads


def nearest(name: str, known: Mapping[str, object]) -> str:
    """Return the known name most like a wrong one, with today's name of a historical one.

    Words count first (equal, or one the beginning of the other), letters decide between equals:
    `eps_cov` is nearer to `C_EPS` than to `HYBRID_COV_BETA`.
    """
    candidates = {**dict.fromkeys(known), **HISTORICAL}
    best = max(candidates, key=lambda other: _likeness(name, other))
    return f"{best} (now {HISTORICAL[best]})" if best in HISTORICAL and best not in known else best


def _likeness(name: str, other: str) -> float:
    left, right = (re.split(r"[_.]+", text.lower()) for text in (name, other.rsplit(".", 1)[-1]))

    def word(a: str, b: str) -> float:
        return 1.0 if a == b else 0.8 if min(len(a), len(b)) >= 3 and (a.startswith(b) or b.startswith(a)) else 0.0

    words = sum(max(word(a, b) for b in right) for a in left) / max(len(left), len(right))
    return words + difflib.SequenceMatcher(None, name.lower(), other.lower()).ratio() / 2
