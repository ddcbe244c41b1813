"""Which uses of configuration names are slips."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from functools import cache, lru_cache

from ris_verified._config_load import HISTORICAL
from ris_verified.audit.static.config_schema import ANY, Schema
from ris_verified.audit.static.config_uses import Read, Uses

SLIPS = {"hybrid_beta", "tikh_alpha", "eps_cov"}  # the historical ones, wherever they are met
MANY = 200  # candidates whose letters are compared
ALIKE = 0.4  # likeness from which a historical name is worth a hint
FEW = 4  # names; so few say nothing about what a variable is
SLIP = 0.8  # likeness of a slip, between that of the historical ones and that of unrelated names


def findings(uses: Uses, schema: Schema, own: bool) -> Iterator[tuple[Read, str]]:
    """Yield every slip with what is wrong.

    A name that is asked of a value whose class is known must exist. Where only the name of a
    variable says that it is a configuration, most names that the tree asks it for must exist
    before the others are called unknown, and none is in a tree that knows nothing of this package. A name that is much
    like a known one is always a slip.

    Args:
        uses: what the tree reads and writes.
        schema: what it defines.
        own: whether the definitions are the tree's own.
    """
    judged, leaves = _judged(uses, schema, own), _leaves(schema, own)
    for read in uses.reads:
        known = _known(read, schema, own)
        certain = (not read.weak or read.weak in judged) and not schema.lent
        if known:
            if read.how == "write" and certain and (own or not read.weak):
                yield read, f"writes {read.name!r} into the configuration, which must not change (RV0301)"
            continue
        if (schema.is_open(read.owner) or not certain) and not (_slip(read.name, leaves) or _misspelt(read, schema)):
            continue
        hint = f"the nearest known name is {_hint(read, schema)}"
        verb = {"write": "writes", "fresh": "writes", "keyword": "sets", "import": "imports"}.get(read.how, "reads")
        yield read, f"{verb} the unknown configuration name {read.name!r}; {hint}"


def _hint(read: Read, schema: Schema) -> str:
    own = nearest(read.name, schema.names_of(read.owner))
    if _likeness(read.name, own) >= ALIKE:
        return own
    return nearest(read.name, {**schema.names(), **schema.names_of(read.owner)})


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
    every = {name: known for weak, names in asked.items() if " in " not in weak for name, known in names.items()}
    mostly = 2 * sum(every.values()) >= len(every)
    return {
        weak
        for weak, names in asked.items()
        if 2 * sum(names.values()) >= len(names)
        or (" in " not in weak and len(names) < FEW and (mostly or len(every) < FEW))
    }


def _leaves(schema: Schema, own: bool) -> frozenset[str]:
    known = schema.names() if own else HISTORICAL
    return frozenset(text.rsplit(".", 1)[-1] for text in known)


def _slip(name: str, leaves: frozenset[str]) -> bool:
    if name in SLIPS:
        return True
    if name.lower() in {leaf.lower() for leaf in leaves}:
        return False
    best = _closest(name, leaves)
    return bool(best) and _likeness(name, best) >= SLIP


def _misspelt(read: Read, schema: Schema) -> bool:
    """Whether a name of a section that is this package's by its own name is almost one of the section's."""
    if not schema.lent or read.owner in (ANY, schema.root):
        return False
    known = [name.rsplit(".", 1)[-1] for name in schema.names_of(read.owner)]
    return bool(difflib.get_close_matches(read.name, known, 1, SLIP))


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the known name most like a wrong one, with today's name of a historical one.

    Words count first (equal, or one the beginning of the other), letters decide between equals:
    `eps_cov` is nearer to `C_EPS` than to `HYBRID_COV_BETA`.
    """
    names = frozenset(known)
    best, old = _closest(name, names), _closest(name, frozenset(HISTORICAL))
    likeness = _likeness(name, old)
    if likeness >= ALIKE and (not best or likeness > _likeness(name, best)):
        return f"{old} (now {HISTORICAL[old]})"
    return best or f"{old} (now {HISTORICAL[old]})"


@lru_cache(maxsize=4096)
def _closest(name: str, candidates: frozenset[str]) -> str:
    # Comparing letters is slow: among very many names only those with the likest words are compared so.
    ordered = sorted(candidates)
    if len(ordered) > MANY:
        ordered = sorted(ordered, key=lambda other: -_by_words(name, other))[:MANY]
    return max(ordered, key=lambda other: _likeness(name, other), default="")


@cache
def _words(text: str) -> list[str]:
    return re.split(r"[_.]+", text.lower())


def _word(a: str, b: str) -> float:
    return 1.0 if a == b else 0.8 if min(len(a), len(b)) >= 3 and (a.startswith(b) or b.startswith(a)) else 0.0


def _by_words(name: str, other: str) -> float:
    left, right = _words(name), _words(other.rsplit(".", 1)[-1])
    return sum(max(_word(a, b) for b in right) for a in left) / max(len(left), len(right))


def _likeness(name: str, other: str) -> float:
    return _by_words(name, other) + difflib.SequenceMatcher(None, name.lower(), other.lower()).ratio() / 2
