"""The commands that make, train, judge and tune, end to end at a tiny size, behind a gate of a known verdict."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ris_verified.audit import runner
from ris_verified.audit.result import Report, Result
from ris_verified.cli.main import main
from ris_verified.config import Config

TINY = """
[array]
horizontal = 6
vertical = 4
[scene]
antennas = 8
snapshots = 6
sources_max = 3
[data]
train_scenes = 16
validation_scenes = 8
test_scenes = 8
shard_scenes = 8
workers = 1
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
[train]
epochs = 1
batch_size = 8
precision = "float32"
[estimate]
grid_azimuth = 16
grid_elevation = 8
grid_range = 4
[hpo]
data_share = 0.5
"""


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return str(path)


@pytest.fixture
def verdict(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    asked: dict[str, Any] = {"verdict": "GO", "data": []}

    def audit(pipeline: object, profile: str = "quick", data: Path | None = None, processes: int = 1) -> Report:
        assert processes == 2, "the gate audits on both cores"
        asked["data"].append(data)
        status = "pass" if asked["verdict"] == "GO" else "fail"
        result = Result("RV0801", "trace", status, "blocker", 1.0, 0.0, "", "drifts", "R_pred", "normalise", 0.0)  # type: ignore[arg-type]
        return Report(asked["verdict"], profile, "", {}, 0.0, (result,))

    monkeypatch.setattr(runner, "audit", audit)
    return asked


def test_launch_goes_the_whole_line(
    tiny: str, tmp_path: Path, verdict: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert main(["launch", "--config", tiny, "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert "audit GO" in printed.out
    for stage in ("generate", "audit", "train", "evaluate"):
        assert stage in printed.err
    assert verdict["data"] == [out / "data"]
    assert json.loads((out / "audit.json").read_text())["verdict"] == "GO"
    assert json.loads((out / "evaluation.json").read_text())["scenes"] == 8
    assert list(out.rglob("weights.safetensors"))
    assert list(out.glob("*.html"))
    # Another rate is another run.
    other = ["launch", "--config", tiny, "--out", str(out), "--set", "train.learning_rate=1e-4"]
    assert main(other) == 2
    assert "--fresh" in capsys.readouterr().err
    assert verdict["data"] == [out / "data"], "what cannot run is not audited: the report of the finished run stays"
    assert main([*other, "--fresh"]) == 0
    record = json.loads((out / "audit.json").read_text())
    idle = record["results"][0] | {"id": "RV1304", "status": "skip"}
    (out / "audit.json").write_text(json.dumps(record | {"results": [*record["results"], idle]}))
    (page,) = out.glob("*.html")
    page.unlink()
    assert main(["report", str(out)]) == 0
    assert "1 of 1 checks passed, 1 had nothing to measure here" in page.read_text("utf-8")


@pytest.mark.parametrize(("command", "number"), [("train", signal.SIGTERM), ("launch", signal.SIGUSR1)])
def test_a_signal_ends_a_training_after_its_step_and_the_same_command_goes_on(
    command: str,
    number: signal.Signals,
    tiny: str,
    tmp_path: Path,
    verdict: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    out, steps = tmp_path / "out", list[int]()
    asked = [command, "--config", tiny, "--out", str(out)]
    if command == "train":
        assert main(["generate", "--config", tiny, "--out", str(tmp_path / "data")]) == 0
        asked += ["--data", str(tmp_path / "data")]

    @contextmanager
    def signalled(title: str) -> Iterator[Any]:
        def step(done: int, total: int, note: str) -> None:
            if title == "steps":
                steps.append(done)
                if len(steps) == 1:
                    os.kill(os.getpid(), number)

        yield step

    monkeypatch.setattr(f"ris_verified.cli.{'stages' if command == 'train' else 'launch'}.progress", signalled)
    assert main(asked) == 128 + number
    told = capfd.readouterr().err
    assert f"{number.name}: the training ends after this step" in told
    assert f"stopped by {number.name} after step 1 of 2; a checkpoint is kept" in told
    assert not list(out.rglob("weights.safetensors"))
    assert main(asked) == 0
    assert steps == [1, 2]
    assert list(out.rglob("weights.safetensors"))


def test_no_go_stops_before_training_and_says_why(
    tiny: str, tmp_path: Path, verdict: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    verdict["verdict"] = "NO-GO"
    out = tmp_path / "run"
    assert main(["launch", "--config", tiny, "--out", str(out)]) == 1
    assert "RV0801 trace" in capsys.readouterr().err
    assert json.loads((out / "audit.json").read_text())["verdict"] == "NO-GO"
    assert not list(out.rglob("weights.safetensors"))


@pytest.mark.parametrize("command", ["train", "hpo"])
def test_train_and_hpo_pass_the_same_gate(
    command: str, tiny: str, tmp_path: Path, verdict: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    assert main(["generate", "--config", tiny, "--out", str(data)]) == 0
    assert "32 scenes in 4 shards" in capsys.readouterr().out
    verdict["verdict"] = "NO-GO"
    asked = [command, "--config", tiny, "--data", str(data), "--out", str(out)]
    assert main(asked) == 1
    assert "RV0801" in capsys.readouterr().err
    assert not list(out.rglob("*.safetensors"))
    assert not list(out.rglob("*.log"))


def test_a_waiver_lets_training_go_on_and_is_logged(
    tiny: str, tmp_path: Path, verdict: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    main(["generate", "--config", tiny, "--out", str(data)])
    verdict["verdict"] = "NO-GO"
    asked = ["train", "--config", tiny, "--data", str(data), "--out", str(out), "--ignore-audit", "a drill"]
    assert main(asked) == 0
    assert "a drill" in capsys.readouterr().err.replace("\n", " ")
    assert (out / "weights.safetensors").exists()


def test_tensorboard_that_is_not_there_stops_training_before_the_audit(
    tiny: str, tmp_path: Path, verdict: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    asked = ["train", "--config", tiny, "--data", str(tmp_path), "--out", str(tmp_path / "out"), "--tensorboard"]
    assert main(asked) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert "pip install tensorboard" in printed
    assert verdict["data"] == []
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["train", "hpo"])
def test_data_that_cannot_be_trained_on_are_refused_before_the_audit(
    command: str, tiny: str, tmp_path: Path, verdict: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    data, empty = tmp_path / "data", tmp_path / "empty"
    empty.mkdir()
    assert main(["generate", "--config", tiny, "--out", str(data)]) == 0
    asked = [command, "--config", tiny, "--out", str(tmp_path / "out"), "--data"]
    capsys.readouterr()
    assert main([*asked, str(empty)]) == 2
    assert "manifest.json" in capsys.readouterr().err
    assert main([*asked, str(data), "--set", "scene.snapshots=8"]) == 2
    assert "scenes of scene.snapshots = 6" in capsys.readouterr().err.replace("\n", " ")
    assert verdict["data"] == []


def test_a_training_that_is_refused_leaves_the_report_of_the_finished_one(
    tiny: str, tmp_path: Path, verdict: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    assert main(["generate", "--config", tiny, "--out", str(data)]) == 0
    asked = ["train", "--config", tiny, "--data", str(data), "--out", str(out)]
    assert main(asked) == 0
    before = (out / "audit.json").read_bytes()
    verdict["verdict"] = "NO-GO"
    assert main([*asked, "--set", "train.learning_rate=1e-4"]) == 2
    assert "of another run" in capsys.readouterr().err.replace("\n", " ")
    assert (out / "audit.json").read_bytes() == before


@pytest.mark.parametrize("command", ["generate", "train", "launch", "hpo", "evaluate", "sweep"])
def test_a_file_in_place_of_the_folder_is_refused_before_any_work(
    command: str, tiny: str, tmp_path: Path, verdict: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = str(tmp_path / "data"), tmp_path / "out"
    if command == "train":
        assert main(["generate", "--config", tiny, "--out", data]) == 0
    out.write_text("not a folder")
    rest = {
        "train": ["--config", tiny, "--data", data],
        "evaluate": ["--model", "small"],
        "sweep": ["--config", tiny, "--sweep"],
    }
    name = "evaluate" if command == "sweep" else command
    assert main([name, *rest.get(command, ["--config", tiny]), "--out", str(out)]) == 2
    assert "is not a folder" in capsys.readouterr().err
    assert out.read_text() == "not a folder"
    assert verdict["data"] == []


def test_a_study_that_cannot_be_kept_is_refused_before_the_audit(
    tiny: str, tmp_path: Path, verdict: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["hpo", "--config", tiny, "--out", str(tmp_path / "hpo"), "--storage", "nosuch://host/study"]
    assert main(asked) == 2
    assert "nosuch" in capsys.readouterr().err
    assert verdict["data"] == []


def test_train_leaves_a_summary_and_events_where_they_are_asked_for(
    tiny: str, tmp_path: Path, verdict: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorboard")
    data, out = tmp_path / "data", tmp_path / "out"
    main(["generate", "--config", tiny, "--out", str(data)])
    assert main(["train", "--config", tiny, "--data", str(data), "--out", str(out), "--tensorboard"]) == 0
    assert str(out / "summary.html") in capsys.readouterr().out
    assert f"tensorboard --logdir {out / 'tensorboard'}" in (out / "summary.html").read_text("utf-8")
    assert list((out / "tensorboard").iterdir())


def test_weights_bring_their_own_configuration(
    tiny: str, tmp_path: Path, verdict: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    data, out, judged = tmp_path / "data", tmp_path / "out", tmp_path / "judged"
    main(["generate", "--config", tiny, "--out", str(data)])
    main(["train", "--config", tiny, "--data", str(data), "--out", str(out)])
    asked = ["evaluate", "--weights", str(out / "weights.safetensors"), "--data", str(data), "--out", str(judged)]
    assert main(asked) == 0
    assert (judged / "evaluation.md").exists()
    capsys.readouterr()
    assert main([*asked, "--preset", "reference"]) == 2
    assert "configuration that the weights were trained with" in capsys.readouterr().err


def test_weights_are_not_judged_on_scenes_of_other_physics(
    tiny: str, tmp_path: Path, verdict: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = str(tmp_path / "data"), str(tmp_path / "out")
    assert main(["generate", "--config", tiny, "--out", data]) == 0
    assert main(["train", "--config", tiny, "--data", data, "--out", out]) == 0
    far = ["--set", "scene.snapshots=8", "--data", data, "--weights", out, "--out", out]
    assert main(["evaluate", *far]) == 2
    assert "scenes of scene.snapshots = 6" in capsys.readouterr().err.replace("\n", " ")


def test_parts_of_the_data_wait_for_each_other(tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["generate", "--config", tiny, "--out", str(tmp_path / "data"), "--part"]
    assert main([*asked, "1/2"]) == 0
    assert "no manifest yet" in capsys.readouterr().out
    assert main([*asked, "2/2"]) == 0
    assert "32 scenes" in capsys.readouterr().out
    assert main([*asked, "3/2"]) == 2


@pytest.mark.long
def test_a_study_trains_scores_and_leaves_a_configuration(
    tiny: str, tmp_path: Path, verdict: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "hpo"
    asked = ["hpo", "--config", tiny, "--n_trials", "2", "--epochs_per_trial", "1", "--space", "narrow"]
    assert main([*asked, "--out", str(out)]) == 0
    # The second one may be pruned by its only epoch.
    scored = re.search(r"[12] of 2 trials have a score", capsys.readouterr().out)
    assert scored
    best = Config.load(out / "best.toml")
    assert best.data.train_scenes == 16
    assert 1e-4 <= best.train.learning_rate <= 4e-4
    for number in range(2):
        trial = Config.load(out / f"trial-{number:04d}" / "config.toml")
        assert (trial.data.train_scenes, trial.data.validation_scenes, trial.train.ema_decay) == (8, 4, 0.0)
    assert not list(out.rglob("weights.safetensors"))
    page = (out / "report.html").read_bytes()
    assert main(["hpo", "report", "--out", str(out)]) == 0
    assert scored[0] in capsys.readouterr().out
    assert (out / "report.html").read_bytes() == page


def test_the_study_that_was_asked_for_is_the_one_reported(
    tiny: str, tmp_path: Path, verdict: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def scored(pipeline: object, data: Path, out: Path, values: dict[str, Any], number: int, report: object) -> float:
        return float(values["train.learning_rate"])

    monkeypatch.setattr("ris_verified.hpo.objective.objective", scored)
    monkeypatch.setattr("ris_verified.hpo.apart.apart", lambda objective: objective)
    for seed in (1, 2, 1):
        asked = ["hpo", "--config", tiny, "--set", f"seed={seed}", "--n_trials", "1", "--out", str(tmp_path / "hpo")]
        shutil.rmtree(tmp_path / "hpo" / "data", ignore_errors=True)
        assert main(asked) == 0
        assert Config.load(tmp_path / "hpo" / "best.toml").seed == seed


@pytest.mark.long
def test_two_workers_finish_one_study(
    tiny: str, tmp_path: Path, verdict: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "hpo"
    asked = ["hpo", "--config", tiny, "--n-trials", "6", "--epochs-per-trial", "2", "--space", "narrow"]
    assert main([*asked, "--workers", "2", "--out", str(out)]) == 0
    assert "best" in capsys.readouterr().out
    rows = list(csv.DictReader((out / "trials.csv").open(encoding="utf-8")))
    assert sum(row["state"] in ("COMPLETE", "PRUNED") for row in rows) == 6


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        (["--set", "train.epoch=3"], "train.epochs"),
        (["--set", "train.epochs"], "KEY=VALUE"),
        (["--set", "covariance.beta=2"], "covariance.beta"),
        (["--config", "absent.toml"], "absent.toml"),
        (["--config", "absent.toml", "--preset", "quick"], "one of them"),
    ],
)
def test_a_wrong_configuration_is_one_line(
    extra: list[str], named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", "--out", str(tmp_path / "data"), *extra]) == 2
    printed = capsys.readouterr().err
    assert named in printed
    assert printed.count("\n") == 1
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_a_missing_folder_is_named(
    command: str, tiny: str, tmp_path: Path, verdict: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [command, "--config", tiny, "--data", str(tmp_path / "gone"), "--out", str(tmp_path / "out")]
    assert main([*asked, *(["--weights", str(tmp_path / "no.safetensors")] if command == "evaluate" else [])]) == 2
    assert str(tmp_path) in capsys.readouterr().err.replace("\n", "")
