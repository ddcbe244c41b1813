"""The audit leaves process, pipeline and disk as it found them."""

from __future__ import annotations

import dataclasses
import functools
import os
import random
import subprocess
import sys
import types
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch._inductor.config  # deterministic mode imports it, which adds a warning filter the first time
from torch import nn

from ris_verified.audit import runner
from ris_verified.audit.context import Context, small_config
from ris_verified.audit.rule import Measurement, Rule, rule
from ris_verified.audit.state.fingerprint import State, as_found
from ris_verified.audit.state.reach import Reach
from ris_verified.config import Config
from ris_verified.pipeline import Pipeline

TRAINING = {"RV0404", "RV1204", "RV1602", "RV1605"}


class Slotted:
    """A stage's helper without `__dict__`."""

    __slots__ = ("never", "weight")

    def __init__(self) -> None:
        self.weight = torch.ones(2)


class Draws:
    """A stage that is a bound method of an object with generators and counters of its own."""

    def __init__(self, sound: Pipeline) -> None:
        self.sound, self.calls, self.seen = sound, 0, deque([1], maxlen=3)
        self.numpy, self.old, self.plain = np.random.default_rng(1), np.random.RandomState(2), random.Random(3)
        self.table, self.tags, self.slotted = np.ones(3), {"a"}, Slotted()

    def draw(self, cfg: Any, *key: int) -> Any:
        self.calls += 1
        self.seen.append(self.calls)
        self.table += self.numpy.normal() + self.old.normal() + self.plain.random()
        self.tags.add(f"b{self.calls}")
        self.slotted.weight = self.slotted.weight * 2
        return self.sound.draw_scene(cfg, *key)


def noisy(sound: Pipeline, generator: torch.Generator, R: Any, K: Any, cfg: Any) -> Any:
    torch.rand(3, generator=generator)
    return sound.spectrum(R, K, cfg)


@pytest.fixture
def live() -> tuple[Pipeline, nn.Module, torch.optim.Optimizer]:
    config = small_config(Config())
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, dropout=0.1))
    sound = Pipeline.default(config)
    model = sound.build_model(config).train()
    list(model.children())[-1].eval()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 0.1)
    optimizer.step()
    first, *_, last = model.parameters()
    first.grad = None
    last.requires_grad_(False)
    generator = torch.Generator().manual_seed(5)

    def step(state: Any, batch: Any, pipeline: Pipeline) -> Any:
        optimizer.step()
        return sound.train_step(state, batch, pipeline)

    stages = {"draw_scene": Draws(sound).draw, "spectrum": functools.partial(noisy, sound, generator)}
    built = functools.lru_cache(lambda cfg: model)
    built(config)
    return dataclasses.replace(sound, build_model=built, train_step=step, **stages), model, optimizer


@pytest.mark.long
@pytest.mark.parametrize("frozen", [True, False])
def test_a_quick_audit_leaves_a_live_pipeline_by_hash(
    live: tuple[Pipeline, nn.Module, torch.optim.Optimizer], tmp_path: Path, frozen: bool
) -> None:
    pipeline, model, optimizer = live
    list(model.parameters())[-1].requires_grad_(not frozen)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    gradients = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    moments = [state["exp_avg"].clone() for state in optimizer.state.values()]
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    before = State(pipeline).digest
    (tmp_path / "empty.py").write_text("x = 1\n", encoding="utf-8")
    # One of the two runs every rule, the other those that train.
    report = runner.audit(pipeline, source=tmp_path, select=sorted(TRAINING) if frozen else ())
    assert State(pipeline).digest == before
    assert report.environment["state"].startswith("as found, ")
    assert before[:16] in report.environment["state"]
    assert {r.id for r in report.results} >= TRAINING
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert [p.requires_grad for p in model.parameters()][-1] is not frozen
    assert all((p.grad is None) == (g is None) for p, g in zip(model.parameters(), gradients, strict=True))
    assert all(torch.equal(s["exp_avg"], m) for s, m in zip(optimizer.state.values(), moments, strict=True))


def test_that_audit_did_disturb_it_before_it_was_put_back(
    live: tuple[Pipeline, nn.Module, torch.optim.Optimizer],
) -> None:
    pipeline, model, _ = live
    list(model.parameters())[-1].requires_grad_(True)
    state = State(pipeline)
    context = Context(pipeline, "quick", runner.PACKAGE)
    for item in runner.choose(["RV0404", "RV1204", "RV1605"], "quick"):
        runner.run_rule(item, context)
    names = {part.name for part in state.changed()}
    assert any(name.startswith("pipeline.train_step.optimizer.state") for name in names)
    assert "pipeline.draw_scene.__self__" in names
    assert {f"pipeline.draw_scene.__self__.{name}" for name in ("numpy", "old", "plain", "table", "seen")} <= names
    assert any("slotted" in name for name in names)
    assert any("spectrum" in name for name in names)
    assert state.restore() == ()


