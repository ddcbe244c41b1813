"""What a study found can be read by people, spreadsheets and `train`."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import optuna
import pytest

from ris_verified.config import Config
from ris_verified.errors import StorageError
from ris_verified.hpo import report
from ris_verified.hpo.report import stored_study, write_report
from ris_verified.hpo.storage import open_storage
from ris_verified.hpo.study import best_config, run_study

sys.path.insert(0, str(Path(__file__).parent))
import workers_for_tests as drill


def awkward(values, number, report):
    if number == 2:
        raise MemoryError("no room for <this> model")
    return drill.slow(values, number, report)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    study = run_study(drill.config(9), awkward, str(out / "study.log"), drill.VERDICT, judged=True)
    return study, out, write_report(study, out)


def test_the_best_configuration_is_ready_for_training(found):
    study, out, _ = found
    best = Config.load(out / "best.toml")
    assert best.train.learning_rate == study.best_params["train.learning_rate"]
    assert best.hpo == drill.config(9).hpo


def test_every_trial_is_a_row(found):
    study, out, _ = found
    rows = list(csv.DictReader((out / "trials.csv").open(encoding="utf-8")))
    assert [row["state"] for row in rows] == [t.state.name for t in study.trials]
    assert rows[2]["error"] == "MemoryError: no room for <this> model"
    assert min(float(row["score_m"]) for row in rows if row["score_m"]) == study.best_value
    assert float(rows[0]["train.learning_rate"]) == study.trials[0].params["train.learning_rate"]


def test_the_page_stands_alone_and_names_best_and_failed(found):
    study, out, page = found
    text = page.read_text(encoding="utf-8")
    assert f"Trial {study.best_trial.number} is best: {study.best_value:.4f} m" in text
    assert "no room for &lt;this&gt; model" in text
    assert text.count("data:image/png;base64,") == 3
    assert "<script" not in text
    for name in ("history", "importance", "parallel"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.filterwarnings("ignore")  # the drawings are experimental in Optuna
def test_the_history_shows_the_best_so_far(found, tmp_path, monkeypatch):
    drawn = []

    def png(draw, width):
        drawn.append(draw())
        return b""

    monkeypatch.setattr(report, "_png", png)
    write_report(found[0], tmp_path)
    assert "Best Value" in [text.get_text() for text in drawn[0].get_legend().get_texts()]


def test_a_study_is_found_in_its_storage(found):
    study, out, _ = found
    where = str(out / "study.log")
    assert stored_study(open_storage(where), where).study_name == study.study_name


def test_nothing_to_report_is_told(tmp_path):
    where = str(tmp_path / "empty.log")
    with pytest.raises(StorageError, match="holds no study"):
        stored_study(open_storage(where), where)

    def failing(values, number):
        raise ValueError("never")

    study = run_study(drill.config(2), failing, where, drill.VERDICT)
    assert [t.state for t in study.trials] == [optuna.trial.TrialState.FAIL] * 2
    with pytest.raises(StorageError, match=r"none of 2 trials is complete.*trials\.csv"):
        write_report(study, tmp_path)
    assert (tmp_path / "trials.csv").read_text(encoding="utf-8").count("ValueError: never") == 2


def test_error_and_time_are_both_minimised(tmp_path):
    cfg = drill.config(8).replaced({"hpo.timed": True})

    def objective(values, number, report):
        report(1, 0.5)
        return 0.5 if number < 4 else 0.6 + values["loss.order"], 0.01 * (8 - number)

    study = run_study(cfg, objective, str(tmp_path / "study.log"), drill.VERDICT, judged=True)
    assert {t.number for t in study.best_trials} >= {3, 7}
    assert best_config(study, cfg).train.learning_rate == study.trials[3].params["train.learning_rate"]
    text = write_report(study, tmp_path).read_text(encoding="utf-8")
    assert "Trial 3 is best: 0.5000 m" in text
    assert "ms a scene" in text
    rows = list(csv.DictReader((tmp_path / "trials.csv").open(encoding="utf-8")))
    assert [float(row["seconds_a_scene"]) for row in rows] == [t.values[1] for t in study.trials]


def test_a_time_that_is_not_finite_fails_its_trial(tmp_path):
    cfg = drill.config(2).replaced({"hpo.timed": True})
    study = run_study(
        cfg, lambda values, number: (0.5, [float("inf"), 0.1][number]), str(tmp_path / "s"), drill.VERDICT
    )
    assert [t.state.name for t in study.trials] == ["FAIL", "COMPLETE"]
