"""A second process for rules that look at files or at the small pipeline only."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict

from ris_verified.audit.result import Result
from ris_verified.audit.rule import Rule
from ris_verified.signals import held_back

Run = Callable[[Rule], list[Result]]


def possible() -> bool:
    """Return whether this process may be copied: Linux, another core, no accelerator in use.

    Elsewhere a copy either cannot be made or may hang in a system library.
    """
    cuda = "torch" in sys.modules and sys.modules["torch"].cuda.is_initialized()
    return sys.platform == "linux" and len(os.sched_getaffinity(0)) > 1 and not cuda


@contextmanager
def elsewhere(items: Sequence[Rule], run: Run) -> Iterator[Callable[[], list[Result]]]:
    """Run rules in a copy of this process; yields a function that waits for their results.

    Args:
        items: the rules.
        run: gives the results of one; what it changes is changed in the copy only.
    """
    read, write = os.pipe()
    pipe, waiting = os.fdopen(read, "rb"), list[int]()

    def wait() -> list[Result]:
        content = pipe.read()
        _, status = os.waitpid(waiting.pop(), 0)
        if status:
            return [_lost(item, status) for item in items]
        return [Result(**values) for values in json.loads(content)]

    try:
        # A copy that nobody knows of would run on.
        with held_back(signal.SIGINT):
            if not (child := os.fork()):
                _serve(items, run, write)
            waiting.append(child)
        os.close(write)
        yield wait
    finally:
        pipe.close()
        for process in waiting:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)


def _serve(items: Sequence[Rule], run: Run, write: int) -> None:
    # Nothing of the copy may go on: neither its callers nor what is registered for the end of a process.
    code = 1
    try:
        results = [asdict(result) for item in items for result in run(item)]
        with os.fdopen(write, "wb") as pipe:
            pipe.write(json.dumps(results).encode())
        code = 0
    finally:
        os._exit(code)


def _lost(item: Rule, status: int) -> Result:
    text = f"the process that ran the check ended with status {status}"
    return Result(item.id, item.title, "error", item.severity, "no result", "", "", text, "", item.remedy, 0.0)
