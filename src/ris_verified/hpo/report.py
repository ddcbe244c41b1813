"""What a study found: the best configuration, every trial as CSV, a page with history, importance and coordinates."""

from __future__ import annotations

import csv
import io
import shlex
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.trial import FrozenTrial, TrialState

from ris_verified.config import Config
from ris_verified.errors import StorageError
from ris_verified.files import atomic_write
from ris_verified.hpo.study import best_config, best_trial
from ris_verified.page import embedded, templates

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Below, an importance is a division by nothing.
LEAST = 4
TOP = 10


def stored_study(storage: optuna.storages.BaseStorage, where: str) -> optuna.Study:
    """Return the only study of a storage, or of several the one with the newest trial.

    Args:
        storage: opened.
        where: its name, for errors.

    Raises:
        StorageError: it holds no study of ours.
    """
    names = [s.study_name for s in optuna.get_all_study_summaries(storage) if "config" in s.user_attrs]
    studies = [optuna.load_study(study_name=name, storage=storage) for name in names]
    if not studies:
        raise StorageError("holds no study", where=where, expected="a storage that `ris-verified hpo` has written")
    return max(studies, key=lambda study: max((str(t.datetime_start) for t in study.trials), default=""))


def write_report(study: optuna.Study, out: Path) -> Path:
    """Write `best.toml`, `trials.csv`, three pictures and `report.html`, which needs none of the others.

    Args:
        study: with at least one complete trial; without one only the table is written.
        out: the folder.

    Returns:
        The page.

    Raises:
        StorageError: no trial is complete, or a file cannot be written.
    """
    atomic_write(out / "trials.csv", _csv(study.trials).encode())
    whole = study.get_trials(states=(TrialState.COMPLETE,))
    if not whole:
        raise StorageError(
            f"none of {len(study.trials)} trials is complete",
            where=study.study_name,
            expected="one with a score",
            remedy="trials.csv and each trial's attribute `error` say why; go on with `ris-verified hpo`",
        )
    cfg = Config.loads(study.user_attrs["config"], study.study_name)
    atomic_write(out / "best.toml", best_config(study, cfg).to_toml().encode())
    pictures = _pictures(study, len(whole))
    for name, png in pictures.items():
        atomic_write(out / f"{name}.png", png)
    atomic_write(out / "report.html", _page(study, whole, pictures, out).encode())
    return out / "report.html"


def seconds(trial: FrozenTrial) -> float:
    """Return how long a trial took, 0 where that is not known."""
    return trial.duration.total_seconds() if trial.duration else 0.0


def _csv(trials: list[FrozenTrial]) -> str:
    fields = sorted({name for trial in trials for name in trial.params})
    file = io.StringIO()
    rows = csv.writer(file, lineterminator="\n")
    rows.writerow(["number", "state", "score_m", "seconds_a_scene", "epochs", "seconds", "error", *fields])
    for trial in trials:
        values = trial.values if trial.state == TrialState.COMPLETE else []
        score, scene = [*values, None, None][:2]
        head = [trial.number, trial.state.name, score, scene, len(trial.intermediate_values), f"{seconds(trial):.1f}"]
        rows.writerow([*head, trial.user_attrs.get("error", ""), *(trial.params.get(name) for name in fields)])
    return file.getvalue()


def _pictures(study: optuna.Study, whole: int) -> dict[str, bytes]:
    from optuna.visualization import matplotlib as draw

    shown: dict[str, Any] = {"target_name": "score, m"}
    if len(study.directions) > 1:
        # Of one objective the best so far is drawn along.
        shown["target"] = lambda trial: trial.values[0]
    drawn = {"history": _png(lambda: draw.plot_optimization_history(study, **shown), 8)}
    if whole >= LEAST:
        evaluator = PedAnovaImportanceEvaluator()
        drawn["importance"] = _png(lambda: draw.plot_param_importances(study, evaluator=evaluator, **shown), 8)
    drawn["parallel"] = _png(lambda: draw.plot_parallel_coordinate(study, **shown), 16)
    return drawn


def _png(draw: Callable[[], Axes], width: float) -> bytes:
    from matplotlib import pyplot as plt

    with warnings.catch_warnings(), plt.rc_context({"figure.dpi": 120}):
        # The drawings are experimental in Optuna, and one of them lays itself out.
        warnings.simplefilter("ignore")
        figure, content = draw().get_figure(root=True), io.BytesIO()
        if figure is None:
            raise StorageError("a picture without a figure", where="optuna.visualization", expected="a figure")
        figure.set_size_inches(width, 5)
        figure.savefig(content, format="png", bbox_inches="tight")
        plt.close(figure)
    return content.getvalue()


def _page(study: optuna.Study, whole: list[FrozenTrial], pictures: dict[str, bytes], out: Path) -> str:
    import jinja2

    trials = study.trials
    environment = jinja2.Environment(loader=templates("ris_verified.hpo"), autoescape=True, trim_blocks=True)
    counts: dict[str, Any] = {state.name.lower(): sum(t.state == state for t in trials) for state in TrialState}
    return environment.get_template("report.html.j2").render(
        study=study,
        best=best_trial(study),
        top=sorted(whole, key=lambda trial: trial.values)[:TOP],
        counts={name: count for name, count in counts.items() if count},
        failed=[t for t in trials if "error" in t.user_attrs],
        seconds=sum(map(seconds, trials)),
        audit=study.user_attrs["audit"],
        digest=study.user_attrs["config_hash"],
        pictures={name: embedded(png) for name, png in pictures.items()},
        command=f"ris-verified train --config {shlex.quote(str(out / 'best.toml'))} --data DIR --out DIR",
    )
