"""Waivers: failures that somebody accepts, for a reason, at a place."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from ris_verified.audit.result import Result
from ris_verified.audit.rules import rules
from ris_verified.errors import AuditError

NO_REASON = "no reason given"


@dataclass(frozen=True)
class Waiver:
    """One accepted failure.

    Args:
        id: of a rule, or the beginning of ids.
        place: beginning of the place of the failure, or a file's last folders; empty means any.
        reason: why it is accepted.
    """

    id: str
    place: str
    reason: str

    @property
    def text(self) -> str:
        """As it was written, without the reason."""
        return f"{self.id}@{self.place}" if self.place else self.id

    def covers(self, result: Result) -> bool:
        """Return whether a failure is meant by this waiver."""
        placed = not self.place or result.where.startswith(self.place) or f"/{self.place}" in result.where
        return result.id.startswith(self.id) and result.status in ("fail", "error") and placed


def parse_waivers(texts: Sequence[str]) -> list[Waiver]:
    """Read waivers of the form `IDS`, `IDS=REASON` or `ID@PLACE=REASON`, IDS separated by commas.

    Args:
        texts: as given to `--ignore`.

    Returns:
        A waiver for each id.

    Raises:
        AuditError: an id matches no rule.
    """
    found = []
    for text in texts:
        names, _, reason = text.partition("=")
        for name in filter(None, (part.strip() for part in names.split(","))):
            id, _, place = name.partition("@")
            if not any(known.startswith(id) for known in rules()):
                raise AuditError(
                    f"{id!r} matches no rule", where="ignore", expected="an id or its beginning, such as RV08",
                    remedy="see `ris-verified audit --list`",
                )  # fmt: skip
            found.append(Waiver(id, place.strip(), reason.strip()))
    return found


def apply_waivers(results: Sequence[Result], waivers: Sequence[Waiver]) -> tuple[tuple[Result, ...], tuple[str, ...]]:
    """Turn accepted failures into skips that say so, and name waivers that are idle or give no reason.

    Args:
        results: of an audit; rules that are waived ran like the others.
        waivers: from `parse_waivers`.

    Returns:
        Results and warnings. A waiver whose rule did not run is not warned of.
    """
    done = tuple(_waived(result, waivers) for result in results)
    warnings = []
    for waiver in waivers:
        ran = any(result.id.startswith(waiver.id) for result in results)
        if ran and not any(waiver.covers(result) for result in results):
            warnings.append(f"the waiver {waiver.text} matches nothing any more: remove it")
        elif not waiver.reason:
            warnings.append(f"the waiver {waiver.text} gives no reason: write --ignore '{waiver.text}=REASON'")
    return done, tuple(warnings)


def _waived(result: Result, waivers: Sequence[Waiver]) -> Result:
    meant = next((waiver for waiver in waivers if waiver.covers(result)), None)
    if meant is None:
        return result
    reason = meant.reason or NO_REASON
    figures = f" [{result.figures}]" if result.figures else ""
    message = f"waived, {reason}: {result.status} at {result.where or 'no place'}: {result.message}{figures}"
    return dataclasses.replace(result, status="skip", message=message, waiver=reason)
