"""What a pipeline of somebody else's may do, and what only looks sound."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from ris_verified.audit.context import Context, small_config
from ris_verified.audit.laws.knobs import knobs_turn
from ris_verified.audit.laws.model_laws import repeats
from ris_verified.audit.laws.step_laws import update_laws
from ris_verified.audit.rules import rules
from ris_verified.audit.runner import PACKAGE, run_rule
from ris_verified.config import Config
from ris_verified.pipeline import Pipeline


@pytest.mark.parametrize("rule", ["RV0404", "RV1402"])
def test_a_step_may_clear_its_gradients_afterwards(rule: str) -> None:
    sound = Pipeline.default(small_config(Config()))

    def step(state, batch, pipeline):
        report = sound.train_step(state, batch, pipeline)
        state.optimizer.zero_grad(set_to_none=True)
        return report

    context = Context(dataclasses.replace(sound, train_step=step), "quick", PACKAGE)
    assert {r.status for r in run_rule(rules()[rule], context)} == {"pass"}


class Net(nn.Module):
    """A network that knows one number of heads, with a part that is never trained."""

    def __init__(self, cfg):
        super().__init__()
        self.backbone, self.head = nn.Identity(), nn.Identity()
        sound = Pipeline.default(cfg).build_model(cfg.replaced({"model.heads": 2}))
        self.backbone, self.head = sound.backbone, sound.head
        self.frozen = nn.Dropout(0.5)
        self.run = [sound]

    def train(self, mode=True):
        super().train(mode)
        self.frozen.eval()
        self.run[0].train(mode)
        return self

    def forward(self, *given):
        self.run[0].backbone, self.run[0].head = self.backbone, self.head
        return self.run[0](*given)


def test_a_network_of_one_s_own_is_not_asked_for_this_package_s_sizes() -> None:
    sound = Pipeline.default(Config())
    context = Context(dataclasses.replace(sound, build_model=Net), "quick", PACKAGE)
    assert [m.where for m in knobs_turn(context) if not m.passed] == []


def test_a_part_of_a_network_may_stay_in_evaluation() -> None:
    sound = Pipeline.default(small_config(Config()))
    context = Context(dataclasses.replace(sound, build_model=Net), "quick", PACKAGE)
    assert [m.message for m in update_laws(context) if not m.passed] == []


@pytest.mark.parametrize("change", [{"scene.sources_max": 3}, {"array.horizontal": 10}, {}])
def test_the_size_of_the_reference_is_asked_for_at_its_panel_and_number_of_sources(change) -> None:
    context = Context(Pipeline.default(Config().replaced(change)), "quick", PACKAGE)
    results = run_rule(rules()["RV0402"], context)
    assert {r.status for r in results} == {"pass"}


@pytest.mark.parametrize("how", ["of the logits", "float32"])
def test_a_loss_may_add_its_terms_in_single_precision(how: str) -> None:
    sound = Pipeline.default(small_config(Config()))

    def loss(outputs, R_hat, batch, cfg, **options):
        result = sound.loss(outputs, R_hat, batch, cfg, **options)
        return dataclasses.replace(
            result, total=result.total.to(torch.float32 if how == "float32" else outputs.k_logits.dtype)
        )

    context = Context(dataclasses.replace(sound, loss=loss), "quick", PACKAGE)
    assert {r.status for r in run_rule(rules()["RV0604"], context)} == {"pass"}


# Three coherent sources on a panel that hardly tells them apart: the likelihood's way turns with the last bit.
COHERENT = {
    "seed": 12345, "array.wavelength": 0.05, "array.spacing_wavelengths": 0.25, "scene.symbols": "constant",
    "covariance.centre": False, "scene.range_min": 1.5, "scene.range_max": 8.0, "scene.azimuth_max": 0.9,
    "estimate.prior": "none",
}  # fmt: skip


# A panel of four centimetres: the bound of a range is wider than the range.
FAR = {
    "seed": 401, "array.horizontal": 8, "array.vertical": 8, "array.wavelength": 0.01, "array.amplitude": "spherical",
    "scene.antennas": 8, "scene.snapshots": 8, "scene.elevation_max": 0.9, "scene.range_min": 0.3, "scene.code_bits": 6,
    "scene.range_max": 20.0, "scene.rician_factor_max": 2.0, "scene.codebook": "hadamard", "scene.symbols": "constant",
    "covariance.centre": False, "covariance.ridge": 0.1, "scene.sources_max": 3, "estimate.prior": "none",
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"array.horizontal": 4, "array.vertical": 4, "scene.sources_max": 2}, "RV0803"),
        ({"covariance.beta": 0.0}, "RV1608"),
        ({"scene.symbols": "constant"}, "RV1608"),
        ({"array.wavelength": 0.01, "scene.range_max": 20.0}, "RV1204"),
        (FAR, "RV1204"),
        (COHERENT, "RV0202"),
        (COHERENT, "RV1604"),
    ],
)
def test_sound_configurations_at_an_end_of_their_range(change, rule: str) -> None:
    config = Config().replaced(change)
    context = Context(Pipeline.default(config), "quick", PACKAGE, seed=config.seed)
    assert {r.status for r in run_rule(rules()[rule], context)} == {"pass"}


def test_weights_that_hang_on_the_global_state_are_found() -> None:
    sound = Pipeline.default(small_config(Config()))

    def build(cfg):
        model = sound.build_model(cfg)
        with torch.random.fork_rng(devices=[]):
            for parameter in model.parameters():
                if parameter.ndim == 1:
                    nn.init.normal_(parameter, std=0.01)
        return model

    context = Context(dataclasses.replace(sound, build_model=build), "quick", PACKAGE)
    assert "weights that differ between two builds" in [m.message for m in repeats(context) if not m.passed]


@pytest.mark.parametrize("names", [("trunk", "heads"), (None, None)])
@pytest.mark.parametrize("rule", ["RV0302", "RV0401", "RV0402", "RV0403", "RV0404", "RV1301", "RV1308", "RV1605"])
def test_groups_of_other_names_are_one_clear_failure_wherever_they_are_needed(rule: str, names) -> None:
    sound = Pipeline.default(Config())

    def groups(model, cfg):
        made = sound.parameter_groups(model, cfg)
        return [
            {"params": g["params"], "lr": g["lr"], **({"name": n} if n else {})}
            for n, g in zip(names, made, strict=True)
        ]

    context = Context(dataclasses.replace(sound, parameter_groups=groups), "quick", PACKAGE)
    (found,) = run_rule(rules()[rule], context, first=True)
    assert (found.status, found.where) == ("fail", "parameter_groups")
    assert "backbone" in f"{found.message} {found.bound}"
    assert "name" in found.remedy


@pytest.mark.parametrize("change", [{"scene.antennas": 8}, {"scene.snapshots": 12}])
def test_shapes_of_the_reference_are_asked_for_at_its_own_sizes(change) -> None:
    context = Context(Pipeline.default(Config().replaced(change)), "quick", PACKAGE)
    assert {r.status for name in ("RV1301", "RV1302") for r in run_rule(rules()[name], context)} == {"pass"}
