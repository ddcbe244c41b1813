"""`generate`, `train`, `evaluate` and `report`: one stage each."""

from __future__ import annotations

import argparse

from ris_verified.arguments import named_path, reason
from ris_verified.cli.common import add_config, configuration, gate, say
from ris_verified.cli.sweep import add_sweep, run_sweep, wants_sweep
from ris_verified.cli.terminal import log_to_terminal, progress
from ris_verified.cli.training import tell_signal
from ris_verified.files import require_folder
from ris_verified.signals import stop_requests

# What an evaluation needs of a data folder.
ONLY_TEST = {"data.train_scenes": 1, "data.validation_scenes": 1}


def _part(text: str) -> tuple[int, int]:
    number, slash, count = text.partition("/")
    if not (slash and number.isdigit() and count.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form 3/16")
    return int(number), int(count)


def add_generate(parser: argparse.ArgumentParser) -> None:
    """Add the options of `generate`."""
    add_config(parser)
    parser.add_argument("--out", type=named_path, required=True, metavar="DIR", help="data folder")
    parser.add_argument(
        "--part", type=_part, default=(1, 1), metavar="I/N", help="draw only this part, for machine I of N"
    )


def run_generate(args: argparse.Namespace) -> int:
    """Write shards and manifest."""
    from ris_verified.data.generate import generate

    with progress("scenes") as bar:
        manifest = generate(configuration(args), args.out, part=args.part, progress=bar)
    if manifest is None:
        say(f"part {args.part[0]}/{args.part[1]} is complete; other parts are missing, so there is no manifest yet")
    else:
        scenes = sum(shard.scenes for shard in manifest.shards)
        say(f"{scenes} scenes in {len(manifest.shards)} shards, {sum(s.bytes for s in manifest.shards) / 1e6:.0f} MB")
    return 0


def add_train(parser: argparse.ArgumentParser) -> None:
    """Add the options of `train`."""
    parser.epilog = "On several processes: torchrun --nproc-per-node N --no-python ris-verified train ..."
    add_config(parser)
    parser.add_argument("--data", type=named_path, required=True, metavar="DIR", help="written by generate")
    parser.add_argument(
        "--out", type=named_path, required=True, metavar="DIR", help="receives weights, log and summary.html"
    )
    parser.add_argument("--tensorboard", action="store_true", help="also write TensorBoard events into DIR/tensorboard")
    parser.add_argument("--fresh", action="store_true", help="start over; else an interrupted run in DIR goes on")
    parser.add_argument("--ignore-audit", type=reason, metavar="REASON", help="go on in spite of a NO-GO")


def run_train(args: argparse.Namespace) -> int:
    """Audit, then train; a signal ends the training after its step, with a checkpoint."""
    from ris_verified.pipeline import Pipeline
    from ris_verified.train.board import writer_class
    from ris_verified.train.ranks import rank_of_environment
    from ris_verified.train.ready import require_ready

    if args.tensorboard:
        # Before an audit that takes its time.
        writer_class()
    pipeline = Pipeline.default(configuration(args))
    options = {"tensorboard": args.tensorboard, "fresh": args.fresh}
    if rank_of_environment():
        # The first process audits, prints and writes for all that `torchrun` started.
        with stop_requests() as stop:
            pipeline.train(pipeline, args.data, args.out, stop=stop, **options)
        return 0
    log_to_terminal()
    require_ready(pipeline, args.data, args.out, fresh=args.fresh)
    require_folder(args.out)
    gate(pipeline, args.out, args.ignore_audit, args.data)
    with stop_requests(tell_signal) as stop, progress("steps") as bar:
        result = pipeline.train(pipeline, args.data, args.out, progress=bar, stop=stop, **options)
    say(f"{result.weights}: epoch {result.best_epoch}, {result.scenes_per_second:.0f} scenes/s")
    say(f"read {args.out / 'summary.html'}")
    return 0


def add_evaluate(parser: argparse.ArgumentParser) -> None:
    """Add the options of `evaluate`."""
    add_config(parser)
    parser.add_argument(
        "--data", type=named_path, metavar="DIR", help="its test split is used; drawn into OUT/data where absent"
    )
    parser.add_argument("--weights", "--model", type=named_path, metavar="FILE", help="written by train, or `small`")
    parser.add_argument(
        "--out", type=named_path, required=True, metavar="DIR", help="receives JSON, Markdown and pictures"
    )
    add_sweep(parser)


def run_evaluate(args: argparse.Namespace) -> int:
    """Evaluate weights on the test split, or sweep."""
    if wants_sweep(args):
        return run_sweep(args)
    from ris_verified.data.generate import generate
    from ris_verified.evaluate.run import evaluate
    from ris_verified.evaluate.table import learning_notes
    from ris_verified.pipeline import Pipeline
    from ris_verified.train.weights import load_model

    pipeline = Pipeline.default(configuration(args, args.weights))
    model, data = load_model(args.weights, pipeline), args.data or args.out / "data"
    require_folder(args.out)
    if args.data is None:
        with progress("scenes") as bar:
            generate(pipeline.config.replaced(ONLY_TEST), data, progress=bar)
    with progress("scenes") as bar:
        result = evaluate(pipeline, model, data, args.out, progress=bar)
    for note in learning_notes(result.figures):
        say(note)
    return 0


def add_report(parser: argparse.ArgumentParser) -> None:
    """Add the options of `report`."""
    parser.add_argument("folder", type=named_path, metavar="DIR", help="folder of a launch")


def run_report(args: argparse.Namespace) -> int:
    """Write the page of a run again."""
    from ris_verified.evaluate.report import write_report

    say(str(write_report(args.folder)))
    return 0
