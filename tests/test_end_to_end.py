"""The whole line as a user runs it: launch, what it leaves, and the gate before training."""

from __future__ import annotations

import json

import pytest

from ris_verified.cli.main import main

# All of them, so that what they share is launched once.
pytestmark = pytest.mark.long

SMALL = [
    "data.train_scenes=192", "data.validation_scenes=32", "data.test_scenes=12", "data.shard_scenes=64",
    "train.epochs=1", "scene.snr_db_min=5.0",
]  # fmt: skip
METHODS = {"music_R_samp", "music_R_pred", "music_R_blend", "newton", "mle", "classical"}


def _launch(out, *overrides):
    options = [part for text in (*SMALL, *overrides) for part in ("--set", text)]
    return main(["--traceback", "launch", "--preset", "quick", "--out", str(out), *options])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    assert _launch(out) == 0
    return out


def test_launch_leaves_what_it_promises(folder):
    names = (
        "data/manifest.json",
        "audit.json",
        "train/weights.safetensors",
        "train/log.jsonl",
        "report.html",
        "train/summary.html",
    )
    assert all((folder / name).stat().st_size > 0 for name in names)
    for picture in ("train/curves.png", "evaluation.png"):
        assert (folder / picture).read_bytes().startswith(b"\x89PNG")
    assert json.loads((folder / "audit.json").read_text())["verdict"] == "GO"


def test_evaluation_compares_every_method_with_the_bound(folder):
    figures = json.loads((folder / "evaluation.json").read_text())
    held = figures["subspace_capture"]
    assert all(0 <= value <= 1 for value in held.values())
    assert held["R_blend"] > held["R_samp"]
    assert set(figures["methods"]) == METHODS
    assert sum(cell["methods"]["mle"]["scenes"] for cell in figures["cells"]) == figures["scenes"] == 12
    # Twelve scenes at 5 dB and above: the estimator that does not learn finds most of them.
    assert figures["methods"]["classical"]["found"] >= 0.5
    table = (folder / "evaluation.md").read_text()
    assert all(label in table for label in figures["labels"].values())


def test_saved_weights_evaluate_to_the_same_figures(folder, tmp_path):
    assert (
        main(["evaluate", "--data", str(folder / "data"), "--weights", str(folder / "train"), "--out", str(tmp_path)])
        == 0
    )
    first, second = (json.loads((f / "evaluation.json").read_text()) for f in (folder, tmp_path))
    assert first["subspace_capture"] == second["subspace_capture"]
    assert first["methods"] == second["methods"]


def test_no_go_stops_the_launch_before_training(tmp_path, capsys):
    tiny = ("array.horizontal=6", "array.vertical=4", "scene.antennas=8", "model.width=16", "model.channels=8")
    assert _launch(tmp_path, "covariance.loading=1.0", "data.train_scenes=64", *tiny) == 1
    assert not (tmp_path / "train").exists()
    report = json.loads((tmp_path / "audit.json").read_text())
    assert report["verdict"] == "NO-GO"
    assert "RV0803" in {r["id"] for r in report["results"] if r["status"] == "fail"}
    assert "NO-GO" in capsys.readouterr().err
