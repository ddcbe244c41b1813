"""Whatever changes in a sealed file is seen before anything in it is used."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ris_verified.train.sealed import DamagedError, notes_of, require_intact, sealed, tensors_of

# Texts that look like the seal itself.
NOTES = {"standing": {"best": -1.0}, "sha256": "0" * 64, "quoted": '"sha256":"' + "1" * 64 + '"'}
TENSORS = {"live/a": torch.arange(6.0).reshape(2, 3), "random/cpu/0": torch.arange(5, dtype=torch.uint8)}


def test_what_was_sealed_comes_back():
    content = sealed(TENSORS, NOTES)
    require_intact(content)
    assert notes_of(content) == NOTES
    found = tensors_of(content)
    assert found.keys() == TENSORS.keys()
    assert all(torch.equal(found[name], value) for name, value in TENSORS.items())


def test_every_byte_counts():
    content = sealed(TENSORS, NOTES)
    for at in range(len(content)):
        changed = bytearray(content)
        changed[at] ^= 1
        with pytest.raises(DamagedError):
            require_intact(bytes(changed))


@given(st.integers(0, 600), st.binary(min_size=1, max_size=80))
def test_other_lengths_are_damage(at, more):
    content = sealed(TENSORS, NOTES)
    for changed in (content[:at], content + more, more):
        if changed != content:
            with pytest.raises(DamagedError):
                require_intact(changed)
