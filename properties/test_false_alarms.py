"""The sound pipeline is GO whatever the seed and the configuration of the family."""

from __future__ import annotations

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from ris_verified.audit.alarms import alarms, drawn_config


# A smaller seed is no simpler configuration: shrinking would audit for minutes and say nothing.
@pytest.mark.every
@settings(max_examples=1, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(seed=st.integers(0, 2**31 - 1))
def test_no_rule_fails_on_a_sound_pipeline(seed: int) -> None:
    assert list(alarms(drawn_config(seed), f"family {seed}")) == []
