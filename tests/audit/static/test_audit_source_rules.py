"""Rules on source trees: files, cycles, handlers, the package itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from ris_verified.audit.result import Result
from ris_verified.audit.runner import PACKAGE, audit
from ris_verified.audit.static.imports import cycles
from ris_verified.audit.static.syntax import read_tree


def failing(folder: Path, rule: str) -> list[Result]:
    return [r for r in audit(None, source=folder, select=[rule]).results if r.status == "fail"]


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    return folder


def test_a_syntax_error_is_a_finding_and_the_rest_is_read(tmp_path: Path) -> None:
    write(tmp_path, broken="def (:\n", sound="def f(cfg):\n    return cfg.hybrid_beta\n")
    assert [r.where for r in failing(tmp_path, "RV1101")] == ["broken.py:1"]
    assert [r.where for r in failing(tmp_path, "RV0101")] == ["sound.py:2"]


def test_unreadable_bytes_are_a_finding(tmp_path: Path) -> None:
    (tmp_path / "latin.py").write_bytes(b"x = '\xff\xfe'\n")
    (tmp_path / "zero.py").write_bytes(b"x = 1\0\n")
    assert {r.where.split(":")[0] for r in failing(tmp_path, "RV1101")} == {"latin.py", "zero.py"}


def test_source_is_never_imported(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    write(tmp_path, evil=f"open({str(mark)!r}, 'w').close()\n")
    audit(None, source=tmp_path)
    assert not mark.exists()


def test_cycles_through_relative_and_absolute_imports(tmp_path: Path) -> None:
    package = tmp_path / "pkg"
    package.mkdir()
    write(
        package,
        __init__="",
        a="from . import b\n",
        b="from pkg.c import x\n",
        c="import pkg.a\nx = 1\n",
        d="from .a import b\n",
    )
    assert cycles(read_tree(package)) == [["a", "b", "c"]]


def test_imports_that_do_not_run_at_import_are_no_cycle(tmp_path: Path) -> None:
    late = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import b\ndef f():\n    import b\n"
    assert cycles(read_tree(write(tmp_path, a=late, b="import a\n"))) == []


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("except Exception:\n        pass", True),
        ("except:\n        x = None", True),
        ("except (ValueError, BaseException):\n        return None", True),
        ("except ValueError:\n        return 0.0", True),
        ("except ValueError:\n        x = -1", True),
        ("except Exception as error:\n        note(error)", False),
        ("except Exception as error:\n        print(error)", True),
        ("except Exception:\n        logging.exception('failed')", True),
        ("except Exception as error:\n        logger.critical(repr(error))", True),
        ("except Exception as error:\n        sys.stderr.write(str(error))", True),
        ("except Exception:\n        note(traceback.format_exc())", False),
        ("except Exception as error:\n        failures.append(error)", False),
        ("except KeyError:\n        return 0.0", True),
        ("except ValueError:\n        if note:\n            return 0.0", True),
        ("except ValueError:\n        return edge.inf", False),
        ("except ValueError:\n        return ()", False),
        ("except Exception as error:\n        return Failed(error)", False),
        ("except Exception as error:\n        kept = error", True),
        ("except Exception as error:\n        failures.append(str(error))", False),
        ("except Exception as error:\n        failures[note] = repr(error)", False),
        ("except Exception as error:\n        kept = str(error)\n    note(kept)", False),
        ("except Exception as error:\n        x = error", False),
        ("except Exception as error:\n        note.last = error", False),
        ("except Exception:\n        sys.exit(1)", False),
        ("except ValueError:\n        return float('inf')", True),
        ("except ValueError:\n        return math.inf", True),
        ("except ValueError:\n        x = torch.zeros(3)", True),
        ("except ValueError:\n        return float('nan')", False),
        ("except ValueError:\n        return 0.0, 0.0", True),
        ("except ImportError:\n        x = 0", False),
        ("except Exception:\n        raise", False),
        ("except ValueError:\n        x = None", False),
        ("except ValueError:\n        return False", False),
    ],
)
def test_swallowed_exceptions(tmp_path: Path, body: str, found: bool) -> None:
    write(tmp_path, a=f"def f(g, note):\n    try:\n        x = g()\n    {body}\n    return x\n")
    assert bool(failing(tmp_path, "RV1607")) is found


@pytest.mark.parametrize(
    ("normal", "failed", "found"),
    [
        ("return 0", "return 2", False),
        ("return None", "return 1", False),
        ("return", "return EXIT", False),
        ("return 0", "sys.stderr.write(str(error))\n        return 2", False),
        ("return x", "return 2", True),
        ("return 0", "return 2.0", True),
        ("return 0", "return -1", True),
        ("return 0", "return 0", True),
        ("yield x", "return 2", True),
        ("pass", "x = 2", True),
    ],
)
def test_an_exit_status_is_no_number_for_a_result(tmp_path: Path, normal: str, failed: str, found: bool) -> None:
    text = (
        "EXIT = 2\n\n\ndef main(g):\n    def inner():\n        return g()\n\n    inner()\n    try:\n        x = g()\n"
    )
    for kind in ("OSError", "Exception"):
        write(tmp_path, a=f"{text}    except {kind} as error:\n        print(error)\n        {failed}\n    {normal}\n")
        assert bool(failing(tmp_path, "RV1607")) is found


@pytest.mark.parametrize(
    ("start", "failed", "end", "found"),
    [
        ("code = 0", "code = 2", "return code", False),
        ("code = 0", "code = 2", "sys.exit(code)", False),
        ("code = 0", "code = 0", "return code", True),
        ("code = 0.0", "code = 2", "return code", True),
        ("code = len(g)", "code = 2", "return code", True),
        ("code = 0", "code = 2", "return code + 1", True),
        ("code = 0", "code = 2", "print(code)\n    return code", True),
        ("code = 0", "code = 2", "return g", True),
    ],
)
def test_a_status_may_have_a_name(tmp_path: Path, start: str, failed: str, end: str, found: bool) -> None:
    body = f"    {start}\n    try:\n        g()\n    except OSError:\n        {failed}\n    {end}\n"
    write(tmp_path, a=f"import sys\n\n\ndef main(g):\n{body}")
    assert bool(failing(tmp_path, "RV1607")) is found


@pytest.mark.parametrize(("end", "found"), [("sys.exit(code)", False), ("print(code)", True)])
def test_a_script_may_have_a_status_too(tmp_path: Path, end: str, found: bool) -> None:
    write(tmp_path, a=f"import sys\n\ncode = 0\ntry:\n    g()\nexcept OSError:\n    code = 2\n{end}\n")
    assert bool(failing(tmp_path, "RV1607")) is found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("    try:\n        x.backward()\n    finally:\n        return x\n", True),
        ("    for y in x:\n        try:\n            y()\n        finally:\n            continue\n", True),
        ("    try:\n        x()\n    finally:\n        for y in x:\n            break\n", False),
        ("    try:\n        x()\n    finally:\n        g = lambda: x\n        def h():\n            return g\n", False),
        ("    try:\n        x.backward()\n    except RuntimeError:\n        pass\n", True),
        ("    try:\n        train_step(x)\n    except (KeyError, OSError):\n        ...\n", True),
        ("    try:\n        x.backward()\n    except RuntimeError as error:\n        x.note(error)\n", False),
        ("    try:\n        x.fit()\n    except KeyboardInterrupt:\n        pass\n", False),
        ("    try:\n        x.unlink()\n    except OSError:\n        pass\n", False),
        ("    with suppress(RuntimeError, ValueError):\n        x.backward()\n", True),
        ("    with suppress(KeyboardInterrupt):\n        x.fit()\n", False),
        ("    with suppress(OSError):\n        x.unlink()\n", False),
        ("    if not torch.isfinite(x):\n        return 0.0\n    return x\n", True),
        ("    if torch.isnan(x).any():\n        print(x)\n        return torch.zeros(())\n    return x\n", True),
        ("    if np.isfinite(x):\n        return x\n    else:\n        return 1e9\n", True),
        ("    if torch.isnan(x):\n        return float('nan')\n    return x\n", False),
        ("    if np.isfinite(x):\n        return 0\n    return 1\n", False),
        ("    if x > 0:\n        return 0.0\n    return x\n", False),
        ("    if x is None or not np.isfinite(x):\n        return 0.0\n    return x\n", False),
    ],
)
def test_failures_that_go_on_unseen(tmp_path: Path, text: str, found: bool) -> None:
    head = "from contextlib import suppress\n\nimport numpy as np\nimport torch\n\n\n"
    write(tmp_path, a=f"{head}def f(x, train_step):\n{text}")
    assert bool(failing(tmp_path, "RV1607")) is found


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("log(kind)\n        return True", True),
        ("return True", True),
        ("return False", False),
        ("if kind is KeyError:\n            return True", False),
        ("if kind is None:\n            return False\n        return True", False),
        ("if kind is None:\n            raise ValueError\n        return True", False),
        ("log(kind)", False),
    ],
)
def test_a_context_that_swallows_everything(tmp_path: Path, body: str, found: bool) -> None:
    write(tmp_path, a=f"class Quiet:\n    def __exit__(self, kind, error, trace):\n        {body}\n\n\nlog = print\n")
    assert bool(failing(tmp_path, "RV1607")) is found


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("torch.manual_seed(int(time.time()))", True),
        ("g = torch.Generator().manual_seed(hash(name) % 2**31)", True),
        ("np.random.default_rng(time.time_ns())", True),
        ("torch.cuda.manual_seed_all(os.getpid())", True),
        ("torch.seed()", True),
        ("g = torch.Generator(); g.seed()", True),
        ("g = torch.Generator().manual_seed(seed + 1)", False),
        ("g = torch.Generator(); s = g.initial_seed()", True),
        ("torch.manual_seed(zlib.crc32(name))", False),
        ("note(seed=hash(name))", False),
        ("g = torch.Generator(); note(g)", True),
        ("g = torch.Generator('cpu'); g.set_state(state)", False),
        ("g = torch.Generator(); g.manual_seed(seed)", False),
        ("note(torch.Generator())", False),
        ("state.seed(seed)", False),
    ],
)
def test_seeds_that_differ_in_every_run(tmp_path: Path, line: str, found: bool) -> None:
    head = "import os\nimport time\nimport zlib\n\nimport numpy as np\nimport torch\n\n\n"
    write(tmp_path, a=f"{head}def f(name, seed, state, note):\n    {line}\n")
    assert bool(failing(tmp_path, "RV1101")) is found


@pytest.mark.parametrize(
    ("head", "line", "found"),
    [
        ("seen=[]", "seen.append(x)", True),
        ("seen={}", "seen[x] = 1", True),
        ("*, seen=set()", "seen.add(x)", True),
        ("seen=[]", "return [*seen, x]", False),
        ("seen=()", "seen = [*seen, x]", False),
        ("seen=None", "seen.append(x)", False),
        ("seen=[]", "seen = list(seen); seen.append(x)", False),
    ],
)
def test_a_default_that_remembers_calls(tmp_path: Path, head: str, line: str, found: bool) -> None:
    write(tmp_path, a=f"def f(x, {head}):\n    {line}\n")
    assert bool(failing(tmp_path, "RV1101")) is found


def test_zero_for_nan_and_suppress(tmp_path: Path) -> None:
    write(
        tmp_path,
        a="import torch\ny = torch.nan_to_num(1)\n",
        b="from contextlib import suppress\nsuppress(Exception)\n",
    )
    write(
        tmp_path,
        c="import torch\ny = torch.nan_to_num(1, nan=7.0)\n",
        d="from contextlib import suppress\nsuppress(KeyError)\n",
    )
    assert {r.where for r in failing(tmp_path, "RV1607")} == {"a.py:2", "b.py:2"}


@pytest.mark.parametrize("line", ["x.detach()", "x.data", "x.cpu().numpy()", "x.item()"])
def test_forward_that_leaves_the_graph(tmp_path: Path, line: str) -> None:
    text = "class Net(Module):\n    def forward(self, x):\n        return self.g(x)\n    def g(self, x):\n"
    write(tmp_path, a=f"{text}        return {line}\n", b=f"def log(x):\n    return {line}\n")
    assert [r.where for r in failing(tmp_path, "RV0503")] == ["a.py:5"]


def test_dead_knob_is_a_warning_only(tmp_path: Path) -> None:
    write(
        tmp_path, config="class Config:\n    used: int = 1\n    dead: int = 2\n", a="def f(cfg):\n    return cfg.used\n"
    )
    report = audit(None, source=tmp_path, select=["RV0102"])
    assert [(r.status, r.severity, r.where) for r in report.results] == [("fail", "warning", "config.py:3")]
    assert report.verdict == "GO"


def test_two_defaults(tmp_path: Path) -> None:
    config = "class Config:\n    C_EPS: float = 1e-3\n"
    write(tmp_path, config=config, loss="def f(C_EPS=1.0):\n    return C_EPS\n")
    (found,) = failing(tmp_path, "RV0105")
    assert "1 at loss.py:1" in found.message
    assert "0.001 at config.py:2" in found.message


def test_empty_folder_runs_nothing(tmp_path: Path) -> None:
    report = audit(None, source=tmp_path, select=["RV0101"])
    assert report.verdict == "NO-GO"
    assert [r.status for r in report.results] == ["skip"]


def test_this_package_reads_only_names_that_exist() -> None:
    results = audit(None, source=PACKAGE, select=["RV0101", "RV0105", "RV1101", "RV1607"]).results
    assert [(r.id, r.where, r.message) for r in results if r.status != "pass"] == []
    assert len(results) == 4
