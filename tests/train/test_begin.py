"""What lies in a run's folder before it begins: damage, losses, other runs; nothing is mistaken or lost."""

from __future__ import annotations

import dataclasses
import json
import logging
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ris_verified.cli.main import main
from ris_verified.config import Config
from ris_verified.data.generate import generate
from ris_verified.errors import DataError, InputError
from ris_verified.pipeline import Pipeline
from ris_verified.train import identity
from ris_verified.train.lock import NAME
from ris_verified.train.ready import require_ready

TINY = [
    "array.horizontal=4", "array.vertical=4", "scene.antennas=5", "scene.snapshots=4", "scene.sources_max=3",
    "model.channels=8", "model.width=16", "model.layers=1", "model.heads=2", "model.head_width=16",
    "model.head_layers=1", "model.dictionary_azimuth=8", "model.dictionary_elevation=4", "model.dictionary_range=2",
    "train.precision=float32", "train.batch_size=4", "train.epochs=2", "train.checkpoint_steps=1",
    "data.train_scenes=10", "data.validation_scenes=4", "data.test_scenes=2", "data.shard_scenes=6", "data.workers=1",
]  # fmt: skip
STEPS = 6


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("begin") / "data"
    generate(Config.load(None, TINY), folder)
    return folder


def _train(data, out, *more, until=None, fresh=False, curves=False, seen=None):
    pipeline = Pipeline.default(Config.load(None, [*TINY, *more]))

    def progress(step, total, note):
        if seen:
            seen()
        if step == until:
            raise Killed

    return pipeline.train(pipeline, data, out, progress=progress, curves=curves, fresh=fresh)


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("begin") / "whole"
    _train(data, out)
    return out


@pytest.fixture
def killed(data, tmp_path):
    """A run that was killed in its second epoch."""
    out = tmp_path / "killed"
    with pytest.raises(Killed):
        _train(data, out, until=5)
    return out


def _checkpoints(out):
    return sorted((out / "checkpoints").iterdir(), reverse=True)


def _results(out):
    files = [*out.glob("*.*"), *out.glob("checkpoints/*")]
    return {path.name: path.read_bytes() for path in files if path.is_file()}


def _zeroed(content, first, count):
    first %= len(content)
    return content[:first] + bytes(len(content[first : first + count])) + content[first + count :]


