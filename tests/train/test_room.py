"""Memory that runs out: recognised whoever says so, and answered with smaller pieces."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import textwrap

import pytest
import torch

from ris_verified.errors import TrainingError
from ris_verified.train.room import fitting, out_of_memory

# As the libraries word it.
LACKS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:80] data. DefaultCPUAllocator: not enough memory: you tried"),
    RuntimeError("could not create a primitive"),
    RuntimeError("could not create a memory object"),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    RuntimeError("std::bad_alloc"),
    RuntimeError("unable to mmap 4096 bytes: Cannot allocate memory (12)"),
    OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
]
LIMITED = """
    import resource
    from pathlib import Path
    import torch
    from ris_verified.config import Config
    from ris_verified.data.dataset import draw_batch
    from ris_verified.pipeline import Pipeline
    from ris_verified.train.state import TrainState

    torch.set_num_threads(1)
    small = ["model.channels=8", "model.width=16", "model.layers=1", "model.heads=2", "model.head_width=16"]
    pipeline = Pipeline.default(Config.load(None, [*small, "model.head_layers=1", "train.precision=float32"]))
    state = TrainState.create(pipeline, total_steps=10)
    batch = draw_batch(pipeline.config, 128, 7)
    # What a step needs whatever its size is there already.
    pipeline.train_step(state, batch.split(16)[0], pipeline)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + 60 * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    report = pipeline.train_step(state, batch, pipeline)
    print(state.parts, report.skipped, bool(torch.isfinite(report.loss)))
"""
OTHERS = [
    RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
    RuntimeError("could not create a primitive descriptor for a matmul primitive"),
    OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    ValueError("out of memory"),
    TrainingError("out of memory with micro-batches of 1 scenes"),
]


@pytest.mark.parametrize("error", LACKS, ids=repr)
def test_lack_of_memory_is_recognised(error):
    assert out_of_memory(error)


@pytest.mark.parametrize("error", OTHERS, ids=repr)
def test_other_errors_are_not_taken_for_it(error):
    assert not out_of_memory(error)


def test_work_is_done_again_in_halves_until_it_fits():
    tried = []

    def act(size):
        tried.append(size)
        if size > 3:
            raise MemoryError
        return "done"

    assert fitting(act, 21, "the drill") == ("done", 3)
    assert tried == [21, 11, 6, 3]


def test_single_scenes_that_do_not_fit_are_one_error_and_others_stay_themselves():
    def full(size):
        raise MemoryError

    def wrong(size):
        raise RuntimeError("shapes do not agree")

    with pytest.raises(TrainingError, match="the drill: out of memory"):
        fitting(full, 4, "the drill")
    with pytest.raises(RuntimeError, match="shapes do not agree"):
        fitting(wrong, 4, "the drill")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere address space cannot be limited")
def test_a_step_in_a_limited_address_space_is_taken_in_parts():
    # A step of 128 scenes takes more than 150 MiB, one of eight less than ten.
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(LIMITED)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    parts, skipped, finite = done.stdout.split()
    assert int(parts) > 1
    assert (skipped, finite) == ("False", "True")
