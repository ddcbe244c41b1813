"""The rules as pytest items under one node, `ris-audit::RV0501`."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ris_verified.audit.loading import load_pipeline
from ris_verified.audit.pytest_plugin import AuditWarning, PytestConfig
from ris_verified.audit.result import Result, show
from ris_verified.audit.rule import Rule
from ris_verified.audit.waivers import Waiver, apply_waivers, parse_waivers
from ris_verified.errors import RisVerifiedError

if TYPE_CHECKING:
    from ris_verified.audit.context import Context
    from ris_verified.pipeline import Pipeline

NODE = "ris-audit"


class Audit:
    """One audit within a pytest run; a plugin that is registered only where the audit is asked for.

    Args:
        config: of pytest, with the options of `pytest_plugin`; arguments such as `ris-audit::RV0501` are
            taken out of it, and alone they keep pytest from collecting anything else.
    """

    def __init__(self, config: PytestConfig) -> None:
        self.option = config.option
        wanted = [arg.split("::")[1:] for arg in config.args if arg.split("::")[0] == NODE]
        config.args = [arg for arg in config.args if arg.split("::")[0] != NODE]
        # Workers of pytest-xdist get the options of the first process, and arguments without ours.
        only = vars(config.option).setdefault("ris_audit_only", [name for names in wanted for name in names[:1]])
        self.only: list[str] = only

    @cached_property
    def pipeline(self) -> Pipeline | None:
        """The audited pipeline, None for an audit of source only."""
        from ris_verified.audit.runner import undisturbed

        if not self.option.ris_audit:
            return None
        with undisturbed():
            if self.option.ris_audit != "default":
                return load_pipeline(self.option.ris_audit)
            from ris_verified.pipeline import Pipeline

            return Pipeline.default()

    @cached_property
    def context(self) -> Context:
        """The evidence, shared by all items of this process."""
        from ris_verified.audit.context import Context
        from ris_verified.audit.runner import PACKAGE

        source = self.option.ris_audit_source
        return Context(self.pipeline, self.option.ris_audit_profile, Path(source) if source else PACKAGE)

    @cached_property
    def waivers(self) -> list[Waiver]:
        """The accepted failures."""
        return parse_waivers(self.option.ris_audit_ignore)

    @cached_property
    def rules(self) -> list[Rule]:
        """The chosen rules."""
        from ris_verified.audit.runner import choose

        o = self.option
        needs = ("pipeline", "source") if o.ris_audit else ("source",)
        chosen = choose(_ids(o.ris_audit_select), o.ris_audit_profile, needs)
        return [item for item in chosen if not self.only or item.id in self.only]

    def pytest_report_header(self) -> str:
        """Say what is audited."""
        what = self.option.ris_audit or f"source {self.option.ris_audit_source}"
        return f"{NODE}: {what}, profile {self.option.ris_audit_profile}"

    def pytest_sessionstart(self) -> None:
        """Load the pipeline and choose the rules before anything is collected.

        Raises:
            UsageError: wrong pipeline, folder or id.
        """
        source = self.option.ris_audit_source
        if source and not Path(source).is_dir():
            raise pytest.UsageError(f"--ris-audit-source: no such folder: {source}")
        try:
            found = self.pipeline, self.rules, self.waivers
        except RisVerifiedError as error:
            raise pytest.UsageError(str(error).replace("--pipeline", "--ris-audit")) from error
        except Exception as error:  # a foreign module may raise anything when it is imported
            text = f"--ris-audit {self.option.ris_audit}: cannot be loaded: {type(error).__name__}: {error}"
            raise pytest.UsageError(text) from error
        if not found[1]:
            raise pytest.UsageError(f"--ris-audit: no rule is left to run; given {', '.join(self.only) or 'options'}")

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(
        self, collector: pytest.Collector
    ) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        """Put the audit's node beside the folders that were asked for."""
        report = yield
        if isinstance(collector, pytest.Session) and report.passed:
            node = AuditNode.from_parent(collector, name=NODE, nodeid=NODE, audit=self)
            report.result = [*(report.result or ()), node]
        return report


