"""Section 11 and RV1607: source that parses, holds no shared state and swallows no failure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ris_verified.audit.context import Context
from ris_verified.audit.rule import Measurement, rule
from ris_verified.audit.rules.names import clean, require_source, slip
from ris_verified.audit.static.dropped import dropped_failures
from ris_verified.audit.static.globals_written import decorators, written_globals
from ris_verified.audit.static.graph import forward_functions, loss_functions
from ris_verified.audit.static.imports import cycles
from ris_verified.audit.static.randomness import without_generator
from ris_verified.audit.static.swallow import swallowed_failures
from ris_verified.audit.static.syntax import uncollected
from ris_verified.audit.static.tensors import builtins_on_tensors
from ris_verified.audit.static.tools import checkout, standalone, tool_findings


@rule(
    "RV1101",
    "Static: source parses, imports cleanly, shares no state and draws from generators",
    law="every file is valid Python; no import cycle; no function writes a global; no draw without a seeded "
    "generator; no max, min or sum of Python on tensors; linter, formatter and type checker are clean",
    why="A cycle works from one entry point and fails from another; a global makes the second run unlike the first.",
    how="Syntax trees: strongly connected components of module-level imports; `global` and changes of module-level "
    "containers and of defaults inside functions (a decorator may register what it decorates); `np.random` and "
    "`random` functions, generators without a seed and seeds from clocks or hashes (a loader's worker may take "
    "torch's); builtins given what is evidently a tensor. In the profile `full`, where the source is this package's "
    "own checkout, its linter, formatter and type checker run and every module is imported on its own. Bound: none.",
    remedy="repair the file, move the shared part below both modules, pass state and generators as arguments (a memo "
    "is functools.cache), use torch's own functions on tensors",
    needs="source",
)
def parses(context: Context) -> Sequence[Measurement]:
    """Bound 0 is exact: files, cycles, statements and tool messages are counted."""
    require_source(context)
    found = [slip(file.at(file.line), file.error) for file in context.tree.files if file.error]
    for cycle in cycles(context.tree):
        message = "import cycle " + " → ".join([*cycle, cycle[0]])
        found.append(Measurement(float(len(cycle)), 1.0, False, message, "modules", cycle[0]))
    with uncollected():
        found += _statements(context)
    root = checkout(context.source) if context.profile == "full" else None
    if root is not None:
        found += [slip(where, message) for where, message in (*tool_findings(root), *standalone(context.source))]
    return found or [clean(context, "every file parses, imports without cycles and keeps its state to itself")]


def _statements(context: Context) -> Iterator[Measurement]:
    known = decorators(file for file, _ in context.tree.parsed)
    for file, tree in context.tree.parsed:
        inputs = {*forward_functions(file), *loss_functions(file)} if "torch" in file.text else set()
        slips = [*written_globals(file, tree, known), *without_generator(file), *builtins_on_tensors(file, inputs)]
        yield from (slip(file.at(line), message) for line, message in sorted(slips))


@rule(
    "RV1607",
    "No swallowed exception, no number for a failure",
    law="no broad handler that drops the exception or only shows it; no number in place of a failed or missing value",
    why="`except Exception: loss = 0.0` is the best trial of every study.",
    how="Syntax trees: bare and broad handlers that neither raise, nor end the process, nor do more with the exception "
    "than print or log it; handlers of any type that put a number in place of the result (not for a missing import; "
    "an exit status is none); suppress(Exception); nan_to_num, where, masked_fill, fillna and masks that write a "
    "number over what is missing (not where a mask keeps what was); errors='ignore'; what leaves a `finally`, an "
    "`__exit__` that returns True, a number returned after a test for a missing value, a training call whose failure "
    "passes. Bound: none.",
    remedy="handle the exceptions that are expected, record them, and mark the result as missing",
    needs="source",
)
def swallowed(context: Context) -> Sequence[Measurement]:
    """Bound 0 is exact: handlers are counted."""
    require_source(context)
    seen = {
        (file.at(line), text): None
        for file, _ in context.tree.parsed
        for line, text in (*swallowed_failures(file), *dropped_failures(file))
    }
    return [slip(where, text) for where, text in seen] or [clean(context, "no exception is swallowed")]