CHANGES: dict[str, Callable[[nn.Module], object]] = {
    "weight": lambda m: m.weight.data.add_(1),
    "weight in place of": lambda m: setattr(m, "weight", nn.Parameter(torch.zeros(2, 2))),
    "new storage": lambda m: setattr(m.weight, "data", torch.zeros(2, 2)),
    "other shape": lambda m: setattr(m.weight, "data", torch.zeros(7)),
    "storage freed": lambda m: m.weight.untyped_storage().resize_(0),
    "buffer": lambda m: m.running.add_(1),
    "buffer added": lambda m: m.register_buffer("more", torch.zeros(1)),
    "gradient set": lambda m: setattr(m.bias, "grad", torch.ones(2)),
    "gradient changed": lambda m: m.weight.grad.mul_(2),
    "gradient lost": lambda m: setattr(m.weight, "grad", None),
    "frozen": lambda m: m.weight.requires_grad_(False),
    "mode": lambda m: m.inner.eval(),
    "hook": lambda m: m.register_forward_hook(lambda *_: None),
    "attribute": lambda m: setattr(m, "note", "other"),
    "attribute gone": lambda m: delattr(m, "note"),
    "module replaced": lambda m: setattr(m, "inner", nn.Identity()),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_every_change_of_a_module_is_seen_and_undone(change: Callable[[nn.Module], object]) -> None:
    module = nn.Linear(2, 2)
    module.register_buffer("running", torch.zeros(2))
    module.add_module("inner", nn.Dropout())
    module.note = "n"  # type: ignore[assignment]
    module.weight.grad = torch.ones(2, 2)
    state = State(types.SimpleNamespace(stage=lambda: module))
    change(module)
    assert state.changed()
    assert state.restore() == ()
    assert list(module.weight.shape) == [2, 2]
    assert state.changed() == []


def _kept_open() -> Iterator[None]:
    with torch.inference_mode():
        yield


PROCESS: dict[str, tuple[str, Callable[[], object]]] = {
    "random": ("random", random.random),
    "numpy": ("numpy.random", np.random.random),
    "torch": ("torch.random", lambda: torch.rand(1)),
    "gradient": ("gradient mode", lambda: torch.set_grad_enabled(False)),
    "dtype": ("default dtype", lambda: torch.set_default_dtype(torch.float64)),
    "threads": ("thread count", lambda: torch.set_num_threads(torch.get_num_threads() + 1)),
    "autocast": ("autocast cpu", lambda: torch.set_autocast_enabled("cpu", True)),
    "autocast type": ("autocast dtype cpu", lambda: torch.set_autocast_dtype("cpu", torch.float16)),
    "determinism": ("deterministic algorithms", lambda: torch.use_deterministic_algorithms(True)),
    "anomaly": ("anomaly mode", lambda: torch.autograd.set_detect_anomaly(True)),
    "precision": ("matmul precision", lambda: torch.set_float32_matmul_precision("medium")),
    "cudnn": ("cudnn.benchmark", lambda: setattr(torch.backends.cudnn, "benchmark", True)),
    "division": ("numpy.errstate", lambda: np.seterr(all="raise")),
    "environment": ("os.environ", lambda: os.environ.update(RIS_VERIFIED_TEST="1")),
    "folder": ("working directory", lambda: os.chdir("/")),
    "path": ("sys.path", lambda: sys.path.append("nowhere")),
}


@pytest.mark.parametrize(("name", "change"), PROCESS.values(), ids=PROCESS.keys())
def test_every_change_of_the_process_is_seen_and_undone(name: str, change: Callable[[], object]) -> None:
    state = State()
    change()
    seen = [part.name for part in state.changed()]
    assert state.restore() == ()
    assert seen == [name]


def test_warning_filters_are_put_back() -> None:
    import warnings

    before = list(warnings.filters)
    with as_found() as found:
        warnings.simplefilter("error")
    assert found.changed == ()
    assert warnings.filters == before


def made(check: Callable[[Context], Measurement]) -> Rule:
    return rule("RV9998", "t", law="l", why="w", how="h", remedy="r")(check)


def test_what_cannot_be_put_back_is_an_error_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    open_blocks = []

    def leaky(_: Context) -> Measurement:
        open_blocks.append(_kept_open())
        next(open_blocks[0])
        return Measurement(0.0, 1.0, True, "fine")

    monkeypatch.setattr(runner, "rules", lambda: {"RV9998": made(leaky)})
    report = runner.audit(Pipeline.default(small_config(Config())))
    open_blocks.clear()
    assert [(r.id, r.status) for r in report.results] == [("RV9998", "pass"), ("RV0000", "error")]
    assert report.verdict == "NO-GO"
    assert report.results[1].where == "inference mode"
    assert report.environment["state"].startswith("1 parts changed")
    assert not torch.is_inference_mode_enabled()


def test_a_rule_that_disturbs_is_undone_even_when_the_audit_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Linear(2, 2)

    def rude(_: Context) -> Measurement:
        with torch.no_grad():
            model.weight.zero_()
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "rules", lambda: {"RV9998": made(rude)})
    before = model.weight.detach().clone()
    pipeline = dataclasses.replace(Pipeline.default(small_config(Config())), build_model=lambda cfg: model)
    with pytest.raises(KeyboardInterrupt):
        runner.audit(pipeline)
    assert torch.equal(model.weight, before)


