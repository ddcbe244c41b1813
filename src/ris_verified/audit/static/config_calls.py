"""Calls that read or write configuration by name."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from ris_verified.audit.static.config_kinds import Kinds
from ris_verified.audit.static.config_uses import Kind, Read
from ris_verified.audit.static.index import children
from ris_verified.audit.static.readers import READERS
from ris_verified.audit.static.syntax import called_name, root_name, text_of

SINKS = {
    "dump", "dumps", "init", "log", "info", "debug", "print", "pprint", "pformat", "save", "write", "safe_dump", "str",
    "repr", "log_hyperparams", "save_hyperparameters", "config_update", "encode", "log_params", "add_hparams", "hash",
    "to_yaml", "warning", "digest",
}  # fmt: skip


class Calls(Kinds):
    """Records what calls do with configurations."""

    def call(self, node: ast.Call) -> None:
        """Record calls that read or write by name."""
        name, args = called_name(node.func), node.args
        owner = node.func.value if isinstance(node.func, ast.Attribute) else None
        if name in SINKS:
            self.silent |= {id(inner) for a in [*args, *(k.value for k in node.keywords)] for inner in _outer(a)}
        about = self.kind(args[0]) if args else None
        held = self.kind(owner) if owner is not None else None
        if name in READERS and len(args) > 1 and about is not None:
            self._text(about, args[1], node.lineno)
        elif name in ("setattr", "__setattr__", "delattr", "update") and len(args) > 1 and about is not None:
            about = self.unveiled(about) if name == "__setattr__" else about
            self._text(about, args[1], node.lineno, write=True)
        elif held is not None and name in ("get", "pop", "setdefault", "__getattribute__") and args:
            self._text(held, args[0], node.lineno, write=name in ("pop", "setdefault"))
        elif held is not None and name == "update":
            self._update(held, node)
        elif isinstance(node.func, ast.Call) and called_name(node.func.func) == "attrgetter" and about is not None:
            for wanted in node.func.args:
                self._text(about, wanted, node.lineno)
        self._through(node, name)
        self._keywords(node, name, about, held)
        if id(node) not in self.silent:
            self._whole(node, name, about, held)
        self.all_of(children(node))

    def _through(self, node: ast.Call, name: str) -> None:
        """Record what a function of the tree reads by the name that it is given here."""
        of_self = isinstance(node.func, ast.Attribute) and root_name(node.func) in ("self", "cls")
        for reader in self.readers.get(name, ()):
            wanted, owner = reader.given(node)
            if wanted is None or owner is None or (root_name(owner) in ("self", "cls") and not of_self):
                continue
            kind = self.kind(owner)
            texts = self.texts.of(wanted, self.inside)
            for text in texts if kind is not None else ():
                self._named(kind, text, node.lineno)

    def _whole(self, node: ast.Call, name: str, about: Kind | None, held: Kind | None) -> None:
        if name in ("vars", "fields", "asdict", "astuple", "iter", "to_container") and about is not None:
            self.uses.whole.add(about.section)
        if name in ("items", "values", "to_dict", "model_dump", "_asdict") and held is not None:
            self.uses.whole.add(held.section)
        for keyword in node.keywords:
            unpacked = self.kind(keyword.value) if keyword.arg is None else None
            if unpacked is not None:
                self.uses.whole.add(unpacked.section)

    def _update(self, held: Kind, node: ast.Call) -> None:
        names = [k.arg for k in node.keywords if k.arg]
        for item in node.args:
            names += [t for k in item.keys if (t := text_of(k))] if isinstance(item, ast.Dict) else []
        for name in names:
            self.record(held, name, node.lineno, write=True)

    def _keywords(self, node: ast.Call, name: str, about: Kind | None, held: Kind | None) -> None:
        made = self.class_of(name)
        target = made if made and self.schema.sections[made].strict else ""
        if name in ("replace", "evolve") and about is not None and not about.weak:
            target = about.section
        elif name == "_replace" and held is not None:
            target = held.section
        if target:
            for keyword in node.keywords:
                if keyword.arg is not None:
                    self.uses.reads.append(Read(self.file, node.lineno, target, keyword.arg, how="keyword"))

    def _text(self, owner: Kind, node: ast.expr, line: int, write: bool = False) -> None:
        if not isinstance(node, ast.Constant):
            # What a caller or another branch may ask for besides counts as read.
            self.uses.whole.add(owner.section)
            if write:
                return
        for text in self.texts.of(node, self.inside):
            self._named(owner, text, line, write)

    def _named(self, owner: Kind | None, text: str, line: int, write: bool = False) -> None:
        held = owner
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
