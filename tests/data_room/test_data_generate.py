"""Generation: the same bytes whoever draws them, and nothing torn whatever stops it."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import pytest
import torch

from ris_verified.config import DataConfig
from ris_verified.data import shard
from ris_verified.data.generate import generate
from ris_verified.data.manifest import CONFIG, MANIFEST, Manifest, data_digest, planned_shards, verify
from ris_verified.errors import DataError, InputError, StorageError
from ris_verified.estimate.proposals import propose
from ris_verified.scene.scene import draw_scene

DRAW = """
import signal
import sys
from pathlib import Path
from ris_verified.cli.main import main
if __name__ == "__main__":
    # A shell has what it runs in the background ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main(["generate", "--config", sys.argv[1], "--out", sys.argv[2]]))
"""
PATIENCE = 60


def _with(cfg, **data):
    return dataclasses.replace(cfg, data=dataclasses.replace(cfg.data, **data))


def _start(tmp_path, cfg, folder, **options):
    (tmp_path / "draw.py").write_text(DRAW)
    (tmp_path / "run.toml").write_text(cfg.to_toml())
    command = [sys.executable, str(tmp_path / "draw.py"), str(tmp_path / "run.toml"), str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def _wait_until(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_the_manifest_lists_every_scene_once(sound, small):
    manifest = Manifest.load(sound)
    assert manifest.digest == data_digest(small)
    for split, scenes in (("train", 7), ("validation", 3), ("test", 2)):
        shards = manifest.of(split)
        assert [s.first for s in shards] == list(range(0, scenes, 2))
        assert sum(s.scenes for s in shards) == scenes
    assert verify(sound, small) == []


def test_a_killed_worker_is_one_error_and_two_workers_write_the_bytes_of_one(sound, small, tmp_path, contents):
    cfg, folder = _with(small, workers=2), tmp_path / "two"

    def kill(done, total, note):
        for child in multiprocessing.active_children():
            os.kill(child.pid, signal.SIGKILL)

    with pytest.raises(DataError, match=r"process was killed.*run the same command again"):
        generate(_with(cfg, train_scenes=600), tmp_path / "killed", progress=kill)
    assert not (tmp_path / "killed" / MANIFEST).exists()
    generate(cfg, folder)
    ours, theirs = contents(folder), contents(sound)
    # The manifest alone records who drew: its configuration names the workers.
    assert ours.pop(MANIFEST) != theirs.pop(MANIFEST)
    assert ours == theirs


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_parts_on_two_machines_make_the_whole(sound, small, tmp_path, contents, order):
    folder, first, second = tmp_path / "parts", *order
    assert generate(small, folder, part=(first, 2)) is None
    assert not (folder / MANIFEST).exists()
    assert generate(small, folder, part=(second, 2)) == Manifest.load(sound)
    assert contents(folder) == contents(sound)


def test_splits_can_be_drawn_one_by_one(sound, small, tmp_path, contents):
    folder = tmp_path / "splits"
    assert generate(small, folder, splits=["test", "train"]) is None
    assert not list(folder.glob("validation*"))
    assert generate(small, folder, splits=["validation"]) is not None
    assert contents(folder) == contents(sound)


@pytest.mark.parametrize("part", [(0, 2), (3, 2), (1, 0), (-1, -1)])
def test_an_impossible_part_is_refused(small, tmp_path, part):
    with pytest.raises(InputError, match="part"):
        generate(small, tmp_path / "data", part=part)
    assert not (tmp_path / "data").exists()


def test_an_unknown_split_is_refused(small, tmp_path):
    with pytest.raises(InputError, match="holdout"):
        generate(small, tmp_path / "data", splits=["holdout"])


@pytest.mark.parametrize("harm", ["shard", "sidecar", "flip", "short", "manifest"])
def test_what_is_missing_or_damaged_is_drawn_again_and_the_rest_is_kept(sound, small, contents, harm):
    before = contents(sound)
    shard = sound / "train-0000002.safetensors"
    kept = sound / "train-0000000.safetensors"
    kept_at = kept.stat().st_mtime_ns
    content = bytearray(shard.read_bytes())
    if harm == "flip":
        content[-9] ^= 4
        shard.write_bytes(content)
    elif harm == "short":
        shard.write_bytes(content[:-1])
    else:
        {"shard": shard, "sidecar": sound / f"{shard.name}.json", "manifest": sound / MANIFEST}[harm].unlink()
    calls = []
    generate(small, sound, progress=lambda *call: calls.append(call))
    assert contents(sound) == before
    assert kept.stat().st_mtime_ns == kept_at
    # The first call tells how much there is to do.
    assert calls == ([(12, 12, "")] if harm == "manifest" else [(10, 12, ""), (12, 12, shard.name)])


@pytest.mark.parametrize("state", ["whole", "interrupted"])
@pytest.mark.parametrize("change", [{"seed": 6}, {"data": DataConfig(train_scenes=9, shard_scenes=3, workers=1)}])
def test_data_of_another_configuration_is_refused_untouched(sound, small, contents, state, change):
    if state == "interrupted":
        (sound / MANIFEST).unlink()
    before = contents(sound)
    with pytest.raises(DataError, match=rf"{data_digest(small)}.*expected.*choose another folder"):
        generate(dataclasses.replace(small, **change), sound)
    assert contents(sound) == before


def test_a_manifest_that_is_no_manifest_is_refused_untouched(sound, small, contents):
    for text in ("", "[]", "{}", '{"schema": "other/1"}', '{"schema": "ris-verified-data/1", "shards": [3]}', "\udcff"):
        (sound / MANIFEST).write_bytes(text.encode("utf-8", "surrogateescape"))
        before = contents(sound)
        with pytest.raises(DataError, match=MANIFEST):
            generate(small, sound)
        assert contents(sound) == before


def test_a_full_disk_is_one_error_and_the_same_call_goes_on(sound, small, tmp_path, monkeypatch, contents):
    folder, real, calls = tmp_path / "full", os.fsync, []

    def fsync(descriptor):
        calls.append(descriptor)
        # After the configuration and two files of each of two shards.
        if len(calls) == 6:
            raise OSError(28, os.strerror(28))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(StorageError, match=r"train-0000004.*No space left.*free.*run the same command again"):
        generate(small, folder)
    names = {path.name for path in folder.iterdir()}
    shards = [shard.file for shard in planned_shards(small)[:2]]
    assert names == {CONFIG, *shards, *(f"{name}.json" for name in shards)}
    generate(small, folder)
    assert contents(folder) == contents(sound)


def test_a_file_size_limit_is_one_error_and_no_part_is_left(small, tmp_path):
    cfg, folder = _with(small, train_scenes=60, shard_scenes=30), tmp_path / "data"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(StorageError, match=r"train-0000000\S*: cannot write 2\d,\d{3} bytes: File too large"):
            generate(cfg, folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in folder.iterdir()] == [CONFIG]


def test_a_storage_error_comes_whole_out_of_a_worker():
    # The pool sends errors between processes as it sends results.
    error = ForkingPickler.loads(
        ForkingPickler.dumps(StorageError("full", where="file", expected="room", remedy="make room"))
    )
    assert str(error) == "file: full; expected room; make room"
    assert (error.what, error.where, error.remedy) == ("full", "file", "make room")


def _descendants(process):
    tasks = [f"/proc/{process}/task/{task}/children" for task in os.listdir(f"/proc/{process}/task")]
    children = [int(child) for path in tasks for child in Path(path).read_text().split()]
    return children + [below for child in children for below in _descendants(child)]


def _running(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.fixture(scope="module")
def long_run(small, tmp_path_factory):
    """Return a configuration that takes seconds, and the shards that an undisturbed run makes of it."""
    cfg, folder = _with(small, train_scenes=2_000, shard_scenes=40), tmp_path_factory.mktemp("long")
    generate(cfg, folder)
    return cfg, {path.name: path.read_bytes() for path in folder.iterdir() if path.name != MANIFEST}


def _stopped(process, folder, stop):
    _wait_until(lambda: len(list(folder.glob("*.json"))) >= 3 or process.poll() is not None)
    stop()
    _, text = process.communicate(timeout=PATIENCE)
    assert not (folder / MANIFEST).exists()
    return text


def _whole(names):
    # A signal may come between a shard and the description that completes it: that shard is made again.
    return {name.removesuffix(".json") for name in names if name.endswith(".json")}


def _resumes(cfg, folder, kept, contents, expected):
    times = {path: path.stat().st_mtime_ns for path in folder.iterdir() if path.name in kept}
    assert len(times) >= 3
    generate(cfg, folder)
    after = contents(folder)
    after.pop(MANIFEST)
    assert after == expected
    assert times == {path: path.stat().st_mtime_ns for path in times}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the process table of Linux")
def test_a_kill_leaves_whole_shards_and_no_orphans_and_resumes(long_run, tmp_path, contents):
    (cfg, expected), folder, below = long_run, tmp_path / "data", []
    process = _start(tmp_path, _with(cfg, workers=2), folder)

    def kill():
        below.extend(_descendants(process.pid))
        process.kill()

    _stopped(process, folder, kill)
    assert process.returncode == -signal.SIGKILL
    assert len(below) >= 2
    _wait_until(lambda: not any(map(_running, below)))
    kept = _whole(contents(folder))
    assert all((folder / name).read_bytes() == expected[name] for name in kept)
    _resumes(cfg, folder, kept, contents, expected)


@pytest.mark.parametrize("workers", [1, 2])
def test_sigterm_says_how_to_go_on_and_the_same_call_completes(long_run, tmp_path, contents, workers):
    (cfg, expected), folder = long_run, tmp_path / "data"
    process = _start(tmp_path, _with(cfg, workers=workers), folder)
    text = _stopped(process, folder, process.terminate)
    assert process.returncode == 130
    assert "run the same command again" in text
    left = contents(folder)
    # Of some fifty; what is being drawn is dropped, what is queued is not begun.
    assert len(_whole(left)) < 25
    assert not [name for name in left if name.endswith(".part")]
    (folder / f".train-0001960.safetensors.{process.pid}.part").write_bytes(b"left by a kill")
    _resumes(cfg, folder, _whole(left), contents, expected)


@pytest.mark.parametrize("drawn", [0, 1])
def test_ctrl_c_at_a_terminal_is_one_line_and_waits_for_nobody(long_run, tmp_path, contents, drawn):
    (cfg, expected), folder = long_run, tmp_path / "data"
    process = _start(tmp_path, _with(cfg, workers=2), folder, start_new_session=True)
    # With no shard drawn yet, the drawing processes are still importing what they need.
    _wait_until(lambda: len(list(folder.glob("*.json")) if drawn else _descendants(process.pid)) >= 3)
    # A terminal sends it to every process of the group.
    os.killpg(process.pid, signal.SIGINT)
    _, text = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert text.splitlines()[-1].startswith("error: interrupted")
    assert "Traceback" not in text
    generate(cfg, folder)
    after = contents(folder)
    after.pop(MANIFEST)
    assert after == expected


def test_more_scenes_than_the_disk_holds_are_refused_before_they_are_planned(small, tmp_path):
    with pytest.raises(StorageError, match=r"1,000,000,000,00\d scenes need [\d,]+ bytes.*free"):
        generate(_with(small, train_scenes=10**12), tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_proposals_are_made_in_one_thread_and_the_caller_keeps_his(small, monkeypatch):
    seen = []

    def watched(*given):
        seen.append(torch.get_num_threads())
        return propose(*given)

    monkeypatch.setattr(shard, "propose", watched)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        shard.proposed(shard.stacked([draw_scene(small, 0, 0)], small), small)
        assert (seen, torch.get_num_threads()) == ([1], 2)
    finally:
        torch.set_num_threads(before)
