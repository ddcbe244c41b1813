"""Section L: the command that starts the study."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from ris_verified.audit.context import Context
from ris_verified.audit.rule import Measurement, NotApplicable, equal, rule
from ris_verified.audit.static.syntax import SourceFile, called_name

OPTIONS = ("--n_trials", "--epochs_per_trial", "--space")


@rule(
    "RV1501",
    "The study's command works as written and refuses a NO-GO",
    law="`python -m …hpo --n_trials 50 --epochs_per_trial 12 --space wide` is accepted; the study asks the audit first",
    why="A renamed option fails when the machine is booked; a launch without the audit is what it exists to prevent.",
    how="Syntax trees of the packages `hpo` and `cli`: a `__main__` module, the three options given to "
    "add_argument, and a call of the audit whose verdict is read before the study. Bound: all there. What the "
    "command does is tested, not audited.",
    remedy="declare the options as written and gate the study on the audit's verdict",
    needs="source",
)
def command_declared(context: Context) -> Sequence[Measurement]:
    """Options are counted: no tolerance."""
    package = [(f, t) for f, t in context.tree.parsed if "hpo" in f.name.split("/")[:-1]]
    if not package:
        raise NotApplicable("the source has no package `hpo`")
    declared = set(_declared(package)) | set(_declared(context.tree.parsed))
    main = [f.name for f, _ in package if f.name.endswith("__main__.py")]
    around = [t for f, t in context.tree.parsed if {"hpo", "cli"} & set(f.name.split("/")[:-1])]
    calls = {called_name(n.func) for t in around for n in ast.walk(t) if isinstance(n, ast.Call)}
    read = any(isinstance(n, ast.Attribute) and n.attr == "verdict" for t in around for n in ast.walk(t))
    found = [equal(bool(main), True, "the package can be run with -m", where="hpo/__main__.py")]
    found += [equal(name in declared, True, f"option {name} is declared", where="hpo") for name in OPTIONS]
    gate = "audit" in calls and read
    return [*found, equal(gate, True, "the study asks the audit and reads its verdict", where="hpo, cli")]


def _declared(files: Sequence[tuple[SourceFile, ast.Module]]) -> Iterator[str]:
    for _, tree in files:
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and called_name(node.func) == "add_argument":
                yield from (a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str))
