"""`pytest --ris-audit MODULE:ATTR`: every rule of the audit as a test of its own; imports nothing until it is asked."""

from __future__ import annotations

import pytest

# Under its own name: the rules on configuration names would take `Config` for this package's.
PytestConfig = pytest.Config


class AuditWarning(pytest.PytestWarning):
    """A rule of severity warning or info failed; the run goes on."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("ris-audit", "launch audit of ris_verified")
    group.addoption(
        "--ris-audit", metavar="MODULE:ATTR", help="audit this Pipeline, or `default` for the library's own"
    )
    group.addoption(
        "--ris-audit-profile", choices=("quick", "full"), default="quick", help="as of `ris-verified audit`"
    )
    group.addoption(
        "--ris-audit-source", metavar="DIR", help="audit this source; alone: syntax trees only, nothing is imported"
    )
    for name, form, text in (
        ("select", "IDS", "rules to run: ids or beginnings, comma-separated"),
        ("ignore", "IDS[@PLACE][=REASON]", "failures to accept, as of `ris-verified audit --ignore`"),
    ):
        group.addoption(f"--ris-audit-{name}", action="append", default=[], metavar=form, help=text)


def pytest_configure(config: PytestConfig) -> None:
    """Register the audit where one is asked for."""
    if config.option.ris_audit or config.option.ris_audit_source:
        from ris_verified.audit.pytest_items import Audit

        config.pluginmanager.register(Audit(config), "ris-audit-run")
