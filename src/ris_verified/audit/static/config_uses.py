"""What a tree does with its configuration, and what its modules bring."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from ris_verified.audit.static.config_schema import CONFIG_NAME, Schema
from ris_verified.audit.static.imports import import_base, module_names
from ris_verified.audit.static.syntax import SourceFile, Tree

VALUES = {"cfg", "CFG", "mdl_cfg", "conf"}  # what is imported under these names is no module


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
        self.endings: dict[str, list[str]] = {}
        for name in self.files:
            rest = name
            while rest:
                rest = rest.partition(".")[2]
                self.endings.setdefault(rest, []).append(name)
        self.names = {file: name for name, file in self.files.items()}

    def find(self, target: str, absolute: bool = True) -> str | None:
        """Return the module in the tree that a dotted name means, else None."""
        target = target.removeprefix(f"{self.folder}.")
        if absolute and target.partition(".")[0] in sys.stdlib_module_names:
            return None
        found = [target] if target in self.files else self.endings.get(target, [])
        return found[0] if len(found) == 1 else None

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
        module = self.find(self.base(node, file), not node.level)
        for alias in node.names:
            kind = self._from(module, alias.name)
            if module is None and self.schema.is_foreign(alias.name) and (node.module or "").startswith("ris_verified"):
                kind = Kind(alias.name)
            unknown = module is not None and f"module {module}" not in self.schema.sections
            if kind is not None or not (CONFIG_NAME.search(alias.name) and (unknown or alias.name in VALUES)):
                yield alias.asname or alias.name, kind

    def taken(self, file: SourceFile) -> Iterator[tuple[str | None, ast.alias, int]]:
        """Yield module, name and line of every `from … import`."""
        for node in file.index.of(ast.ImportFrom):
            module = self.find(self.base(node, file), not node.level)
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
