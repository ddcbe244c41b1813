"""Laws of the audit over generated programs, import graphs and results."""

from __future__ import annotations

import ast
import json
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from ris_verified._config_load import names
from ris_verified.audit.formats import render
from ris_verified.audit.result import Report, Result, verdict
from ris_verified.audit.static.binding import unbound_names
from ris_verified.audit.static.config_judge import nearest
from ris_verified.audit.static.imports import cycles
from ris_verified.audit.static.syntax import SourceFile, Tree
from ris_verified.config import Config

NAMES = st.sampled_from(["a", "b", "c"])
STATEMENTS = st.deferred(
    lambda: st.one_of(
        NAMES.map(lambda n: [f"{n} = 1"]),
        NAMES.map(lambda n: [f"use({n})"]),
        NAMES.map(lambda n: [f"del {n}"]),
        st.sampled_from([["flag()"], ["if flag():", "    return"], ["if flag():", "    raise ValueError"]]),
        st.tuples(BLOCKS, BLOCKS).map(lambda b: ["if flag():", *b[0], "else:", *b[1]]),
        st.tuples(NAMES, BLOCKS).map(lambda b: [f"for {b[0]} in items():", *b[1]]),
        BLOCKS.map(lambda b: ["while flag():", *b, "    if flag():", "        break"]),
        st.tuples(BLOCKS, BLOCKS, BLOCKS).map(
            lambda b: ["try:", *b[0], "except ValueError:", *b[1], "finally:", *b[2]]
        ),
    )
)
BLOCKS = st.lists(STATEMENTS, min_size=1, max_size=4).map(
    lambda statements: [f"    {line}" for statement in statements for line in statement]
)


@settings(max_examples=150, deadline=None)
@given(body=BLOCKS, answers=st.lists(st.booleans(), min_size=1, max_size=30))
def test_a_program_judged_clean_never_meets_an_unbound_name(body: list[str], answers: list[bool]) -> None:
    text = "\n".join(["def f(use, flag, items):", *body]) + "\n"
    left = list(answers)

    def flag() -> bool:
        return left.pop() if left else False

    scope: dict[str, object] = {}
    exec(compile(text, "generated", "exec"), scope)
    met: set[str] = set()
    try:
        scope["f"](lambda value: None, flag, lambda: [1] if flag() else [])  # type: ignore[operator]
    except NameError as error:
        met.add(error.name or str(error).split("'")[1])
    except ValueError:
        pass
    judged = {name for _, name, _ in unbound_names(ast.parse(text))}
    assert met <= judged


def _tree(edges: dict[str, set[str]]) -> Tree:
    texts = {name: "".join(f"import {other}\n" for other in sorted(others)) for name, others in edges.items()}
    return Tree(Path("generated"), tuple(SourceFile(f"{n}.py", t, ast.parse(t)) for n, t in texts.items()))


MODULES = [f"m{i}" for i in range(6)]


@given(edges=st.fixed_dictionaries({name: st.sets(st.sampled_from(MODULES)) for name in MODULES}))
def test_modules_in_a_cycle_are_those_that_reach_themselves(edges: dict[str, set[str]]) -> None:
    reach = {name: set(others) - {name} for name, others in edges.items()}
    for middle in MODULES:
        for name in MODULES:
            if middle in reach[name]:
                reach[name] |= reach[middle]
    expected = {name for name in MODULES if any(name in reach[o] and o in reach[name] for o in MODULES if o != name)}
    found = [name for group in cycles(_tree(edges)) for name in group]
    assert set(found) == expected
    assert len(found) == len(expected)


@given(
    name=st.sampled_from(names(Config)),
    position=st.integers(0, 40),
    letter=st.sampled_from("abcdefghijklmnopqrstuvwxyz"),
)
def test_the_nearest_name_of_a_known_name_is_itself_and_always_known(name: str, position: int, letter: str) -> None:
    known = names(Config)
    leaf = name.rsplit(".", 1)[-1]
    assert nearest(name, dict.fromkeys(known)).rsplit(".", 1)[-1] == leaf
    slip = leaf[: position % len(leaf)] + letter + leaf[position % len(leaf) :]
    assert nearest(slip, dict.fromkeys(known)).split(" ")[0] in {*known, *_historical()}


def _historical() -> set[str]:
    from ris_verified._config_load import HISTORICAL

    return set(HISTORICAL)


VALUES = st.one_of(st.floats(allow_nan=True, allow_infinity=True), st.text(max_size=8))
RESULTS = st.builds(
    Result, id=st.just("RV0101"), title=st.text(max_size=8), status=st.sampled_from(["pass", "fail", "error", "skip"]),
    severity=st.sampled_from(["blocker", "warning", "info"]), measured=VALUES, bound=VALUES, unit=st.text(max_size=3),
    message=st.text(max_size=20), where=st.text(max_size=8), remedy=st.text(max_size=8), seconds=st.floats(0, 10),
)  # fmt: skip


@given(results=st.lists(RESULTS, max_size=6))
def test_the_verdict_is_go_only_without_crash_or_failed_blocker(results: list[Result]) -> None:
    given_verdict = verdict(tuple(results))
    crashed = any(r.status == "error" for r in results)
    blocked = any(r.status == "fail" and r.severity == "blocker" for r in results)
    ran = any(r.status in ("pass", "fail") for r in results)
    assert (given_verdict == "GO") == (ran and not crashed and not blocked)


@given(results=st.lists(RESULTS, max_size=6))
def test_every_report_is_strict_json_and_ends_with_its_verdict(results: list[Result]) -> None:
    report = Report(verdict(tuple(results)), "quick", "", {}, 0.0, tuple(results))

    def refuse(text: str) -> None:
        raise AssertionError(text)

    tree = json.loads(report.to_json(), parse_constant=refuse)
    assert [r["status"] for r in tree["results"]] == [r.status for r in results]
    assert f"{report.verdict}:" in render(report, "text")
