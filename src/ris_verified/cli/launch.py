"""`ris-verified launch`: generate, audit, train, evaluate, report."""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ris_verified.arguments import named_path, reason
from ris_verified.cli.common import add_config, configuration, gate, say
from ris_verified.cli.terminal import log_to_terminal, progress
from ris_verified.cli.training import tell_signal
from ris_verified.files import require_folder
from ris_verified.signals import stop_requests

logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `launch`."""
    add_config(parser)
    parser.add_argument("--out", type=named_path, required=True, metavar="DIR", help="receives everything")
    parser.add_argument("--fresh", action="store_true", help="train anew; else an interrupted run in DIR goes on")
    parser.add_argument("--ignore-audit", type=reason, metavar="REASON", help="go on in spite of a NO-GO")


@contextmanager
def _stage(name: str) -> Iterator[None]:
    began = time.perf_counter()
    logger.info("%s …", name)
    yield
    logger.info("%s: %.0f s", name, time.perf_counter() - began)


def run(args: argparse.Namespace) -> int:
    """Run the whole line; a NO-GO of the audit stops it before training."""
    from ris_verified.data.generate import generate
    from ris_verified.evaluate.report import write_report
    from ris_verified.evaluate.run import evaluate
    from ris_verified.pipeline import Pipeline
    from ris_verified.train.ready import require_ready

    cfg, out = configuration(args), args.out
    log_to_terminal()
    pipeline, began = Pipeline.default(cfg), time.perf_counter()
    require_folder(out)
    with _stage("generate"), progress("scenes") as bar:
        generate(cfg, out / "data", progress=bar)
    require_ready(pipeline, out / "data", out / "train", fresh=args.fresh)
    with _stage("audit"):
        report = gate(pipeline, out, args.ignore_audit, out / "data")
        logger.info("audit verdict: %s", report.verdict)
    with _stage("train"), stop_requests(tell_signal) as stop, progress("steps") as bar:
        result = pipeline.train(pipeline, out / "data", out / "train", progress=bar, fresh=args.fresh, stop=stop)
        logger.info("%.0f scenes/s, weights of epoch %d", result.scenes_per_second, result.best_epoch)
    with _stage("evaluate"), progress("scenes") as bar:
        evaluation = evaluate(pipeline, result.model, out / "data", out, progress=bar)
    page = write_report(out)
    held = evaluation.figures["subspace_capture"]
    say(f"audit {report.verdict}; subspace capture of R_blend {held['R_blend']:.3f} (R_samp {held['R_samp']:.3f})")
    say(f"whole line {time.perf_counter() - began:.0f} s; read {out / 'evaluation.md'} or open {page}")
    return 0
