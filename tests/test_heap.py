import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import torch
from ris_verified.heap import keep_freed_memory

if sys.argv[1] == "keep":
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


def _faults(mode: str) -> int:
    done = subprocess.run([sys.executable, "-c", PROGRAM, mode], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told")
def test_a_process_that_keeps_its_memory_touches_few_pages_anew():
    # Twenty matrices of 10 MB. Where the heap begins differs from run to run, and now and then one falls into a hole.
    assert _faults("keep") < _faults("leave") / 2
