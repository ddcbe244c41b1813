"""The sound pipeline is GO whatever the seed and the configuration of the family."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from ris_verified.audit.alarms import alarms, drawn_config


@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 2**31 - 1))
def test_no_rule_fails_on_a_sound_pipeline(seed: int) -> None:
    assert list(alarms(drawn_config(seed), f"family {seed}")) == []
