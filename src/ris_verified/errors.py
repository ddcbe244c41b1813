"""The one error tree: every message says what, where, what was expected and what to do."""

from __future__ import annotations

import signal


class RisVerifiedError(Exception):
    """Base of every error that this package raises for its user.

    Args:
        what: the fact that stops the work, with the offending value.
        where: field, file or batch index.
        expected: what would have been accepted.
        remedy: what to do now.
    """

    def __init__(self, what: str, *, where: str = "", expected: str = "", remedy: str = "") -> None:
        self.what, self.where, self.expected, self.remedy = what, where, expected, remedy
        parts = [f"{where}: {what}" if where else what]
        parts += [f"expected {expected}"] if expected else []
        parts += [remedy] if remedy else []
        super().__init__("; ".join(parts))


class ConfigError(RisVerifiedError, ValueError):
    """A configuration field, key or file is wrong."""


class InputError(RisVerifiedError, ValueError):
    """A user's tensor or file cannot be used."""


class ShapeError(InputError):
    """An argument has the wrong shape or dtype."""


class NonFiniteError(InputError):
    """An argument holds NaN or infinity."""


class InvariantError(RisVerifiedError, ArithmeticError):
    """A stage broke its own law (trace, hermiticity, unit modulus …)."""


class DivergedError(InvariantError):
    """A stage returned NaN or infinity; training skips such a step and counts it."""


class DataError(RisVerifiedError, OSError):
    """A folder, manifest or shard is missing, foreign, truncated or corrupt."""


class StorageError(RisVerifiedError, OSError):
    """A file could not be written; what was there before is intact."""


class TrainingError(RisVerifiedError, RuntimeError):
    """Training cannot go on."""


class AuditError(RisVerifiedError, RuntimeError):
    """The audit cannot run as it was asked to."""


class LoadError(AuditError):
    """The module or function that should give the pipeline raised."""


class NoGoError(AuditError):
    """The audit's verdict forbids what was asked for."""


class StoppedError(RisVerifiedError):
    """A run ended because a signal asked for it.

    Args:
        number: of the signal.
        what: was reached.
        remedy: how to go on.
    """

    def __init__(self, number: int, what: str, *, remedy: str) -> None:
        self.number = number
        super().__init__(f"stopped by {signal.Signals(number).name} {what}", remedy=remedy)
