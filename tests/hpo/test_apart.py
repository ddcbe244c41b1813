"""A trial in a process of its own: what it says arrives, what it used is given back, what kills it kills it alone."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from functools import partial
from pathlib import Path

import optuna
import pytest

from ris_verified.errors import StorageError, TrainingError
from ris_verified.hpo.apart import apart
from ris_verified.hpo.study import run_study

sys.path.insert(0, str(Path(__file__).parent))
import workers_for_tests as drill

VALUES = {"train.learning_rate": 1e-3}


def _resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_score_and_reports_arrive_and_memory_stays_behind():
    told, before = [], _resident()
    assert apart(drill.hoard)(VALUES, 3, lambda *said: told.append(said)) == drill.rate(VALUES, 3)
    assert told == [(epoch, drill.rate(VALUES, 3) / epoch) for epoch in (1, 2, 3)]
    assert drill.HOARD == []
    assert _resident() - before < 2**25


def test_a_pruned_trial_ends_and_tidies_up(tmp_path):
    def prune(epoch, score):
        raise optuna.TrialPruned

    with pytest.raises(optuna.TrialPruned):
        apart(drill.tidy)({"file": str(tmp_path / "weights")}, 0, prune)
    assert list(tmp_path.iterdir()) == []
    assert not [p for p in multiprocessing.active_children() if p.name == "trial 0"]


@pytest.mark.parametrize(("number", "said"), [(0, "MemoryError: no room"), (1, "exit status -9")])
def test_what_ends_a_trial_is_told(number, said):
    with pytest.raises(TrainingError, match=said) as caught:
        apart(drill.doomed)(VALUES, number)
    assert f"trial {number}" in str(caught.value)


def test_a_study_goes_on_after_trials_that_raise_or_are_killed(tmp_path):
    study = run_study(drill.config(3), apart(drill.doomed), str(tmp_path / "study.log"), drill.VERDICT)
    assert [t.state.name for t in study.trials] == ["FAIL", "FAIL", "COMPLETE"]
    assert ["no room" in study.trials[0].user_attrs["error"], "-9" in study.trials[1].user_attrs["error"]] == [True] * 2


@pytest.mark.parametrize("where", [apart, lambda objective: objective])
def test_a_full_disk_is_no_trials_error_and_the_study_goes_on_with_room(tmp_path, where):
    full = tmp_path / "full"
    full.touch()
    objective, storage = where(partial(drill.without_room, str(full))), str(tmp_path / "study.log")
    with pytest.raises(StorageError, match="weights: cannot write 12 bytes"):
        run_study(drill.config(4), objective, storage, drill.VERDICT)
    full.unlink()
    study = run_study(drill.config(4), objective, storage, drill.VERDICT)
    assert [t.state.name for t in study.trials] == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE", "COMPLETE"]
    assert not [t for t in study.trials if "error" in t.user_attrs]


def test_a_trial_does_not_outlive_its_worker(tmp_path):
    file = tmp_path / "pid"
    worker = multiprocessing.get_context("spawn").Process(target=drill.work_on_one_endless, args=(str(file),))
    worker.start()
    until = time.monotonic() + 120
    while not (file.exists() and file.read_text()) and time.monotonic() < until:
        time.sleep(0.05)
    trial = int(file.read_text())
    assert Path(f"/proc/{trial}").exists()
    worker.kill()
    worker.join()
    while Path(f"/proc/{trial}/exe").exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert not Path(f"/proc/{trial}/exe").exists()


def test_a_helper_ends_with_the_process_that_started_it(tmp_path):
    file, context = tmp_path / "helper", multiprocessing.get_context("spawn")
    leader = context.Process(target=drill.lead_an_endless_helper, args=(str(file),))
    leader.start()
    while not (file.is_file() and file.read_text()):
        assert leader.is_alive()
        time.sleep(0.05)
    helper = int(file.read_text())
    leader.kill()
    leader.join()
    deadline = time.monotonic() + 30
    while Path(f"/proc/{helper}").exists() and "Z" not in Path(f"/proc/{helper}/stat").read_text().split()[2]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