SHARED = nn.Linear(1, 1)
COUNT = 0


def counting() -> nn.Module:
    global COUNT
    COUNT += 1
    return SHARED


def test_globals_that_a_stage_reads_are_reached() -> None:
    state = State(types.SimpleNamespace(build_model=lambda cfg: counting()))
    counting().weight.data.zero_()
    names = {part.name for part in state.changed()}
    assert len(names) == 2
    assert state.restore() == ()
    assert COUNT == 0
    assert float(SHARED.weight.detach()) != 0


def test_the_walk_runs_no_property() -> None:
    class Touchy:
        @property
        def model(self) -> object:
            raise AssertionError("a property was run")

    assert Reach(types.SimpleNamespace(stage=Touchy()), "p").parts


def test_aliases_and_cycles_are_walked_once() -> None:
    weight = torch.zeros(1000)
    ring: list[object] = [weight, weight[:10], weight.expand(100_000, 1000)]
    ring.append(ring)
    state = State(ring)
    weight.add_(1)
    assert sum(part.name == "pipeline[0]" or part.name.startswith("pipeline.0") for part in state.changed()) == 1
    assert state.restore() == ()
    assert float(weight.sum()) == 0


HOOK = """
import os, sys
written = []
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
MOVING = {"os.rename", "os.link", "os.symlink", "shutil.move", "shutil.copyfile"}
CHANGING = {"os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.chmod", "shutil.rmtree", "tempfile.mkdtemp",
            "tempfile.mkstemp", "sqlite3.connect", *MOVING}
def watch(event, args):
    if event == "open" and not (isinstance(args[0], (str, bytes)) and args[2] & WRITING):
        return
    if event != "open" and event not in CHANGING:
        return
    folder = os.getcwd()
    if event in ("os.remove", "os.rmdir", "os.mkdir") and args[-1] != -1:
        folder = os.readlink(f"/proc/self/fd/{args[-1]}")
    for path in args[: 2 if event in MOVING else 1]:
        full = os.path.join(folder, os.fsdecode(path))
        if event != "os.mkdir" or not os.path.exists(full):
            written.append(full)
sys.addaudithook(watch)
from ris_verified.cli.main import main
code = main(sys.argv[1:])
print(chr(10).join(sorted(set(written))))
sys.exit(code)
"""
MINE = """
from ris_verified.audit.context import small_config
from ris_verified.config import Config
from ris_verified.pipeline import Pipeline
pipeline = Pipeline.default(small_config(Config()))
"""


@pytest.mark.every
def test_an_audit_writes_its_output_and_nothing_else(tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in ("empty", "temporary", "home", "code")}
    for folder in folders.values():
        folder.mkdir()
    (folders["code"] / "mine_to_watch.py").write_text(MINE, encoding="utf-8")
    paths = [str(folders["code"]), *filter(None, [os.environ.get("PYTHONPATH")]), *sys.path]
    environment = {
        **os.environ, "PYTHONPATH": os.pathsep.join(os.path.abspath(p) for p in paths), "PYTHONDONTWRITEBYTECODE": "1",
        "TMPDIR": str(folders["temporary"]), "HOME": str(folders["home"]), "XDG_CACHE_HOME": str(folders["home"]),
    }  # fmt: skip
    environment.pop("TORCHINDUCTOR_CACHE_DIR", None)
    output = tmp_path / "report.json"
    command = [
        sys.executable, "-c", HOOK, "audit", "--pipeline", "mine_to_watch:pipeline", "--source", str(folders["code"]),
        "--format", "json", "--output", str(output), "--ignore", "RV0402",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=folders["empty"], env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    written = [Path(line) for line in done.stdout.splitlines()]
    outside = {p for p in written if folders["temporary"] not in (p, *p.parents) and p != Path(os.devnull)}
    assert {p for p in outside if p.name.startswith(".report.json.")} | {output} == outside
    assert any(folders["temporary"] in p.parents for p in written), "the hook saw nothing"
    assert [p for name in ("empty", "temporary", "home") for p in folders[name].rglob("*")] == []
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*folders, "report.json"])
