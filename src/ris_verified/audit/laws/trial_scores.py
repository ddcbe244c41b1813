"""RV1604 and RV0906: which of its scores a trial returns and reports, and what a study draws and calls its best."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ris_verified._config_load import read
from ris_verified.audit.drills import VERDICT, tiny_folder, tiny_trials
from ris_verified.audit.laws.fed import scenes_of
from ris_verified.audit.laws.trial_laws import sample
from ris_verified.audit.rule import Measurement, close, equal

if TYPE_CHECKING:
    from torch import nn

    from ris_verified.audit.context import Context
    from ris_verified.data.batch import Batch
    from ris_verified.pipeline import Pipeline

# The best epoch is neither the first nor the last, and the worst is not the last.
SCORES = (0.3, 0.1, 0.2)
STRANGER = 0.05


@dataclass
class Seen:
    """What a trial did with the weights of three epochs.

    Args:
        judged: whether it asked its training to be told of every epoch.
        epochs: of the weights that it scored, in order; 0 for weights that no epoch gave.
        scenes: digests of those that each score was given.
        reports: epoch and score of each.
        configs: digests of the configurations that training and scores were given.
        folders: that it trained in.
    """

    judged: bool = False
    epochs: list[int] = field(default_factory=list)
    scenes: list[list[str]] = field(default_factory=list)
    reports: list[tuple[int, float]] = field(default_factory=list)
    configs: set[str] = field(default_factory=set)
    folders: list[Path] = field(default_factory=list)


def _weights(model: nn.Module) -> str:
    # By content: a stage may score a copy, or what it has read back from the file.
    state = sorted(model.state_dict().items())
    return hashlib.sha256(b"".join(v.detach().cpu().numpy().tobytes() for _, v in state)).hexdigest()


def _scenes(batches: Iterable[Batch]) -> list[str]:
    return [scene for batch in batches for scene in scenes_of(batch)]


def _marked(model: nn.Module, epoch: int) -> nn.Module:
    import torch

    made = copy.deepcopy(model)
    with torch.no_grad():
        next(made.parameters()).add_(0.01 * epoch)
    return made


def _drilled(context: Context, seen: Seen, scores: Sequence[float] = SCORES) -> Pipeline:
    """Return stages whose training gives known epochs and whose score knows them."""
    from ris_verified.train.result import TrainResult
    from ris_verified.train.weights import save_model

    models = [_marked(context.small.model, epoch + 1) for epoch in range(len(scores))]
    known = {_weights(model): epoch + 1 for epoch, model in enumerate(models)}
    best = scores.index(min(scores))

    def train(stages: Pipeline, data: Path, out: Path, *_: Any, judge: Any = None, **__: Any) -> Any:
        seen.judged = judge is not None
        seen.configs.add(stages.config.digest())
        seen.folders.append(out)
        out.mkdir(parents=True, exist_ok=True)
        save_model(models[best], stages.config, out / "weights.safetensors")
        for epoch, model in enumerate(models):
            if judge and judge(model, epoch + 1):
                break
        return TrainResult(models[best].eval(), out / "weights.safetensors", [], best + 1, 0, 1.0)

    def score(stages: Pipeline, model: nn.Module, batches: Iterable[Batch]) -> float:
        seen.configs.add(stages.config.digest())
        seen.epochs.append(known.get(_weights(model), 0))
        seen.scenes.append(_scenes(batches))
        return scores[seen.epochs[-1] - 1] if seen.epochs[-1] else STRANGER

    return dataclasses.replace(tiny_trials(context), train=train, score=score)


def _validation(pipeline: Pipeline, data: Path) -> list[str]:
    import torch

    from ris_verified.data.dataset import SceneDataset

    dataset = SceneDataset(data, "validation")
    return _scenes([pipeline.unpack(dataset.batch(torch.arange(len(dataset))), "cpu")])


def objective_keeps(context: Context) -> list[Measurement]:
    """Train three epochs that score 0.3, 0.1 and 0.2: the trial's score is 0.1, that of validation scenes."""
    seen = Seen()
    pipeline = _drilled(context, seen)
    with tiny_folder(context) as folder:
        value: Any = pipeline.objective(
            pipeline, folder / "data", folder / "out", {}, 0, lambda epoch, score: seen.reports.append((epoch, score))
        )
        wanted = _validation(pipeline, folder / "data")
        beside = Seen()
        neighbour = _drilled(context, beside)
        neighbour.objective(neighbour, folder / "data", folder / "out", {}, 1)
    # With `hpo.timed` the seconds follow.
    value = float(value[0] if isinstance(value, tuple) else value)
    other = sum(scenes != wanted for scenes in seen.scenes)
    shared = set(seen.folders) & set(beside.folders)
    # A trial that never asks for the epochs can know the returned weights only.
    epochs = list(range(1, len(SCORES) + 1)) if seen.judged else [SCORES.index(min(SCORES)) + 1]
    found = [
        close(value, min(SCORES), 0.0, "score of a trial whose epochs score 0.3, 0.1, 0.2", where="objective"),
        equal(seen.epochs, epochs, "epochs of the weights that a trial scored (0: of none)", where="objective"),
        equal(other, 0, "scores of a trial that are not of the validation scenes", where="objective"),
        equal(len(seen.configs), 1, "configurations that a trial trains and scores with", where="objective"),
        equal(len(shared), 0, "folders that two trials train in", "folders", "objective"),
    ]
    if seen.judged:
        reports = list(enumerate(SCORES, 1))
        found.append(equal(seen.reports, reports, "epochs and scores that a trial reports", where="objective"))
    return found


