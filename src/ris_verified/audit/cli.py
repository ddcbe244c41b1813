"""The command `ris-verified audit`; needs no torch before a pipeline is audited."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from ris_verified._config_load import PRESETS
from ris_verified.arguments import named_path
from ris_verified.audit.formats import FORMATS, render
from ris_verified.audit.loading import load_pipeline
from ris_verified.audit.output import emit
from ris_verified.audit.rule import Rule
from ris_verified.audit.rules import rules
from ris_verified.errors import AuditError, ConfigError, LoadError, RisVerifiedError, StorageError

if TYPE_CHECKING:
    from ris_verified.config import Config
    from ris_verified.pipeline import Pipeline

GO, NO_GO, USAGE, INTERNAL = 0, 1, 2, 3
CATALOGUE = ("id", "title", "severity", "profile", "needs", "law", "why", "how", "remedy", "source")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `ris-verified audit` to a parser."""
    parser.add_argument(
        "--profile", choices=("quick", "full"), default="quick", help="quick before every launch; full adds long drills"
    )
    parser.add_argument(
        "--select", action="append", default=[], metavar="IDS", help="rules to run: ids or beginnings, comma-separated"
    )
    parser.add_argument(
        "--ignore",
        action="append",
        default=[],
        metavar="IDS[@PLACE][=REASON]",
        help="failures to accept, with a reason; a waiver that no failure needs any more is warned of",
    )
    parser.add_argument(
        "--pipeline", metavar="MODULE:ATTR", help="a Pipeline, or a function without arguments that returns one"
    )
    parser.add_argument(
        "--source",
        type=named_path,
        metavar="DIR",
        help="audit this source; alone: syntax trees only, nothing is imported",
    )
    parser.add_argument(
        "--data", type=named_path, metavar="DIR", help="audit these stored scenes instead of drawn ones"
    )
    configured = parser.add_mutually_exclusive_group()
    configured.add_argument("--config", type=named_path, metavar="FILE", help="configuration file or preset")
    configured.add_argument("--preset", dest="config", choices=PRESETS, help="a shipped configuration")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override one configuration value"
    )
    _add_what_is_shown(parser)


def _add_what_is_shown(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--format",
        choices=tuple(FORMATS),
        default="text",
        help="of the report or the kill table; of the list text, json",
    )
    parser.add_argument(
        "--output", type=named_path, metavar="FILE", help="write the report here instead of to standard output"
    )
    parser.add_argument(
        "--strict", action="store_true", help="end with 1 where a warning failed, too; the verdict stays what it is"
    )
    parser.add_argument("--list", action="store_true", help="list the rules and stop")
    parser.add_argument("--explain", nargs="+", metavar="ID", help="explain rules and stop")
    parser.add_argument("--prove", action="store_true", help="plant every fault and show which rule kills it")


def run(args: argparse.Namespace) -> int:
    """Run the command.

    Args:
        args: as parsed by a parser with `add_arguments`.

    Returns:
        0 GO, 1 NO-GO, a surviving fault or with `--strict` any failure, 2 wrong usage, 3 internal error or a pipeline's
        module that raises.
    """
    try:
        return _run(args)
    except LoadError as error:
        sys.stderr.write(f"error: {error}\n")
        return INTERNAL
    except (AuditError, ConfigError) as error:
        sys.stderr.write(f"usage error: {error}\n")
        return USAGE
    except RisVerifiedError as error:
        sys.stderr.write(f"error: {error}\n")
        return USAGE if not isinstance(error, StorageError) else INTERNAL


def _run(args: argparse.Namespace) -> int:
    if args.list:
        emit(_list(args.format, _ids(args.select)), args.output, args.format)
        return GO
    if args.explain is not None:
        emit("\n".join(explain(id.upper()) for id in _ids(args.explain)), args.output)
        return GO
    select = _ids(args.select)
    if args.prove:
        return _prove(args, select)
    from ris_verified.audit.runner import audit

    source_only = args.source is not None and args.pipeline is None and not (args.data or args.config or args.set)
    pipeline = None if source_only else _pipeline(args)
    report = audit(pipeline, args.profile, select, args.ignore, args.source, args.data, processes=2)
    emit(render(report, args.format), args.output, args.format)
    return NO_GO if report.verdict != "GO" or (args.strict and report.failures) else GO


def _prove(args: argparse.Namespace, select: list[str]) -> int:
    from ris_verified.audit.prove import Kill, kill_table, prove
    from ris_verified.audit.runner import audit, choose
    from ris_verified.audit.waivers import parse_waivers

    choose(select, "full")
    parse_waivers(args.ignore)
    pipeline, kills = _pipeline(args), list[Kill]()
    # First the short run, so that a wrong folder does not cost the minutes of the long one.
    plain = args.format == "text"
    report = None if plain else audit(pipeline, args.profile, select, args.ignore, args.source, args.data, processes=2)
    for kill in prove(pipeline, select):
        kills.append(kill)
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{len(kills)} faults planted, {sum(k.killed for k in kills)} killed")
            sys.stderr.flush()
    if sys.stderr.isatty():
        sys.stderr.write("\n")
    good = bool(kills) and all(kill.killed for kill in kills)
    if report is None:
        emit(kill_table(kills), args.output)
        return GO if good else NO_GO
    emit(render(dataclasses.replace(report, kills=tuple(kills)), args.format), args.output, args.format)
    return GO if good and report.verdict == "GO" else NO_GO


def _ids(given: list[str]) -> list[str]:
    found = [part.strip() for text in given for part in text.split(",") if part.strip()]
    if given and not found:
        raise AuditError("names no rule", where="--select, --explain", expected="ids or their beginnings, such as RV08")
    return found


def _pipeline(args: argparse.Namespace) -> Pipeline:
    if args.pipeline is None:
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


def _list(format: str, select: list[str]) -> str:
    from ris_verified.audit.runner import choose

    shown = choose(select, "full")
    if format == "json":
        return json.dumps([{name: vars(r)[name] for name in CATALOGUE} for r in shown], indent=2) + "\n"
    if format != "text":
        raise AuditError(f"cannot be written as {format}", where="--list", expected="--format text or json")
    rows = [f"{r.id}  {r.severity:8} {r.profile:6} {r.title}" for r in shown]
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
