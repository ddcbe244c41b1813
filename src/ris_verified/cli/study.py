"""`hpo`: run a study, or write the report of one."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ris_verified.arguments import named_path, reason, whole_number
from ris_verified.cli.common import add_config, configuration, gate, say
from ris_verified.cli.terminal import Update, log_to_terminal, progress
from ris_verified.files import require_folder

if TYPE_CHECKING:
    import optuna

    from ris_verified.config import Config
    from ris_verified.pipeline import Pipeline


def add_hpo(parser: argparse.ArgumentParser) -> None:
    """Add the options of `hpo`; underscores and hyphens are alike."""
    add_config(parser)
    parser.add_argument(
        "action", nargs="?", choices=("run", "report"), default="run", help="run trials (the default), or only report"
    )
    parser.add_argument("--n-trials", "--n_trials", type=int, metavar="N", help="trials in all")
    parser.add_argument("--epochs-per-trial", "--epochs_per_trial", type=int, metavar="N")
    parser.add_argument("--space", choices=("wide", "narrow"))
    parser.add_argument(
        "--workers", type=whole_number, metavar="N", help="processes on this machine, one where not given"
    )
    parser.add_argument(
        "--data", type=named_path, metavar="DIR", help="existing data; drawn into OUT/data where absent"
    )
    parser.add_argument("--out", type=named_path, default=Path("runs/hpo"), metavar="DIR")
    parser.add_argument("--storage", metavar="WHERE", help="journal file, sqlite:///FILE or a database URL")
    parser.add_argument(
        "--ignore-audit", "--ignore_audit", type=reason, metavar="REASON", help="go on in spite of a NO-GO"
    )


def run_hpo(args: argparse.Namespace) -> int:
    """Audit, run the study, report."""
    log_to_terminal()
    return _report(_run(args) if args.action == "run" else _stored(args), args.out)


def _stored(args: argparse.Namespace) -> optuna.Study:
    from ris_verified.hpo.report import stored_study
    from ris_verified.hpo.storage import existing_storage, open_storage

    where = existing_storage(args.storage, args.out)
    return stored_study(open_storage(where), where)


def _run(args: argparse.Namespace) -> optuna.Study:
    from ris_verified.data.generate import generate
    from ris_verified.hpo.storage import default_storage, require_storage
    from ris_verified.pipeline import Pipeline
    from ris_verified.train.ready import training_data

    asked = {"hpo.trials": args.n_trials, "hpo.epochs_per_trial": args.epochs_per_trial, "hpo.space": args.space}
    cfg = configuration(args).replaced({name: value for name, value in asked.items() if value is not None})
    pipeline = Pipeline.default(cfg)
    # Before an audit that takes its time.
    require_folder(args.out)
    storage = args.storage or default_storage(args.out)
    require_storage(storage)
    if args.data is not None:
        training_data(pipeline, args.data)
    report = gate(pipeline, args.out, args.ignore_audit, args.data)
    data = args.data or args.out / "data"
    if args.data is None:
        with progress("scenes") as bar:
            # No trial sees more than its share, nor a test scene.
            generate(pipeline.trial_config(cfg, {}).replaced({"data.test_scenes": 1}), data, progress=bar)
    verdict = {"verdict": report.verdict, "waiver": args.ignore_audit or ""}
    with progress("trials") as bar:
        return _work(pipeline, data, args.out, storage, verdict, args.workers or 1, bar)


def _work(
    pipeline: Pipeline, data: Path, out: Path, storage: str, verdict: dict[str, str], workers: int, bar: Update
) -> optuna.Study:
    import torch

    from ris_verified.hpo.apart import apart
    from ris_verified.hpo.fleet import helpers, trial, work

    cfg, threads = pipeline.config, max(1, torch.get_num_threads() // workers)
    torch.set_num_threads(threads)
    objective = apart(partial(trial, cfg, data, out))
    with helpers(workers - 1, work, cfg, data, out, storage, verdict, threads):
        return pipeline.run_study(cfg, objective, storage, verdict, pipeline.spaces, True, _shown(cfg, bar))


def _shown(cfg: Config, bar: Update) -> Callable[[optuna.Study], None]:
    def seen(study: optuna.Study) -> None:
        from ris_verified.hpo.claims import claimed

        states = [trial.state.name for trial in study.trials]
        scored = [(t.values[0], t.number) for t in study.trials if t.state.name == "COMPLETE"]
        best = f"best {min(scored)[0]:.4f} m, trial {min(scored)[1]}; " if scored else ""
        note = f"{best}{states.count('PRUNED')} pruned, {states.count('FAIL')} failed"
        bar(claimed(study), cfg.hpo.trials, note)

    return seen


def _report(study: optuna.Study, out: Path) -> int:
    from ris_verified.hpo.report import write_report
    from ris_verified.hpo.study import best_trial

    page, best = write_report(study, out), best_trial(study)
    states = [trial.state.name for trial in study.trials]
    say(
        f"{states.count('COMPLETE')} of {len(states)} trials have a score, {states.count('PRUNED')} were pruned; "
        f"the best {best.values[0]:.4f} m:"
    )
    for name, value in best.params.items():
        say(f"  {name} = {value}")
    say(f"read {page}; train with --config {shlex.quote(str(out / 'best.toml'))}")
    return 0
