"""Studies under fire: killed workers, a full disk, a damaged database, a server that restarts."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import pwd
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import optuna
import pytest

from ris_verified.errors import StorageError
from ris_verified.hpo import claims
from ris_verified.hpo.storage import default_storage, open_storage
from ris_verified.hpo.study import name_of, run_study

sys.path.insert(0, str(Path(__file__).parent))
import workers_for_tests as drill

State = optuna.trial.TrialState
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["ris_verified.hpo.study", "workers_for_tests"])
ENDED = (State.COMPLETE, State.PRUNED)


def _start(work, *given):
    process = CONTEXT.Process(target=work, args=given)
    process.start()
    return process


def _trials(where, trials):
    return optuna.load_study(study_name=name_of(drill.config(trials)), storage=open_storage(where)).trials


def _ended(trials):
    return {t.number: (t.state, t.values, tuple(sorted(t.params.items()))) for t in trials if t.state in ENDED}


def _whole(trials, wanted):
    assert all(t.state.is_finished() for t in trials)
    assert len(_ended(trials)) == wanted
    assert len({parameters for _, _, parameters in _ended(trials).values()}) == wanted


@pytest.mark.parametrize("kind", ["{}/study.log", "sqlite:///{}/study.db"])
def test_twenty_kills_at_random_moments_lose_no_finished_trial(tmp_path, kind):
    where, moments, kept = kind.format(tmp_path), random.Random(3), {}
    run_study(drill.config(1), drill.rate, where, drill.VERDICT)
    kills, longest = 0, 0.8
    # A busy machine may need more than twenty before a few trials end, and more time than a worker takes to start.
    while kills < 20 or (len(kept) <= 5 and kills < 100):
        kills += 1
        worker = _start(drill.work, where, 400)
        worker.join(moments.uniform(0.05, longest))
        worker.kill()
        worker.join()
        now = _ended(_trials(where, 400))
        assert kept.items() <= now.items()
        longest = min(1.2 * longest, 5.0) if len(now) == len(kept) else longest
        kept = now
    trials = len(kept) + 3
    study = run_study(drill.config(trials), drill.rate, where, drill.VERDICT)
    _whole(study.trials, trials)
    assert kept.items() <= _ended(study.trials).items()
    assert len(kept) > 5


def test_a_trial_without_a_name_is_replaced_and_its_worker_draws_again(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "NAMELESS", 0.0)
    where = str(tmp_path / "study.log")
    study = run_study(drill.config(1), drill.rate, where, drill.VERDICT)
    # As a worker leaves it that is killed between two writes.
    lost = study.ask()
    trials = run_study(drill.config(3), drill.rate, where, drill.VERDICT).trials
    assert [t.state for t in trials] == [State.COMPLETE, State.FAIL, State.COMPLETE, State.COMPLETE]
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        lost.set_user_attr("worker", "late")


def test_a_trial_that_has_no_name_yet_counts_for_who_draws_next(tmp_path):
    study = run_study(drill.config(2), drill.rate, str(tmp_path / "study.log"), drill.VERDICT)
    first, second = study.ask(), study.ask()
    # Both were drawn while one was missing: the first goes on, the second sees that it was not the first.
    assert claims.claimed(study, before=first.number) == 2
    assert claims.claimed(study, before=second.number) == 3


@pytest.mark.parametrize("kind", ["{}/study.log", "sqlite:///{}/study.db"])
def test_workers_share_a_study_without_loss_or_double(tmp_path, kind):
    where = kind.format(tmp_path)
    workers = [_start(drill.work, where, 25) for _ in range(3)]
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    trials = _trials(where, 25)
    _whole(trials, 25)
    assert len({t.user_attrs["worker"] for t in trials}) > 1


def test_trials_are_pruned_and_others_are_not(tmp_path):
    where = str(tmp_path / "study.log")
    study = run_study(drill.config(20), drill.slow, where, drill.VERDICT, judged=True)
    pruned = [t for t in study.trials if t.state == State.PRUNED]
    assert 0 < len(pruned) < 20
    best = min(drill.rate(t.params, t.number) for t in study.trials)
    assert study.best_value == best


@pytest.mark.parametrize(("epochs", "first"), [(1, 1), (6, 2), (8, 2), (12, 3)])
def test_no_trial_is_judged_before_a_quarter_of_its_epochs(tmp_path, epochs, first):
    def by_number(values, number, report):
        for epoch in range(1, epochs + 1):
            report(epoch, float(number))
        return float(number)

    cfg = drill.config(8).replaced({"hpo.epochs_per_trial": epochs})
    trials = run_study(cfg, by_number, str(tmp_path / "study.log"), drill.VERDICT, judged=True).trials
    assert min(len(t.intermediate_values) for t in trials if t.state == State.PRUNED) == first


@pytest.mark.parametrize("kind", ["{}/study.log", "sqlite:///{}/study.db"])
def test_a_full_disk_is_told_and_costs_nothing_finished(tmp_path, kind):
    where = kind.format(tmp_path)
    before = _ended(run_study(drill.config(3), drill.rate, where, drill.VERDICT).trials)
    file = Path(where.removeprefix("sqlite:///"))
    # SQLite writes into the log beside its file first.
    beside = file.with_name(f"{file.name}-wal")
    worker = _start(drill.work_without_space, where, 400, str(beside if beside.exists() else file), 5_000)
    worker.join(120)
    assert worker.exitcode == 7
    study = run_study(drill.config(8), drill.rate, where, drill.VERDICT)
    assert before.items() <= _ended(study.trials).items()
    assert all(t.state.is_finished() for t in study.trials)
    assert len(_ended(study.trials)) >= 8
    # A full disk is not a trial's error.
    assert not [t for t in study.trials if "error" in t.user_attrs]


def test_a_damaged_database_is_told_and_left_alone(tmp_path):
    where = f"sqlite:///{tmp_path}/study.db"
    run_study(drill.config(30), drill.rate, where, drill.VERDICT)
    file = tmp_path / "study.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray(file.read_bytes())
    middle = len(content) // 2 // 4096 * 4096
    content[middle : middle + 4096] = random.Random(1).randbytes(4096)
    file.write_bytes(content)
    with pytest.raises(StorageError, match="left as it is"):
        run_study(drill.config(31), drill.rate, where, drill.VERDICT)
    assert file.read_bytes() == content


def test_what_a_repair_cuts_is_kept_beside(tmp_path):
    file = tmp_path / "study.log"
    run_study(drill.config(2), drill.rate, str(file), drill.VERDICT)
    whole = file.read_bytes()
    file.write_bytes(whole + b'{"op_code": 5, "wor')
    run_study(drill.config(3), drill.rate, str(file), drill.VERDICT)
    assert (tmp_path / f"study.log.torn-{len(whole)}").read_bytes() == b'{"op_code": 5, "wor'


def test_without_locks_the_study_is_kept_in_sqlite(tmp_path, monkeypatch):
    assert default_storage(tmp_path) == str(tmp_path / "journal.log")

    def refuse(file, how):
        if str(tmp_path) in file.name:
            raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    storage = default_storage(tmp_path)
    assert storage == f"sqlite:///{tmp_path / 'study.db'}"
    # Its workers still see each other, on one machine.
    study = run_study(drill.config(2), drill.rate, storage, drill.VERDICT)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 2
    assert {file.name.split("-")[0] for file in tmp_path.iterdir()} == {"study.db"}


class Server:
    """A PostgreSQL server of its own, in a folder of its own, run as a user that is not root."""

    def __init__(self, folder: Path, programs: Path) -> None:
        names = {entry.pw_name for entry in pwd.getpwall()}
        self.user = next(name for name in ("postgres", "nobody") if name in names) if os.geteuid() == 0 else None
        self.folder, self.programs = folder, programs
        if self.user:
            shutil.chown(folder, self.user)
        with closing(socket.socket()) as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._run("initdb", "-D", f"{folder}/data", "-U", "ris", "-A", "trust")
        self.url = f"postgresql+psycopg://ris@127.0.0.1:{self.port}/postgres"

    def _run(self, program: str, *given: str) -> None:
        done = subprocess.run(
            [self.programs / program, *given], user=self.user, cwd=self.folder, capture_output=True, check=False
        )
        assert done.returncode == 0, (done.stdout, done.stderr)

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -k {self.folder} -c fsync=off"
        self._run("pg_ctl", "-D", f"{self.folder}/data", "-o", options, "-l", f"{self.folder}/log", "-w", "start")

    def stop(self, mode: str = "immediate") -> None:
        self._run("pg_ctl", "-D", f"{self.folder}/data", "-m", mode, "-w", "stop")


def _programs() -> Path | None:
    found = [Path(p) for p in [shutil.which("initdb")] if p]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)
    return found[0].resolve().parent if found else None


@pytest.fixture(scope="module")
def server():
    programs = _programs()
    if programs is None:
        pytest.skip("no PostgreSQL here: apt-get install postgresql")
    with tempfile.TemporaryDirectory(prefix="ris-pg-") as folder:
        os.chmod(folder, 0o755)
        running = Server(Path(folder), programs)
        running.start()
        yield running
        running.stop()


def test_two_workers_killed_on_a_server_are_replaced(server, tmp_path):
    marks = [tmp_path / "first", tmp_path / "second"]
    dead = [_start(drill.hold, server.url, 12, str(mark)) for mark in marks]
    while not all(mark.exists() for mark in marks):
        assert all(worker.is_alive() for worker in dead)
        time.sleep(0.05)
    kept = _ended(_trials(server.url, 12))
    for worker in dead:
        worker.kill()
        worker.join()
        assert worker.exitcode == -signal.SIGKILL
    last = _start(drill.work, server.url, 12)
    last.join(120)
    assert last.exitcode == 0
    trials = _trials(server.url, 12)
    assert kept.items() <= _ended(trials).items()
    assert len(kept) == 4
    _whole(trials, 12)
    # What the dead had drawn was tried again.
    lost = [t for t in trials if t.state == State.FAIL]
    assert len(lost) == 2
    assert all(t.params in [other.params for other in trials if other.state in ENDED] for t in lost)


def test_a_server_that_restarts_under_load_is_waited_for(server):
    workers = [_start(drill.work, server.url, 60) for _ in range(2)]
    for mode in ("fast", "immediate"):
        time.sleep(1.5)
        server.stop(mode)
        time.sleep(0.5)
        server.start()
    for worker in workers:
        worker.join(180)
    assert [worker.exitcode for worker in workers] == [0, 0]
    trials = _trials(server.url, 60)
    assert not [t for t in trials if t.state == State.RUNNING and "worker" in t.user_attrs]
    assert len(_ended(trials)) == 60