def scored_epochs(context: Context, scores: Sequence[float], changed: Mapping[str, Any]) -> list[int] | None:
    """Return the epochs that a trial scored whose epochs have given scores; None where it never asks for them.

    Args:
        context: the evidence.
        scores: of each epoch.
        changed: values of the study's configuration by dotted name.
    """
    seen = Seen()
    pipeline = _drilled(context, seen, scores)
    pipeline = dataclasses.replace(pipeline, config=pipeline.config.replaced(changed))
    with tiny_folder(context) as folder:
        pipeline.objective(pipeline, folder / "data", folder / "out", {}, 0)
    return seen.epochs if seen.judged else None


def study_prefers(context: Context) -> list[Measurement]:
    """Run one study twice: the lowest score is its best, no two trials are equal, one seed gives one study."""
    spaces = context.pipeline.spaces
    found: list[Measurement] = []
    for name, space in spaces.items():
        first, second = (_studied(context, name) for _ in range(2))
        directions = {direction.name for direction in first.directions}
        best = min(trial.values[0] for trial in first.best_trials)
        found += [
            equal(sorted(directions), ["MINIMIZE"], f"directions of a study ({name})", where="run_study"),
            close(best, min(SCORES), 0.0, f"score of the best trial of 0.3, 0.1, 0.2 ({name})", where="run_study"),
        ]
        drawn_from = [t.distributions == dict(space) for t in first.trials]
        text = f"trials whose parameters have the distributions of the space ({name})"
        found.append(equal(sum(drawn_from), len(SCORES), text, where="run_study"))
        drawn, again = ([trial.params for trial in study.trials] for study in (first, second))
        # Choices alone may repeat by chance.
        if _continuous(space):
            twice = sum(values in drawn[:i] for i, values in enumerate(drawn))
            found.append(equal(twice, 0, f"trials that repeat another's values ({name})", where="run_study"))
        same = drawn == again
        found.append(equal(same, True, f"two studies of one seed draw the same ({name})", where="run_study"))
    return found


def best_is_found(context: Context) -> list[Measurement]:
    """Ask for the best of a finished and a pruned trial, and of two objectives."""
    return [*_pruned_is_not_best(context), *_lost_is_not_best(context)]


def _pruned_is_not_best(context: Context) -> list[Measurement]:
    """Give a study a finished trial and a pruned one whose first epoch looked better."""
    import optuna

    name, space = next(iter(context.pipeline.spaces.items()))
    low, high = (sample(space, end) for end in ("low", "high"))
    study = optuna.create_study(directions=["minimize"])
    held: dict[str, Any] = dict(space)
    study.add_trial(optuna.trial.create_trial(params=low, distributions=held, value=0.3))
    pruned = optuna.trial.TrialState.PRUNED
    study.add_trial(
        optuna.trial.create_trial(params=high, distributions=held, state=pruned, intermediate_values={1: 0.1})
    )
    hpo: Any = {"hpo.space": name, "hpo.timed": False}
    best = context.pipeline.best_config(study, context.config.replaced(hpo))
    wrong = sorted(n for n, value in low.items() if read(best, n) != value)
    text = "values that are not the finished trial's, beside a pruned one with a better first epoch"
    return [equal(wrong, [], text, where="best_config")]


def _lost_is_not_best(context: Context) -> list[Measurement]:
    """Give a study of two objectives a trial that finds its sources and one, hardly faster, that is a hundred m off."""
    import optuna

    name, space = next(iter(context.pipeline.spaces.items()))
    low, high = (sample(space, end) for end in ("low", "high"))
    study, held = optuna.create_study(directions=["minimize"] * 2), dict(space)
    for params, values in ((high, (100.0, 0.99)), (low, (0.1, 1.0))):
        study.add_trial(optuna.trial.create_trial(params=params, distributions=held, values=values))
    hpo: dict[str, Any] = {"hpo.space": name, "hpo.timed": True}
    try:
        best = context.pipeline.best_config(study, context.config.replaced(hpo))
    except RuntimeError:
        if context.config.hpo.timed:
            raise
        # Optuna's `best_params` and `best_trial` know one objective, and more are not configured.
        return []
    wrong = sorted(n for n, value in low.items() if read(best, n) != value)
    text = "values that are not those of the trial of 0.1 m, beside one of 100 m in 99 % of its time"
    return [equal(wrong, [], text, where="best_config: hpo.timed")]


def _continuous(space: Mapping[str, Any]) -> bool:
    held = (vars(distribution) for distribution in space.values())
    return any(isinstance(v.get("low"), float) and v.get("step") is None and v["low"] < v["high"] for v in held)


def _studied(context: Context, space: str) -> Any:
    config = context.config
    hpo: dict[str, Any] = {"trials": len(SCORES), "space": space}
    config = dataclasses.replace(config, hpo=dataclasses.replace(config.hpo, **hpo))

    def scored(values: dict[str, Any], number: int) -> Any:
        score = SCORES[number % len(SCORES)]
        return (score, 1.0) if config.hpo.timed else score

    with tempfile.TemporaryDirectory() as folder:
        journal = str(Path(folder) / "journal.log")
        study = context.pipeline.run_study(config, scored, journal, VERDICT, context.pipeline.spaces)
        # Read while its journal is there.
        return _Kept(list(study.directions), study.get_trials(), study.best_trials)


@dataclass(frozen=True)
class _Kept:
    directions: list[Any]
    trials: list[Any]
    best_trials: list[Any]
