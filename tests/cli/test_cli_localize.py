"""`localize` on files: the oracle's two sources, and one clear line for each bad file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from numpy.typing import NDArray

from ris_verified.cli.localize import read_measurement
from ris_verified.cli.main import main
from ris_verified.config import Config
from ris_verified.scene.scene import draw_scene

Arrays = dict[str, NDArray[np.generic]]
Oracle = Callable[[int], Arrays]


@pytest.fixture
def scene(oracle: Oracle) -> Arrays:
    known = oracle(1)
    return {"y": known["y"], "H_full": known["H_full"], "C": known["codes"]}


def write(path: Path, arrays: Arrays) -> Path:
    if path.suffix.lower() == ".npz":
        np.savez(path, **arrays)  # type: ignore[arg-type]
    else:
        scipy.io.savemat(path, dict(arrays))
    return path


@pytest.mark.parametrize("suffix", [".npz", ".mat", ".MAT"])
def test_the_oracle_scene_is_localised_within_its_bounds(
    suffix: str, scene: Arrays, oracle: Oracle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / f"scene{suffix}", scene)
    assert main(["localize", str(file), "--format", "json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["scenes"]
    found = sorted(found, key=lambda source: source["azimuth_deg"])
    truth, bound = oracle(1), np.sqrt(np.diag(oracle(1)["crb"])).reshape(2, 3)
    order = np.argsort(truth["azimuth"])
    assert len(found) == 2
    for source, k in zip(found, order, strict=True):
        for name, scale, unit in (
            ("azimuth", 180 / np.pi, "_deg"),
            ("elevation", 180 / np.pi, "_deg"),
            ("range", 1, ""),
        ):
            sigma = bound[k, ("azimuth", "elevation", "range").index(name)] * scale
            # Six errors of an efficient estimate stay within 4.5 bounds but once in 25,000 scenes.
            assert abs(source[f"{name}{unit}"] - truth[name][k] * scale) < 4.5 * sigma
            # The estimated noise of 16 x 16 numbers is within a third of the true one.
            assert source[f"{name}_sigma{unit}"] == pytest.approx(sigma, rel=1 / 3)


def test_text_shows_degrees_metres_and_bounds(
    scene: Arrays, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["localize", str(write(tmp_path / "a.npz", scene)), "--order", "1"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == "scene 0: 1 source"
    assert second.count("±") == 3
    assert second.endswith(" m")


def test_a_batch_and_pairs_of_real_numbers_give_the_same_answer(
    scene: Arrays, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = {name: np.stack([value.real, value.imag], -1) for name, value in scene.items()}
    batch = {name: np.stack([value, value]) for name, value in scene.items()}
    answers = []
    for name, arrays in (("plain", scene), ("pairs", pairs), ("batch", batch)):
        assert main(["localize", str(write(tmp_path / f"{name}.npz", arrays)), "--format", "json", "--order", "2"]) == 0
        answers.append(json.loads(capsys.readouterr().out)["scenes"])
    assert answers[1] == answers[0]
    assert len(answers[2]) == 2
    for k in range(2):
        assert answers[2][1][k] == pytest.approx(answers[0][0][k], rel=1e-6)


def test_an_array_without_imaginary_part_is_complex(scene: Arrays, tmp_path: Path) -> None:
    scene["C"] = np.sign(scene["C"].real).astype(np.int8)
    for suffix in (".npz", ".mat"):
        read = read_measurement(write(tmp_path / f"a{suffix}", scene))["C"]
        assert read.dtype == np.complex128
        np.testing.assert_array_equal(read, scene["C"])


def bad_files(folder: Path, scene: Arrays) -> dict[str, tuple[Path, str]]:
    made = {
        "absent": (folder / "absent.npz", "absent.npz"),
        "suffix": (folder / "scene.csv", "'.csv'"),
        "empty": (folder / "empty.npz", "empty.npz"),
        "garbage": (folder / "garbage.mat", "garbage.mat"),
        "truncated": (folder / "truncated.npz", "truncated.npz"),
        "lacking": (write(folder / "lacking.npz", {"y": scene["y"]}), "lacks H_full, C"),
        "objects": (folder / "objects.npz", "holds Python objects"),
        "nan": (write(folder / "nan.npz", scene | {"y": scene["y"] * np.nan}), "nan.npz: y[0]"),
        "transposed": (write(folder / "transposed.npz", scene | {"H_full": scene["H_full"].T}), ".npz: H_full"),
        "flat": (write(folder / "flat.mat", scene | {"y": scene["y"].ravel()}), "flat.mat: y"),
        "text": (write(folder / "text.npz", scene | {"y": np.array(["a", "b"])}), "text.npz: y"),
    }
    for name in ("suffix", "empty", "garbage"):
        made[name][0].write_bytes(b"" if name == "empty" else b"no such format" * 40)
    whole = write(folder / "whole.npz", scene).read_bytes()
    made["truncated"][0].write_bytes(whole[: len(whole) // 2])
    np.savez(made["objects"][0], y=np.array([{}, []], dtype=object), H_full=scene["H_full"], C=scene["C"])
    return made


@pytest.mark.parametrize(
    "kind",
    ["absent", "suffix", "empty", "garbage", "truncated", "lacking", "objects", "nan", "transposed", "flat", "text"],
)
def test_a_bad_file_is_one_line_that_names_it(
    kind: str, scene: Arrays, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, named = bad_files(tmp_path, scene)[kind]
    assert main(["localize", str(file)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert named in printed.err


@pytest.mark.parametrize("order", ["0", "6", "-1"])
def test_an_impossible_order_is_named(
    order: str, scene: Arrays, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["localize", str(write(tmp_path / "a.npz", scene)), "--order", order]) == 2
    assert "an integer between 1 and 5" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["y", "H_full"])
def test_a_measurement_that_lost_its_imaginary_part_is_refused(oracle, tmp_path, capsys, name):
    scene = oracle(1)
    arrays = {"y": scene["y"], "H_full": scene["H_full"], "C": scene["codes"]}
    np.savez(tmp_path / "real.npz", **{**arrays, name: arrays[name].real})
    assert main(["localize", str(tmp_path / "real.npz")]) == 2
    assert f"{name}: float64" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["y", "H_full", "C"])
def test_a_measurement_without_energy_is_refused(scene, tmp_path, capsys, name):
    two = {key: np.stack([value, value * (key != name)]) for key, value in scene.items()}
    np.savez(tmp_path / "empty.npz", **two)
    assert main(["localize", str(tmp_path / "empty.npz")]) == 2
    assert f"{name}[1]: is zero throughout" in capsys.readouterr().err


def test_a_bound_that_the_measurement_does_not_determine_is_null(tmp_path, capsys):
    line = ["array.vertical=1", "scene.sources_max=1", "scene.snr_db_min=20.0"]
    known = draw_scene(Config.load(overrides=line), 1)
    np.savez(tmp_path / "line.npz", y=known.y, H_full=known.H_full, C=known.codes)
    asked = ["localize", str(tmp_path / "line.npz"), *(word for text in line for word in ("--set", text))]
    assert main([*asked, "--format", "json"]) == 0
    (source,) = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)["scenes"][0]
    assert [source[f"{name}_sigma_deg"] for name in ("azimuth", "elevation")] == [None, None]
    assert main(asked) == 0
    assert capsys.readouterr().out.count("± unknown") == 3


@pytest.mark.parametrize("form", ["plain", "vector", "pairs", "batch", ".mat"])
def test_what_is_asked_for_in_place_of_one_snapshot_is_localised(form, scene, tmp_path, capsys):
    def kept(count):
        made = {name: value if name == "H_full" else value[:count] for name, value in scene.items()}
        if form == "pairs":
            made = {name: np.stack([value.real, value.imag], -1) for name, value in made.items()}
        if form == "vector" and count == 1:
            made = {name: value if name == "H_full" else value[0] for name, value in made.items()}
        if form == "batch":
            made = {name: np.stack([value, value]) for name, value in made.items()}
        return str(write(tmp_path / f"{count}{form if form == '.mat' else '.npz'}", made))

    assert main(["localize", kept(1)]) == 2
    told = capsys.readouterr().err
    assert "holds one snapshot" in told
    assert "two or more snapshots" in told
    assert "set scene.snapshots to their number" in told
    assert main(["localize", kept(2), "--set", "scene.snapshots=2"]) == 0
