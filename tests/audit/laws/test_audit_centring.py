"""What is left of the symbols after centring, drawn and stored, and averages of which only one is kept."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from ris_verified.audit.context import Context, small_config
from ris_verified.audit.damage import tiny_data
from ris_verified.audit.laws.centring import survives_centring
from ris_verified.audit.rules import rules
from ris_verified.audit.runner import PACKAGE, run_rule
from ris_verified.config import Config
from ris_verified.pipeline import Pipeline


def _context(seed: int = 0, **changes: object) -> Context:
    return Context(Pipeline.default(small_config(Config()).replaced(changes)), "quick", PACKAGE, seed=seed)


@pytest.mark.parametrize("snapshots", [2, 3, 16])
@pytest.mark.parametrize("seed", range(3))
def test_drawn_symbols_survive_with_any_number_of_snapshots(snapshots: int, seed: int) -> None:
    found = survives_centring(_context(seed, **{"scene.snapshots": snapshots}))
    assert [m.passed for m in found] == [True, True]


def test_one_source_that_does_not_vary_is_found_beside_others() -> None:
    context = _context()
    scene = context.scenes[-1]
    assert len(scene.azimuth) > 1
    symbols = scene.symbols.copy()
    symbols[:, 1] = 1.0
    context.scenes[-1] = dataclasses.replace(scene, symbols=symbols)
    mean, least = survives_centring(context)
    assert (mean.passed, least.passed) == (True, False)
    assert abs(float(least.measured)) < 8 * np.finfo(float).eps


def test_stored_symbols_are_judged_split_by_split(tmp_path: Path) -> None:
    context = _context()
    tiny_data(context, tmp_path)
    context.data = tmp_path
    found = survives_centring(context)
    assert {m.where for m in found} == {"draw_scene", "train scenes", "validation scenes", "test scenes"}
    assert all(m.passed for m in found)


@pytest.mark.parametrize(("ema", "swa"), [(0.9, 0.0), (0.0, 0.3), (0.9, 0.3)])
def test_the_averages_that_are_kept_are_the_ones_that_are_looked_at(ema: float, swa: float) -> None:
    context = _context(**{"train.ema_decay": ema, "train.swa_share": swa})
    found = list(rules()["RV0504"].check(context))
    assert all(m.passed for m in found)
    assert {m.where for m in found} >= {name for name, kept in (("ema", ema), ("swa", swa)) if kept}


def test_no_average_is_a_reason_to_skip() -> None:
    results = run_rule(rules()["RV0504"], _context(**{"train.ema_decay": 0.0}))
    assert [r.status for r in results] == ["skip"]
