"""Unpacking: tuple, dict and Batch give the same eight fields; anything else is one error."""

from __future__ import annotations

import pytest
import torch

from ris_verified.data.batch import FIELDS, Batch, ProposedBatch, unpack
from ris_verified.data.dataset import draw_batch
from ris_verified.errors import InputError


@pytest.fixture(scope="module")
def batch(small):
    return draw_batch(small, 9, 0)


def _identical(a, b):
    return all(vars(a)[name] is vars(b)[name] for name in FIELDS)


def test_tuple_list_dict_and_batch_unpack_to_the_same_eight(batch):
    fields = vars(batch)
    given = [
        tuple(fields.values()),
        list(fields.values()),
        dict(reversed(fields.items())),
        {**fields, "extra": 3},
        batch,
    ]
    assert tuple(fields) == FIELDS == ("y", "H", "C", "ptr", "K", "R_in", "snr", "H_full")
    assert all(_identical(unpack(form), batch) for form in given)


def test_unpacking_moves_to_the_device(batch):
    moved = unpack(batch, "meta")
    assert {value.device.type for value in vars(moved).values()} == {"meta"}


@pytest.mark.parametrize("name", FIELDS)
def test_a_missing_or_strange_field_is_named(batch, name):
    fields = vars(batch)
    with pytest.raises(InputError, match=rf"batch\.{name}: missing"):
        unpack({k: v for k, v in fields.items() if k != name})
    with pytest.raises(InputError, match=rf"batch\.{name}: is a ndarray"):
        unpack({**fields, name: fields[name].numpy()})
    with pytest.raises(InputError, match=rf"{name} \w+ \[8"):
        unpack({**fields, name: fields[name][:8]})


def test_sequences_of_another_length_are_refused(batch):
    values = tuple(vars(batch).values())
    with pytest.raises(InputError, match=r"batch\.H_full: missing"):
        unpack(values[:7])
    with pytest.raises(InputError, match="tuple of 9"):
        unpack((*values, values[0]))


@pytest.mark.parametrize("thing", [None, 3, "batch", torch.zeros(8, 4), iter(())])
def test_what_is_no_batch_is_refused(thing):
    with pytest.raises(InputError, match="batch"):
        unpack(thing)


def test_split_holds_every_scene_once(batch):
    pieces = batch.split(4)
    assert [len(piece) for piece in pieces] == [3, 2, 2, 2]
    for name in FIELDS:
        joined = torch.cat([vars(piece)[name] for piece in pieces])
        assert torch.equal(joined.nan_to_num(nan=-7.0), vars(batch)[name].nan_to_num(nan=-7.0))
    assert all(isinstance(piece, Batch) for piece in pieces)


def test_proposals_go_along(batch):
    proposals = torch.arange(11 * len(batch) * 2.0).view(len(batch), 2, 11)
    stored = ProposedBatch(**vars(batch), proposals=proposals)
    assert torch.equal(unpack(stored).proposals, proposals)
    assert unpack(stored, "meta").proposals.device.type == "meta"
    assert torch.equal(torch.cat([piece.proposals for piece in stored.split(4)]), proposals)
