"""Reading configurations: TOML, presets, dotted overrides, historical names, hash."""

from __future__ import annotations

import copy
import dataclasses
import difflib
import hashlib
import importlib.resources
import json
import tomllib
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ris_verified.errors import ConfigError

if TYPE_CHECKING:
    from ris_verified.config import Config

PRESETS = ("quick", "small", "reference")
HISTORICAL = {
    "HYBRID_COV_BETA": "covariance.beta",
    "C_EPS": "covariance.loading",
    "NF_MLE_TIKHONOV_LAMBDA": "covariance.ridge",
    "NEWTON_NEARFIELD": "estimate.newton_nearfield",
    "CLIP_NORM": "train.clip_norm",
}


def names(cls: type[Any]) -> list[str]:
    """Return every dotted field name of a configuration class."""
    found: list[str] = []
    for item, kind in typing.get_type_hints(cls).items():
        nested = names(kind) if isinstance(kind, type) and dataclasses.is_dataclass(kind) else []
        found += [f"{item}.{inner}" for inner in nested] or [item]
    return found


def _unknown(cls: type[Any], key: str, source: str) -> ConfigError:
    known = names(cls)
    sections = sorted({name.split(".")[0] for name in known})
    new = HISTORICAL.get(key.split(".")[-1].upper())
    leaf = [name for name in known if name.split(".")[-1] == key.split(".")[-1]]
    slips = difflib.get_close_matches(key.split(".")[-1].upper(), HISTORICAL, 1, 0.6)
    near = leaf or [HISTORICAL[slip] for slip in slips] or difflib.get_close_matches(key, known + sections, 1, 0.5)
    hint = f"the nearest known name, {near[0]}" if near else f"one of the sections {', '.join(sections)}"
    hint = f"its present name, {new}" if new else hint
    return ConfigError(f"unknown key {key!r}", where=source, expected=hint)


def _build(cls: type[Any], values: dict[str, Any], source: str, root: type[Any], at: str) -> Any:
    hints = typing.get_type_hints(cls)
    for key in values:
        if key not in hints:
            raise _unknown(root, f"{at}{key}", source)
    arguments: dict[str, Any] = {}
    for key, value in values.items():
        kind = hints[key]
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            if not isinstance(value, dict):
                raise ConfigError(f"{value!r} given", where=f"{source}: {at}{key}", expected="a table")
            arguments[key] = _build(kind, value, source, root, f"{at}{key}.")
        else:
            arguments[key] = float(value) if kind is float and type(value) is int else value
    return cls(**arguments)


def _read(path: str | Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        if str(path) in PRESETS:
            text = importlib.resources.files("ris_verified").joinpath(f"presets/{path}.toml").read_text()
        else:
            text = Path(path).read_text(encoding="utf-8")
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"not valid TOML: {error}", where=str(path)) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"cannot be read: {error}",
            where=str(path),
            expected=f"a TOML file or a preset ({', '.join(PRESETS)})",
        ) from error


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _override(tree: dict[str, Any], text: str) -> None:
    key, sign, value = text.partition("=")
    if not sign or not key.strip():
        raise ConfigError(f"{text!r} is no override", where="overrides", expected="KEY=VALUE")
    *sections, leaf = key.strip().split(".")
    if "" in (*sections, leaf):
        raise ConfigError(f"key {key!r}", where="overrides", expected="section.name=value, no part of it empty")
    for section in sections:
        tree = tree.setdefault(section, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"{section!r} is a value", where=f"override {text!r}", expected="a table")
    tree[leaf] = _value(value.strip())


def load(cls: type[Config], path: str | Path | None, overrides: Sequence[str]) -> Config:
    """See `Config.load`."""
    return _with_overrides(cls, _read(path), str(path), overrides)


def loads(cls: type[Config], text: str, source: str, overrides: Sequence[str] = ()) -> Config:
    """See `Config.loads`."""
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"not valid TOML: {error}", where=source) from error
    return _with_overrides(cls, tree, source, overrides)


def _with_overrides(cls: type[Config], tree: dict[str, Any], source: str, overrides: Sequence[str]) -> Config:
    bare = copy.deepcopy(tree)
    try:
        for text in overrides:
            _override(tree, text)
        config: Config = _build(cls, tree, "overrides" if overrides else source, cls, "")
    except ConfigError:
        # What is wrong without overrides is the file's fault.
        _build(cls, bare, source, cls, "")
        raise
    return config


def replaced(config: Config, values: Mapping[str, Any]) -> Config:
    """See `Config.replaced`."""
    cls = type(config)
    known = set(names(cls))
    sections: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        if name not in known:
            raise _unknown(cls, name, "replaced")
        section, _, leaf = name.rpartition(".")
        sections.setdefault(section, {})[leaf] = value
    top = sections.pop("", {})
    # A section changes as a whole, so that values which only fit each other are accepted.
    inner = {section: dataclasses.replace(vars(config)[section], **given) for section, given in sections.items()}
    return dataclasses.replace(config, **top, **inner)


def read(config: Any, name: str) -> Any:
    """Return the value of a dotted field."""
    for part in name.split("."):
        config = vars(config)[part]
    return config


def plain(owner: Any) -> dict[str, Any]:
    """Return a configuration or one of its sections as it is written: equal ones alike, 0 for a real number as 0.0."""
    hints, found = typing.get_type_hints(type(owner)), dict[str, Any]()
    for name, value in vars(owner).items():
        if dataclasses.is_dataclass(value):
            found[name] = plain(value)
        else:
            # Adding zero takes the sign from −0.0.
            found[name] = value + 0.0 if hints[name] is float else value
    return found


def digest(config: Config) -> str:
    """See `Config.digest`."""
    text = json.dumps(plain(config), sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def to_toml(config: Config) -> str:
    """See `Config.to_toml`."""
    lines: list[str] = []
    tables: list[str] = []
    for key, value in plain(config).items():
        if isinstance(value, dict):
            tables += ["", f"[{key}]", *(f"{name} = {json.dumps(v)}" for name, v in value.items())]
        else:
            lines.append(f"{key} = {json.dumps(value)}")
    return "\n".join(lines + tables) + "\n"
