"""Section L: the command that starts the study."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from ris_verified.audit.context import Context
from ris_verified.audit.rule import Measurement, NotApplicable, at_most, equal, rule
from ris_verified.audit.static.launch_ways import unguarded
from ris_verified.audit.static.syntax import SourceFile, called_name

OPTIONS = ("--n_trials", "--epochs_per_trial", "--space")


@rule(
    "RV1501",
    "The study's command works as written and refuses a NO-GO",
    law="`python -m …hpo --n_trials 50 --epochs_per_trial 12 --space wide` is accepted; no study starts on a NO-GO "
    "unless it is told to",
    why="A renamed option fails when the machine is booked; a launch without the audit is what it exists to prevent.",
    how="Syntax trees: a `__main__` module in the package `hpo`, the three options given to add_argument. Then every "
    "command that leads to `run_study`, or to `optimize` or `ask` of a study, is followed through functions, branches "
    "and handlers as if `audit` said NO-GO and options were as nobody has set them: it must raise, exit or return "
    "before. A `run_study` that is not in the source may be handed the verdict instead. Bound: none reached. What the "
    "command does is tested, not audited.",
    remedy="declare the options as written; raise, exit or return before the study where the verdict is not GO",
    needs="source",
)
def command_declared(context: Context) -> Sequence[Measurement]:
    """Options are counted: no tolerance."""
    package = [(f, t) for f, t in context.tree.parsed if "hpo" in f.name.split("/")[:-1]]
    if not package:
        raise NotApplicable("the source has no package `hpo`")
    declared = set(_declared(package)) | set(_declared(context.tree.parsed))
    main = [f.name for f, _ in package if f.name.endswith("__main__.py")]
    found = [equal(bool(main), True, "the package can be run with -m", where="hpo/__main__.py")]
    found += [equal(name in declared, True, f"option {name} is declared", where="hpo") for name in OPTIONS]
    return [*found, *_refused(context)]


def _refused(context: Context) -> Iterator[Measurement]:
    calls = {called_name(n.func) for f, _ in context.tree.parsed for n in f.index.of(ast.Call)}
    starts, reached = unguarded(context.tree)
    yield equal("audit" in calls, True, "the audit is asked", where="hpo, cli")
    text = "a call that starts the study: run_study, or optimize or ask of a study"
    yield equal(starts, True, text, where="hpo, cli")
    where = reached[0] if reached else "hpo, cli"
    yield at_most(float(len(reached)), 0.0, "starts of the study that a NO-GO reaches", "starts", where)


def _declared(files: Sequence[tuple[SourceFile, ast.Module]]) -> Iterator[str]:
    for _, tree in files:
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and called_name(node.func) == "add_argument":
                yield from (a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str))
