"""Random numbers that no generator with a seed gives."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from ris_verified.audit.static.syntax import SourceFile, called_name, dotted

Finding = tuple[int, str]
NUMPY = {
    "default_rng", "Generator", "SeedSequence", "BitGenerator", "PCG64", "PCG64DXSM", "Philox", "MT19937", "SFC64",
    "RandomState", "get_state", "set_state",
}  # fmt: skip
SEEDED = {"default_rng", "SeedSequence", "PCG64", "PCG64DXSM", "Philox", "MT19937", "SFC64", "RandomState", "Random"}
PYTHON = {"Random", "SystemRandom", "getstate", "setstate"}
BEGUN = {"manual_seed", "seed", "set_state"}
SEEDERS = {"manual_seed", "manual_seed_all", "seed_everything", "set_seed", "seed_all"}
CLOCKS = {"time", "time_ns", "now", "utcnow", "urandom", "getpid", "perf_counter", "monotonic", "token_bytes", "uuid4"}
SALTED = {"hash"}  # of a text it differs in every process


def without_generator(file: SourceFile) -> Iterator[Finding]:
    """Yield line and message for every draw from a global state and for every generator without a fixed seed."""
    yield from _of_torch(file)
    names = _imported(file)
    if not names:
        return
    begun = _seeding(file)
    for node in file.index.of(ast.Attribute):
        full = _full(dotted(node), names)
        if full and isinstance(node.ctx, ast.Load) and id(node) not in begun:
            module, _, last = full.rpartition(".")
            if _is_global(module, last):
                yield node.lineno, f"{module}.{last} draws from a global state; use a generator with a seed"
    for name in file.index.of(ast.Name):
        module, _, last = names.get(name.id, "").rpartition(".")
        if isinstance(name.ctx, ast.Load) and _is_global(module, last) and id(name) not in begun:
            yield name.lineno, f"{module}.{last} draws from a global state; use a generator with a seed"
    for call in file.index.of(ast.Call):
        module, _, last = _full(dotted(call.func), names).rpartition(".")
        if module in ("numpy.random", "random") and last in SEEDED:
            yield from _seed(call, f"{module}.{last}")
        elif id(call.func) in begun:
            yield from _clocked(call, dotted(call.func), [*call.args, *(k.value for k in call.keywords)])


def _seeding(file: SourceFile) -> set[int]:
    """Return the functions of calls that seed a state with something: that is no draw yet."""
    calls = file.index.of(ast.Call)
    return {id(call.func) for call in calls if called_name(call.func) == "seed" and (call.args or call.keywords)}


def _of_torch(file: SourceFile) -> Iterator[Finding]:
    if "torch" not in file.text:
        return
    generators = {
        target.id: node.lineno
        for node in file.index.of(ast.Assign)
        if isinstance(node.value, ast.Call) and called_name(node.value.func) == "Generator"
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    begun = {dotted(node.value) for node in file.index.of(ast.Attribute) if node.attr in BEGUN}
    for name, line in generators.items():
        if name not in begun:
            yield line, f"the generator {name!r} is never seeded: it draws the same in every run and epoch"
    for call in file.index.of(ast.Call):
        owner = dotted(call.func.value) if isinstance(call.func, ast.Attribute) else ""
        if called_name(call.func) == "seed" and not call.args and owner in (*generators, "torch", "torch.cuda"):
            yield call.lineno, f"{owner}.seed() takes another seed in every run; use manual_seed"
        elif called_name(call.func) in SEEDERS:
            yield from _clocked(call, called_name(call.func), [*call.args, *(k.value for k in call.keywords)])


def _is_global(module: str, last: str) -> bool:
    if module == "numpy.random":
        return last not in NUMPY and not last.startswith("_")
    return module == "random" and last not in PYTHON and not last.startswith("_")


def _seed(call: ast.Call, name: str) -> Iterator[Finding]:
    given = [*call.args, *(k.value for k in call.keywords if k.arg in (None, "seed", "entropy", "x"))]
    if not given or all(isinstance(a, ast.Constant) and a.value is None for a in given):
        yield call.lineno, f"{name}() without a seed gives other numbers in every run"
    yield from _clocked(call, name, given)


def _clocked(call: ast.Call, name: str, given: list[ast.expr]) -> Iterator[Finding]:
    for argument in given:
        for node in ast.walk(argument):
            if isinstance(node, ast.Call) and called_name(node.func) in CLOCKS | SALTED:
                yield call.lineno, f"{name} takes its seed from {called_name(node.func)}(), another one in every run"


def _imported(file: SourceFile) -> dict[str, str]:
    """Return what local names mean, as far as they lead to `numpy.random` or `random`."""
    found: dict[str, str] = {}
    for node in file.index.of(ast.Import):
        for alias in node.names:
            if alias.name in ("numpy", "random", "numpy.random"):
                top = alias.name if alias.asname else alias.name.split(".")[0]
                found[alias.asname or top] = top
    for item in file.index.of(ast.ImportFrom):
        for alias in item.names:
            full = f"{item.module}.{alias.name}"
            if not item.level and (full == "numpy.random" or item.module in ("numpy.random", "random")):
                found[alias.asname or alias.name] = full
    return found


def _full(text: str, names: dict[str, str]) -> str:
    first, dot, rest = text.partition(".")
    return f"{names[first]}{dot}{rest}" if first in names else ""
