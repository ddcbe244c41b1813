"""The one result model that every format renders."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

from ris_verified.audit.rule import Severity

if TYPE_CHECKING:
    from ris_verified.audit.prove import Kill

SCHEMA = "ris-verified-audit/1"
Status = Literal["pass", "fail", "error", "skip"]
# Line breaks of every kind; then what moves a cursor, turns the direction of writing or cannot be encoded.
BREAKS = re.compile(r"\s*[\t\r\n\v\f\x1c-\x1e\x85\u2028\u2029]+\s*")
CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
ORDER = {"error": 0, "fail": 1, "skip": 2, "pass": 3}
RANK = {"blocker": 0, "warning": 1, "info": 2}


@dataclass(frozen=True)
class Result:
    """One line of a report.

    Args:
        id: of the rule; a rule that fails at several places has a result for each.
        title: of the rule.
        status: `error` means that the check itself could not finish.
        severity: of the rule.
        measured, bound, unit: the figures.
        message: the fact in words.
        where: tensor, field, or file and line.
        remedy: what to do.
        seconds: of the whole check.
        margin: room to the bound in the unit of the figures, negative beyond it; None where there is none.
        waiver: why a failure was waived; empty where none was.
    """

    id: str
    title: str
    status: Status
    severity: Severity
    measured: float | str
    bound: float | str
    unit: str
    message: str
    where: str
    remedy: str
    seconds: float
    margin: float | None = None
    waiver: str = ""

    @property
    def stops(self) -> bool:
        """Whether this result alone makes the verdict NO-GO."""
        return self.status == "error" or (self.status == "fail" and self.severity == "blocker")

    @property
    def figures(self) -> str:
        """Measured value, bound and margin for people; empty where nothing was compared."""
        if self.bound == "":
            return ""
        unit = f" {self.unit}" if self.unit else ""
        room = "" if self.margin is None else f", margin {self.margin:.3g}{unit}"
        return f"{show(self.measured)}{unit}, bound {show(self.bound)}{unit}{room}"


@dataclass(frozen=True)
class Report:
    """What an audit found.

    Args:
        verdict: `GO` or `NO-GO`.
        profile: `quick` or `full`.
        config_hash: digest of the configuration, empty for an audit of source only.
        environment: versions and machine, by name.
        seconds: of the whole audit.
        results: in order of the rules.
        warnings: about the audit itself, such as a waiver that is no longer needed.
        kills: outcome of planted faults, where the audit was proved.
    """

    verdict: str
    profile: str
    config_hash: str
    environment: dict[str, str]
    seconds: float
    results: tuple[Result, ...]
    warnings: tuple[str, ...] = ()
    kills: tuple[Kill, ...] = ()

    @property
    def worst_first(self) -> list[Result]:
        """The results, what went wrong first."""
        return sorted(self.results, key=lambda r: (ORDER[r.status], RANK[r.severity], r.id))

    @property
    def failures(self) -> dict[str, list[Result]]:
        """What went wrong, by rule, the worst first."""
        found: dict[str, list[Result]] = {}
        for result in self.worst_first:
            if result.status in ("fail", "error"):
                found.setdefault(result.id, []).append(result)
        return found

    @property
    def rest(self) -> list[Result]:
        """What passed or was skipped, skips first."""
        return [r for r in self.worst_first if r.status in ("pass", "skip")]

    @property
    def waived(self) -> int:
        """How many failures were waived."""
        return sum(bool(r.waiver) for r in self.results)

    @property
    def counts(self) -> str:
        """How many results of each status, and how many failures were waived."""
        text = ", ".join(f"{sum(r.status == s for r in self.results)} {s}" for s in ("pass", "fail", "error", "skip"))
        return f"{text} ({self.waived} waived)" if self.waived else text

    def to_json(self) -> str:
        """Return the report as JSON; a figure that is not finite becomes a string, such a margin null."""
        tree = {"schema": SCHEMA, **asdict(self), "results": [_finite(asdict(r)) for r in self.results]}
        tree["waived"] = self.waived
        if not self.kills:
            del tree["kills"]
        return encodable(json.dumps(tree, indent=2, ensure_ascii=False, allow_nan=False)) + "\n"


def verdict(results: tuple[Result, ...]) -> str:
    """Return GO only if something ran, nothing crashed and no blocker failed."""
    ran = any(r.status in ("pass", "fail") for r in results)
    return "GO" if ran and not any(r.stops for r in results) else "NO-GO"


def show(value: float | str) -> str:
    """Return a figure for people."""
    return value if isinstance(value, str) else f"{value:.4g}"


def one_line(text: str) -> str:
    """Return a text that stays on its line and steers no terminal: breaks as spaces, other controls as U+FFFD.

    Whoever writes a message must not be able to write a verdict of his own under it.
    """
    return CONTROLS.sub("\ufffd", BREAKS.sub(" ", text))


def encodable(text: str) -> str:
    """Return a text with lone surrogates, which file names may hold, escaped as JSON would."""
    return text.encode("utf-8", "backslashreplace").decode()


def _finite(tree: dict[str, object]) -> dict[str, object]:
    finite = {k: str(v) if isinstance(v, float) and not math.isfinite(v) else v for k, v in tree.items()}
    return {**finite, "margin": None if isinstance(finite["margin"], str) else finite["margin"]}
