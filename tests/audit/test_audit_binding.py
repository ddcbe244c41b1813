"""Unbound and undefined names in small functions."""

from __future__ import annotations

import ast
import textwrap

import pytest

from ris_verified.audit.binding import unbound_names


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
        "class C:\n    def f(self):\n        return [B_final for _ in self.x]\n",
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
    ],
)
def test_sound_uses_are_left_alone(text: str) -> None:
    assert names(text) == set()
