"""From `MODULE:ATTR` to a pipeline."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import traceback
from typing import TYPE_CHECKING

from ris_verified.errors import AuditError, LoadError

if TYPE_CHECKING:
    from types import ModuleType

    from ris_verified.pipeline import Pipeline


def load_pipeline(text: str) -> Pipeline:
    """Import a module and return the pipeline that its attribute is or builds.

    Args:
        text: `MODULE:ATTR`, with the working folder on the path.

    Raises:
        AuditError: not of this form, no such module or attribute, or not a pipeline.
        LoadError: the module or the function raised, be it SystemExit.
    """
    from ris_verified.config import Config
    from ris_verified.pipeline import Pipeline

    module, _, name = text.partition(":")
    if not all(part.isidentifier() for part in [*module.split("."), name]):
        raise AuditError(f"{text!r}", where="--pipeline", expected="MODULE:ATTR, such as mine.run:pipeline")
    value = _attribute(_module(module, text), name, module)
    if not isinstance(value, Pipeline) and callable(value):
        value = _built(value, text)
    if not isinstance(value, Pipeline):
        raise AuditError(
            f"is a {type(value).__name__}",
            where=f"--pipeline {text}",
            expected="a Pipeline, or a function without arguments that returns one",
        )
    if not isinstance(value.config, Config):
        raise AuditError(
            f"has a {type(value.config).__name__} for its config", where=f"--pipeline {text}", expected="a Config"
        )
    return value


def _module(name: str, text: str) -> ModuleType:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise AuditError(
                f"cannot be imported: {error}", where=f"--pipeline {name}", expected="a module on the path"
            ) from error
        raise _raised(error, text) from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        # A script that ends in sys.exit(0) must not end the audit with the exit code of GO.
        raise _raised(error, text) from error


def _attribute(module: ModuleType, name: str, where: str) -> object:
    if name not in vars(module):
        raise AuditError(f"has no attribute {name!r}", where=f"--pipeline {where}", expected="a Pipeline or a function")
    return vars(module)[name]


def _built(function: object, text: str) -> object:
    try:
        inspect.signature(function).bind()  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise AuditError(
            f"cannot be called without arguments: {error}",
            where=f"--pipeline {text}",
            expected="a Pipeline, or a function without arguments that returns one",
        ) from error
    try:
        return function()  # type: ignore[operator]
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise _raised(error, text) from error


def _raised(error: BaseException, text: str) -> LoadError:
    """Return what was raised, with the last line of the user's own code that led to it."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [(f.filename, f.lineno) for f in frames if "importlib" not in f.filename and f.filename != __file__]
    if isinstance(error, SyntaxError) and error.filename:
        own.append((error.filename, error.lineno))
    place = f" in {own[-1][0]}, line {own[-1][1]}" if own else ""
    said = error.msg if isinstance(error, SyntaxError) else error
    return LoadError(
        f"raised {type(error).__name__}: {' '.join(str(said).split())}{place}",
        where=f"--pipeline {text}",
        expected="a module and a function that run",
        remedy="import the module yourself and mend what it raises",
    )
