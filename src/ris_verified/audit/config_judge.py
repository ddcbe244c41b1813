"""Which uses of configuration names are slips."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from functools import cache

from ris_verified._config_load import HISTORICAL
from ris_verified.audit.config_names import Read, Uses
from ris_verified.audit.config_schema import Schema

SLIPS = {"hybrid_beta", "tikh_alpha", "eps_cov"}  # the historical ones, wherever they are met
FEW = 4  # names; so few say nothing about what a variable is
SLIP = 0.8  # likeness of a slip, between that of the historical ones and that of unrelated names


def findings(uses: Uses, schema: Schema, own: bool) -> Iterator[tuple[Read, str]]:
    """Yield every slip with what is wrong.

    A name that is asked of a value whose class is known must exist. Where only the name of a
    variable says that it is a configuration, most names that the tree asks it for must exist
    before the others are called unknown; a name that is much like a known one is always a slip.

    Args:
        uses: what the tree reads and writes.
        schema: what it defines.
        own: whether the definitions are the tree's own.
    """
    judged = _judged(uses, schema, own)
    for read in uses.reads:
        known = _known(read, schema, own)
        certain = not read.weak or read.weak in judged
        if known:
            if read.how == "write" and certain and own:
                yield read, f"writes {read.name!r} into the configuration, which must not change (RV0301)"
            continue
        if schema.is_open(read.owner) or not certain:
            if not _slip(read.name, schema, own):
                continue
        hint = f"the nearest known name is {nearest(read.name, schema.names_of(read.owner))}"
        verb = {"write": "writes", "fresh": "writes", "keyword": "sets", "import": "imports"}.get(read.how, "reads")
        yield read, f"{verb} the unknown configuration name {read.name!r}; {hint}"


def _known(read: Read, schema: Schema, own: bool) -> bool:
    if schema.knows(read.owner, read.name) or (not own and read.name in HISTORICAL):
        return True
    section = schema.sections.get(read.owner)
    return read.how == "fresh" and section is not None and section.kind == "value"


def _judged(uses: Uses, schema: Schema, own: bool) -> set[str]:
    asked: dict[str, dict[str, bool]] = {}
    for read in uses.reads:
        if read.weak:
            asked.setdefault(read.weak, {})[read.name] = _known(read, schema, own)
    every = {name: known for names in asked.values() for name, known in names.items()}
    mostly = 2 * sum(every.values()) >= len(every)
    return {
        weak
        for weak, names in asked.items()
        if 2 * sum(names.values()) >= len(names) or (len(names) < FEW and (mostly or len(every) < FEW))
    }


def _slip(name: str, schema: Schema, own: bool) -> bool:
    if name in SLIPS:
        return True
    known = schema.names() if own else HISTORICAL
    leaves = {text.rsplit(".", 1)[-1] for text in known}
    if name.lower() in {leaf.lower() for leaf in leaves}:
        return False
    best = max(leaves, key=lambda other: _likeness(name, other), default="")
    return bool(best) and _likeness(name, best) >= SLIP


def nearest(name: str, known: Mapping[str, object]) -> str:
    """Return the known name most like a wrong one, with today's name of a historical one.

    Words count first (equal, or one the beginning of the other), letters decide between equals:
    `eps_cov` is nearer to `C_EPS` than to `HYBRID_COV_BETA`.
    """
    candidates = {**dict.fromkeys(known), **HISTORICAL}
    best = max(candidates, key=lambda other: _likeness(name, other))
    return f"{best} (now {HISTORICAL[best]})" if best in HISTORICAL and best not in known else best


@cache
def _words(text: str) -> list[str]:
    return re.split(r"[_.]+", text.lower())


def _word(a: str, b: str) -> float:
    return 1.0 if a == b else 0.8 if min(len(a), len(b)) >= 3 and (a.startswith(b) or b.startswith(a)) else 0.0


def _likeness(name: str, other: str) -> float:
    left, right = _words(name), _words(other.rsplit(".", 1)[-1])
    words = sum(max(_word(a, b) for b in right) for a in left) / max(len(left), len(right))
    return words + difflib.SequenceMatcher(None, name.lower(), other.lower()).ratio() / 2