class AuditNode(pytest.Collector):
    """The parent of all items; around them everything is left as it was found.

    Args:
        audit: what is run.
        given: of `pytest.Collector`.
    """

    def __init__(self, *, audit: Audit, **given: Any) -> None:
        super().__init__(**given)
        self.audit = audit
        self._around = ExitStack()

    def collect(self) -> Iterator[pytest.Item]:
        """Return an item for each rule."""
        for item in self.audit.rules:
            name, nodeid = f"{item.id} {item.title}", f"{NODE}::{item.id}"
            yield AuditItem.from_parent(self, name=name, nodeid=nodeid, rule=item, audit=self.audit)

    def setup(self) -> None:
        """Remember the state of process and pipeline."""
        from ris_verified.audit.state.fingerprint import as_found

        self._found = self._around.enter_context(as_found(self.audit.pipeline))

    def teardown(self) -> None:
        """Put back what was disturbed, and fail where that cannot be done."""
        self._around.close()
        for result in self._found.results():
            pytest.fail(_text(None, [result]), pytrace=False)


class AuditItem(pytest.Item):
    """One rule.

    Args:
        rule: what is checked.
        audit: gives the evidence.
        given: of `pytest.Item`.
    """

    def __init__(self, *, rule: Rule, audit: Audit, **given: Any) -> None:
        super().__init__(**given)
        self.rule, self.audit = rule, audit
        self.extra_keyword_matches.add(rule.severity)
        self.user_properties.append(("title", rule.title))

    def reportinfo(self) -> tuple[Path, int, str]:
        """Return file and line of the check, and id and title."""
        code = self.rule.check.__code__
        return Path(code.co_filename), code.co_firstlineno - 1, f"{self.rule.id} {self.rule.title}"

    def runtest(self) -> None:
        """Run the check and turn its results into pytest's outcomes."""
        from ris_verified.audit.runner import run_rule

        results, _ = apply_waivers(run_rule(self.rule, self.audit.context), self.audit.waivers)
        worst = results[0]
        self.user_properties += [(n, show(vars(worst)[n])) for n in ("measured", "bound", "where")]
        if worst.status == "skip":
            pytest.skip(worst.message)
        if worst.status == "pass":
            return
        text = _text(self.rule, results)
        if worst.status == "error" or self.rule.severity == "blocker" or self._stops_at_warning(text):
            pytest.fail(text, pytrace=False)

    def _stops_at_warning(self, text: str) -> bool:
        try:
            self.warn(AuditWarning(text))
        except AuditWarning:
            # Under `-W error` a warning is what its user wants to stop at.
            return True
        return False


def _text(rule: Rule | None, results: Sequence[Result]) -> str:
    first = results[0]
    head = "the check crashed: " if first.status == "error" and rule else ""
    lines = [f"{first.id} {first.title}: {head}{first.message} [{_figures(first)}]"]
    lines += [f"  law       {rule.law}"] if rule else []
    for result in results:
        lines += [f"  where     {result.where}"] if result.where else []
        said = f"   ({result.message})" if result.message != first.message else ""
        lines += [f"  measured  {_unit(result.measured, result)}{said}"]
        lines += [f"  bound     {_unit(result.bound, result)}"] if result.bound != "" else []
    return "\n".join([*lines, f"  remedy    {first.remedy}"])


def _figures(result: Result) -> str:
    return f"{show(result.measured)}, bound {show(result.bound)}" if result.bound != "" else show(result.measured)


def _unit(value: float | str, result: Result) -> str:
    return f"{show(value)} {result.unit}".rstrip()


def _ids(given: list[str]) -> list[str]:
    return [part.strip() for text in given for part in text.split(",") if part.strip()]
