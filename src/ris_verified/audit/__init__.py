"""Measures a pipeline, its source and its data against the launch checklist, and proves its own checks."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ris_verified.audit.result import Report


class _Callable(ModuleType):
    # `rv.audit(pipeline)` is public, and importing this folder binds the same name to the module.
    def __call__(self, *args: Any, **kwargs: Any) -> Report:
        from ris_verified.audit.runner import audit

        return audit(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable
