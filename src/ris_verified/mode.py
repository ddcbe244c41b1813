"""A model's mode, borrowed and given back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode for the body, and afterwards, also where that raises, all as it was.

    Args:
        model: any mode; parts may have modes of their own, as where a caller has frozen them.

    Returns:
        A context that gives nothing.
    """
    modes = [(part, part.training) for part in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
