"""What leaves the graph of gradients in a network's forward and in a loss, read from syntax trees."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from ris_verified.audit.static.inplace import written_in_place
from ris_verified.audit.static.purpose import CHOICES, Purpose, buffers, is_constant
from ris_verified.audit.static.reaching import Flows
from ris_verified.audit.static.syntax import Function, SourceFile, called_name, dotted
from ris_verified.audit.static.tensors import Tensors

Finding = tuple[int, str]
BREAKS = {"detach", "detach_", "numpy", "item", "tolist"}
BLOCKS = {"no_grad", "inference_mode"}
ARRAYS = {"array", "asarray", "ascontiguousarray"}
LOSS = re.compile(r"(^|_)(loss|losses|criterion|nll)(_|$|fn$)|(Loss|Losses|Criterion)$|^(Loss|Criterion)[A-Z]?")
LOSS_FILE = re.compile(r"(^|/)(loss|losses|criterion|criteria)(/|\.py$)|_loss(es)?\.py$")
SAMPLE = re.compile("samp")
LOGS = re.compile(r"log|metric|nmse|stat|report|monitor|terms|history|info|acc|score|summary|dict", re.IGNORECASE)
TOTAL = re.compile(r"loss|total|objective|cost", re.IGNORECASE)


def forward_functions(file: SourceFile) -> list[Function]:
    """Return every `forward` of a class and the functions of the same file that it calls."""
    classes = [c for c in file.index.of(ast.ClassDef) if c.bases and not LOSS.search(c.name)]
    todo: list[Function] = [
        f for c in classes for f in c.body if isinstance(f, ast.FunctionDef) and f.name == "forward"
    ]
    by_name: dict[str, Function] = {f.name: f for f in file.index.functions}
    reached: dict[int, Function] = {}
    while todo:
        function = todo.pop()
        if id(function) in reached:
            continue
        reached[id(function)] = function
        calls = (node for node in file.index.below(function) if isinstance(node, ast.Call))
        todo += [by_name[name] for name in {_local_call(call) for call in calls} & set(by_name)]
    return list(reached.values())


def _local_call(call: ast.Call) -> str:
    # `f(x)` and `self.f(x)` are of this file; `other.f(x)` may be anything's.
    if isinstance(call.func, ast.Name):
        return call.func.id
    own = isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Name)
    return called_name(call.func) if own and call.func.value.id in ("self", "cls") else ""  # type: ignore[attr-defined]


def loss_functions(file: SourceFile) -> list[Function]:
    """Return the functions that compute a loss: by their name, their class or their file."""
    if "torch" not in file.text:
        return []
    if LOSS_FILE.search(file.name):
        return [f for f in file.index.functions if _may_be_loss(f, file)]
    inside = {id(f) for c in file.index.of(ast.ClassDef) if LOSS.search(c.name) for f in c.body}
    return [f for f in file.index.functions if LOSS.search(f.name) or (id(f) in inside and f.name != "__init__")]


def _may_be_loss(function: Function, file: SourceFile) -> bool:
    # In a file of losses: what gives a tensor and chooses no indices, which never carry a gradient.
    if function.name.startswith("__") and function.name != "__call__":
        return False
    returns = ast.unparse(function.returns) if function.returns is not None else "Tensor"
    chooses = any(
        called_name(n.func) in (*CHOICES, "topk") for n in file.index.below(function) if isinstance(n, ast.Call)
    )
    return ("Tensor" in returns or "Loss" in returns) and not chooses


def forward_breaks(function: Function, file: SourceFile) -> Iterator[Finding]:
    """Yield line and what leaves the graph, for everything in a function that `forward` runs."""
    body = file.index.below(function)
    tensors = Tensors(function, body, inputs=function.name == "forward" or _is_method(function))
    through, purpose = set(_straight_through(body)), Purpose(body, buffers(file))
    # Decorators are asked below.
    for node in (n for n in body if n not in function.decorator_list):
        what = breaks(node, tensors)
        if what in BLOCKS:
            meant = purpose.block_meant(node, loss=False)
        else:
            meant = is_constant(node, SAMPLE) or node in through or purpose.meant(node, what)
        if what and not meant:
            yield node.lineno, f"{function.name} leaves the graph with {what}"  # type: ignore[attr-defined]
    if not any(isinstance(n, ast.Call) and called_name(n.func) in CHOICES for n in body):
        # What gives indices only, as a matcher does, has no gradient to lose.
        yield from _decorated(function)
    yield from _written(function, body, tensors, purpose)


def _written(function: Function, body: list[ast.AST], tensors: Tensors, purpose: Purpose) -> Iterator[Finding]:
    for node, owner, what in written_in_place(function, body, tensors):
        if not purpose.writes_meant(node, owner):
            yield node.lineno, f"{function.name} {what}"


def _straight_through(body: list[ast.AST]) -> Iterator[ast.expr]:
    """Yield every `(f(x) - x).detach()` that x itself is added to: its gradient is that of x, on purpose."""
    for node in body:
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            pairs = ((node.left, node.right), (node.right, node.left))
            yield from (cut for cut, kept in pairs if _less(cut) == ast.dump(kept))


def _less(node: ast.expr) -> str:
    """Return what is subtracted in `(… - x).detach()`, as a dump; an empty text for anything else."""
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "detach"):
        return ""
    value = node.func.value
    return ast.dump(value.right) if isinstance(value, ast.BinOp) and isinstance(value.op, ast.Sub) else ""


def _is_method(function: Function) -> bool:
    return bool(function.args.args) and function.args.args[0].arg == "self"


def _decorated(function: Function) -> Iterator[Finding]:
    for decorator in function.decorator_list:
        name = called_name(decorator.func if isinstance(decorator, ast.Call) else decorator)
        if name in BLOCKS:
            yield function.lineno, f"{function.name} leaves the graph with {name}"


def breaks(node: ast.AST, tensors: Tensors) -> str:
    """Return what of a node leaves the graph, an empty text where nothing does."""
    if isinstance(node, ast.Attribute):
        return ".data" if node.attr == "data" and isinstance(node.ctx, ast.Load) and not _is_module(node) else ""
    if not isinstance(node, ast.Call):
        return ""
    name = called_name(node.func)
    if name in BLOCKS and not any(isinstance(a, ast.Constant) and a.value is False for a in node.args):
        return name
    if name in BREAKS and isinstance(node.func, ast.Attribute):
        # `torch.detach(x)` and `x.detach()`, but no `items.item(3)` of another library with more arguments.
        return name if not node.args or dotted(node.func.value) == "torch" or name == "item" else ""
    if name == "set_grad_enabled" and node.args and isinstance(node.args[0], ast.Constant) and not node.args[0].value:
        return "set_grad_enabled(False)"
    if name in ("requires_grad_",) and node.args and isinstance(node.args[0], ast.Constant) and not node.args[0].value:
        return "requires_grad_(False)"
    first = node.args[0] if node.args else None
    held = isinstance(first, ast.Name) and first.id in tensors.given
    given = first is not None and (held or tensors.is_tensor(first))
    if isinstance(node.func, ast.Name) and name in ("float", "int") and given:
        return f"{name}() of a tensor"
    owner = dotted(node.func.value) if isinstance(node.func, ast.Attribute) else ""
    if given and ((name in ARRAYS and owner in ("np", "numpy")) or (name == "tensor" and owner == "torch")):
        return f"{owner}.{name}"
    return ""


def _is_module(node: ast.Attribute) -> bool:
    return dotted(node.value) in ("torch.utils", "utils", "self", "cls", "torch", "args", "cfg", "config", "batch")


def loss_breaks(function: Function, file: SourceFile) -> Iterator[Finding]:
    """Yield line and fault for what leaves the graph on its way into the value that a loss returns.

    What is only logged (put into a dictionary, returned beside the loss) may be detached, and so may
    constants that the loss compares with.
    """
    body = file.index.below(function)
    tensors = Tensors(function, body, inputs=True)
    if any(isinstance(n, ast.Call) and called_name(n.func) in ("backward", "grad") for n in body):
        return  # the gradient was taken before; what is returned is a report
    returned = [node.value for node in body if isinstance(node, ast.Return) and node.value is not None]
    flows = Flows(body, [part for value in returned for part in _loss_parts(value)])
    purpose = Purpose(body, buffers(file))
    for node in body:
        what = breaks(node, tensors)
        if what in BLOCKS:
            reaches = bool(flows.bound_in(node) & flows.returned) and not purpose.block_meant(node, loss=True)
        else:
            meant = is_constant(node) or purpose.meant(node, what) or purpose.weighs(node) or purpose.compared(node)
            reaches = bool(what) and not meant and flows.reaches(node)
        if reaches:
            yield node.lineno, f"{function.name} returns a loss that left the graph with {what}"  # type: ignore[attr-defined]
    if not LOGS.search(function.name) and "eval" not in function.name:
        yield from _decorated(function)
    yield from _written(function, body, tensors, purpose)


def _loss_parts(value: ast.expr) -> list[ast.expr]:
    """Return what of a returned value is the loss: the first of several, or what is called so."""
    if isinstance(value, ast.Tuple) and value.elts:
        return _loss_parts(value.elts[0])
    if isinstance(value, ast.Dict):
        named = [(k.value, v) for k, v in zip(value.keys, value.values, strict=True) if isinstance(k, ast.Constant)]
        return [v for k, v in named if isinstance(k, str) and TOTAL.search(k) and not LOGS.search(k)]
    if isinstance(value, ast.Call) and called_name(value.func)[:1].isupper():
        named_parts = [k.value for k in value.keywords if k.arg and TOTAL.search(k.arg)]
        return [*value.args[:1], *named_parts]
    return [value]
