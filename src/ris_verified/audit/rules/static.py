"""Section 11: source that can be parsed and imported."""

from __future__ import annotations

from collections.abc import Sequence

from ris_verified.audit.context import Context
from ris_verified.audit.imports import cycles
from ris_verified.audit.rule import Measurement, rule
from ris_verified.audit.rules.names import clean, require_source


@rule(
    "RV1101",
    "Every module parses and no imports form a cycle",
    law="every file is valid Python; the graph of imports at module level has no cycle",
    why="A cycle works from one entry point and fails from another.",
    how="Syntax trees: strongly connected components of module-level imports; imports inside functions and under "
    "TYPE_CHECKING do not run at import. Bound: none. Linter and type checker run in CI, not here.",
    remedy="repair the file, or move the shared part below both modules",
    needs="source",
)
def parses(context: Context) -> Sequence[Measurement]:
    """Bound 0 is exact: files and cycles are counted."""
    require_source(context)
    found = [
        Measurement(1.0, 0.0, False, file.error, where=file.at(file.line)) for file in context.tree.files if file.error
    ]
    for cycle in cycles(context.tree):
        message = "import cycle " + " → ".join([*cycle, cycle[0]])
        found.append(Measurement(float(len(cycle)), 1.0, False, message, "modules", cycle[0]))
    return found or [clean(context, "every file parses and no import cycle exists")]