DAMAGE = {
    "the middle zeroed": lambda c: _zeroed(c, len(c) // 2, 4000),
    "the end zeroed": lambda c: _zeroed(c, -len(c) // 3, len(c)),
    "a note renamed": lambda c: c.replace(b"conditions", b"xonditions", 1),
    "another renamed": lambda c: c.replace(b"standing", b"standinh", 1),
    "a counter": lambda c: c.replace(b'step\\": ', b'step\\":1', 1),
    "a tensor renamed": lambda c: c.replace(b"exp_avg/", b"exp_avh/", 1),
    "one bit of a weight": lambda c: c[:-9] + bytes([c[-9] ^ 1]) + c[-8:],
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damage_falls_back_to_the_one_before_with_one_warning(data, whole, killed, caplog, damage):
    newest = _checkpoints(killed)[0]
    content = newest.read_bytes()
    assert damage(content) != content
    newest.write_bytes(damage(content))
    pipeline = Pipeline.default(Config.load(None, TINY))
    with caplog.at_level(logging.WARNING, "ris_verified"):
        require_ready(pipeline, data, killed, fresh=False)
        _train(data, killed)
    assert len([message for message in caplog.messages if newest.name in message]) == 1
    assert (killed / "log.jsonl").read_bytes() == (whole / "log.jsonl").read_bytes()
    assert (killed / "config.toml").read_bytes() == (whole / "config.toml").read_bytes()
    assert (killed / "weights.safetensors").read_bytes() == (whole / "weights.safetensors").read_bytes()


def test_a_damaged_one_does_not_count_as_kept(data, killed):
    newest = _checkpoints(killed)[0]
    far = newest.with_name(f"step-{99:09d}.safetensors")
    newest.rename(far)
    far.write_bytes(b"half")
    with pytest.raises(Killed):
        _train(data, killed, until=5)
    assert [path.name for path in _checkpoints(killed)] == [f"step-{step:09d}.safetensors" for step in (4, 3)]


def test_with_all_of_them_damaged_nothing_is_begun_anew(data, killed):
    for path in _checkpoints(killed):
        path.write_bytes(path.read_bytes()[:-1])
    before = _results(killed)
    with pytest.raises(DataError, match="--fresh") as caught:
        _train(data, killed)
    assert all(path.name in str(caught.value) for path in _checkpoints(killed))
    assert _results(killed) == before
    assert _train(data, killed, fresh=True).history[-1]["step"] == STEPS


def test_what_may_not_be_read_is_not_damage(data, killed, monkeypatch):
    newest, read = _checkpoints(killed)[0], Path.read_bytes
    before = _results(killed)

    def stale(path):
        if path == newest:
            raise OSError(116, "Stale file handle")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", stale)
    with pytest.raises(DataError, match=f"{newest.name}: cannot be read: Stale file handle"):
        _train(data, killed)
    monkeypatch.undo()
    assert _results(killed) == before


def test_the_older_format_is_refused(data, killed):
    for path in _checkpoints(killed):
        with safe_open(str(path), framework="pt") as archive:
            notes = json.loads(archive.metadata()["notes"])
        save_file(load_file(path), path, {"notes": json.dumps({**notes, "format": "ris-verified-checkpoint/1"})})
    with pytest.raises(DataError, match=r"its format is ris-verified-checkpoint/1.*--fresh"):
        _train(data, killed)


def test_settings_that_cannot_shape_a_run_may_change(data, whole, killed):
    more = ["hpo.trials=7", "data.workers=2", "train.checkpoint_steps=3", "contracts=false", "data.test_scenes=1"]
    _train(data, killed, *more)
    assert (killed / "log.jsonl").read_bytes() == (whole / "log.jsonl").read_bytes()
    ours, theirs = (load_file(out / "weights.safetensors") for out in (killed, whole))
    assert all(ours[name].equal(theirs[name]) for name in theirs)


def test_settings_that_do_are_named(data, killed):
    with pytest.raises(DataError) as caught:
        _train(data, killed, "train.learning_rate=1e-4", "model.dropout=0.1", "hpo.trials=7")
    assert caught.value.what == (
        "is of another run: its model.dropout = 0.0, here 0.1; train.learning_rate = 0.0003, here 0.0001"
    )


@pytest.mark.parametrize(
    "harm",
    [
        lambda log: log.unlink(),
        lambda log: log.write_bytes(b""),
        lambda log: log.write_text("".join(log.read_text().splitlines(keepends=True)[1:])),
        lambda log: log.write_text("".join(t for t in log.read_text().splitlines(keepends=True) if "end" not in t)),
        lambda log: log.write_bytes(b"3\n\xff\xfe\n"),
    ],
)
def test_a_log_that_lacks_what_was_done_is_refused_at_once(data, killed, harm):
    harm(killed / "log.jsonl")
    before = _results(killed)
    with pytest.raises(DataError, match=r"log\.jsonl: holds .* steps and .* epochs of the run .*--fresh"):
        _train(data, killed)
    assert _results(killed) == before


@pytest.mark.parametrize("harm", [lambda w: w.unlink(), lambda w: w.write_bytes(w.read_bytes()[:99])])
def test_lost_weights_are_refused_at_once(data, killed, harm):
    harm(killed / "weights.safetensors")
    with pytest.raises(DataError, match=r"weights\.safetensors: is not what the run left: .*--fresh"):
        _train(data, killed, seen=lambda: pytest.fail("it trained"))


def test_a_fresh_run_leaves_nothing_of_the_former_one(data, tmp_path):
    _train(data, tmp_path, curves=True)
    old = {"weights.safetensors", "curves.png", "summary.html", "log.jsonl", "config.toml"}
    assert old <= _results(tmp_path).keys()
    seen = set()
    with pytest.raises(Killed):
        _train(
            data,
            tmp_path,
            "train.learning_rate=1e-4",
            fresh=True,
            until=1,
            seen=lambda: seen.update(_results(tmp_path)),
        )
    assert {name for name in seen if not name.startswith("step-")} == {"config.toml", "log.jsonl", NAME}
    assert not (tmp_path / "weights.safetensors").exists()


@pytest.mark.parametrize("steps", [0, 1])
def test_another_configuration_does_not_begin_on_the_results_of_one(data, tmp_path, steps):
    _train(data, tmp_path, "train.checkpoint_steps=0")
    before = _results(tmp_path)
    more = ["train.learning_rate=1e-4", f"train.checkpoint_steps={steps}"]
    with pytest.raises(DataError, match=r"train\.learning_rate = 0\.0003, here 0\.0001.*--fresh"):
        _train(data, tmp_path, *more)
    assert _results(tmp_path) == before
    _train(data, tmp_path, *more, fresh=True)
    assert (tmp_path / "weights.safetensors").read_bytes() != before["weights.safetensors"]


def test_the_conditions_are_recorded_and_a_change_is_told(data, killed, monkeypatch, caplog):
    with safe_open(str(_checkpoints(killed)[0]), framework="pt") as archive:
        found = json.loads(archive.metadata()["notes"])["conditions"]
    assert {**found, "threads": 0, "torch": ""} == {
        "precision": "float32", "device": "cpu", "processes": 1, "threads": 0, "torch": "",
    }  # fmt: skip
    first = (killed / "config.toml").read_text().splitlines()[0]
    assert first.startswith("# trained with precision = float32, device = cpu, processes = 1, threads = ")
    assert Config.load(killed / "config.toml") == Config.load(None, TINY)
    usual = identity.conditions
    monkeypatch.setattr("ris_verified.train.checkpoint.conditions", lambda *a: {**usual(*a), "precision": "bfloat16"})
    with caplog.at_level(logging.WARNING, "ris_verified"):
        _train(data, killed)
    assert [m for m in caplog.messages if "goes on with" in m] == [
        "the run began with precision = float32 and goes on with precision = bfloat16: sums may round differently"
    ]


def test_a_second_run_in_the_folder_is_refused_also_before_an_audit(data, tmp_path):
    cfg = Config.load(None, TINY)
    pipeline, asked = Pipeline.default(cfg), []

    def second():
        if not asked:
            asked.append(True)
            for begin in (lambda: _train(data, tmp_path), lambda: require_ready(pipeline, data, tmp_path, fresh=True)):
                with pytest.raises(InputError, match="another run is under way"):
                    begin()

    _train(data, tmp_path, seen=second)
    assert asked
    assert not (tmp_path / NAME).exists()


def test_the_command_ends_with_one_line(data, tmp_path, capsys):
    code = f"""
        import sys, time
        from pathlib import Path
        from ris_verified.train.lock import occupied
        from ris_verified.train.ranks import Ranks
        with occupied(Path({str(tmp_path)!r}), Ranks()):
            sys.stdout.write("held\\n")
            sys.stdout.flush()
            time.sleep(600)
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        sets = [word for text in TINY for word in ("--set", text)]
        assert main(["train", *sets, "--data", str(data), "--out", str(tmp_path)]) == 2
        holder.kill()
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith(f"error: {tmp_path}: another run is under way in this folder; ")


def test_another_run_is_told_before_an_audit(data, killed):
    pipeline = Pipeline.default(Config.load(None, [*TINY, "train.learning_rate=1e-4"]))
    with pytest.raises(DataError, match="another run"):
        require_ready(pipeline, data, killed, fresh=False)
    require_ready(pipeline, data, killed, fresh=True)
    (killed / "log.jsonl").unlink()
    with pytest.raises(DataError, match="holds 0 steps"):
        require_ready(dataclasses.replace(pipeline, config=Config.load(None, TINY)), data, killed, fresh=False)
