"""Configuration: files, presets, overrides, historical names and what each error says."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path

import pytest
import torch

from ris_verified._config_load import HISTORICAL, PRESETS, names
from ris_verified.config import Config
from ris_verified.data.dataset import draw_batch
from ris_verified.errors import ConfigError
from ris_verified.pipeline import Pipeline


def test_the_defaults_are_the_sizes_of_the_checklist() -> None:
    cfg = Config()
    assert (cfg.array.elements, cfg.scene.antennas, cfg.scene.snapshots, cfg.scene.sources_max) == (144, 16, 16, 5)
    assert (cfg.covariance.beta, cfg.covariance.loading) == (0.3, 1e-3)
    assert (cfg.train.batch_size, cfg.train.clip_norm, cfg.train.epochs) == (64, 1.0, 12)
    assert cfg.train.learning_rate * cfg.train.head_multiplier == pytest.approx(1.2e-3)
    assert (cfg.data.train_scenes, cfg.data.validation_scenes) == (80_000, 16_000)


def test_the_guide_shows_every_field_with_its_default() -> None:
    guide = Path(__file__).parents[1] / "docs" / "guide" / "configuration.md"
    shown = tomllib.loads(guide.read_text(encoding="utf-8").split("```toml")[1].split("```")[0])
    assert shown == tomllib.loads(Config().to_toml())


def test_the_reference_preset_is_the_defaults() -> None:
    assert Config.load("reference") == Config()


@pytest.mark.parametrize("name", PRESETS)
def test_presets_load_and_keep_the_physics(name: str) -> None:
    cfg = Config.load(name)
    assert cfg.array == Config().array
    # `small` blends less of R_samp (docs/decisions/0018).
    beta = 0.05 if name == "small" else 0.3
    assert cfg.covariance == dataclasses.replace(Config().covariance, beta=beta)
    assert cfg.scene == Config().scene


def test_the_quick_preset_is_smaller() -> None:
    quick, reference = Config.load("quick"), Config.load("reference")
    assert quick.data.train_scenes < reference.data.train_scenes
    assert quick.train.epochs < reference.train.epochs


def test_a_file_and_overrides(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("seed = 7\n[train]\nepochs = 5\nlearning_rate = 1e-3\n")
    cfg = Config.load(path, overrides=["train.epochs=3", "scene.codebook=dft2d", "loss.angle = 1", "contracts=false"])
    assert (cfg.seed, cfg.train.epochs, cfg.train.learning_rate) == (7, 3, 1e-3)
    assert cfg.scene.codebook == "dft2d"
    assert isinstance(cfg.loss.angle, float)
    assert not cfg.contracts


def test_overrides_that_only_fit_each_other() -> None:
    cfg = Config.load(overrides=["model.heads=9", "model.width=450"])
    assert (cfg.model.width, cfg.model.heads) == (450, 9)


def test_overrides_that_complete_a_file_and_a_file_that_is_wrong_anyway(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("[model]\nheads = 9\n")
    assert Config.load(path, overrides=["model.width=450"]).model.heads == 9
    with pytest.raises(ConfigError, match=r"model\.width"):
        Config.load(path, overrides=["seed=3"])
    path.write_text("[train]\nepoch = 9\n")
    with pytest.raises(ConfigError, match=r"run\.toml.*epoch"):
        Config.load(path, overrides=["model.width=450"])


@pytest.mark.parametrize(("old", "new"), HISTORICAL.items())
def test_a_historical_name_is_told_its_new_name(old: str, new: str) -> None:
    for given in (old, old.lower()):
        with pytest.raises(ConfigError, match=f"{given}.*its present name, {new}"):
            Config.load(overrides=[f"{given}=1"])
    assert new in names(Config)


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("train.epoch=3", "train.epochs"),
        ("trian.epochs=3", "nearest known name, train"),
        ("epochs=3", "train.epochs"),
        ("covariance.hybrid_beta=0.1", "covariance.beta"),
        ("zzzzzz=1", "one of the sections array"),
    ],
)
def test_an_unknown_key_is_told_the_nearest(override: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        Config.load(overrides=[override])


@pytest.mark.parametrize(
    ("override", "where", "value"),
    [
        ("train.epochs=0", "train.epochs", "0"),
        ("train.epochs=2.5", "train.epochs", "2.5"),
        ("train.epochs=true", "train.epochs", "True"),
        ("train.epochs=many", "train.epochs", "'many'"),
        ("covariance.beta=1.5", "covariance.beta", "1.5"),
        ("covariance.beta=nan", "covariance.beta", "nan"),
        ("train.learning_rate=inf", "train.learning_rate", "inf"),
        ("covariance.centre=1", "covariance.centre", "1"),
        ("covariance.factor_mode=magic", "covariance.factor_mode", "'magic'"),
        ("scene.range_min=11.0", "scene.range_max", "10.0"),
        ("scene.snr_db_min=-300.0", "scene.snr_db_min", "-300.0"),
        ("scene.snr_db_min=-101.0", "between -100.0 and 300.0", "-101.0"),
        ("scene.snr_db_max=301.0", "scene.snr_db_max", "301.0"),
        ("scene.range_max=1e30", "scene.range_max", "1e+30"),
        ("scene.sources_max=16", "scene.sources_max", "16"),
        ("model.heads=7", "model.width", "416"),
        ("model.dictionary_azimuth=30", "model.dictionary_azimuth", "30"),
        ("seed=-1", "seed", "-1"),
        ("train=3", "train", "3"),
        ("hpo.space=huge", "hpo.space", "'huge'"),
        ("estimate.newton_step=[1.0]", "estimate.newton_step", "[1.0]"),
    ],
)
def test_a_wrong_value_names_field_and_value(override: str, where: str, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config.load(overrides=[override])
    assert where in str(caught.value)
    assert value in str(caught.value)


# The farthest that the configuration allows, at which no square may leave single precision.
ENDS = {"scene.snr_db_min": -100.0, "scene.snr_db_max": -100.0}, {"scene.snr_db_max": 300.0, "scene.snr_db_min": 300.0}


@pytest.mark.parametrize("values", [*ENDS, {"scene.range_max": 1e9}])
@pytest.mark.parametrize("symbols", ["varying", "constant"])
def test_at_the_ends_of_the_noise_and_of_the_view_a_step_is_finite(values: dict[str, float], symbols: str) -> None:
    cfg = Config.load("small").replaced({**values, "scene.symbols": symbols})
    pipeline, batch = Pipeline.default(cfg), draw_batch(cfg, 4, 0)
    model = pipeline.build_model(cfg)
    outputs, blended = pipeline.forward(model, batch)
    total = pipeline.loss(outputs, blended.R_pred, batch, cfg, R_blend=blended.R).total
    total.backward()
    slopes = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert all(bool(torch.isfinite(value).all()) for value in (total, outputs.ranges, *slopes))


@pytest.mark.parametrize("override", ["train.epochs", "=3", "", "train.epochs.more=3"])
def test_what_is_no_override_is_refused(override: str) -> None:
    with pytest.raises(ConfigError):
        Config.load(overrides=[override])


def test_all_loss_weights_zero_is_refused() -> None:
    zero = {f"loss.{field.name}": 0.0 for field in dataclasses.fields(Config().loss)}
    with pytest.raises(ConfigError, match="at least one weight above zero"):
        Config().replaced(zero)


@pytest.mark.parametrize(
    ("content", "named"),
    [(b"[train\n", "not valid TOML"), (b"\xff\xfe\x00", "cannot be read"), (b"train = 3\n", "a table")],
)
def test_a_bad_file_is_named(content: bytes, named: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=named) as caught:
        Config.load(path)
    assert "bad.toml" in str(caught.value)


def test_an_absent_file_is_told_the_presets(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="quick, small, reference"):
        Config.load(tmp_path / "absent.toml")


def test_text_takes_overrides_and_is_named_in_errors() -> None:
    assert Config.loads("[train]\nepochs = 4", overrides=["train.epochs=6"]).train.epochs == 6
    with pytest.raises(ConfigError, match="weights file"):
        Config.loads("[train]\nepoch = 4", source="weights file")
    with pytest.raises(ConfigError, match="weights file: not valid TOML"):
        Config.loads("[train", source="weights file")


def test_nothing_can_be_written_to() -> None:
    cfg = Config()
    for owner in (cfg, cfg.train, cfg.array):
        field = dataclasses.fields(owner)[0].name
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(owner, field, 1)
    with pytest.raises(TypeError):
        Config(None, 3)  # type: ignore[call-arg]


def test_replaced_changes_what_it_is_told_and_nothing_else() -> None:
    cfg = Config()
    changed = cfg.replaced({"train.epochs": 3, "seed": 5, "model.width": 512})
    assert (changed.train.epochs, changed.seed, changed.model.width) == (3, 5, 512)
    assert changed.replaced({"train.epochs": 12, "seed": 0, "model.width": 416}) == cfg
    with pytest.raises(ConfigError, match=r"train\.epochs"):
        cfg.replaced({"train.epoch": 3})
