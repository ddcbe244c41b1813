"""The audit's own estimator oracles: separate sources, the objective's optimum, matching cases, applicability."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from ris_verified.audit.context import Context, small_config
from ris_verified.audit.faults import faults
from ris_verified.audit.faults.fault import Fault
from ris_verified.audit.laws.counting import measured_scenes
from ris_verified.audit.laws.estimation import separate_sources
from ris_verified.audit.laws.likelihood import fit, information
from ris_verified.audit.laws.matching import known_cases, spherical
from ris_verified.audit.oracle import closed_form, wave
from ris_verified.audit.rules import rules
from ris_verified.audit.runner import PACKAGE, audit, run_rule
from ris_verified.config import Config
from ris_verified.estimate.bound import cramer_rao_bound
from ris_verified.pipeline import Pipeline


@pytest.fixture(scope="module")
def small() -> Context:
    return Context(Pipeline.default(small_config(Config())), "quick", PACKAGE)


def test_separate_sources_are_apart_and_inside(small: Context) -> None:
    place = separate_sources(small, 3)
    a = closed_form(small, *place.T)
    likeness = np.abs(a.conj() @ a.T) / a.shape[1]
    assert place.shape == (3, 3)
    assert np.max(likeness - np.eye(3)) <= 0.25
    assert np.abs(place[:, 0]).max() < small.config.scene.azimuth_max


def test_closed_form_of_a_panel_has_unit_modulus(small: Context) -> None:
    a = wave(small.config.array, np.array([0.3]), np.array([-0.2]), np.array([2.0]))
    assert np.allclose(np.abs(a), 1)


def test_objective_is_least_at_the_truth_without_noise(small: Context) -> None:
    place = separate_sources(small, 2)
    scene = measured_scenes(small, [place], 300.0, 1)[0]
    value, _, symbols = fit(small, scene, place)
    assert value < 1e-20 * np.sum(np.abs(scene.y) ** 2)
    assert np.allclose(symbols, scene.symbols)
    assert fit(small, scene, place + 0.01)[0] > 1e3 * value


def test_information_is_that_of_the_bound(small: Context) -> None:
    place = separate_sources(small, 2)
    scene = measured_scenes(small, [place], 300.0, 1)[0]
    given = [torch.from_numpy(v)[None] for v in (*place.T.copy(), scene.symbols, scene.H_full, scene.codes)]
    bound = cramer_rao_bound(*given, 1.0, small.config)[0].numpy()
    J = information(small, scene, place)
    assert np.allclose(bound @ J, np.eye(6), atol=1e-4)


def test_known_cases_are_the_cheapest_pairings(small: Context) -> None:
    assert all(m.passed for m in known_cases(small))


def test_spherical_keeps_nan() -> None:
    back = spherical([[3.0, 0.0, 0.0], [np.nan] * 3])
    assert back[0].tolist() == [0.0, 0.0, 3.0]
    assert np.isnan(back[1]).all()


@pytest.mark.parametrize("shape", [(16, 1), (1, 16)])
def test_a_line_of_elements_has_no_two_angles(shape: tuple[int, int]) -> None:
    config = small_config(Config())
    array = dataclasses.replace(config.array, horizontal=shape[0], vertical=shape[1])
    pipeline = Pipeline.default(dataclasses.replace(config, array=array))
    context = Context(pipeline, "quick", PACKAGE)
    status = [run_rule(rules()[name], context)[0].status for name in ("RV1202", "RV1204", "RV1602")]
    assert status == ["skip"] * 3


def test_constant_symbols_with_centring_are_refused() -> None:
    config = small_config(Config()).replaced({"scene.symbols": "constant"})
    assert audit(Pipeline.default(config), select=["RV0706"]).verdict == "NO-GO"
    sound = config.replaced({"covariance.centre": False})
    wanted = ["RV0705", "RV1202", "RV1601"]
    assert audit(Pipeline.default(sound), select=wanted).verdict == "GO"


@pytest.mark.parametrize(("seed", "book"), list(itertools.product((1, 2), ("random", "dft2d", "hadamard"))))
def test_drawn_laws_hold_for_other_seeds_and_books(seed: int, book: str) -> None:
    config = small_config(Config()).replaced({"scene.codebook": book, "scene.power_spread_db": 6.0})
    context = Context(Pipeline.default(config), "quick", PACKAGE, seed=seed)
    assert {r.status for name in ("RV1601", "RV1005", "RV1003") for r in run_rule(rules()[name], context)} == {"pass"}


def test_a_metric_that_meets_no_source_fails_instead_of_crashing() -> None:
    # In reverse order the two sources of five slots meet none of their own: no error is finite.
    config = small_config(Config()).replaced({"scene.sources_max": 5})
    (fault,) = (f for f in faults() if isinstance(f, Fault) and f.name == "metric_by_index")
    results = run_rule(rules()["RV1603"], Context(fault.plant(Pipeline.default(config)), "quick", PACKAGE))
    assert {r.status for r in results} == {"fail"}
