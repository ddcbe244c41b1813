"""The command `ris-verified audit`; needs no torch before a pipeline is audited."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from ris_verified.audit.rule import Rule
from ris_verified.audit.rules import rules
from ris_verified.errors import AuditError, ConfigError, RisVerifiedError, StorageError

if TYPE_CHECKING:
    from ris_verified.config import Config
    from ris_verified.pipeline import Pipeline

FORMATS = ("text", "json")
PLANNED = ("junit", "sarif", "markdown", "html")
GO, NO_GO, USAGE, INTERNAL = 0, 1, 2, 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `ris-verified audit` to a parser."""
    parser.add_argument(
        "--profile", choices=("quick", "full"), default="quick", help="quick before every launch; full adds long drills"
    )
    parser.add_argument(
        "--select", action="append", default=[], metavar="IDS", help="rules to run: ids or beginnings, comma-separated"
    )
    parser.add_argument(
        "--ignore", action="append", default=[], metavar="IDS", help="rules to leave out, in the same form"
    )
    parser.add_argument(
        "--pipeline", metavar="MODULE:ATTR", help="a Pipeline, or a function without arguments that returns one"
    )
    parser.add_argument(
        "--source", type=Path, metavar="DIR", help="audit this source; alone: syntax trees only, nothing is imported"
    )
    parser.add_argument("--data", type=Path, metavar="DIR", help="audit these stored scenes instead of drawn ones")
    parser.add_argument("--config", metavar="FILE", help="configuration file or preset")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override one configuration value"
    )
    parser.add_argument("--format", default="text", help=f"{' or '.join(FORMATS)}")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="write the report here instead of to standard output"
    )
    parser.add_argument("--list", action="store_true", help="list the rules and stop")
    parser.add_argument("--explain", metavar="ID", help="explain one rule and stop")
    parser.add_argument("--prove", action="store_true", help="plant every fault and show which rule kills it")


def run(args: argparse.Namespace) -> int:
    """Run the command.

    Args:
        args: as parsed by a parser with `add_arguments`.

    Returns:
        0 GO, 1 NO-GO or a surviving fault, 2 wrong usage, 3 internal error.
    """
    try:
        return _run(args)
    except (AuditError, ConfigError) as error:
        sys.stderr.write(f"usage error: {error}\n")
        return USAGE
    except RisVerifiedError as error:
        sys.stderr.write(f"error: {error}\n")
        return USAGE if not isinstance(error, StorageError) else INTERNAL


def _run(args: argparse.Namespace) -> int:
    if args.format not in FORMATS:
        known = f"{', '.join(FORMATS)} (not yet: {', '.join(PLANNED)})"
        raise AuditError(f"{args.format!r} is no format", where="--format", expected=known)
    if args.list:
        return _emit(_listing(), args.output, GO)
    if args.explain:
        return _emit(explain(args.explain.strip().upper()), args.output, GO)
    select, ignore = _ids(args.select), _ids(args.ignore)
    if args.prove:
        return _prove(args, select)
    from ris_verified.audit.runner import audit

    source_only = args.source is not None and not (args.pipeline or args.data or args.config or args.set)
    pipeline = None if source_only else _pipeline(args)
    report = audit(pipeline, args.profile, select, ignore, args.source, args.data)
    text = report.to_json() if args.format == "json" else report.to_text()
    return _emit(text, args.output, GO if report.verdict == "GO" else NO_GO)


def _prove(args: argparse.Namespace, select: list[str]) -> int:
    from ris_verified.audit.prove import kill_table, prove
    from ris_verified.audit.runner import choose

    choose(select, [], "full")
    kills = []
    for kill in prove(_pipeline(args), select):
        kills.append(kill)
        sys.stderr.write(f"\r{len(kills)} faults planted, {sum(k.killed for k in kills)} killed")
        sys.stderr.flush()
    sys.stderr.write("\n")
    survived = not kills or any(not kill.killed for kill in kills)
    return _emit(kill_table(kills), args.output, NO_GO if survived else GO)


def _ids(given: list[str]) -> list[str]:
    return [part.strip() for text in given for part in text.split(",") if part.strip()]


def _pipeline(args: argparse.Namespace) -> Pipeline:
    if not args.pipeline:
        from ris_verified.config import Config
        from ris_verified.pipeline import Pipeline

        if args.data and not (args.config or args.set):
            return Pipeline.default(_config_of(args.data))
        return Pipeline.default(Config.load(args.config, args.set))
    if args.config or args.set:
        raise AuditError(
            "given beside --pipeline",
            where="--config, --set",
            expected="one of them",
            remedy="the pipeline has its own",
        )
    return load_pipeline(args.pipeline)


def _config_of(data: Path) -> Config:
    from ris_verified.config import Config
    from ris_verified.data.manifest import Manifest

    return Config.loads(Manifest.load(data).config, str(data))


def load_pipeline(text: str) -> Pipeline:
    """Import `MODULE:ATTR`, with the current folder on the path.

    Raises:
        AuditError: no such module or attribute, or not a pipeline.
    """
    module, sign, name = text.partition(":")
    if not (module and sign and name):
        raise AuditError(f"{text!r}", where="--pipeline", expected="MODULE:ATTR, such as mine:pipeline")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        loaded = importlib.import_module(module)
    except ImportError as error:
        raise AuditError(
            f"cannot be imported: {error}", where=f"--pipeline {module}", expected="a module on the path"
        ) from error
    if name not in vars(loaded):
        raise AuditError(
            f"has no attribute {name!r}", where=f"--pipeline {module}", expected="a Pipeline or a function"
        )
    return _as_pipeline(vars(loaded)[name], text)


def _as_pipeline(value: object, text: str) -> Pipeline:
    from ris_verified.pipeline import Pipeline

    made = value if isinstance(value, Pipeline) or not callable(value) else value()
    if not isinstance(made, Pipeline):
        raise AuditError(
            f"is a {type(made).__name__}",
            where=f"--pipeline {text}",
            expected="a Pipeline, or a function that returns one",
        )
    return made


def _listing() -> str:
    rows = [f"{r.id}  {r.severity:8} {r.profile:6} {r.title}" for r in rules().values()]
    return "\n".join([*rows, "", f"{len(rows)} rules"]) + "\n"


def explain(id: str) -> str:
    """Return everything that a rule says of itself.

    Raises:
        AuditError: no such rule.
    """
    if id not in rules():
        raise AuditError(
            f"{id!r} is no rule", where="--explain", expected="an id", remedy="see `ris-verified audit --list`"
        )
    item: Rule = rules()[id]
    derivation = (item.check.__doc__ or "").strip()
    parts = {
        "Law": item.law,
        "Why": item.why,
        "How": item.how,
        "Bound": derivation,
        "Remedy": item.remedy,
        "Source": item.source,
    }
    lines = [f"{item.id} {item.title} ({item.severity}, {item.profile})", ""]
    for head, text in parts.items():
        lines += textwrap.wrap(f"{head}: {text}", 100, subsequent_indent=" " * (len(head) + 2))
    return "\n".join(lines) + "\n"


def _emit(text: str, output: Path | None, code: int) -> int:
    if output is None:
        sys.stdout.write(text)
        return code
    from ris_verified.files import atomic_write

    atomic_write(output, text.encode())
    sys.stderr.write(f"{output} written\n")
    return code
