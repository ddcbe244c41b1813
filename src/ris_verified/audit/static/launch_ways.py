"""Ways through a command that reach the study although the audit says NO-GO."""

from __future__ import annotations

import ast

from ris_verified.audit.static.launch_calls import STAGE, Commands, Place, ends, exits, is_audit, is_start
from ris_verified.audit.static.launch_lines import Lines
from ris_verified.audit.static.launch_values import REPORT, UNKNOWN, Unknown, Value, folded, merged, verdict_in
from ris_verified.audit.static.launch_words import Frame, Stop
from ris_verified.audit.static.syntax import Tree, arguments, called_name

# Functions within functions that are followed.
DEEP = 12
# Names of parameters that can hold nothing but what the audit said.
KEPT = {"verdict", "report"}


def unguarded(tree: Tree) -> tuple[bool, list[str]]:
    """Return whether anything in a source tree starts a study, and where one starts in spite of a NO-GO."""
    commands = Commands(tree)
    ways = Ways(commands)
    for place in commands.begin():
        given = {a.arg: REPORT if a.arg in KEPT else UNKNOWN for a in arguments(place.node.args)}
        ways.begin(Frame(place.file, place.node, given), place.node.body)
    for file, module in commands.files:
        lines = [line for line in module.body if not isinstance(line, ast.FunctionDef | ast.ClassDef)]
        if commands.leads(lines, file)[1]:
            ways.begin(Frame(file, module), lines)
    starts = any(commands.leads([module], file)[1] for file, module in commands.files)
    return starts, sorted(ways.reached)


class Ways(Lines):
    """Follows calls; `reached` holds the places where a study starts."""

    def __init__(self, commands: Commands) -> None:
        super().__init__(commands)
        self.reached: set[str] = set()
        self._within: list[ast.AST] = []

    def begin(self, frame: Frame, body: list[ast.stmt]) -> None:
        """Follow a command from its beginning."""
        try:
            self.block(body, frame)
        except Stop:
            # It refuses.
            return

    def call(self, node: ast.Call, frame: Frame, usual: bool) -> Value:
        """Return what a call gives; note a study that starts."""
        base = self.value(node.func.value, frame, usual) if isinstance(node.func, ast.Attribute) else UNKNOWN
        given = [self.value(a, frame, usual) for a in node.args]
        named = {k.arg or "": self.value(k.value, frame, usual) for k in node.keywords}
        if is_audit(node):
            return REPORT
        if exits(node):
            raise Stop({"SystemExit"})
        if (known := folded(node, base, given)) is not None:
            return known
        self._handed(node, frame, [*given, *named.values()])
        if is_start(node):
            return self._start(node, frame, given, named)
        function = frame.env.get(called_name(node.func), UNKNOWN).value
        if isinstance(function, ast.Lambda):
            return self.value(function.body, frame, usual)
        place = self.commands.find(node.func, frame.file)
        told = any(value.told for value in (*given, *named.values()))
        if place is None or not (told or self.commands.matters(place) or (frame.refused and ends(place.node))):
            return Value(Unknown, told)
        return self._run(place, node, frame, given, named)

    def _handed(self, node: ast.Call, frame: Frame, along: list[Value]) -> None:
        """Follow functions that are handed to a call as if they were called there, with what is handed along."""
        kept = REPORT if any(verdict_in(value) for value in along) else UNKNOWN
        for given in (*node.args, *(k.value for k in node.keywords)):
            place = self.commands.handed(given, frame.file)
            try:
                if isinstance(given, ast.Lambda):
                    self.value(given.body, frame)
                elif place is not None and self.commands.starting(place):
                    self._run(place, node, frame, [], dict.fromkeys(KEPT, kept))
            except Stop:
                # Whoever it is handed to may never call it.
                continue

    def _start(self, node: ast.Call, frame: Frame, given: list[Value], named: dict[str, Value]) -> Value:
        stage = called_name(node.func) == STAGE
        place = self.commands.find(node.func, frame.file) if stage else None
        if place is not None:
            made = self._run(place, node, frame, given, named)
            if not self.commands.leads(place.node.body, place.file)[1]:
                self.reached.add(frame.file.at(node))
            return made
        # A stage that is not in this source and is told the verdict refuses by itself (RV0905).
        if not (stage and any(verdict_in(value) for value in (*given, *named.values()))):
            self.reached.add(frame.file.at(node))
        return UNKNOWN

    def _run(self, place: Place, node: ast.Call, frame: Frame, given: list[Value], named: dict[str, Value]) -> Value:
        function = place.node
        if function in self._within or len(self._within) > DEEP:
            return UNKNOWN
        inside = any(part is function for part in ast.walk(frame.node))
        own = {n: v for n, v in frame.env.items() if inside or n.startswith("self.")}
        names = [a.arg for a in arguments(function.args)]
        if isinstance(node.func, ast.Attribute) and names[:1] in (["self"], ["cls"]):
            names = names[1:]
        bound = dict.fromkeys(names, UNKNOWN) | dict(zip(names, given, strict=False))
        if function.args.vararg is not None:
            # The rest together; names are in the order of what takes one each.
            first = len(function.args.posonlyargs) + len(function.args.args)
            bound[function.args.vararg.arg] = Value(dict(enumerate(given[first:])), any(v.told for v in given[first:]))
        inner = Frame(place.file, function, own | bound | {n: v for n, v in named.items() if n in names})
        self._within.append(function)
        try:
            falls = self.block(function.body, inner)
        finally:
            self._within.pop()
        frame.env.update({n: v for n, v in inner.env.items() if n.startswith("self.")})
        values = [*inner.returned, *([Value(None)] if falls else [])]
        return merged(*({"": value} for value in values))[""] if values else UNKNOWN
