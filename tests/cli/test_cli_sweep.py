"""`evaluate --sweep` end to end at a tiny size, and every way of asking for it wrongly."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from ris_verified.cli.main import main
from ris_verified.config import Config
from ris_verified.errors import InputError
from ris_verified.evaluate.axes import Axes, Cell
from ris_verified.pipeline import Pipeline

TINY = """
[array]
horizontal = 6
vertical = 4
[scene]
antennas = 8
snapshots = 6
sources_max = 3
[model]
channels = 8
width = 16
layers = 1
heads = 2
head_width = 16
head_layers = 1
dictionary_azimuth = 8
dictionary_elevation = 4
dictionary_range = 3
[estimate]
grid_azimuth = 16
grid_elevation = 8
grid_range = 4
"""
PICTURES = {"rmse.png", "error_map.png", "spectrum.png"}


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return str(path)


def _asked(tiny: str, out: Path, *extra: str) -> list[str]:
    small = ["--snr-db", "10", "20", "--sources", "1", "2", "--scenes", "3", "--map-scenes", "1"]
    return ["evaluate", "--sweep", "--config", tiny, "--out", str(out), *small, *extra]


def _read(out: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((out / "sweep.json").read_text())
    return record


def test_a_sweep_needs_no_model_and_leaves_json_table_csv_and_pictures(
    tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(_asked(tiny, out, "--range", "1", "any", "--separation", "0.3", "--mismatch", "phase=0.2")) == 0
    # Two mismatches, two ranges, two K, two SNRs.
    assert "16 cells of 3 scenes" in capsys.readouterr().out
    record = _read(out)
    assert record["schema"] == "ris-verified-sweep/1"
    assert record["config_hash"] == Config.load(tiny).digest()
    places = [(c["K"], c["snr_db"], c["range"], c["separation"], c["mismatch"]) for c in record["cells"]]
    assert len(set(places)) == 16
    assert (1, 10.0, 1.0, None, "exact") in places
    assert (2, 20.0, None, 0.3, "phase=0.2") in places
    for cell in record["cells"]:
        for figure in cell["methods"]["classical"].values():
            assert set(figure) == {"value", "low", "high"}
            if figure["low"] is not None:
                assert figure["low"] <= figure["value"] <= figure["high"]
    written = {path.name for path in out.iterdir()}
    assert written == PICTURES | {"mismatch.png", "sweep.json", "sweep.md", "sweep.csv"}
    assert all((out / name).read_bytes().startswith(b"\x89PNG") for name in PICTURES)
    _check_csv(out / "sweep.csv", record)
    page = (out / "sweep.md").read_text()
    assert page.count("\n## ") == 8
    assert "Range 1 m ± 10 %, separation 17.2°, mismatch phase=0.2" in page


def _check_csv(path: Path, record: dict[str, Any]) -> None:
    with path.open() as file:
        rows = list(csv.DictReader(file))
    figures = len(record["cells"][0]["methods"]["classical"]) + len(record["cells"][0]["bound"])
    assert len(rows) == 16 * figures
    cell = record["cells"][-1]
    (row,) = (
        r
        for r in rows
        if [r[name] for name in ("K", "snr_db", "separation", "mismatch", "method", "figure")]
        == ["2", "20.0", "0.3", "phase=0.2", "classical", "gospa"]
        and r["range"] == ""
    )
    measured = cell["methods"]["classical"]["gospa"]
    assert [float(row[name]) for name in ("value", "low", "high")] == [measured[n] for n in ("value", "low", "high")]


def test_equal_seeds_give_equal_figures_and_an_axis_disturbs_no_other(tiny: str, tmp_path: Path) -> None:
    for name, extra in {
        "one": [],
        "two": [],
        "more": ["--snr-db", "0", "10", "20"],
        "other": ["--set", "seed=1"],
    }.items():
        assert main(_asked(tiny, tmp_path / name, *extra, "--map-scenes", "0")) == 0
    cells = {name: _read(tmp_path / name)["cells"] for name in ("one", "two", "more", "other")}
    assert cells["one"] == cells["two"]
    assert cells["one"] == [cell for cell in cells["more"] if cell["snr_db"] > 0]
    assert cells["one"] != cells["other"]
    csvs = [(tmp_path / name / "sweep.csv").read_bytes() for name in ("one", "two")]
    assert csvs[0] == csvs[1]
    assert not (tmp_path / "one" / "error_map.png").exists()


def test_weights_add_the_learned_search(tiny: str, tmp_path: Path) -> None:
    from ris_verified.train.weights import save_model

    cfg = Config.load(tiny)
    weights = tmp_path / "weights.safetensors"
    save_model(Pipeline.default(cfg).build_model(cfg), cfg, weights)
    out = tmp_path / "out"
    small = ["--snr-db", "10", "--sources", "2", "--scenes", "3", "--map-scenes", "0"]
    assert main(["evaluate", "--sweep", "--weights", str(weights), "--out", str(out), *small]) == 0
    record = _read(out)
    assert set(record["labels"]) == set(record["cells"][0]["methods"]) == {"classical", "learned"}
    assert "| 2 | 10 | learned |" in (out / "sweep.md").read_text()
    head = ["--set", 'estimate.order_criterion="model"']
    assert main(["evaluate", "--sweep", "--weights", str(weights), "--out", str(out), *small, *head]) == 0
    assert set(_read(out)["cells"][0]["methods"]) == {"classical", "learned"}


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        (["--sources", "4"], "scene.sources_max = 3"),
        (["--sources", "0"], "sources"),
        (["--snr-db", "nan"], "decibels"),
        (["--range", "20"], "the view"),
        (["--range", "-1"], "above zero"),
        (["--separation", "3"], "separation"),
        (["--separation", "-0.1"], "separation"),
        (["--scenes", "0"], "scenes"),
        (["--map-scenes", "-1"], "map-scenes"),
        (["--cutoff", "0"], "cutoff"),
        (["--mismatch", "phaze=0.1"], "phase, position, channel"),
        (["--mismatch", "phase=-0.1"], "at least 0"),
        (["--mismatch", "phase=inf"], "at least 0"),
        (["--mismatch", "amplitude=1", "--set", "array.amplitude=spherical"], "unit amplitude"),
        (["--data", "somewhere"], "draws its own scenes"),
        (["--weights", "gone.safetensors"], "gone.safetensors"),
    ],
)
def test_a_malformed_sweep_is_one_line_and_exit_code_2(
    extra: list[str], named: str, tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(_asked(tiny, tmp_path / "out", *extra)) == 2
    printed = capsys.readouterr().err
    assert named in printed
    assert printed.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("--mismatch", "phase"),
        ("--mismatch", "phase=much"),
        ("--mismatch", "phase=0.1+phase=0.2"),
        ("--mismatch", "=0.1"),
        ("--range", "near"),
        ("--snr-db", "loud"),
    ],
)
def test_what_is_no_value_is_said_by_the_parser(
    option: str, text: str, tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(_asked(tiny, tmp_path / "out", option, text)) == 2
    printed = capsys.readouterr().err
    assert f"argument {option}" in printed
    assert repr(text) in printed


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        (["--scenes", "3", "--range", "1"], "--range, --scenes: only for a sweep"),
        ([], "--weights: missing"),
        (["--data", "x"], "--weights: missing"),
    ],
)
def test_the_two_forms_of_evaluate_are_kept_apart(
    asked: list[str], named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "--out", str(tmp_path / "out"), *asked]) == 2
    assert named in capsys.readouterr().err


def test_scenes_without_room_are_told_before_the_first_cell(tmp_path: Path) -> None:
    # Five sources so far apart: the first scene finds places, one of the next does not.
    axes = Axes(sources=(5,), snr_db=(10.0,), separation=(0.72,), cell_scenes=40, map_scenes=0)
    Cell(5, 10.0, None, 0.72, {}).place(Config(), 0)
    with pytest.raises(InputError, match="separation"):
        axes.cells(Config())
