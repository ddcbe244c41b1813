"""Several workers of one study on one machine."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ris_verified.config import Config
from ris_verified.hpo.apart import apart, follow
from ris_verified.pipeline import Pipeline


def trial(cfg: Config, data: Path, out: Path, *given: Any) -> Any:
    """Return the objective of the default pipeline; a process that starts afresh is given no more than this.

    Args:
        cfg: of the study.
        data: an existing folder.
        out: receives the trial's folder.
        given: values, number and report.
    """
    pipeline = Pipeline.default(cfg)
    return pipeline.objective(pipeline, data, out, *given)


@contextmanager
def helpers(count: int, work: Callable[..., None], *given: object) -> Iterator[None]:
    """Run `work(*given)` in `count` more processes while the block runs, then wait for them; an error ends them.

    Args:
        count: may be 0.
        work: a function of a module, for the processes start afresh.
        given: what it takes.
    """
    context = multiprocessing.get_context("spawn")
    started = [context.Process(target=work, args=given) for _ in range(count)]
    for process in started:
        process.start()
    try:
        yield
    except BaseException:
        for process in started:
            process.terminate()
        raise
    finally:
        for process in started:
            process.join()


def work(cfg: Config, data: Path, out: Path, storage: str, verdict: dict[str, str], threads: int) -> None:
    """Be one worker of the default pipeline's study.

    Args:
        cfg: of the study.
        data: an existing folder.
        out: receives the trials' folders.
        storage: of the study.
        verdict: of the audit.
        threads: of this worker.
    """
    follow()
    torch.set_num_threads(threads)
    pipeline = Pipeline.default(cfg)
    with suppress(KeyboardInterrupt):
        objective = apart(partial(trial, cfg, data, out))
        pipeline.run_study(cfg, objective, storage, verdict, pipeline.spaces, True)
