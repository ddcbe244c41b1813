"""Sections 01 and 02: configuration names, bindings and odd sizes."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ris_verified._config_load import HISTORICAL
from ris_verified.audit.binding import unbound_names
from ris_verified.audit.config_names import ANY, CONFIG_NAME, Schema, nearest, read_schema, reads
from ris_verified.audit.context import Context
from ris_verified.audit.rule import Measurement, NotApplicable, equal, rule
from ris_verified.audit.syntax import SourceFile, Tree, called_name, functions, read_file
from ris_verified.errors import ConfigError

PACKAGE = Path(__file__).resolve().parents[2]


def schema_of(context: Context) -> tuple[Schema, bool]:
    """Return the tree's own configuration classes, or this package's where it has none."""
    own = read_schema(context.tree)
    if any(own.fields.values()):
        return own, True
    return read_schema(Tree(PACKAGE, (read_file(PACKAGE / "config.py", PACKAGE),))), False


def clean(context: Context, what: str) -> Measurement:
    """Return the passing measurement of a search that found nothing."""
    return Measurement(0.0, 0.0, True, f"{what} in {len(context.tree.parsed)} files")


def _finding(where: str, message: str) -> Measurement:
    return Measurement(1.0, 0.0, False, message, where=where)


def require_source(context: Context) -> None:
    """Raise NotApplicable where the folder holds no Python file."""
    if not context.tree.files:
        raise NotApplicable(f"no Python file in {context.source.name}")


@rule(
    "RV0101",
    "Every configuration name that is read exists",
    law="{names read} ⊆ {names defined}",
    why="`getattr(cfg, 'hybrid_beta', 0.3)` never fails: the knob silently has its default for ever.",
    how="Syntax trees: attributes, getattr, hasattr, get and subscripts of everything that is a configuration by "
    "annotation, assignment or name are compared with the fields of the configuration classes. Bound: none unknown.",
    remedy="use the nearest known name, or define the field in the one configuration module",
    needs="source",
)
def names_exist(context: Context) -> Sequence[Measurement]:
    """Bound 0 is exact: names are counted."""
    require_source(context)
    schema, own = schema_of(context)
    known = schema.names()
    found = []
    for read in reads(context.tree, schema):
        accepted = schema.knows(read.owner, read.name) or (not own and read.name in HISTORICAL)
        if not accepted:
            hint = nearest(read.name, known)
            message = f"reads the unknown configuration name {read.name!r}; the nearest known name is {hint}"
            found.append(_finding(f"{read.file.name}:{read.line}", message))
    return found or [clean(context, "every configuration name that is read exists")]


@rule(
    "RV0102",
    "Every configuration name that is defined is read",
    law="{names defined} ⊆ {names read}",
    why="A dead knob is tuned, logged and reported, and changes nothing.",
    how="Syntax trees: a field counts as read when any code reads it from a configuration, or reads an attribute of "
    "that name from a value that cannot be followed; validation in `__post_init__` does not count.",
    remedy="use the field or delete it",
    severity="warning",
    needs="source",
)
def names_used(context: Context) -> Sequence[Measurement]:
    """Bound 0 is exact: names are counted."""
    require_source(context)
    schema, own = schema_of(context)
    if not own:
        raise NotApplicable("the source defines no configuration class")
    followed = {(read.owner, read.name) for read in reads(context.tree, schema)}
    loose = {name for owner, name in followed if owner == ANY} | set(_attributes(context))
    found = []
    for owner, names in schema.fields.items():
        for name in names:
            if (owner, name) not in followed and name not in loose and not schema.classes[owner][name]:
                where = schema.where[owner, name]
                found.append(_finding(where, f"{owner}.{name} is defined and never read"))
    return found or [clean(context, "every configuration name is read")]


def _attributes(context: Context) -> Iterator[str]:
    for _, tree in context.tree.parsed:
        checks = {n for f in functions(tree) if f.name == "__post_init__" for n in ast.walk(f)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load) and node not in checks:
                yield node.attr


@rule(
    "RV0104",
    "Configuration values are in range and consistent",
    law="every section passes its own validation; N = N_H·N_V; heads divide the widths; K_MAX ≤ N; limits ordered",
    why="A frozen dataclass can still be bent after construction, and a foreign one may not validate at all.",
    how="Each section is built again from its own values, which runs its checks, and the relations are computed.",
    remedy="correct the value; build configurations through their constructors only",
)
def values_consistent(context: Context) -> Sequence[Measurement]:
    """Every comparison is between integers or a value and its own limit: no tolerance."""
    config = context.config
    found = []
    for item in dataclasses.fields(config):
        section = vars(config)[item.name]
        if dataclasses.is_dataclass(section) and not isinstance(section, type):
            try:
                dataclasses.replace(section)
            except ConfigError as error:
                found.append(Measurement("refused", "accepted", False, str(error), where=item.name))
    array, scene, model = config.array, config.scene, config.model
    N = len(context.pipeline.element_positions(array))
    found += [
        equal(N, array.horizontal * array.vertical, "N = N_H · N_V", where="array"),
        equal(model.width % model.heads, 0, "remainder of model.width by model.heads", where="model"),
        equal(scene.sources_max <= N, True, "K_MAX ≤ N", where="scene.sources_max"),
        equal(scene.range_min <= scene.range_max, True, "range limits are ordered", where="scene"),
    ]
    return found


@rule(
    "RV0105",
    "One default, one place",
    law="a quantity has at most one literal default in the source",
    why="With 1.0 in one module and 1e-3 in another, which C_EPS a run uses depends on its entry point.",
    how="Syntax trees: literal numbers given to fields, constants, parameters, getattr and get under a configuration's "
    "name are gathered by name. Bound: one value a name outside classes of which each may have its own.",
    remedy="keep the default in the configuration and read it there",
    needs="source",
)
def one_default(context: Context) -> Sequence[Measurement]:
    """Bound 1 is exact: distinct values are counted."""
    require_source(context)
    schema, _ = schema_of(context)
    known = {n.lower() for names in schema.fields.values() for n in names} | {n.lower() for n in HISTORICAL}
    places: dict[str, dict[float, str]] = {}
    for file, tree in context.tree.parsed:
        for name, value, line in _defaults(tree):
            if name.lower() in known:
                places.setdefault(name.lower(), {}).setdefault(value, file.at(line))
    found = []
    for name, values in places.items():
        owners = sum(name in {n.lower() for n in names} for names in schema.fields.values())
        if len(values) > max(1, owners):
            shown = ", ".join(f"{value:g} at {where}" for value, where in values.items())
            message = f"{name} has {len(values)} defaults: {shown}"
            found.append(Measurement(float(len(values)), 1.0, False, message, where=list(values.values())[-1]))
    return found or [clean(context, "every quantity has one default")]


def _number(node: ast.expr | None) -> float | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        return float(node.value)
    return None


def _defaults(tree: ast.Module) -> Iterator[tuple[str, float, int]]:
    for name, node in _named_values(tree):
        value = _number(node)
        if value is not None and node is not None:
            yield name, value, node.lineno


def _named_values(tree: ast.Module) -> Iterator[tuple[str, ast.expr | None]]:
    scopes: list[ast.Module | ast.ClassDef] = [tree]
    scopes += [n for n in ast.walk(tree) if isinstance(n, ast.ClassDef)]
    for scope in scopes:
        for item in scope.body:
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                yield item.target.id, item.value
            elif isinstance(item, ast.Assign):
                yield from ((t.id, item.value) for t in item.targets if isinstance(t, ast.Name))
    for function in functions(tree):
        names = [a.arg for a in function.args.args]
        yield from zip(reversed(names), reversed(function.args.defaults), strict=False)
        yield from zip((a.arg for a in function.args.kwonlyargs), function.args.kw_defaults, strict=True)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and called_name(node.func) in ("getattr", "get") and len(node.args) >= 2:
            owner = node.func.value if isinstance(node.func, ast.Attribute) else node.args[0]
            key, default = node.args[-2:]
            if CONFIG_NAME.search(called_name(owner)) and isinstance(key, ast.Constant) and isinstance(key.value, str):
                yield key.value, default


@rule(
    "RV0201",
    "No undefined or possibly unbound name",
    law="every name is bound on every path to its use",
    why="`B_final` bound in one branch only stops a run after hours, in the branch that no test took.",
    how="Symbol tables find names bound nowhere; definite assignment over each function finds locals that some path "
    "does not assign (a loop may run no time). Bound: none.",
    remedy="bind the name before the branch or loop",
    needs="source",
)
def names_bound(context: Context) -> Sequence[Measurement]:
    """Bound 0 is exact: names are counted."""
    require_source(context)
    found = [
        _finding(f"{file.name}:{line}", f"the name {name!r} {fault}")
        for file, tree in context.tree.parsed
        for line, name, fault in _unbound(file, tree)
    ]
    return found or [clean(context, "every name is bound on every path")]


def _unbound(file: SourceFile, tree: ast.Module) -> list[tuple[int, str, str]]:
    return unbound_names(tree, file.text, file.name)


@rule(
    "RV0202",
    "Every stage runs at odd sizes",
    law="shapes and traces hold for B ∈ {1, 3}, N_H ≠ N_V, L ≠ M, K = 1 and K = K_MAX",
    why="A size that is hard-coded, or two that happen to be equal, fails on the last partial batch only.",
    how="The pipeline's stages, from drawing to the loss, on a panel of 6 × 4 with 8 antennas and 6 snapshots.",
    remedy="take every size from the tensors or the configuration",
)
def odd_sizes(context: Context) -> Sequence[Measurement]:
    """Shapes are integers: no tolerance."""
    small, found = context.small, []
    config, K_MAX = small.config, small.config.scene.sources_max
    for B, K in ((1, 1), (3, K_MAX)):
        scene = dataclasses.replace(config.scene, sources_min=K, sources_max=K)
        fixed = dataclasses.replace(config, scene=scene)
        try:
            found += _small_forward(small, small.draw(B, fixed, key=2), f"B = {B}, K = {K}")
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            found.append(Measurement(type(error).__name__, "no error", False, str(error), where=f"B = {B}, K = {K}"))
    return found


def _small_forward(small: Context, scenes: list[Any], where: str) -> list[Measurement]:
    pipeline, config = small.pipeline, small.config
    batch = small.as_batch(scenes)
    outputs, blended = pipeline.forward(small.model, batch)
    result = pipeline.loss(outputs, blended.R_pred, batch, config, R_blend=blended.R, training=False)
    shape = [len(scenes), config.array.elements, config.array.elements]
    finite = abs(float(result.total.detach())) < float("inf")
    return [
        equal(list(blended.R.shape), shape, "shape of R_blend", where=where),
        equal(finite, True, "the loss is finite", where=where),
    ]
