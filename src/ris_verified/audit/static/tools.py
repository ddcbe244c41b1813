"""The linter, the formatter and the type checker of this package's own checkout, and its imports one by one."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

Finding = tuple[str, str]
PACKAGE = Path(__file__).resolve().parents[2]
SECONDS = 300  # a strict type check from nothing takes about a minute; what takes five stands still
COMMANDS = {
    "ruff check": ("ruff", "check", "--no-cache", "--output-format=concise", "."),
    "ruff format": ("ruff", "format", "--check", "--no-cache", "."),
    "mypy": ("mypy", "--no-error-summary", "--cache-dir", os.devnull),
}
# One process loads what is heavy, each module is then imported in a child of its own, with none of the others loaded.
IMPORTER = """
import os, sys
for heavy in ("torch", "numpy", "scipy", "optuna"):
    try:
        __import__(heavy)
    except ImportError:
        continue
for name in sys.argv[1:]:
    child = os.fork()
    if child == 0:
        try:
            __import__(name)
        except BaseException as error:
            os.write(1, f"{name}: {type(error).__name__}: {error}\\n".encode())
            os._exit(1)
        os._exit(0)
    os.waitpid(child, 0)
"""


def checkout(source: Path) -> Path | None:
    """Return the folder with the `pyproject.toml` that configures the tools, if the source is this package's own."""
    if source.resolve() != PACKAGE:
        return None
    for folder in source.resolve().parents:
        path = folder / "pyproject.toml"
        if path.is_file():
            tools = tomllib.loads(path.read_text(encoding="utf-8")).get("tool", {})
            return folder if {"ruff", "mypy"} <= set(tools) else None
    return None


def tool_findings(root: Path, commands: dict[str, tuple[str, ...]] | None = None) -> Iterator[Finding]:
    """Yield the tool and its message for every tool that is not clean, missing, or too slow.

    Args:
        root: the checkout.
        commands: arguments of each tool.
    """
    for name, command in (commands or COMMANDS).items():
        program = _program(command[0])
        if program is None:
            yield name, f"{command[0]} is not installed, so nothing was checked"
            continue
        code, lines = _run([*program, *command[1:]], root)
        if code:
            yield name, f"exit status {code}: " + "; ".join(lines[-5:])


def standalone(source: Path) -> Iterator[Finding]:
    """Yield every module of this package that cannot be imported on its own, with its error."""
    if not hasattr(os, "fork"):
        yield source.name, "modules cannot be imported one by one on a system without fork"
        return
    parts = (path.relative_to(source.parent).with_suffix("").parts for path in sorted(source.rglob("*.py")))
    names = [".".join(p[:-1] if p[-1] == "__init__" else p) for p in parts if p[-1] != "__main__"]
    code, lines = _run([sys.executable, "-c", IMPORTER, *names], source.parent)
    for line in lines:
        name, sign, message = line.partition(": ")
        if sign and name in names:
            yield name, f"cannot be imported on its own: {message}"
    if code:
        yield source.name, f"the imports one by one ended with status {code}"


def _program(name: str) -> list[str] | None:
    beside = Path(sys.executable).parent / name
    if beside.is_file():
        return [str(beside)]
    found = shutil.which(name)
    if found is not None:
        return [found]
    return [sys.executable, "-m", name] if importlib.util.find_spec(name) is not None else None


def _run(command: Sequence[str], folder: Path) -> tuple[int, list[str]]:
    path = os.pathsep.join(filter(None, (str(PACKAGE.parent), os.environ.get("PYTHONPATH", ""))))
    environment = {**os.environ, "PYTHONPATH": path, "MYPYPATH": str(PACKAGE.parent), "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return -1, [f"stopped after {SECONDS} s"]
    except OSError as error:
        return -1, [str(error)]
    return done.returncode, [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
