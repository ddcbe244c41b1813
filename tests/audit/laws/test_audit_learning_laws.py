"""The laws of learning hold for sound stages of other make and under every valid configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from ris_verified.audit.context import Context, small_config
from ris_verified.audit.faults import faults
from ris_verified.audit.faults.passes import Pass
from ris_verified.audit.faults.terms import Recipe
from ris_verified.audit.laws.knob_table import KNOBS, STAGES, read
from ris_verified.audit.laws.knobs import SMALL_GRIDS, Probes, _unfelt
from ris_verified.audit.laws.model_laws import scenes_alone
from ris_verified.audit.laws.trial_laws import between
from ris_verified.audit.plain_step import plain_step, trace_steps
from ris_verified.audit.rules import rules
from ris_verified.audit.runner import PACKAGE, run_rule, undisturbed
from ris_verified.config import Config
from ris_verified.hpo.space import WIDE
from ris_verified.pipeline import Pipeline

STEP_RULES = ("RV1403", "RV1604", "RV1605", "RV1606")
LOSS_RULES = ("RV0601", "RV0602", "RV0603", "RV0604", "RV1604")
TOUCHED = ("RV0401", "RV0404", "RV0502", "RV0602", "RV0603", "RV0604", "RV1403", "RV1602", "RV1604", "RV1605", "RV1606")


def failing(pipeline: Pipeline, ids: tuple[str, ...]) -> list[str]:
    """Return rule and message of everything that does not pass."""
    context = Context(pipeline, "quick", PACKAGE)
    results = [result for name in ids for result in run_rule(rules()[name], context)]
    return [f"{r.id} {r.status}: {r.message}" for r in results if r.status not in ("pass", "skip")]


@pytest.fixture(scope="module")
def sound() -> Pipeline:
    return Pipeline.default(small_config(Config()))


def test_another_sound_step_passes(sound: Pipeline) -> None:
    assert failing(Pass()(sound), STEP_RULES) == []


def test_another_sound_loss_passes(sound: Pipeline) -> None:
    assert failing(Recipe()(sound), LOSS_RULES) == []


@pytest.mark.every
@pytest.mark.parametrize(
    "change",
    [
        {"loss.order": 0.0, "train.accumulation": 3, "train.ema_decay": 0.0},
        {"scene.sources_max": 1, "train.precision": "bfloat16", "train.swa_share": 0.5},
        {"covariance.factor_mode": "sum", "model.residual": True},
    ],
    ids=lambda change: " ".join(change),
)
def test_valid_configuration_raises_no_alarm(change: dict[str, Any], sound: Pipeline) -> None:
    assert failing(dataclasses.replace(sound, config=sound.config.replaced(change)), TOUCHED) == []


@pytest.mark.parametrize("read_too", [("loss.angle",), ("loss.angle", "train.clip_norm", "estimate.mle_iterations")])
def test_each_knob_that_a_stage_must_not_feel_is_named(read_too: tuple[str, ...], sound: Pipeline) -> None:
    def nosy(y: torch.Tensor, H_full: torch.Tensor, C: torch.Tensor, cfg: Config) -> torch.Tensor:
        return sound.sample_covariance(y, H_full, C, cfg) * (1 + sum(float(read(cfg, name)) for name in read_too))

    context = Context(dataclasses.replace(sound, sample_covariance=nosy), "quick", PACKAGE)
    found = _unfelt(Probes(context), context.config.replaced(SMALL_GRIDS), "sample_covariance")
    assert not found.passed
    assert found.where == "sample_covariance: " + ", ".join(knob.field for knob in KNOBS if knob.field in read_too)


def test_knobs_that_move_a_stage_only_together_are_not_missed(sound: Pipeline) -> None:
    pair = ("loss.angle", "train.clip_norm")

    def nosy(y: torch.Tensor, H_full: torch.Tensor, C: torch.Tensor, cfg: Config) -> torch.Tensor:
        both = all(read(cfg, name) != read(sound.config, name) for name in pair)
        return sound.sample_covariance(y, H_full, C, cfg) * (2 if both else 1)

    context = Context(dataclasses.replace(sound, sample_covariance=nosy), "quick", PACKAGE)
    found = _unfelt(Probes(context), context.config.replaced(SMALL_GRIDS), "sample_covariance")
    assert not found.passed
    assert found.where == "sample_covariance: several together"


def test_plain_step_clips_to_the_declared_norm(sound: Pipeline) -> None:
    context = Context(sound, "quick", PACKAGE)
    tight = context.with_config(sound.config.replaced({"train.clip_norm": 0.01}))
    with undisturbed():
        trace = trace_steps(tight, [tight.batch], plain_step, 1.0)
    norm = torch.stack([g.square().sum() for g in trace.gradients[0].values()]).sum().sqrt()
    assert float(norm) == pytest.approx(0.01, rel=1e-5)
    assert float(trace.reports[0].gradient_norm) > 0.01


def test_slopes_leave_the_weights_as_they_were(sound: Pipeline) -> None:
    context = Context(sound, "quick", PACKAGE)
    before = {name: value.clone() for name, value in context.small.model.state_dict().items()}
    run_rule(rules()["RV0502"], context)
    assert all(torch.equal(before[name], value) for name, value in context.small.model.state_dict().items())


@pytest.mark.parametrize("knob", KNOBS, ids=lambda knob: knob.field)
def test_every_knob_names_a_field_and_known_stages(knob: Any) -> None:
    base = small_config(Config()).replaced(knob.given)
    values = knob.change(base)
    assert set(knob.must) | set(knob.may) <= set(STAGES)
    assert values
    assert all(read(base, name) != value for name, value in values.items())
    assert base.replaced(values).digest() != base.digest()


@pytest.mark.parametrize("seed", range(5))
def test_values_between_the_ends_are_valid(seed: int) -> None:
    values = between(WIDE, seed)
    assert values.keys() == WIDE.keys()
    assert all(distribution._contains(distribution.to_internal_repr(values[n])) for n, distribution in WIDE.items())


def test_a_law_is_not_broken_by_a_rounding(sound: Pipeline) -> None:
    close: Callable[[str, Any], Any] = lambda name, row: row.double().mean().to(row.dtype)  # noqa: E731
    assert failing(Recipe(scenes=close)(sound), LOSS_RULES) == []


def test_one_scene_that_rounding_turns_excuses_no_other(sound: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    def turned(value: torch.Tensor, key: int) -> torch.Tensor:
        return torch.cat([value[1:2], value[1:]])

    monkeypatch.setattr("ris_verified.audit.laws.model_laws.shaken", turned)
    fault = next(f for f in faults() if f.name == "place_in_batch")
    found = scenes_alone(Context(fault.plant(sound), "quick", PACKAGE).small)
    assert {m.message for m in found if not m.passed and m.where == "build_model: ranges"} >= {
        "change of a scene's output with another place in the batch",
        "change of a scene's output with no other scene in the batch",
    }
