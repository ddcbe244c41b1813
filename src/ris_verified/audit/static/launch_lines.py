"""Statements of a command, followed as if the audit had said NO-GO."""

from __future__ import annotations

import ast
from collections.abc import Sequence

from ris_verified.audit.static.launch_values import Unknown, Value, compared, merged
from ris_verified.audit.static.launch_words import Frame, Stop, Words
from ris_verified.audit.static.syntax import called_name, dotted

# What `except Exception` lets through.
EXITING = {"SystemExit", "KeyboardInterrupt", "GeneratorExit"}
ENDS = (ast.Return, ast.Raise, ast.Continue, ast.Break)


class Lines(Words):
    """Follows statements."""

    def block(self, lines: list[ast.stmt], frame: Frame) -> bool:
        """Follow statements; return whether what comes after them is reached.

        Raises:
            Stop: they raise, or end the process.
        """
        return all(self.line(line, frame) for line in lines)

    def line(self, node: ast.stmt, frame: Frame) -> bool:
        """Follow one statement; return whether the next one is reached."""
        match node:
            case ast.If():
                return self._if(node, frame)
            case ast.While() | ast.For() | ast.AsyncFor():
                return self._loop(node, frame)
            case ast.With() | ast.AsyncWith():
                return self._with(node, frame)
            case ast.Try() | ast.TryStar():
                return self._try(node, frame)
            case ast.Match():
                return self._match(node, frame)
            case ast.Return():
                made = self.value(node.value, frame) if node.value else Value(None)
                frame.returned.append(Value(made.value, made.told or frame.refused))
                return False
            case ast.Raise():
                raise Stop({self._raised(node, frame)})
            case ast.Assert():
                if self.decided(node.test, frame)[0] is False:
                    raise Stop({"AssertionError"})
            case ast.Assign() | ast.AnnAssign():
                self._assign(node, frame)
            case ast.Expr():
                self.value(node.value, frame)
        return not isinstance(node, ast.Break | ast.Continue)

    def _raised(self, node: ast.Raise, frame: Frame) -> str:
        if isinstance(node.exc, ast.Call):
            for given in node.exc.args:
                self.value(given, frame)
            return called_name(node.exc.func)
        return called_name(node.exc) if node.exc is not None else "Exception"

    def _assign(self, node: ast.Assign | ast.AnnAssign, frame: Frame) -> None:
        if node.value is None:
            return
        made = self.value(node.value, frame)
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            parts = target.elts if isinstance(target, ast.Tuple | ast.List) else [target]
            for part in parts:
                if name := dotted(part):
                    frame.env[name] = made if part is target else Value(Unknown, made.told)

    def _either(self, blocks: Sequence[list[ast.stmt]], frame: Frame) -> bool:
        """Follow blocks of which any may run.

        Raises:
            Stop: all of them do.
        """
        worlds, before, refused, stopped = [], frame.env, frame.refused, set[str]()
        ended = 0
        for block in blocks:
            frame.env, frame.refused = dict(before), refused
            try:
                if self.block(block, frame):
                    worlds.append(frame.env)
            except Stop as stop:
                stopped, ended = stopped | stop.names, ended + 1
        frame.env, frame.refused = merged(*worlds) if worlds else before, refused
        if ended == len(blocks):
            raise Stop(stopped)
        return bool(worlds)

    def _if(self, node: ast.If, frame: Frame) -> bool:
        truth, told = self.decided(node.test, frame)
        if truth is None and self.commands.leads([*node.body, *node.orelse], frame.file) == (True, False):
            # Whether the audit is asked at all is up to an option that nobody has set.
            truth = self.truth(node.test, frame, True)
        if truth is None:
            return self._either([node.body, node.orelse], frame)
        chosen, other = (node.body, node.orelse) if truth else (node.orelse, node.body)
        before = frame.refused
        frame.refused = before or told
        falls = self.block(chosen, frame)
        # What follows an `if` whose other branch leaves is reached on a NO-GO alone.
        frame.refused = before or (told and bool(other) and isinstance(other[-1], ENDS))
        return falls

    def _loop(self, node: ast.While | ast.For | ast.AsyncFor, frame: Frame) -> bool:
        truth = None
        if isinstance(node, ast.While):
            truth, _ = self.decided(node.test, frame)
        else:
            self.value(node.iter, frame)
        if truth is False:
            return self.block(node.orelse, frame)
        if truth is None:
            return self._either([node.body, []], frame) and self.block(node.orelse, frame)
        self.block(node.body, frame)
        return any(isinstance(part, ast.Break) for part in ast.walk(node))

    def _with(self, node: ast.With | ast.AsyncWith, frame: Frame) -> bool:
        suppressed: set[str] = set()
        for item in node.items:
            made = self.value(item.context_expr, frame)
            if isinstance(item.optional_vars, ast.Name):
                frame.env[item.optional_vars.id] = made
            if isinstance(call := item.context_expr, ast.Call) and called_name(call.func) == "suppress":
                suppressed |= {called_name(given) for given in call.args}
        try:
            return self.block(node.body, frame)
        except Stop as stop:
            if not self._catches(suppressed, stop):
                raise
            return True

    def _try(self, node: ast.Try | ast.TryStar, frame: Frame) -> bool:
        try:
            falls = self.block(node.body, frame) and self.block(node.orelse, frame)
        except Stop as stop:
            handler = next((h for h in node.handlers if self._catches(_types(h), stop)), None)
            if handler is None:
                self.block(node.finalbody, frame)
                raise
            falls = self._handled(handler, stop, frame)
        return self.block(node.finalbody, frame) and falls

    def _handled(self, handler: ast.ExceptHandler, stop: Stop, frame: Frame) -> bool:
        try:
            return self.block(handler.body, frame)
        except Stop as again:
            # `raise` alone, or of the name that it was caught by, raises the same.
            same = again.names <= {"Exception", handler.name or ""}
            raise (Stop(stop.names) if same else again) from None

    def _catches(self, types: set[str], stop: Stop) -> bool:
        """Return whether one of these classes catches what may be raised."""
        for name in stop.names:
            family, more = {name}, {name}
            while more := {base for one in more for base in self.commands.bases.get(one, ())} - family:
                family |= more
            general = {"BaseException"} | (set() if family & EXITING else {"Exception"})
            if types & (family | general):
                return True
        return False

    def _match(self, node: ast.Match, frame: Frame) -> bool:
        subject, ways = self.value(node.subject, frame), list[list[ast.stmt]]()
        for case in node.cases:
            fits = self._fits(case.pattern, subject, frame)
            if fits is True and case.guard is not None:
                fits = self.decided(case.guard, frame)[0]
            if fits is not False:
                ways.append(case.body)
            if fits is True:
                break
        else:
            ways.append([])
        before = frame.refused
        frame.refused = before or (subject.told and len(ways) == 1)
        falls = self._either(ways, frame)
        frame.refused = before
        return falls

    def _fits(self, pattern: ast.pattern, subject: Value, frame: Frame) -> bool | None:
        if isinstance(pattern, ast.MatchAs) and pattern.pattern is None:
            return True
        if isinstance(pattern, ast.MatchOr):
            found = [self._fits(part, subject, frame) for part in pattern.patterns]
            return True if True in found else None if None in found else False
        if isinstance(pattern, ast.MatchValue):
            same = compared(ast.Eq(), subject, self.value(pattern.value, frame), False).value
            return None if same is Unknown else bool(same)
        return None


def _types(handler: ast.ExceptHandler) -> set[str]:
    if handler.type is None:
        return {"BaseException"}
    parts = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return {called_name(part) for part in parts}
