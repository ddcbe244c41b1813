"""How much memory can still be taken on a device."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import torch

# Of the two versions of control groups: limit, what is used, and what of that the system drops when it is needed.
GROUPS = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def free_memory(device: torch.device | str = "cpu") -> int:
    """Return the bytes that can still be taken on a device; on the CPU also within the control group."""
    if torch.device(device).type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    # Some systems tell all that there is, and not what is free.
    pages = "SC_AVPHYS_PAGES" if "SC_AVPHYS_PAGES" in os.sysconf_names else "SC_PHYS_PAGES"
    free = os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE")
    for line in _lines(Path("/proc/meminfo")):
        if line.startswith("MemAvailable:"):
            free = int(line.split()[1]) * 1024
    return min([free, *_left_in_groups(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))])


def _left_in_groups(own: Path, root: Path) -> Iterator[int]:
    """Yield the bytes that are left in this process's control group and in each one around it."""
    for line in _lines(own):
        _, controllers, place = line.split(":", 2)
        top = root / controllers if controllers else root
        inner = top / place.lstrip("/")
        for group in (inner, *inner.parents):
            if group.is_relative_to(top):
                yield from _left_in(group)


def _left_in(group: Path) -> Iterator[int]:
    for limit, used, dropped in GROUPS:
        most, now = _lines(group / limit), _lines(group / used)
        if most and now and most[0] != "max":
            cached = [int(line.split()[1]) for line in _lines(group / "memory.stat") if line.startswith(f"{dropped} ")]
            yield int(most[0]) - int(now[0]) + sum(cached)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").splitlines()
    except OSError:
        return []
