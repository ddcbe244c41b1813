"""Unbound and undefined names in small functions."""

from __future__ import annotations

import ast
import textwrap
from pathlib import Path

import pytest

from ris_verified.audit.runner import audit
from ris_verified.audit.static.binding import unbound_names


def names(text: str) -> set[str]:
    text = textwrap.dedent(text)
    return {name for _, name, _ in unbound_names(ast.parse(text))}


@pytest.mark.parametrize(
    "text",
    [
        "def f(x):\n    if x:\n        B_final = 1\n    return B_final\n",
        "def f(x):\n    for B_final in x:\n        pass\n    return B_final\n",
        "def f(x):\n    while x:\n        B_final = 1\n        break\n    return B_final\n",
        "def f(x):\n    try:\n        B_final = x()\n    except ValueError:\n        pass\n    return B_final\n",
        "def f(x):\n    B_final += x\n",
        "def f(x):\n    B_final = 1\n    del B_final\n    return B_final\n",
        "def f(x):\n    match x:\n        case 1:\n            B_final = 2\n    return B_final\n",
        "def f(x, suppress):\n    with suppress(ValueError):\n        B_final = x()\n    return B_final\n",
        "def f():\n    return B_final\n",
        "def f(items):\n    if items():\n        B_final = 1\n    if items():\n        return B_final\n",
        "class C:\n    def f(self):\n        return [B_final for _ in self.x]\n",
        "def f(xs):\n    B_final = 1\n    for x in xs:\n        x(B_final)\n        del B_final\n",
        "def f(x):\n    try:\n        x()\n    except ValueError as B_final:\n        pass\n    return B_final\n",
        (
            "def f(x):\n    B_final = 1\n    try:\n        x()\n    except ValueError as B_final:\n"
            "        pass\n    return B_final\n"
        ),
        "def f(x):\n    def g():\n        return B_final\n    y = g()\n    B_final = 1\n    return y, B_final\n",
        "def f(x):\n    if x:\n        B_final = 1\n    def g():\n        return B_final\n    return g\n",
        "def f(x):\n    if x:\n        B_final = 1\n    return sorted(x, key=lambda v: v + B_final)\n",
        "def f(x):\n    class C:\n        y = B_final\n    B_final = 1\n    return C, B_final\n",
        "class C:\n    if len('a'):\n        B_final = 1\n    y = B_final\n",
        "import sys\nif sys.argv:\n    B_final = 1\nprint(B_final)\n",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import B_final\ndef f():\n    return B_final.x\n",
        "__all__ = ['B_final']\n",
        "def f(x):\n    x and (B_final := x())\n    return B_final\n",
        "def f(x):\n    while x():\n        B_final = 1\n    else:\n        x(B_final)\n",
        "def f(x):\n    try:\n        x()\n        B_final = 1\n    finally:\n        x(B_final)\n",
        (
            "def f(x):\n    try:\n        x()\n    except ValueError:\n        y = 1\n    else:\n"
            "        B_final = 1\n    return B_final\n"
        ),
        "def f(x):\n    with pytest.raises(ValueError):\n        B_final = x()\n    return B_final\nimport pytest\n",
        "def f(x):\n    return [y for y in x], y_\ny_ = 1\ndef g():\n    return [B_final for q in []]\n",
        (
            "def f(m):\n    if m == 'a':\n        B_final = 1\n    elif m == 'b':\n"
            "        B_final = 2\n    return B_final\n"
        ),
        "def f(xs):\n    for B_final in xs:\n        break\n    else:\n        xs()\n    return B_final\n",
        "async def f(x):\n    async for B_final in x:\n        pass\n    return B_final\n",
        "def f(x):\n    if x:\n        import B_final\n    return B_final.y\n",
        "def f(x):\n    if x:\n        def B_final(): ...\n    return B_final()\n",
        "def f(x: B_final):\n    return x\n",
        "from __future__ import annotations\ndef f(x: B_final):\n    return x\n",
    ],
)
def test_doubtful_uses_are_found(text: str) -> None:
    assert names(text) == {"B_final"}


