"""The model's contract, its features and its factor heads."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from ris_verified.array.folded import folded
from ris_verified.array.steering import steering
from ris_verified.config import ArrayConfig, Config, EstimateConfig, ModelConfig, SceneConfig
from ris_verified.covariance.predicted import predicted_covariance, unpack_factor
from ris_verified.data.dataset import draw_batch
from ris_verified.errors import ConfigError, InvariantError, ShapeError
from ris_verified.model.groups import group_sizes, parameter_groups
from ris_verified.model.network import build_model
from ris_verified.shapes import from_ri

TINY = ModelConfig(
    channels=8, width=16, layers=1, heads=2, head_width=16, head_layers=1, residual=True,
    dictionary_azimuth=8, dictionary_elevation=4, dictionary_range=2,
)  # fmt: skip
ODD = Config(
    array=ArrayConfig(horizontal=5, vertical=3),
    scene=SceneConfig(antennas=6, snapshots=4, sources_max=3),
    model=TINY,
)


def _inputs(cfg, B=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    L, M, N = cfg.scene.snapshots, cfg.scene.antennas, cfg.array.elements
    shapes = {"y": (B, L, M, 2), "H": (B, L, M, 2), "C": (B, L, N, 2), "H_full": (B, M, N, 2)}
    return {name: torch.randn(*shape, generator=generator) for name, shape in shapes.items()}


class ModelContract:
    """What every model of a pipeline must do."""

    build = staticmethod(build_model)
    cfg = ODD

    @pytest.mark.parametrize("B", [1, 3])
    def test_shapes_and_dtypes(self, B):
        cfg = self.cfg
        out = self.build(cfg)(**_inputs(cfg, B))
        K, flat = cfg.scene.sources_max, cfg.array.elements * cfg.scene.sources_max * 2
        shapes = {name: tuple(value.shape) for name, value in vars(out).items()}
        assert shapes == {
            "cov_fact_angle": (B, flat),
            "cov_fact_range": (B, flat),
            "k_logits": (B, K),
            "angles": (B, K, 2),
            "ranges": (B, K),
        }
        assert all(value.dtype == torch.float32 for value in vars(out).values())

    def test_every_parameter_receives_a_finite_gradient(self):
        model = self.build(self.cfg)
        out = model(**_inputs(self.cfg))
        R = predicted_covariance(out.cov_fact_angle, out.cov_fact_range, self.cfg)
        probe = torch.randn(R.shape, dtype=R.dtype, generator=torch.Generator().manual_seed(0))
        ((R * probe).real.sum() + out.k_logits[:, 0].sum()).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
            assert parameter.grad.abs().sum() > 0, name

    def test_same_seed_same_weights_and_the_global_generator_is_untouched(self):
        before = torch.random.get_rng_state()
        first, second = self.build(self.cfg), self.build(self.cfg)
        other = self.build(dataclasses.replace(self.cfg, seed=1))
        assert torch.equal(before, torch.random.get_rng_state())
        weights = [torch.cat([p.flatten() for p in m.parameters()]) for m in (first, second, other)]
        assert torch.equal(weights[0], weights[1])
        assert not torch.equal(weights[0], weights[2])

    def test_scenes_of_a_batch_do_not_mix(self):
        model, inputs = self.build(self.cfg).eval(), _inputs(self.cfg, 3)
        together = model(**inputs).cov_fact_angle
        alone = model(**{name: value[1:2] for name, value in inputs.items()}).cov_fact_angle
        scale = float(together.detach().abs().max())
        assert torch.allclose(together[1:2], alone, rtol=0, atol=scale * 1000 * torch.finfo(torch.float32).eps)

    def test_a_common_gain_and_phase_change_nothing(self):
        model, inputs = self.build(self.cfg).eval(), _inputs(self.cfg)
        turned = {**inputs, "y": 3 * torch.stack([-inputs["y"][..., 1], inputs["y"][..., 0]], -1)}
        first, second = model(**inputs), model(**turned)
        scale = 1000 * torch.finfo(torch.float32).eps
        assert torch.allclose(first.angles, second.angles, atol=scale)
        assert torch.allclose(first.k_logits, second.k_logits, atol=scale)


class TestModel(ModelContract):
    pass


class TestModelWithoutResidual(ModelContract):
    cfg = dataclasses.replace(ODD, model=dataclasses.replace(TINY, residual=False))

    def test_every_parameter_receives_a_finite_gradient(self):
        model = self.build(self.cfg)
        assert not any(name.startswith("head.residual") for name, _ in model.named_parameters())
        super().test_every_parameter_receives_a_finite_gradient()

    def test_factors_multiply_to_the_exact_steering_vector_of_the_angles_and_ranges(self):
        out = self.build(self.cfg)(**_inputs(self.cfg))
        A = unpack_factor(out.cov_fact_angle, "a", self.cfg) * unpack_factor(out.cov_fact_range, "r", self.cfg)
        exact = steering(self.cfg.array, out.angles[..., 0], out.angles[..., 1], out.ranges)
        power = A.abs().square().mean(1)
        assert torch.allclose(A.mT, exact * power.sqrt()[..., None], atol=1000 * torch.finfo(torch.float32).eps)
        assert torch.allclose(power.sum(-1), torch.ones(2), atol=100 * torch.finfo(torch.float32).eps)


def test_positions_stay_in_the_field_of_view():
    out, s = build_model(ODD)(**_inputs(ODD, 4)), ODD.scene
    eps = 8 * torch.finfo(torch.float32).eps
    assert out.angles[..., 0].abs().max() <= s.azimuth_max * (1 + eps)
    assert out.angles[..., 1].abs().max() <= s.elevation_max * (1 + eps)
    assert out.ranges.min() >= s.range_min * (1 - eps)
    assert out.ranges.max() <= s.range_max * (1 + eps)


def test_a_wrong_shape_is_one_error():
    inputs = _inputs(ODD)
    with pytest.raises(ShapeError, match="H_full"):
        build_model(ODD)(**{**inputs, "H_full": inputs["H_full"][..., 0]})
    with pytest.raises(ShapeError, match="model"):
        build_model(ODD)(**{**inputs, "H": inputs["H"][:, :2]})
    with pytest.raises(ShapeError, match="proposals"):
        build_model(ODD)(**inputs, proposals=torch.zeros(2, 5, 9))


def test_reference_model_has_the_sizes_of_the_checklist():
    cfg = Config.load("reference")
    sizes = group_sizes(parameter_groups(build_model(cfg), cfg))
    assert {name: round(size / 1e6, 1) for name, size in sizes.items()} == {"backbone": 8.3, "head": 11.0}
    assert round(sum(sizes.values()) / 1e6, 1) == 19.3


def test_the_estimators_settings_do_not_reach_the_model():
    other = dataclasses.replace(ODD, estimate=EstimateConfig(mle_ridge=1.0, search_summits=1, search_exchanges=0))
    first, second = (build_model(cfg).eval()(**_inputs(cfg)) for cfg in (ODD, other))
    assert torch.equal(first.angles, second.angles)


def test_groups_are_a_partition_at_four_times_the_rate():
    model = build_model(ODD)
    groups = parameter_groups(model, ODD)
    chosen = [id(p) for group in groups for p in group["params"]]
    assert sorted(chosen) == sorted(id(p) for p in model.parameters())
    assert groups[1]["lr"] == 4 * groups[0]["lr"]


@pytest.mark.parametrize("spoil", ["freeze", "stray"])
def test_frozen_and_stray_parameters_are_named(spoil):
    model = build_model(ODD)
    if spoil == "freeze":
        model.head.embed.bias.requires_grad_(False)
    else:
        model.extra = torch.nn.Parameter(torch.zeros(1))
    with pytest.raises(InvariantError, match="head.embed.bias" if spoil == "freeze" else "extra"):
        parameter_groups(model, ODD)


def test_features_are_highest_near_a_lonely_source():
    cfg = Config(scene=SceneConfig(sources_min=1, sources_max=1, snr_db_min=30.0, snr_db_max=30.0))
    batch, model = draw_batch(cfg, 16, 5), build_model(cfg)
    data = (from_ri(batch.y), from_ri(batch.H_full), from_ri(batch.C))
    grid = folded(cfg.array, cfg.scene, model.dictionary.shape, torch.float32, torch.device("cpu"))
    planes = model.dictionary.shape[0]
    peak = model._features(*data, grid)[:, planes : 2 * planes].flatten(1)
    assert torch.allclose(peak.amax(1), torch.ones(16))
    best = model.dictionary.coordinates[peak.argmax(1), :2]
    # Half a cell in the middle of the view, more towards its edges; one scene in sixteen may show a side lobe.
    assert ((best - batch.ptr[:, 0, :2]).abs() < 2 * model.dictionary.cell[:2]).all(1).sum() >= 15


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("scene.elevation_max=0.0", "scene.elevation_max"),
        ("scene.azimuth_max=0.0", "scene.azimuth_max"),
        ("scene.range_min=10.0", "scene.range_max"),
    ],
)
def test_a_view_without_extent_is_one_error(line, named):
    with pytest.raises(ConfigError, match=named):
        build_model(Config.load("quick", [line]))


def test_a_panel_of_one_element_gives_finite_outputs():
    cfg = Config.load("quick", ["array.horizontal=1", "array.vertical=1", "scene.sources_max=1"])
    batch = draw_batch(cfg, 2, 0)
    outputs = build_model(cfg)(batch.y, batch.H, batch.C, batch.H_full)
    assert all(value.isfinite().all() for value in vars(outputs).values())
