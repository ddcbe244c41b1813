"""Runs rules over a pipeline, its source and its data, and gives a report."""

from __future__ import annotations

import logging
import os
import platform
import random
import sys
import time
import traceback
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ris_verified.audit.context import Context
from ris_verified.audit.parallel import elsewhere, possible
from ris_verified.audit.result import Report, Result, verdict
from ris_verified.audit.rule import Measurement, NotApplicable, Profile, Rule, tightness
from ris_verified.audit.rules import rules
from ris_verified.audit.state.fingerprint import as_found
from ris_verified.audit.waivers import apply_waivers, parse_waivers
from ris_verified.errors import AuditError, RisVerifiedError

if TYPE_CHECKING:
    from ris_verified.pipeline import Pipeline

AUDIT = Path(__file__).resolve().parent
PACKAGE = AUDIT.parent
PYTHON = Path(os.__file__).parent
LIBRARIES = {"site-packages", "dist-packages", "importlib"}
MEND = "mend what is raised there, or hand the stage what it was made for"


def choose(select: Sequence[str], profile: Profile, needs: Sequence[str] = ("pipeline", "source")) -> list[Rule]:
    """Return the rules to run, in order of their ids.

    Args:
        select: ids or beginnings of ids; none means all.
        profile: `full` runs the rules of `quick` too; an id selected in full always runs.
        needs: kinds of rules that can run here.

    Returns:
        The rules.

    Raises:
        AuditError: an entry matches no rule, or none can run.
    """
    known = rules()
    for text in select:
        if not any(name.startswith(text) for name in known):
            raise AuditError(
                f"{text!r} matches no rule", where="select", expected="an id or its beginning, such as RV08",
                remedy="see `ris-verified audit --list`",
            )  # fmt: skip
    chosen = []
    for name, item in known.items():
        wanted = not select or any(name.startswith(text) for text in select)
        in_profile = profile == "full" or item.profile == "quick" or name in select
        if wanted and in_profile and item.needs in needs:
            chosen.append(item)
    if not chosen:
        raise AuditError(
            f"none of {', '.join(select)} can run here", where="select", expected="rules of this profile and input",
            remedy="rules that measure need a pipeline, and some need --profile full: see `ris-verified audit --list`",
        )  # fmt: skip
    return chosen


@contextmanager
def undisturbed() -> Iterator[None]:
    """Put every random state, the gradient mode, the default dtype and the thread count back as they were.

    Within, torch runs on one thread: figures then repeat to the bit, and threads that wait in turns
    for a shared core cannot make a check of a second take ten.
    """
    if "torch" not in sys.modules:
        state, muted = random.getstate(), logging.root.manager.disable
        try:
            yield
        finally:
            logging.disable(muted)
            random.setstate(state)
        return
    import numpy as np
    import torch

    state, numpy_state, muted = random.getstate(), np.random.get_state(), logging.root.manager.disable
    gradient, dtype, threads = torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng():
            yield
    finally:
        logging.disable(muted)
        random.setstate(state)
        np.random.set_state(numpy_state)
        torch.set_grad_enabled(gradient)
        torch.set_default_dtype(dtype)
        torch.set_num_threads(threads)


