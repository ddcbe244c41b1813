"""The weights that ship: they load by name, fit in the package, say where they come from, and count sources."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest
import safetensors
import torch

from ris_verified.config import Config
from ris_verified.data.dataset import draw_batch
from ris_verified.errors import DataError
from ris_verified.pipeline import Pipeline
from ris_verified.train.weights import SHIPPED, load_model, save_model, stored_config

FOLDER = files("ris_verified") / "weights"


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_weights_are_small_and_documented(name):
    assert len((FOLDER / f"{name}.safetensors").read_bytes()) <= 10e6
    card = (FOLDER / f"{name}.md").read_text(encoding="utf-8")
    cfg, preset = stored_config(Path(name)), Config.load(name)
    with safetensors.safe_open(str(FOLDER / f"{name}.safetensors"), framework="pt") as archive:
        digest = archive.metadata()["config_hash"]
    assert f"hash `{digest}`, seed {cfg.seed}" in card
    # Fields that were added since have their defaults; what was trained is the preset of that name.
    assert (cfg.array, cfg.scene, cfg.model, cfg.loss, cfg.train) == (
        preset.array, preset.scene, preset.model, preset.loss, preset.train,
    )  # fmt: skip


def test_the_small_model_counts_sources():
    cfg = stored_config("small", ["scene.snr_db_min=10"])
    model = load_model("small", Pipeline.default(cfg))
    # 64 scenes that no training has seen; chance is a fifth, 0.95 was measured at 10 dB and above.
    batch = draw_batch(cfg, 64, 71_405)
    with torch.no_grad():
        outputs = model(batch.y, batch.H, batch.C, batch.H_full)
    assert float((outputs.k_logits.argmax(-1) + 1 == batch.K).float().mean()) > 0.8


def test_weights_of_another_array_are_refused():
    cfg = stored_config("small", ["array.horizontal=8"])
    with pytest.raises(DataError, match=r"small\.safetensors: trained with array\.horizontal = 12, not 8;"):
        load_model("small", Pipeline.default(cfg))


@pytest.mark.parametrize("place", ["weights.safetensors", "train/weights.safetensors"])
def test_a_folder_of_a_training_or_of_a_launch_names_its_weights(tmp_path, place):
    cfg = stored_config("small")
    model = load_model("small", Pipeline.default(cfg))
    save_model(model, cfg, tmp_path / place)
    assert stored_config(tmp_path) == cfg


def test_equal_weights_are_equal_files(tmp_path):
    cfg = stored_config("small")
    model = load_model("small", Pipeline.default(cfg))
    contents = set()
    for _ in range(8):
        save_model(model, cfg, tmp_path / "weights.safetensors")
        contents.add((tmp_path / "weights.safetensors").read_bytes())
    assert len(contents) == 1


def test_weights_of_a_former_network_of_the_same_configuration_are_one_error(tmp_path):
    cfg = stored_config("small")
    model = load_model("small", Pipeline.default(cfg))
    model.head.heat = torch.nn.Linear(2, 2)
    save_model(model, cfg, tmp_path / "former.safetensors")
    with pytest.raises(DataError, match=r"former\.safetensors.*holds other tensors.*train again"):
        load_model(tmp_path / "former.safetensors", Pipeline.default(cfg))


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(DataError, match="shipped ones: small"):
        stored_config(Path("large"))
