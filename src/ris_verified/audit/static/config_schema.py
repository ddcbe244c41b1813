"""Which configuration names a source tree defines."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

CONFIG_CLASS = re.compile(r"(config|cfg|conf|settings|hparams|hyper_?param(eter)?s?)s?$", re.IGNORECASE)
DATA_CLASS = re.compile(r"(params|parameters|options|opts|args|arguments)$", re.IGNORECASE)  # if it only holds values
MAKER = re.compile(r"cfg|conf|args|settings|hparams|options|params|CN$", re.IGNORECASE)
CONFIG_NAME = re.compile(r"(^|_)(cfg|config|conf|hparams|settings)s?$", re.IGNORECASE)
ARGUMENT_NAME = re.compile(r"^_?(args|opts?|flags|hps|hparams|hyp|options)$", re.IGNORECASE)
CONFIG_FILE = re.compile(r"(^|/|_)(config|cfg|conf|settings|constants?|params|hparams|defaults)\w*\.py$", re.IGNORECASE)
ANY = "any configuration"
ARGUMENTS = "command line arguments"
FILES = "configuration files"
COMMON = {
    "get", "items", "keys", "values", "copy", "update", "pop", "setdefault", "clear", "dict", "json", "clone", "freeze",
    "defrost", "dump", "merge_from_file", "merge_from_list", "merge_from_other_cfg", "is_frozen", "lock", "unlock",
    "unlocked", "to_dict", "to_json", "toDict", "model_dump", "model_dump_json", "model_copy", "model_validate",
    "model_fields", "model_json_schema", "parse_obj", "schema", "construct", "from_dict", "from_yaml", "from_json",
    "pretty", "load", "save", "print", "name", "_replace", "_asdict", "_fields", "_make", "add", "append", "extend",
    "remove", "discard", "insert", "index", "count", "sort", "reverse",
}  # fmt: skip


@dataclass(eq=False)
class Section:
    """A configuration class, a configuration value, a module of constants, or a set of options.

    Args:
        label: what people call it.
        members: every name, with the section of its value or an empty text.
        fields: names that hold a value (no methods).
        where: `file:line` of each field.
        bases: classes that it inherits from.
        open: whether it may have names that cannot be known.
        strict: whether its constructor takes exactly its fields.
        own_init: whether it has a constructor of its own, which may take anything.
        kind: `class`, `value`, `module`, `arguments` or `files`.
        foreign: whether it is a frozen class of this package, which the tree uses.
    """

    label: str
    members: dict[str, str] = field(default_factory=dict)
    fields: list[str] = field(default_factory=list)
    where: dict[str, str] = field(default_factory=dict)
    bases: list[str] = field(default_factory=list)
    open: bool = False
    strict: bool = False
    own_init: bool = False
    kind: str = "class"
    foreign: bool = False

    def add(self, name: str, where: str, inner: str = "", value: bool = True) -> None:
        """Define a name; the first definition counts."""
        if value and name not in self.where:
            self.fields.append(name)
            self.where[name] = where
        if inner or name not in self.members:
            self.members[name] = inner


@dataclass
class Schema:
    """The configuration of a tree.

    Args:
        sections: by id; a class is under its name.
        instances: module-level names that hold a section, where all modules agree on it.
        makers: functions that return a section.
        modules: for every module the names in it that hold a section.
        extra: names that are accepted everywhere.
        lent: whether the names are this package's, in a tree that neither imports it nor has any of its own.
    """

    sections: dict[str, Section] = field(default_factory=dict)
    instances: dict[str, str] = field(default_factory=dict)
    makers: dict[str, str] = field(default_factory=dict)
    modules: dict[str, dict[str, str]] = field(default_factory=dict)
    extra: set[str] = field(default_factory=set)
    lent: bool = False

    @property
    def root(self) -> str:
        """The section of a value that is only called a configuration."""
        main = [i for i, s in self.sections.items() if s.kind in ("class", "value") and "." not in i and s.fields]
        nested = [i for i in main if any(self.sections[i].members.values())]
        held = {inner for i in main for inner in self.sections[i].members.values()}
        top = [i for i in nested if i not in held]
        if len(top) == 1 and all(i in held or i == top[0] for i in main):
            return top[0]
        return main[0] if len(main) == 1 and FILES not in self.sections else ANY

    def is_foreign(self, name: str) -> bool:
        """Whether a name is that of a frozen class of this package, which the tree uses."""
        section = self.sections.get(name)
        return section is not None and section.foreign

    def inherited(self, owner: str) -> list[Section]:
        """Return a section and those that it inherits from."""
        found, todo = [], [owner]
        while todo:
            section = self.sections.get(todo.pop(0))
            if section is not None and section not in found:
                found.append(section)
                todo += section.bases
        return found

    def heirs(self, owner: str) -> list[Section]:
        """Return the sections that inherit from one."""
        base = self.sections.get(owner)
        return [s for i, s in self.sections.items() if base is not None and base in self.inherited(i)]

    def related(self, one: str, other: str) -> bool:
        """Whether one of two sections is the other or inherits from it."""
        if one == other:
            return True
        first, second = self.sections.get(one), self.sections.get(other)
        if first is None or second is None:
            return False
        return first in self.inherited(other) or second in self.inherited(one)

    def is_open(self, owner: str) -> bool:
        """Whether a section may have names that cannot be known."""
        if owner == ANY:
            return any(s.open for s in self.sections.values() if s.kind in ("class", "value"))
        return any(s.open for s in self.inherited(owner))

    def knows(self, owner: str, name: str) -> bool:
        """Whether a section has a member of this name."""
        if name.startswith("__") or name in COMMON or name in self.extra:
            return True
        if owner == ANY:
            return any(name in s.members for s in self.sections.values() if s.kind != "module")
        return any(name in s.members for s in [*self.inherited(owner), *self.heirs(owner)])

    def member(self, owner: str, name: str) -> str | None:
        """Return the section of a member, None where it is a plain value."""
        among = list(self.sections.values()) if owner == ANY else self.inherited(owner)
        found = {s.members[name] for s in among if s.members.get(name)}
        return found.pop() if len(found) == 1 else None

    def all_fields(self, owner: str) -> list[str]:
        """Return the fields of a section with those that it inherits."""
        return [name for section in self.inherited(owner) for name in section.fields]

    def names(self) -> dict[str, str]:
        """Return every field, dotted below the root, with its section."""
        root = self.root
        if root == ANY:
            return {n: i for i, s in self.sections.items() if s.kind != "module" for n in s.fields}
        found: dict[str, str] = {}
        for name in self.all_fields(root):
            inner = self.member(root, name)
            if inner is None:
                found[name] = root
            else:
                found |= {f"{name}.{n}": inner for n in self.all_fields(inner)}
        return found

    def names_of(self, owner: str) -> dict[str, str]:
        """Return the names that one owner may be asked for."""
        if owner in (ANY, self.root):
            return self.names()
        dotted = {name: inner for name, inner in self.names().items() if inner == owner}
        leaves = {name.rsplit(".", 1)[-1] for name in dotted}
        rest = {name: owner for name in self.all_fields(owner) if name not in leaves}
        return dotted | rest or self.names()
