"""Expressions of a command, followed as if the audit had said NO-GO and nobody had told anything else."""

from __future__ import annotations

import ast
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from ris_verified.audit.static.launch_calls import Commands
from ris_verified.audit.static.launch_values import (
    NO_GO,
    UNKNOWN,
    Report,
    Unknown,
    Value,
    compared,
    merged,
    part_of,
)
from ris_verified.audit.static.syntax import SourceFile, dotted

# What an enumeration of verdicts may call its members.
MEMBERS = {"GO": "GO", "NO_GO": NO_GO, "NOGO": NO_GO}


class Stop(Exception):
    """A way through a command ends: something is raised, or the process exits.

    Args:
        names: of the classes that may be raised.
    """

    def __init__(self, names: set[str]) -> None:
        super().__init__(", ".join(sorted(names)))
        self.names = names


@dataclass
class Frame:
    """A function under way.

    Args:
        file: that holds it.
        node: the function, or the module.
        env: values by name.
        returned: what it may return.
        refused: whether only a NO-GO leads here.
    """

    file: SourceFile
    node: ast.AST
    env: dict[str, Value] = field(default_factory=dict)
    returned: list[Value] = field(default_factory=list)
    refused: bool = False


class Words(ABC):
    """Follows expressions.

    Args:
        commands: functions of the tree.
    """

    def __init__(self, commands: Commands) -> None:
        self.commands, self.told = commands, False

    @abstractmethod
    def call(self, node: ast.Call, frame: Frame, usual: bool) -> Value:
        """Return what a call gives.

        Raises:
            Stop: it does not return.
        """

    def value(self, node: ast.expr, frame: Frame, usual: bool = False) -> Value:
        """Return what an expression is worth; with `usual`, options that are not known are as nobody has set them.

        Raises:
            Stop: something in it ends the way.
        """
        made = self._value(node, frame, usual)
        self.told |= made.told
        return made

    def _value(self, node: ast.expr, frame: Frame, usual: bool) -> Value:
        match node:
            case ast.Constant():
                return Value(node.value)
            case ast.Name() | ast.Attribute():
                return self._named(node, frame, usual)
            case ast.NamedExpr():
                frame.env[node.target.id] = self.value(node.value, frame, usual)
                return frame.env[node.target.id]
            case ast.Subscript(slice=ast.Constant(value=key)):
                return part_of(self.value(node.value, frame, usual), key)
            case ast.Dict():
                keys = [key.value if isinstance(key, ast.Constant) else Unknown for key in node.keys]
                made = {k: self.value(v, frame, usual) for k, v in zip(keys, node.values, strict=True)}
                return Value(made, any(entry.told for entry in made.values()))
            case ast.Compare(ops=[op], comparators=[right]):
                return compared(op, self.value(node.left, frame, usual), self.value(right, frame, usual), usual)
            case ast.BoolOp(op=ast.Or(), values=[first, *_]) if self.truth(first, frame, False):
                return self.value(first, frame, usual)
            case ast.BoolOp() | ast.UnaryOp(op=ast.Not()):
                truth, told = self.decided(node, frame, usual)
                return Value(Unknown if truth is None else truth, told)
            case ast.IfExp():
                return self._choice(node, frame, usual)
            case ast.Call():
                return self.call(node, frame, usual)
            case ast.Lambda():
                return Value(node)
        return self._joined(node, frame, usual)

    def _named(self, node: ast.Name | ast.Attribute, frame: Frame, usual: bool) -> Value:
        if (name := dotted(node)) in frame.env:
            return frame.env[name]
        if isinstance(node, ast.Attribute):
            base = self.value(node.value, frame, usual)
            if base.value is Unknown and node.attr in MEMBERS:
                return Value(MEMBERS[node.attr])
            return part_of(base, node.attr)
        return Value(self.commands.constants[name]) if name in self.commands.constants else UNKNOWN

    def _choice(self, node: ast.IfExp, frame: Frame, usual: bool) -> Value:
        truth, told = self.decided(node.test, frame, usual)
        if truth is not None:
            made = self.value(node.body if truth else node.orelse, frame, usual)
            return Value(made.value, made.told or told)
        ways = [{"": self.value(way, frame, usual)} for way in (node.body, node.orelse)]
        return merged(*ways)[""]

    def _joined(self, node: ast.expr, frame: Frame, usual: bool) -> Value:
        """Follow the parts of any other expression; sequences of what is known are known."""
        inner = [p.iter if isinstance(p, ast.comprehension) else p for p in ast.iter_child_nodes(node)]
        parts = [self.value(part, frame, usual) for part in inner if isinstance(part, ast.expr)]
        told = any(part.told for part in parts)
        if isinstance(node, ast.Tuple | ast.List | ast.Set) and not any(part.value is Unknown for part in parts):
            return Value(tuple(part.value for part in parts), told)
        return parts[0] if isinstance(node, ast.Await | ast.Starred) and parts else Value(Unknown, told)

    def truth(self, node: ast.expr, frame: Frame, usual: bool) -> bool | None:
        """Return whether an expression holds, None where only a run could tell."""
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            inner = self.truth(node.operand, frame, usual)
            return None if inner is None else not inner
        if isinstance(node, ast.BoolOp):
            return self._all(node.values, isinstance(node.op, ast.Or), frame, usual)
        found = self.value(node, frame, usual).value
        if found is Unknown:
            # An option is off where nobody sets it, but for those that are declared as on.
            return bool(self.commands.usual.get(dotted(node).rpartition(".")[2])) if usual else None
        return True if found is Report else bool(found)

    def _all(self, parts: list[ast.expr], ends: bool, frame: Frame, usual: bool) -> bool | None:
        """Return `ends` as soon as one part is that: True for `or`, False for `and`."""
        unsure = False
        for part in parts:
            try:
                held = self.truth(part, frame, usual)
            except Stop:
                if not unsure:
                    raise
                held = None
            if held is ends:
                return ends
            unsure |= held is None
        return None if unsure else not ends

    def decided(self, node: ast.expr, frame: Frame, usual: bool = False) -> tuple[bool | None, bool]:
        """Return whether a test holds, options as nobody has set them where the verdict has a say; and whether it has.

        Raises:
            Stop: something in it ends the way.
        """
        before, self.told = self.told, False
        truth, told = self.truth(node, frame, usual), self.told
        self.told |= before
        if truth is None and (told or frame.refused):
            truth = self.truth(node, frame, True)
        return truth, told
