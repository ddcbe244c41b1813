"""Generating a data folder: in parallel, resumable, divisible over machines."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import torch

from ris_verified.config import Config
from ris_verified.data.manifest import MANIFEST, Manifest, Shard, data_digest, planned_shards
from ris_verified.data.shard import finished_shard, write_shard
from ris_verified.errors import DataError, InputError

Progress = Callable[[int, int, str], None]


def generate(
    cfg: Config, folder: Path, *, part: tuple[int, int] = (1, 1), progress: Progress | None = None
) -> Manifest | None:
    """Write all shards of all splits, or one part of them, and the manifest once all are there.

    A scene's bytes depend on the configuration, its split and its index only, so the result is the
    same whatever the number of workers and parts. Shards that an earlier run completed are kept.

    Args:
        cfg: reads `seed`, `array`, `scene` and `data`.
        folder: where to; made where it is missing.
        part: (i, n): this call draws every n-th shard, beginning with the i-th (from 1).
        progress: called with scenes done, scenes in all and a note.

    Returns:
        The manifest, or None while other parts are missing.

    Raises:
        InputError: `part` is not 1 ≤ i ≤ n.
        DataError: the folder holds data of another configuration; nothing is touched.
        StorageError: the disk is full or not writable; whole shards stay, run again to go on.
    """
    number, count = part
    if not 1 <= number <= count:
        raise InputError(f"part {number}/{count}", where="part", expected="i/n with 1 ≤ i ≤ n")
    _refuse_foreign(cfg, folder)
    plan = planned_shards(cfg)
    mine = plan[number - 1 :: count]
    done = {s.file: s for s in (finished_shard(cfg, folder, shard) for shard in mine) if s is not None}
    todo = [shard for shard in mine if shard.file not in done]
    total, ready = sum(s.scenes for s in mine), sum(s.scenes for s in done.values())
    for shard in _written(cfg, folder, todo):
        done[shard.file] = shard
        ready += shard.scenes
        if progress:
            progress(ready, total, shard.file)
    rest = [done.get(shard.file) or finished_shard(cfg, folder, shard) for shard in plan]
    whole = [shard for shard in rest if shard is not None]
    if len(whole) < len(plan):
        return None
    manifest = Manifest(data_digest(cfg), cfg.to_toml(), whole)
    manifest.save(folder)
    return manifest


def _refuse_foreign(cfg: Config, folder: Path) -> None:
    if not (folder / MANIFEST).exists():
        return
    found = Manifest.load(folder).digest
    if found != data_digest(cfg):
        raise DataError(
            f"holds data of configuration {found}",
            where=str(folder),
            expected=f"an empty folder or data of configuration {data_digest(cfg)}",
            remedy="choose another folder, or delete this one yourself",
        )


def _written(cfg: Config, folder: Path, todo: list[Shard]) -> Iterator[Shard]:
    workers = min(cfg.data.workers, len(todo))
    if workers <= 1:
        for shard in todo:
            yield write_shard(cfg, folder, shard)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        futures = [pool.submit(write_shard, cfg, folder, shard) for shard in todo]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            # A full disk or Ctrl-C must not wait for the shards that are queued.
            pool.shutdown(wait=False, cancel_futures=True)
            raise
