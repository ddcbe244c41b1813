"""Which expressions are evidently tensors, and Python builtins that are given one."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from ris_verified.audit.static.syntax import Function, SourceFile, arguments, called_name, dotted

Finding = tuple[int, str]
TORCH = {"torch", "F", "functional", "nn.functional"}
# What torch gives that is no tensor.
PLAIN = {
    "device", "dtype", "finfo", "iinfo", "is_tensor", "is_grad_enabled", "is_complex", "is_floating_point", "numel",
    "Generator", "no_grad", "inference_mode", "enable_grad", "set_grad_enabled", "manual_seed", "load", "save", "Size",
    "get_default_dtype", "allclose", "equal", "compile", "autocast", "get_num_threads", "is_available", "device_count",
    "memory_allocated", "max_memory_allocated", "current_device", "broadcast_shapes", "promote_types", "result_type",
    "is_nonzero", "seed", "initial_seed", "can_cast", "synchronize", "split", "chunk", "unbind", "meshgrid", "svd",
    "topk", "sort", "eigh", "qr", "slogdet", "grad", "jit", "stream", "randperm_list", "isinstance", "typename",
}  # fmt: skip
# Methods that only tensors have, so that their owner and their result are tensors.
ONLY = {
    "abs", "detach", "clamp", "clamp_min", "clamp_max", "norm", "unsqueeze", "masked_fill", "softmax", "log_softmax",
    "sigmoid", "relu", "square", "sqrt", "rsqrt", "contiguous", "requires_grad_", "expand_as", "view_as", "logsumexp",
    "cos", "sin", "amax", "amin", "adjoint", "index_select", "scatter", "backward", "expm1", "log1p", "erf", "cpu",
}  # fmt: skip
KEPT = ONLY | {
    "mean", "sum", "max", "min", "std", "var", "prod", "exp", "log", "pow", "view", "reshape", "squeeze", "permute",
    "transpose", "flatten", "float", "double", "half", "real", "imag", "conj", "to", "clone", "expand", "repeat", "add",
    "mul", "sub", "div", "matmul", "gather", "diagonal", "median", "cumsum", "new_zeros", "new_ones", "type_as", "cuda",
    "argmax", "argmin", "unbind", "chunk",
    "T", "mT", "mH", "H", "grad", "data", "any", "all", "nonzero", "long", "int", "bool", "eq",
    "ne",
}  # fmt: skip
LEAVES = {
    "item",
    "tolist",
    "numpy",
    "size",
    "dim",
    "numel",
    "shape",
    "ndim",
    "dtype",
    "device",
    "nelement",
    "ndimension",
}
BUILTINS = {"max", "min", "sum", "any", "all"}
SEVERAL = ("list", "List", "dict", "Dict", "tuple", "Tuple", "Seq", "Iter")
PASSES = 3  # names that are made of names that are made of inputs, and so on


class Tensors:
    """Names in one function that are evidently tensors.

    Args:
        function: where.
        body: all nodes of the function.
        inputs: whether unannotated parameters without a default are tensors, as in `forward`.
    """

    def __init__(self, function: Function, body: list[ast.AST], inputs: bool = False) -> None:
        self.inputs = {a.arg for a in arguments(function.args)} - {"self", "cls"}
        self.names = _parameters(function, body, inputs)
        self.given = frozenset(self.names)
        assigned = _assigned(body)
        for _ in range(PASSES):
            for name, values in assigned.items():
                if all(value is not None and self.is_tensor(value) for value in values):
                    self.names.add(name)
                else:
                    self.names.discard(name)

    def is_tensor(self, node: ast.expr) -> bool:
        """Whether an expression is evidently a tensor."""
        if isinstance(node, ast.Name):
            return node.id in self.names
        if isinstance(node, ast.Call):
            return self._call(node)
        if isinstance(node, ast.Attribute):
            return node.attr in KEPT and self.is_tensor(node.value)
        if isinstance(node, ast.Subscript):
            return self.is_tensor(node.value)
        if isinstance(node, ast.BinOp):
            return self.is_tensor(node.left) or self.is_tensor(node.right)
        if isinstance(node, ast.UnaryOp):
            return not isinstance(node.op, ast.Not) and self.is_tensor(node.operand)
        return isinstance(node, ast.IfExp) and self.is_tensor(node.body) and self.is_tensor(node.orelse)

    def _call(self, node: ast.Call) -> bool:
        name = called_name(node.func)
        if not isinstance(node.func, ast.Attribute):
            return False
        owner = dotted(node.func.value)
        if owner.split(".")[0] == "torch" or owner in TORCH:
            inner = owner.split(".")[1:2]
            named = any(k.arg == "dim" for k in node.keywords) and name in ("max", "min", "median")
            pair = name in ("max", "min") and len(node.args) == 2 and isinstance(node.args[1], ast.Constant)
            useful = not inner or inner[0] in ("nn", "linalg", "fft", "special", "functional")
            return useful and name not in PLAIN and not name[:1].isupper() and not named and not pair
        if name in LEAVES:
            return False
        if name in ("max", "min") and (node.args or node.keywords):
            return False
        if self.is_tensor(node.func.value):
            return name in KEPT
        return (
            name in ONLY - {"cpu", "norm", "square"}
            and not isinstance(node.func.value, ast.Constant)
            and not owner.startswith(("np", "math", "cmath", "jnp", "tf", "numpy", "pd"))
        )


def _parameters(function: Function, body: list[ast.AST], inputs: bool) -> set[str]:
    plain = _with_default(function) | {"self", "cls"}
    touched = {
        node.func.value.id
        for node in body
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ONLY
        and isinstance(node.func.value, ast.Name)
    }
    found = set()
    for argument in arguments(function.args):
        text = ast.unparse(argument.annotation) if argument.annotation is not None else ""
        bare = not text and argument.arg not in plain and (inputs or argument.arg in touched)
        if bare or ("Tensor" in text and not any(word in text for word in SEVERAL)):
            found.add(argument.arg)
    return found


def _assigned(body: list[ast.AST]) -> dict[str, list[ast.expr | None]]:
    """Return what each name is given; None where that is not known."""
    found: dict[str, list[ast.expr | None]] = {}
    for node in body:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    found.setdefault(target.id, []).append(node.value)
        elif isinstance(node, ast.For | ast.comprehension):
            for inner in ast.walk(node.target):
                if isinstance(inner, ast.Name):
                    # The rows of a tensor are tensors.
                    found.setdefault(inner.id, []).append(node.iter if inner is node.target else None)
    return found


def _with_default(function: Function) -> set[str]:
    names = [a.arg for a in [*function.args.posonlyargs, *function.args.args]]
    given = set(names[len(names) - len(function.args.defaults) :]) if function.args.defaults else set()
    return (
        given
        | {a.arg for a in function.args.kwonlyargs}
        | {a.arg for a in (function.args.vararg, function.args.kwarg) if a}
    )


def builtins_on_tensors(file: SourceFile, inputs: set[Function]) -> Iterator[Finding]:
    """Yield line and message for every `max`, `min`, `sum`, `any` and `all` of Python that is given a tensor.

    Args:
        file: the source.
        inputs: functions whose parameters are tensors.
    """
    if "torch" not in file.text:
        return
    here = BUILTINS - _rebound(file)
    for function in file.index.functions:
        body = file.index.below(function)
        calls = [n for n in body if isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id in here]
        if not calls:
            continue
        tensors = Tensors(function, body, function in inputs)
        for call in calls:
            name = called_name(call.func)
            if any(k.arg == "key" for k in call.keywords) or not call.args:
                continue
            given = call.args[:1] if name in ("sum", "any", "all") else call.args
            inside = (
                [g.elt for g in given if isinstance(g, ast.GeneratorExp | ast.ListComp)]
                if name in ("max", "min")
                else []
            )
            listed = [
                e for g in given if isinstance(g, ast.List | ast.Tuple) and name in ("max", "min") for e in g.elts
            ]
            if any(tensors.is_tensor(argument) for argument in [*given, *inside, *listed]):
                better = {"max": "torch.maximum or .amax()", "min": "torch.minimum or .amin()"}.get(name, f".{name}()")
                yield call.lineno, f"Python's {name}() is given a tensor in {function.name}; use {better}"


def _rebound(file: SourceFile) -> set[str]:
    imported = {alias.asname or alias.name for node in file.index.of(ast.ImportFrom) for alias in node.names}
    stored = {node.id for node in file.index.of(ast.Name) if isinstance(node.ctx, ast.Store)}
    return imported | stored | {function.name for function in file.index.functions}
