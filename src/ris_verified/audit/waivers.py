"""Waivers: failures that somebody accepts, for a reason, at a place."""

from __future__ import annotations

import dataclasses
import re
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
        place: a whole word, file, or file and line within the place of the failure; empty means any.
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
        return result.id.startswith(self.id) and result.status in ("fail", "error") and self._placed(result.where)

    def _placed(self, where: str) -> bool:
        # Line 3 is not line 31, and config.py is neither my-config.py nor config.pyi.
        before = r"(?<![\w.-])" if re.match(r"\w", self.place) else ""
        after = r"(?![\w-])" if re.search(r"\w$", self.place) else ""
        return not self.place or re.search(f"{before}{re.escape(self.place)}{after}", where) is not None


def parse_waivers(texts: Sequence[str]) -> list[Waiver]:
    """Read waivers of the form `IDS`, `IDS=REASON` or `ID@PLACE=REASON`, IDS separated by commas.

    Args:
        texts: as given to `--ignore`.

    Returns:
        A waiver for each id.

    Raises:
        AuditError: an id is missing or matches no rule, or an @ has no place after it.
    """
    found = []
    for text in texts:
        names, _, reason = text.partition("=")
        parts = [part.strip() for part in names.split(",") if part.strip()]
        for name in parts or ([""] if text.strip() else []):
            id, at, place = (part.strip() for part in name.partition("@"))
            # Less than a section's number would waive the whole audit.
            if not re.match(r"RV\d\d", id) or not any(known.startswith(id) for known in rules()):
                raise AuditError(
                    f"{id!r} matches no rule", where="ignore", expected="an id or its beginning, such as RV08",
                    remedy="see `ris-verified audit --list`",
                )  # fmt: skip
            if at and not place:
                raise AuditError(f"{name!r} has no place", where="ignore", expected="a place after @, or no @")
            found.append(Waiver(id, place, reason.strip()))
    return found


def apply_waivers(results: Sequence[Result], waivers: Sequence[Waiver]) -> tuple[tuple[Result, ...], tuple[str, ...]]:
    """Turn accepted failures into skips that say so, and name waivers that are idle or give no reason.

    Args:
        results: of an audit; rules that are waived ran like the others.
        waivers: from `parse_waivers`.

    Returns:
        Results and warnings. A waiver whose rule did not run or had nothing to measure may still be needed
        elsewhere and is not warned of.
    """
    done = tuple(_waived(result, waivers) for result in results)
    warnings = []
    for waiver in waivers:
        ran = any(result.id.startswith(waiver.id) and result.status != "skip" for result in results)
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
    place = f" at {result.where}" if result.where else ""
    message = f"waived: {reason}; {result.status}{place}: {result.message}{figures}"
    return dataclasses.replace(result, status="skip", message=message, waiver=reason)
