"""The end of a run that was asked for from outside: between two steps, in all processes at the same one."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ris_verified.errors import StoppedError
from ris_verified.train.ranks import Ranks
from ris_verified.train.state import TrainState

# Number of the signal that asks for the end, 0 while none does.
Stop = Callable[[], int]


def asked(stop: Stop | None, ranks: Ranks) -> int:
    """Return the signal that came to any of the processes, or 0; every process must call it at the same step.

    Launchers do not signal all processes at once, and one that ended alone would leave the others waiting.

    Args:
        stop: of this process; None, in all of them alike, asks nobody.
        ranks: the processes.
    """
    if stop is None:
        return 0
    return max(int(number) for number in ranks.gathered(torch.tensor(stop())))


def stopped(state: TrainState, number: int, *, kept: bool) -> StoppedError:
    """Return the error that ends the run.

    Args:
        state: after its last step.
        number: of the signal.
        kept: whether checkpoints are written.
    """
    remedy = "nothing is kept, for train.checkpoint_steps is 0"
    if kept:
        remedy = "a checkpoint is kept: the same command goes on" if state.step else "the same command begins again"
    return StoppedError(number, f"after step {state.step} of {state.total_steps}", remedy=remedy)