@pytest.mark.parametrize(
    "text",
    [
        "def f(x):\n    if x:\n        y = 1\n    else:\n        raise ValueError\n    return y\n",
        "def f(x):\n    while True:\n        y = x()\n        if y:\n            break\n    return y\n",
        "def f(x):\n    for y in (1, 2):\n        pass\n    return y\n",
        "def f(x):\n    try:\n        y = x()\n    except ValueError:\n        return 0\n    return y\n",
        "def f(x):\n    try:\n        pass\n    finally:\n        y = 1\n    return y\n",
        "def f(x):\n    return [y for y in x if y], {k: v for k, v in x}\n",
        "def f(x):\n    if (y := x()) > 1:\n        return y\n    return -y\n",
        "def f(x):\n    with open(x) as y:\n        return y.read()\n",
        "import sys\ndef f(x):\n    if x:\n        y = 1\n    else:\n        sys.exit(2)\n    return y\n",
        "def f():\n    global G\n    G = 1\ndef g():\n    return G\n",
        "def f(x):\n    def g():\n        return y\n    y = 1\n    return g\n",
        "def f(x):\n    match x:\n        case [a, *b]:\n            return a, b\n    return __file__\n",
        "from os.path import *\ndef f():\n    return join('a')\n",
        "async def f(x):\n    async with x as y:\n        return lambda z: z + y\n",
        "def f(x):\n    if x:\n        y = 1\n    if x:\n        return y\n    return 0\n",
        "def f(x, z):\n    if x and z:\n        y = 1\n    if not (x and z):\n        return 0\n    return y\n",
        (
            "def f(x):\n    y = None\n    if x:\n        y, w = x\n    if y is not None:\n"
            "        return w\n    return 0\n"
        ),
        (
            "def f(xs):\n    done = False\n    for x in xs:\n        if x:\n"
            "            y, done = x, True\n            break\n    return done\n"
        ),
        (
            "def f(xs):\n    found = False\n    for x in xs:\n        if x():\n"
            "            found = True\n            y = x\n            break\n    if found:\n"
            "        return y\n    return None\n"
        ),
        "def f(xs):\n    if not xs:\n        raise ValueError\n    for x in xs:\n        y = x\n    return y\n",
        "def f(n):\n    for i in range(3):\n        y = i\n    return y, i\n",
        (
            "def f(m):\n    if m == 'a':\n        y = 1\n    elif m == 'b':\n        z = 2\n"
            "    if m == 'b':\n        return z\n    return 0\n"
        ),
        (
            "def f(x):\n    try:\n        y = None\n        y = x()\n    except ValueError:\n"
            "        return y\n    return y\n"
        ),
        "def f(x):\n    def g():\n        return y if x else 0\n    if x:\n        y = 1\n    return g()\n",
        (
            "def f(x):\n    def g():\n        nonlocal y\n        y = 1\n    g()\n    if x:\n"
            "        y = 2\n    return y\n"
        ),
        "try:\n    unicode\nexcept NameError:\n    unicode = str\nprint(unicode)\n",
        "class C:\n    def f(self):\n        return later\nlater = 1\n",
        "class C:\n    x = 1\n    y = [v for v in (x, x)]\n",
        "def f(x):\n    if 'y' in locals():\n        return y\n    y = 1\n    return y\n",
        "def __getattr__(name):\n    return name\n__all__ = ['anything']\n",
        "globals().update(a=1)\nprint(a)\n",
        "names = globals()\nnames['a'] = 1\nprint(a)\n",
        "try:\n    from elsewhere import *\nexcept ImportError:\n    def a(): ...\nprint(a)\n",
        (
            "from typing import NoReturn\ndef stop() -> NoReturn:\n    raise ValueError\ndef f(x):\n"
            "    if x:\n        y = 1\n    else:\n        stop()\n    return y\n"
        ),
        (
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from a import B\n"
            "def f(x: 'B') -> 'B':\n    return x\n"
        ),
        (
            "from __future__ import annotations\nfrom typing import TYPE_CHECKING\n"
            "if TYPE_CHECKING:\n    from a import B\ndef f(x: B) -> B:\n    return x\n"
        ),
        (
            "def f(x):\n    match x:\n        case 1:\n            y = 1\n        case _:\n"
            "            y = 2\n    return y\n"
        ),
        (
            "def f(x):\n    while True:\n        try:\n            y = x()\n            break\n"
            "        except ValueError:\n            continue\n    return y\n"
        ),
        "import a.b as c, d.e\ndef f():\n    return c, d\n",
        "def f(*args, k=1, **kw):\n    return args, k, kw\n",
        "x = [i for i in range(3) if (last := i)]\nprint(last)\n",
        (
            "def f(x):\n    if x:\n        y = 1\n    def g():\n        if not x:\n            return 0\n"
            "        return y\n    return g\n"
        ),
        "NAMES = ('a', 'b')\nfor name in NAMES:\n    print(name)\nprint(name)\n",
    ],
)
def test_sound_uses_are_left_alone(text: str) -> None:
    assert names(text) == set()


@pytest.mark.parametrize(
    ("iterable", "runs"),
    [
        ("range(1)", True),
        ("range(0)", False),
        ("range(n)", False),
        ("range(2, 3)", True),
        ("range(3, 3)", False),
        ("range(n, 3)", False),
        ("range(0, 3, n)", False),
        ("[0]", True),
        ("[*n]", False),
        ("{1: 2}.items()", True),
        ("{**n}.items()", False),
        ("n.items()", False),
        ("itertools.count(n)", True),
        ("itertools.cycle(n)", False),
        ("zip((1, 2), n)", False),
        ("enumerate((1, 2))", True),
        ("'ab'", True),
        ("''", False),
        ("other((1, 2))", False),
    ],
)
def test_which_loops_surely_run(iterable: str, runs: bool) -> None:
    text = f"import itertools\n\n\ndef f(n, other):\n    for y in {iterable}:\n        n(y)\n    return y\n"
    assert names(text) == (set() if runs else {"y"})