def environment() -> dict[str, str]:
    """Return versions and machine as text by name."""
    found = {"python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}
    found["cores"] = str(os.cpu_count())
    for name in ("torch", "numpy", "scipy", "optuna"):
        if name in sys.modules:
            found[name] = str(sys.modules[name].__version__)
    if "torch" in sys.modules:
        found["threads"] = str(sys.modules["torch"].get_num_threads())
        found["accelerator"] = "cuda" if sys.modules["torch"].cuda.is_available() else "none"
    return found


def _measured(outcome: Measurement | Iterable[Measurement], first: bool) -> list[Measurement]:
    found: list[Measurement] = []
    for measurement in [outcome] if isinstance(outcome, Measurement) else outcome:
        found.append(measurement)
        if first and not measurement.passed:
            break
    return found


def run_rule(item: Rule, context: Context, *, first: bool = False) -> list[Result]:
    """Run one check; whatever it does, there is a result.

    Args:
        item: the rule.
        context: the evidence.
        first: whether the first measurement that fails is enough.

    Returns:
        One result, or one for each place where the rule fails.
    """
    began = time.perf_counter()
    try:
        with undisturbed(), warnings.catch_warnings():
            # Drills provoke what libraries warn and log of, such as a trial that fails.
            warnings.simplefilter("ignore")
            logging.disable(logging.CRITICAL)
            found_all = _measured(item.check(context), first)
    except NotApplicable as reason:
        return [_result(item, "skip", Measurement("", "", True, str(reason)), began)]
    except RisVerifiedError as error:
        # A stage that refuses its own data is a finding about the pipeline, not about the check.
        said = "; expected ".join(part for part in (error.what, error.expected) if part)
        kind = type(error).__name__
        found = Measurement(kind, "no error", False, said, where=error.where, remedy=error.remedy)
        return [_result(item, "fail", found, began)]
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - a check that crashes must not hide what the others find
        return [_result(item, "error", _crash(error), began)]
    if not found_all:
        return [_result(item, "error", Measurement("", "", False, "the check measured nothing"), began)]
    failed = [m for m in found_all if not m.passed]
    if failed:
        return [_result(item, "fail", m, began) for m in failed]
    return [_result(item, "pass", max(found_all, key=tightness), began)]


def _crash(error: BaseException) -> Measurement:
    """Return what was raised, and where in code that is neither the audit's nor a library's."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [
        f for f in frames if not Path(f.filename).is_relative_to(AUDIT) and not LIBRARIES & {*Path(f.filename).parts}
    ]
    # A stage of the user's names what was broken better than what it called in this package.
    users = [f for f in own if not any(Path(f.filename).is_relative_to(folder) for folder in (PACKAGE, PYTHON))]
    places = dict.fromkeys(f"{f.filename}:{f.lineno}, {f.name}" for f in (*users[-1:], *(own or frames)[-1:]))
    where = " → ".join(places)
    try:
        said = str(error)
    except Exception as mute:  # noqa: BLE001 - an error of somebody's own class may not be able to say what it is
        said = f"without a text, for making it raises {type(mute).__name__}"
    name = type(error).__name__
    # What a stage forgets to return is missed far from it.
    hint = "; a stage may return nothing" if "NoneType" in said else ""
    return Measurement(name, "", False, f"the check could not finish: {name}: {said}{hint}", where=where)


def _result(item: Rule, status: Literal["pass", "fail", "error", "skip"], m: Measurement, began: float) -> Result:
    return Result(
        item.id, item.title, status, item.severity, m.measured, m.bound, m.unit, m.message, m.where,
        {"fail": m.remedy or item.remedy, "error": MEND}.get(status, ""), time.perf_counter() - began, m.margin,
    )  # fmt: skip


def _results(chosen: list[Rule], context: Context, processes: int) -> tuple[Result, ...]:
    here = [item for item in chosen if not item.apart]
    there = [item for item in chosen if item.apart]
    if processes < 2 or not (here and there and possible()):
        return tuple(result for item in chosen for result in run_rule(item, context))
    with elsewhere(there, lambda item: run_rule(item, context)) as wait:
        found = [result for item in here for result in run_rule(item, context)]
        found += wait()
    order = {item.id: place for place, item in enumerate(chosen)}
    return tuple(sorted(found, key=lambda result: order[result.id]))


def _require_pipeline(given: object) -> None:
    # Source alone is audited without torch, which a pipeline brings along.
    if given is None:
        return
    from ris_verified.pipeline import Pipeline

    if not isinstance(given, Pipeline):
        raise AuditError(
            f"is a {type(given).__name__}",
            where="pipeline",
            expected="a Pipeline, or None for an audit of source alone",
            remedy="Pipeline.default(cfg) makes one of a configuration",
        )


def audit(
    pipeline: Pipeline | None,
    profile: Profile = "quick",
    select: Sequence[str] = (),
    ignore: Sequence[str] = (),
    source: Path | str | None = None,
    data: Path | str | None = None,
    processes: int = 1,
) -> Report:
    """Measure a pipeline, its source and its data against the checklist.

    Args:
        pipeline: what to audit; None audits `source` only, as syntax trees, never imported.
        profile: `quick` before every launch, `full` adds the drills that take minutes.
        select: ids or beginnings of ids to run; none means all.
        ignore: failures to accept, as `IDS`, `IDS=REASON` or `ID@PLACE=REASON`; the rules still run.
        source: folder of Python files; by default this package's own.
        data: folder of stored scenes; by default scenes are drawn.
        processes: with 2, a copy of this process runs half of the rules, where the system can make one.

    Returns:
        A `Report`; its verdict is NO-GO when a blocker fails, a check crashes or nothing ran. The process
        and all that hangs on the pipeline are left as they were, or the report says what is not.

    Raises:
        AuditError: no pipeline, an unknown rule id or profile, or a folder that does not exist.
    """
    _require_pipeline(pipeline)
    if profile not in ("quick", "full"):
        raise AuditError(f"{profile!r} is no profile", where="profile", expected="quick or full")
    for name, folder in (("source", source), ("data", data)):
        if folder is not None and not Path(folder).is_dir():
            what = "is a file" if Path(folder).exists() else "no such folder"
            raise AuditError(what, where=f"{name} {folder}", expected="an existing folder")
    began = time.perf_counter()
    waivers = parse_waivers(ignore)
    chosen = choose(select, profile, ("source",) if pipeline is None else ("pipeline", "source"))
    seed = 0 if pipeline is None else pipeline.config.seed
    context = Context(pipeline, profile, Path(source) if source else PACKAGE, Path(data) if data else None, seed)
    with as_found(pipeline) as found, undisturbed():
        results = _results(chosen, context, processes)
    results, warned = apply_waivers(results, waivers)
    results += found.results()
    digest = "" if pipeline is None else pipeline.config.digest()
    machine = environment() | {"state": found.summary}
    return Report(verdict(results), profile, digest, machine, time.perf_counter() - began, results, warned)
