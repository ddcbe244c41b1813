"""Memory that is left: what the machine, its control groups and the device say."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ris_verified.train.free_memory import _left_in_groups, free_memory


def test_free_memory_is_below_what_the_machine_has() -> None:
    assert 0 < free_memory() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _group(folder: Path, limit: str, used: int, cached: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in {"max": limit, "current": f"{used}", "stat": f"anon 1\ninactive_file {cached}"}.items():
        (folder / f"memory.{name}").write_text(f"{content}\n")


def test_every_group_around_this_process_limits_it_and_cached_files_do_not(tmp_path: Path) -> None:
    _group(tmp_path / "job" / "step", "max", 5 * 2**30, 0)
    _group(tmp_path / "job", f"{16 * 2**30}", 13 * 2**30, 12 * 2**30)
    own = tmp_path / "own"
    own.write_text("0::/job/step\n")
    assert list(_left_in_groups(own, tmp_path)) == [15 * 2**30]


def test_groups_of_the_first_version_are_asked_by_controller(tmp_path: Path) -> None:
    folder = tmp_path / "memory" / "job"
    folder.mkdir(parents=True)
    (folder / "memory.limit_in_bytes").write_text("4096\n")
    (folder / "memory.usage_in_bytes").write_text("2048\n")
    (folder / "memory.stat").write_text("total_inactive_file 1024\n")
    own = tmp_path / "own"
    own.write_text("5:cpu,cpuacct:/job\n4:memory:/job\n")
    assert list(_left_in_groups(own, tmp_path)) == [3072]


def test_a_system_that_does_not_tell_what_is_free_tells_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {name: number for name, number in os.sysconf_names.items() if name != "SC_AVPHYS_PAGES"}
    monkeypatch.setattr(os, "sysconf_names", known)
    assert free_memory() > 0
