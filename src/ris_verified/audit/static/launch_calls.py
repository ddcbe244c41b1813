"""Which functions of a source tree start a study, which ask the audit, and which of them begin a command."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from ris_verified.audit.static.syntax import Function, SourceFile, Tree, called_name, functions

# Optuna's study begins its trials in these methods; `run_study` is this package's stage.
METHODS, STAGE = ("optimize", "ask"), "run_study"
# The audit's own drills run studies, and so do tests: neither is a command.
ASIDE = {"audit", "tests"}
EXITS = {"exit", "_exit", "quit", "abort"}


def is_start(call: ast.Call) -> bool:
    """Return whether a call starts a study."""
    name = called_name(call.func)
    return name == STAGE or (name in METHODS and isinstance(call.func, ast.Attribute))


def is_audit(call: ast.Call) -> bool:
    """Return whether a call asks the audit."""
    return called_name(call.func) == "audit"


def calls_in(node: ast.AST) -> Iterator[ast.Call]:
    """Yield every call below a node."""
    return (part for part in ast.walk(node) if isinstance(part, ast.Call))


@dataclass(frozen=True)
class Place:
    """A function and the file that holds it."""

    file: SourceFile
    node: Function


class Commands:
    """The functions of a tree by name, and what they lead to.

    Args:
        tree: a source folder.
    """

    def __init__(self, tree: Tree) -> None:
        self.files = [(f, t) for f, t in tree.parsed if not ASIDE & set(f.name.split("/")[:-1])]
        self.places: dict[str, list[Place]] = {}
        self.bases: dict[str, set[str]] = {}
        self.usual: dict[str, object] = {}
        self._read: dict[Function, bool] = {}
        for file, module in self.files:
            for function in functions(module):
                self.places.setdefault(function.name, []).append(Place(file, function))
            for node in file.index.of(ast.ClassDef):
                self.bases.setdefault(node.name, set()).update(called_name(base) for base in node.bases)
        self._defaults()

    @cached_property
    def constants(self) -> dict[str, object]:
        """Names that modules bind to one text or truth value, the same wherever they are bound."""
        found: dict[str, set[object]] = {}
        for _, module in self.files:
            for line in module.body:
                if isinstance(line, ast.Assign) and isinstance(line.value, ast.Constant):
                    for target in line.targets:
                        found.setdefault(called_name(target), set()).add(line.value.value)
        return {n: next(iter(v)) for n, v in found.items() if len(v) == 1 and isinstance(next(iter(v)), str | bool)}

    def _defaults(self) -> None:
        """Note options and parameters that are on where nobody says otherwise."""
        for file, _ in self.files:
            for call in file.index.of(ast.Call):
                given = {k.arg: k.value for k in call.keywords}
                default, action = given.get("default"), given.get("action")
                on = isinstance(default, ast.Constant) and default.value is True
                off = isinstance(action, ast.Constant) and action.value == "store_false"
                if called_name(call.func) == "add_argument" and (on or off):
                    names = [a.value for a in call.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
                    dest = given.get("dest")
                    names += [dest.value] if isinstance(dest, ast.Constant) and isinstance(dest.value, str) else []
                    self.usual.update({name.lstrip("-").replace("-", "_"): True for name in names})

    def find(self, called: ast.expr, file: SourceFile) -> Place | None:
        """Return the function that an expression names: of the same file, or the only one of that name."""
        found = self.places.get(called_name(called), [])
        own = [place for place in found if place.file is file]
        if own and not isinstance(called, ast.Attribute):
            return own[-1]
        return found[0] if len(found) == 1 else None

    def handed(self, given: ast.expr, file: SourceFile) -> Place | None:
        """Return the function that is handed to a call to be called there; a stage is handed to be kept."""
        return self.find(given, file) if isinstance(given, ast.Name) and given.id != STAGE else None

    def _below(self, node: ast.AST, file: SourceFile) -> set[Function]:
        """Return the functions that are called below a node, or handed to a call."""
        found = []
        for call in calls_in(node):
            found.append(self.find(call.func, file))
            found += [self.handed(given, file) for given in (*call.args, *(k.value for k in call.keywords))]
        return {place.node for place in found if place is not None}

    @cached_property
    def _leading(self) -> tuple[set[Function], set[Function], set[Function]]:
        """Return functions that lead to the audit, those that lead to a study, and those that something calls."""
        every = [place for places in self.places.values() for place in places]
        below = {place.node: self._below(place.node, place.file) for place in every}
        found = []
        for direct in (is_audit, is_start):
            leading = {place.node for place in every if any(map(direct, calls_in(place.node)))}
            while more := {node for node, called in below.items() if node not in leading and called & leading}:
                leading |= more
            found.append(leading)
        return found[0], found[1], set().union(*(self._below(module, file) for file, module in self.files))

    def leads(self, lines: Sequence[ast.AST], file: SourceFile) -> tuple[bool, bool]:
        """Return whether statements lead to the audit, and to a study."""
        asking, starting, _ = self._leading
        below = set().union(*(self._below(line, file) for line in lines))
        calls = [call for line in lines for call in calls_in(line)]
        return (
            bool(below & asking) or any(map(is_audit, calls)),
            bool(below & starting) or any(map(is_start, calls)),
        )

    def matters(self, place: Place) -> bool:
        """Return whether a function leads to the audit or to a study, or reads a verdict by itself."""
        if place.node not in self._read:
            asking, starting, _ = self._leading
            self._read[place.node] = place.node in asking | starting or "verdict" in ast.unparse(place.node)
        return self._read[place.node]

    def starting(self, place: Place) -> bool:
        """Return whether a function leads to a study."""
        return place.node in self._leading[1]

    def begin(self) -> list[Place]:
        """Return functions that lead to a study and that nothing in the tree calls or hands on."""
        _, starting, called = self._leading
        return [p for places in self.places.values() for p in places if p.node in starting and p.node not in called]


def ends(node: Function) -> bool:
    """Return whether a function raises or exits by itself."""
    return any(isinstance(part, ast.Raise) or (isinstance(part, ast.Call) and exits(part)) for part in ast.walk(node))


def exits(call: ast.Call) -> bool:
    """Return whether a call ends the process."""
    name = called_name(call.func)
    return name in EXITS or (name == "error" and "parser" in ast.unparse(call.func))
