"""What the C library does with freed memory."""

from __future__ import annotations

import ctypes
import sys

# Names and numbers of <malloc.h>: from which size on memory is mapped apart, how much free memory at the top of the
# heap goes back, by how much more than asked for the heap grows.
MMAP_THRESHOLD, TRIM_THRESHOLD, TOP_PAD = -3, -1, -2
# The first is the largest that glibc takes.
KEPT = {MMAP_THRESHOLD: 2**25, TRIM_THRESHOLD: 2**31 - 1, TOP_PAD: 2**26}


def keep_freed_memory() -> bool:
    """Let this process keep what it frees for its next allocation; return whether the C library does.

    By default glibc gives matrices of some megabytes back to the system at once, and each of their pages is cleared
    and entered anew for the next one: a fifth of a training step (docs/decisions/0022). Programs call this when they
    begin; the library itself never does.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return False
    taken = [bool(mallopt(name, value)) for name, value in KEPT.items()]
    return all(taken)
