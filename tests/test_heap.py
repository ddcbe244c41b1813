import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest

from ris_verified import heap

PROGRAM = """
import resource
import torch
from ris_verified.heap import keep_freed_memory

assert keep_freed_memory()
torch.set_num_threads(1)

def work():
    return float((torch.ones(2_500_000) + 1).sum())

for _ in range(5):
    work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told")
def test_a_process_that_keeps_its_memory_touches_few_pages_anew():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    # Twenty matrices of 10 MB are 48,828 pages. Where the heap begins differs, and a matrix may fall into a hole once.
    assert int(done.stdout) < 0.3 * 48_828


@pytest.mark.parametrize("refused", [None, heap.MMAP_THRESHOLD, heap.TRIM_THRESHOLD, heap.TOP_PAD])
def test_all_of_the_settings_are_made_and_a_refused_one_is_told(monkeypatch, refused):
    made = {}

    def mallopt(name, value):
        made[name] = value
        return int(name != refused)

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(heap.ctypes, "CDLL", lambda name: SimpleNamespace(mallopt=mallopt))
    assert heap.keep_freed_memory() is (refused is None)
    assert made == {-3: 2**25, -1: 2**31 - 1, -2: 2**26}


def test_elsewhere_nothing_is_told(monkeypatch):
    monkeypatch.setattr(heap.ctypes, "CDLL", lambda name: SimpleNamespace())
    assert not heap.keep_freed_memory()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not heap.keep_freed_memory()
