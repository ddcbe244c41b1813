"""Generating a data folder: in parallel, resumable, divisible over machines."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Callable, Collection, Generator, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import FrameType

import torch

from ris_verified.config import Config
from ris_verified.data.manifest import (
    CONFIG,
    MANIFEST,
    SPLITS,
    Manifest,
    Shard,
    data_digest,
    drawn_config,
    planned_shards,
    split_size,
)
from ris_verified.data.shard import finished_shard, sidecar, stored_bytes, stored_digests, write_shard
from ris_verified.errors import DataError, InputError, StorageError
from ris_verified.files import atomic_write, clear_stale, require_folder
from ris_verified.signals import held_back

Progress = Callable[[int, int, str], None]


def generate(
    cfg: Config,
    folder: Path,
    *,
    splits: Collection[str] = tuple(SPLITS),
    part: tuple[int, int] = (1, 1),
    progress: Progress | None = None,
) -> Manifest | None:
    """Write all shards, or one part of them, and the manifest once all of all splits are there.

    A scene's bytes depend on the configuration, its split and its index only, so the result is the
    same whatever the number of workers and parts (on machines of one kind: another CPU's sine may
    differ in its last bit). Shards that an earlier run completed are kept. Ctrl-C and SIGTERM both
    raise KeyboardInterrupt; only whole shards remain, and the same call goes on from there.
    What shapes the data is kept as `config.toml`, for who must draw a damaged shard again.

    Args:
        cfg: reads `seed`, `array`, `scene` and `data`.
        folder: where to; made where it is missing.
        splits: which of `train`, `validation` and `test` this call draws.
        part: (i, n): this call draws every n-th shard, beginning with the i-th (from 1).
        progress: called with scenes done, scenes in all and a note.

    Returns:
        The manifest, or None while other parts or splits are missing.

    Raises:
        InputError: `part` is not 1 ≤ i ≤ n, a split has no such name, or a file lies where the folder should be.
        DataError: the folder holds data of another configuration, and nothing is touched; or a
            drawing process was killed, and whole shards stay.
        StorageError: the disk has too little room, is full or not writable; whole shards stay, run again to go on.
    """
    _require_room(cfg, folder, part[1])
    plan = planned_shards(cfg)
    mine = _share(plan, splits, part)
    _refuse_foreign(cfg, folder)
    require_folder(folder)
    _keep_config(cfg, folder)
    done = {s.file: s for s in (finished_shard(cfg, folder, shard) for shard in mine) if s is not None}
    todo = [shard for shard in mine if shard.file not in done]
    total, ready = sum(s.scenes for s in mine), sum(s.scenes for s in done.values())
    if progress:
        progress(ready, total, "")
    with _termination_interrupts(), contextlib.closing(_written(cfg, folder, todo)) as written:
        for shard in written:
            done[shard.file] = shard
            ready += shard.scenes
            if progress:
                progress(ready, total, shard.file)
    rest = (done.get(shard.file) or finished_shard(cfg, folder, shard) for shard in plan)
    whole = [shard for shard in itertools.takewhile(lambda shard: shard is not None, rest) if shard]
    if len(whole) < len(plan):
        return None
    manifest = Manifest(data_digest(cfg), cfg.to_toml(), whole)
    manifest.save(folder)
    return manifest


def _keep_config(cfg: Config, folder: Path) -> None:
    # `evaluate` and `hpo` draw other numbers of scenes than a user's file says: damage is mended with this one.
    content, held = drawn_config(cfg).to_toml().encode(), b""
    with contextlib.suppress(OSError):
        held = (folder / CONFIG).read_bytes()
    if held != content:
        atomic_write(folder / CONFIG, content)


def _share(plan: list[Shard], splits: Collection[str], part: tuple[int, int]) -> list[Shard]:
    number, count = part
    if not 1 <= number <= count:
        raise InputError(f"part {number}/{count}", where="part", expected="i/n with 1 ≤ i ≤ n")
    if unknown := set(splits) - set(SPLITS):
        raise InputError(f"{sorted(unknown)} unknown", where="splits", expected=" or ".join(SPLITS))
    return [shard for shard in plan if shard.split in splits][number - 1 :: count]


def _require_room(cfg: Config, folder: Path, parts: int) -> None:
    # Before the plan: of a slip in the number of scenes even the list of files would fill the memory.
    scenes = sum(split_size(cfg, split) for split in SPLITS)
    needed = scenes * stored_bytes(cfg) // max(parts, 1)
    held = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    above = next(path for path in (folder, *folder.resolve().parents) if path.is_dir())
    free = shutil.disk_usage(above).free
    if needed > held + free:
        raise StorageError(
            f"{scenes:,} scenes need {needed:,} bytes",
            where=str(folder),
            expected=f"no more than the {free:,} bytes that are free",
            remedy="choose fewer scenes (data.train_scenes …), divide them with --part, or another disk",
        )


def _refuse_foreign(cfg: Config, folder: Path) -> None:
    # An interrupted run of another configuration has left shards but no manifest.
    stored = [Manifest.load(folder).digest] if (folder / MANIFEST).exists() else stored_digests(folder)
    found = next((digest for digest in stored if digest != data_digest(cfg)), None)
    if found:
        raise DataError(
            f"holds data of configuration {found}",
            where=str(folder),
            expected=f"an empty folder or data of configuration {data_digest(cfg)}",
            remedy="choose another folder, or delete this one yourself",
        )


@contextlib.contextmanager
def _termination_interrupts() -> Iterator[None]:
    """Let SIGTERM end a run as Ctrl-C does, where this thread may say so."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def _begin() -> None:
    """Prepare a drawing process: one thread, Ctrl-C is the parent's, and no life without the parent."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # A pool's process whose parent was killed would wait for work for ever.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _written(cfg: Config, folder: Path, todo: list[Shard]) -> Generator[Shard]:
    for shard in todo:
        clear_stale(folder / shard.file)
        clear_stale(sidecar(folder, shard))
    workers = min(cfg.data.workers, len(todo))
    if workers <= 1:
        for shard in todo:
            yield write_shard(cfg, folder, shard)
        return
    context, before = multiprocessing.get_context("spawn"), set(multiprocessing.active_children())
    with ProcessPoolExecutor(workers, context, initializer=_begin) as pool:
        with held_back(signal.SIGINT):
            futures = [pool.submit(write_shard, cfg, folder, shard) for shard in todo]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise DataError(
                "a drawing process was killed",
                where=str(folder),
                expected=f"memory for {workers} processes",
                remedy="run the same command again, with fewer data.workers, in a script under "
                '`if __name__ == "__main__":`; whole shards are kept',
            ) from error
        except BaseException:
            # A full disk or Ctrl-C waits neither for queued shards nor for half-drawn ones, which are worth nothing.
            for process in set(multiprocessing.active_children()) - before:
                process.terminate()
            raise
