"""What every command shares: configuration options, results and the audit gate."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ris_verified._config_load import PRESETS
from ris_verified.arguments import named_path
from ris_verified.errors import ConfigError, NoGoError

if TYPE_CHECKING:
    from ris_verified.audit.result import Report
    from ris_verified.config import Config
    from ris_verified.pipeline import Pipeline


# Failures that the one line of an error holds; all are in the report.
SHOWN = 3


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add `--config`, `--preset` and `--set`."""
    parser.add_argument("--config", type=named_path, metavar="FILE", help="TOML configuration")
    parser.add_argument("--preset", choices=PRESETS, help="a shipped configuration")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override one value")


def configuration(args: argparse.Namespace, weights: Path | None = None) -> Config:
    """Return the configuration that the options ask for.

    Args:
        args: with the options of `add_config`.
        weights: trained weights, whose own configuration is used where no other is asked for.

    Raises:
        ConfigError: both a file and a preset, or a wrong one.
        DataError: the weights cannot be read.
    """
    from ris_verified.config import Config

    if args.config and args.preset:
        raise ConfigError("--config and --preset given", expected="one of them", remedy="--set overrides either")
    if weights is not None and not (args.config or args.preset):
        from ris_verified.train.weights import stored_config

        return stored_config(weights, args.set)
    return Config.load(args.config or args.preset, args.set)


def say(text: str) -> None:
    """Write one line of results to standard output."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def gate(pipeline: Pipeline, out: Path, waiver: str | None, data: Path | None = None) -> Report:
    """Audit a pipeline before it is launched and keep the report.

    Args:
        pipeline: what is about to run.
        out: receives `audit.json`.
        waiver: reason to go on in spite of a NO-GO; kept in the log.
        data: stored scenes to audit as well.

    Returns:
        The report.

    Raises:
        NoGoError: NO-GO and no waiver.
        AuditError: the data folder does not exist.
    """
    from ris_verified.audit.runner import audit
    from ris_verified.files import atomic_write

    report = audit(pipeline, profile="quick", data=data, processes=2)
    atomic_write(out / "audit.json", report.to_json().encode())
    if report.verdict == "GO":
        return report
    failed = [r for r in report.results if r.status in ("fail", "error")]
    if waiver:
        logging.getLogger(__name__).warning("NO-GO ignored: %s", waiver)
        return report
    raise NoGoError(
        "NO-GO: " + "; ".join(f"{r.id} {r.title}: {r.message}" for r in failed[:SHOWN]),
        where=str(out / "audit.json"),
        expected="GO",
        remedy="; ".join(dict.fromkeys(r.remedy for r in failed[:SHOWN])) + "; or pass --ignore-audit REASON",
    )
