"""Sections 01 and 02 on source: configuration names, defaults and bindings."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from ris_verified._config_load import HISTORICAL
from ris_verified.audit.context import Context
from ris_verified.audit.rule import Measurement, NotApplicable, rule
from ris_verified.audit.static.binding import never_return, unbound_names
from ris_verified.audit.static.config_judge import findings
from ris_verified.audit.static.config_names import read_uses
from ris_verified.audit.static.config_read import read_schema
from ris_verified.audit.static.config_schema import ANY, Schema
from ris_verified.audit.static.config_uses import Modules, Uses
from ris_verified.audit.static.defaults import conflicts
from ris_verified.audit.static.scopes import literal_all
from ris_verified.audit.static.syntax import SourceFile, Tree, read_file, uncollected

PACKAGE = Path(__file__).resolve().parents[2]
CONFIGURATION = ("_config_sections.py", "config.py")


def schema_of(tree: Tree) -> tuple[Schema, bool]:
    """Return the tree's configuration and whether it has one; this package's counts where it is imported or alone."""
    return tree.once("schema", _schema_of)


def uses_of(tree: Tree) -> Uses:
    """Return what the tree does with its configuration."""
    return tree.once("uses", lambda tree: read_uses(tree, schema_of(tree)[0]))


def _schema_of(tree: Tree) -> tuple[Schema, bool]:
    own = read_schema(tree)
    kinds = {s.kind for s in own.sections.values() if s.fields} - {"module"}
    with_package = not kinds or _imports_package(tree)
    if with_package:
        package = read_schema(Tree(PACKAGE, tuple(read_file(PACKAGE / name, PACKAGE) for name in CONFIGURATION)))
        for section in package.sections.values():
            section.foreign = True
    if not kinds - {"arguments"}:
        if not with_package:
            return own, True
        package.sections |= {name: s for name, s in own.sections.items() if s.kind == "arguments"}
        package.lent = not _imports_package(tree)
        return package, False
    if with_package:
        own.sections = package.sections | own.sections
    return own, True


def _imports_package(tree: Tree) -> bool:
    imported = [node for file, _ in tree.parsed for node in file.index.of(ast.Import, ast.ImportFrom)]
    modules = [i.module or "" for i in imported if isinstance(i, ast.ImportFrom)]
    modules += [alias.name for i in imported if isinstance(i, ast.Import) for alias in i.names]
    return any(module.split(".")[0] == PACKAGE.name for module in modules)


def clean(context: Context, what: str) -> Measurement:
    """Return the passing measurement of a search that found nothing; one that could read nothing does not pass."""
    if not context.tree.parsed:
        raise NotApplicable(f"no Python file of {context.source.name} could be read")
    return Measurement(0.0, 0.0, True, f"{what} in {len(context.tree.parsed)} files")


def slip(where: str, message: str) -> Measurement:
    """Return the failing measurement of one finding."""
    return Measurement(1.0, 0.0, False, message, where=where)


def require_source(context: Context) -> None:
    """Raise NotApplicable where the folder holds no Python file."""
    if not context.tree.files:
        raise NotApplicable(f"no Python file in {context.source.name}")


@rule(
    "RV0101",
    "Every configuration name that is read exists",
    law="{names read} ⊆ {names defined}; nothing is written into a configuration",
    why="`getattr(cfg, 'hybrid_beta', 0.3)` never fails: the knob silently has its default for ever.",
    how="Syntax trees: attributes, getattr, hasattr, get, subscripts, keywords and imports of everything that is a "
    "configuration by annotation, assignment, import or name are compared with the fields of configuration classes, "
    "namespaces, dictionaries, options of argparse and keys of YAML and TOML files. Where only a variable's name says "
    "that it is a configuration, at least half of the names that it is asked for must exist before the others count "
    "as unknown. Bound: none unknown.",
    remedy="use the nearest known name, or define the field in the one configuration module; make a changed copy "
    "instead of writing",
    needs="source",
)
def names_exist(context: Context) -> Sequence[Measurement]:
    """Bound 0 is exact: names are counted."""
    require_source(context)
    schema, own = schema_of(context.tree)
    found = {(r.file.at(r.line), message): None for r, message in findings(uses_of(context.tree), schema, own)}
    return [slip(*item) for item in found] or [clean(context, "every configuration name that is read exists")]


@rule(
    "RV0102",
    "Every configuration name that is defined is read",
    law="{names defined} ⊆ {names read}",
    why="A dead knob is tuned, logged and reported, and changes nothing.",
    how="Syntax trees: a field counts as read when code reads it from its own section, from a configuration of "
    "unknown section, or by an attribute of that name on a value that cannot be followed. Validation in "
    "`__post_init__`, copying and logging the whole do not count; unpacking the whole and names known at run time "
    "only do.",
    remedy="use the field or delete it",
    severity="warning",
    needs="source",
)
def names_used(context: Context) -> Sequence[Measurement]:
    """Bound 0 is exact: names are counted."""
    require_source(context)
    schema, own = schema_of(context.tree)
    if not own:
        raise NotApplicable("the source defines no configuration class")
    uses = uses_of(context.tree)
    found = [
        slip(section.where[name], f"{section.label}.{name} is defined and never read")
        for owner, section in schema.sections.items()
        if section.kind in ("class", "value") and not section.foreign
        for name in section.fields
        if not section.members[name] and not _is_read(owner, name, schema, uses)
    ]
    return found or [clean(context, "every configuration name is read")]


def _is_read(owner: str, name: str, schema: Schema, uses: Uses) -> bool:
    # Read by the library that the class is of.
    if name.startswith("_") or name == "model_config" or name in uses.loose:
        return True
    return any(asked == ANY or schema.related(asked, owner) for asked in uses.asked(name) | uses.whole)


@rule(
    "RV0105",
    "One default, one place",
    law="a quantity has at most one literal default in the source",
    why="With 1.0 in one module and 1e-3 in another, which C_EPS a run uses depends on its entry point.",
    how="Syntax trees: literals given to fields, constants, parameters, options, getattr, get, pop and setdefault "
    "under a configuration's name are gathered by name. Bound: one value a name outside classes of which each may "
    "have its own.",
    remedy="keep the default in the configuration and read it there",
    needs="source",
)
def one_default(context: Context) -> Sequence[Measurement]:
    """Bound 1 is exact: distinct values are counted."""
    require_source(context)
    schema, _ = schema_of(context.tree)
    found = [
        Measurement(float(count), 1.0, False, message, where=where)
        for where, message, count in conflicts(context.tree, schema, set(HISTORICAL))
    ]
    return found or [clean(context, "every quantity has one default")]


@rule(
    "RV0201",
    "No undefined or possibly unbound name",
    law="every name is bound on every path to its use",
    why="`B_final` bound in one branch only stops a run after hours, in the branch that no test took.",
    how="Scopes find names bound nowhere, bound for the type checker only, and names in `__all__` that are not there; "
    "definite assignment over each module, class and function finds names that some path does not assign (a loop "
    "may run no time, a `try` may stop anywhere, a test met again has the answer that it had), also names that an "
    "inner function reads before they are bound. Bound: none.",
    remedy="bind the name before the branch or loop",
    needs="source",
)
def names_bound(context: Context) -> Sequence[Measurement]:
    """Bound 0 is exact: names are counted."""
    require_source(context)
    modules = Modules(context.tree, Schema())
    trees = {file.name: tree for file, tree in context.tree.parsed}
    found = []
    with uncollected():
        ends = never_return(file.index for file, _ in context.tree.parsed)
        for file, tree in context.tree.parsed:
            stars, below = _stars(trees, modules, file), _below(modules, file)
            for line, name, fault in unbound_names(tree, file.index, stars, below, ends):
                found.append(slip(file.at(line), f"the name {name!r} {fault}" if name else fault))
    return found or [clean(context, "every name is bound on every path")]


def _below(modules: Modules, file: SourceFile) -> set[str]:
    """Return the submodules of a package, which `__all__` may name."""
    path = PurePosixPath(file.name)
    if path.name != "__init__.py":
        return set()
    own = modules.names[file.name]
    inside = (name[len(own) + 1 :] if own else name for name in modules.files if not own or name.startswith(f"{own}."))
    return {name.split(".")[0] for name in inside}


def _stars(
    trees: dict[str, ast.Module], modules: Modules, file: SourceFile
) -> Callable[[ast.ImportFrom], set[str] | None]:
    """Return a function that gives the names that a star import brings, None where they cannot be known."""

    def names(node: ast.ImportFrom) -> set[str] | None:
        module = modules.find(modules.base(node, file), not node.level)
        found = trees.get(modules.files[module]) if module is not None else None
        if found is None:
            return None
        listed = {name for _, name in literal_all(found)}
        if listed:
            return listed
        simple = ast.Assign | ast.AnnAssign | ast.FunctionDef | ast.ClassDef | ast.Expr | ast.Import | ast.ImportFrom
        if not all(isinstance(item, simple) for item in found.body):
            return None
        return _public(found)

    return names


def _public(tree: ast.Module) -> set[str] | None:
    names: set[str] = set()
    for item in tree.body:
        if isinstance(item, ast.FunctionDef | ast.ClassDef):
            names.add(item.name)
        elif isinstance(item, ast.Import | ast.ImportFrom):
            if any(alias.name == "*" for alias in item.names):
                return None
            names |= {alias.asname or alias.name.split(".")[0] for alias in item.names}
        else:
            names |= {n.id for n in ast.walk(item) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return {name for name in names if not name.startswith("_")}