@pytest.mark.parametrize(
    ("before", "iterable", "runs"),
    [
        ("assert n > 0", "range(n)", True),
        ("assert n >= 1", "range(n)", True),
        ("if n < 1:\n        raise ValueError", "range(n)", True),
        ("if n <= 0:\n        return None", "range(n)", True),
        ("assert len(n) > 0", "n", True),
        ("assert len(n) >= 1", "enumerate(n)", True),
        ("if len(n) == 0:\n        return None", "n", True),
        ("if len(n.all) == 0:\n        return None", "n.all", True),
        ("assert n >= 0", "range(n)", False),
        ("assert n < 1", "range(n)", False),
        ("assert n > 0\n    n = n - 1", "range(n)", False),
        ("assert len(n) > 0\n    n.pop()", "n", False),
        ("assert other > 0", "range(n)", False),
        ("if n > 0:\n        print(n)", "range(n)", False),
        ("assert n > 0", "range(n, 9)", False),
    ],
)
def test_a_test_may_say_that_a_loop_runs(before: str, iterable: str, runs: bool) -> None:
    text = f"def f(n, other):\n    {before}\n    for y in {iterable}:\n        n(y)\n    return y\n"
    assert names(text) == (set() if runs else {"y"})


@pytest.mark.parametrize(
    ("call", "ends"),
    [
        ("os.abort()", True),
        ("pytest.fail('no')", True),
        ("self.skipTest('no')", True),
        ("job.fail('no')", False),
        ("parser.error('no')", True),
        ("logger.error('no')", False),
    ],
)
def test_which_calls_surely_end(call: str, ends: bool) -> None:
    head = "import os\nimport pytest\n\n\ndef f(x, self, job, parser, logger):\n    if x:\n        y = 1\n    else:\n"
    assert names(f"{head}        {call}\n    return y\n") == (set() if ends else {"y"})


def test_a_star_import_of_the_tree_is_followed(tmp_path: Path) -> None:
    (tmp_path / "base.py").write_text("x = 1\n_y = 2\n", encoding="utf-8")
    (tmp_path / "use.py").write_text("from base import *\nprint(x, z)\n", encoding="utf-8")
    found = [r for r in audit(None, source=tmp_path, select=["RV0201"]).results if r.status == "fail"]
    assert [(r.where, "'z'" in r.message) for r in found] == [("use.py:2", True)]


def test_a_submodule_is_bound_by_an_import_of_its_names(tmp_path: Path) -> None:
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "__init__.py").write_text("from .a import x\nprint(a, x)\n", encoding="utf-8")
    (tmp_path / "pkg" / "a.py").write_text("x = 1\n", encoding="utf-8")
    assert {r.status for r in audit(None, source=tmp_path, select=["RV0201"]).results} == {"pass"}


def test_submodules_may_be_named_in_all(tmp_path: Path) -> None:
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "__init__.py").write_text("__all__ = ['a', 'b']\n", encoding="utf-8")
    (tmp_path / "pkg" / "a.py").write_text("x = 1\n", encoding="utf-8")
    found = [r for r in audit(None, source=tmp_path, select=["RV0201"]).results if r.status == "fail"]
    assert [(r.where, "'b'" in r.message) for r in found] == [("pkg/__init__.py:1", True)]


def test_nesting_that_cannot_be_followed_is_reported() -> None:
    deep = "def f(x):\n    if x:\n        y = 1\n    return " + "-" * 950 + "y\n"
    assert [fault for _, _, fault in unbound_names(ast.parse(deep))] != []


def test_a_function_of_another_module_that_never_returns(tmp_path: Path) -> None:
    (tmp_path / "stop.py").write_text("def give_up(text):\n    raise ValueError(text)\n", encoding="utf-8")
    text = (
        "from stop import give_up\n\ndef f(x):\n    if x:\n        y = 1\n    else:\n        give_up(x)\n    return y\n"
    )
    (tmp_path / "use.py").write_text(text, encoding="utf-8")
    assert {r.status for r in audit(None, source=tmp_path, select=["RV0201"]).results} == {"pass"}


def test_a_module_of_the_tree_does_not_hide_the_standard_library(tmp_path: Path) -> None:
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "typing.py").write_text("x = 1\n", encoding="utf-8")
    (tmp_path / "pkg" / "use.py").write_text("from typing import *\nprint(Any)\n", encoding="utf-8")
    assert {r.status for r in audit(None, source=tmp_path, select=["RV0201"]).results} == {"pass"}
