"""A safetensors file that carries the SHA-256 of its own bytes: whatever part of it changes, it is seen."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

# Before it stands the header's length.
START = 8
NAME = b'"sha256":"'
BLANK = b"0" * 64
# Within the notes, which are a text of JSON, the quotes would be escaped.
SEAL = re.compile(NAME + rb"([0-9a-f]{64})\"")


class DamagedError(Exception):
    """The bytes are not those that were written."""


def sealed(tensors: dict[str, Tensor], notes: dict[str, Any]) -> bytes:
    """Return a file of tensors and notes; its digest is that of the same bytes with zeros where it stands."""
    content = save(tensors, {"notes": json.dumps(notes), "sha256": BLANK.decode()})
    at = content.index(NAME + BLANK) + len(NAME)
    digest = hashlib.sha256(content).hexdigest().encode()
    return b"".join((content[:at], digest, content[at + len(BLANK) :]))


def require_intact(content: bytes) -> None:
    """Compare a file with the digest that it carries; nothing in it is interpreted before.

    Raises:
        DamagedError: there is none, or it is of other bytes.
    """
    seal = SEAL.search(header(content))
    if seal is None:
        raise DamagedError("it has no checksum")
    at = START + seal.start(1)
    view, found = memoryview(content), hashlib.sha256()
    for part in (view[:at], BLANK, view[at + len(BLANK) :]):
        found.update(part)
    if found.hexdigest().encode() != seal[1]:
        raise DamagedError("its checksum is of other bytes")


def header(content: bytes) -> bytes:
    """Return the text before the tensors, or all bytes where its length is damaged."""
    return content[START : START + int.from_bytes(content[:START], "little")]


def notes_of(content: bytes) -> dict[str, Any]:
    """Return the notes of an intact file."""
    notes: dict[str, Any] = json.loads(json.loads(header(content))["__metadata__"]["notes"])
    return notes


def tensors_of(content: bytes) -> dict[str, Tensor]:
    """Return the tensors of an intact file."""
    return load(content)
