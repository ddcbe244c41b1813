"""A device that stands in for an accelerator: it computes on the CPU, and refuses to meet tensors of the CPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

# Autograd runs what lies there in the thread of the CPU.
DEVICE = torch.device("meta")
# Views that say nothing of their memory's content; the wrapper has none to say it of.
PLAIN = {
    "aten._conj.default": torch.ops.aten._conj_physical.default,
    "aten._neg_view.default": torch.ops.aten.neg.default,
}
# Operations whose outcome the processor must know.
WAITING = ("_local_scalar_dense", "equal", "nonzero", "is_nonzero", "masked_select", "_unique2")
# Operations that take tensors of two devices.
MIXED = ("aten._to_copy", "aten.copy_", "aten.index.", "aten.index_put", "aten._index_put")


class Away(Tensor):
    """A tensor of the device, around one of the CPU."""

    @staticmethod
    def __new__(cls, held: Tensor) -> Away:
        made: Away = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
            device=DEVICE,
        )  # fmt: skip
        made.held = held
        return made

    held: Tensor

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})

    def tolist(self) -> Any:
        return self.held.tolist()


class Accelerator(TorchDispatchMode):
    """Within it tensors can be made on, and moved to, `DEVICE`."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    name = str(func)
    func = PLAIN.get(name, func)
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    away = [tensor for tensor in tensors if isinstance(tensor, Away)]
    here = [tensor for tensor in tensors if not isinstance(tensor, Away)]
    if away and any(tensor.ndim for tensor in here) and not name.startswith(MIXED):
        raise RuntimeError(f"{name}: tensors on two devices")
    if away and here and "index" in name and not isinstance(args[0], Away):
        raise RuntimeError(f"{name}: a tensor of the CPU is indexed by one of the accelerator")
    asked = kwargs.get("device")
    if name.startswith("aten.copy_"):
        there = isinstance(args[0], Away)
    else:
        there = bool(away) if asked is None else torch.device(asked) == DEVICE
    kwargs = {key: value for key, value in kwargs.items() if key not in ("device", "non_blocking", "pin_memory")}
    args, kwargs = tree_map(_held, (args, kwargs))
    made = func(*args, **kwargs)
    own = {id(tensor.held): tensor for tensor in away}
    return tree_map(lambda value: own.get(id(value), Away(value) if there else value) if _plain(value) else value, made)


class Reads(TorchDispatchMode):
    """Within it the moments are counted at which the processor waits for what the device computes."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, str(func).split(".")[1]
        away = any(isinstance(leaf, Away) for leaf in tree_leaves((args, kwargs)))
        moved = name == "_to_copy" and torch.device(kwargs.get("device") or DEVICE) != DEVICE
        self.count += away and (name in WAITING or moved)
        return func(*args, **kwargs)


def _plain(value: Any) -> bool:
    return isinstance(value, Tensor) and not isinstance(value, Away)


def _held(value: Any) -> Any:
    if isinstance(value, Away):
        return value.held
    return value.resolve_conj().resolve_neg() if isinstance(value, Tensor) else value


@pytest.fixture
def reads() -> Reads:
    """Return what counts how often the device is waited for."""
    return Reads()


@pytest.fixture
def accelerator(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Yield `DEVICE`, on which this test can compute."""
    tensor, as_tensor = torch.tensor, torch.as_tensor

    def moved(value: Tensor, device: Any) -> Tensor:
        return value if device is None or torch.device(device) != DEVICE else value.to(DEVICE)

    def new_tensor(self: Tensor, data: Any, *, dtype: Any = None, device: Any = None, **more: Any) -> Tensor:
        return moved(tensor(data, dtype=dtype or self.dtype, **more), device or self.device)

    def converted(data: Any, dtype: Any = None, device: Any = None) -> Tensor:
        return (
            data.to(dtype=dtype, device=device)
            if isinstance(data, Away)
            else moved(as_tensor(data, dtype=dtype), device)
        )

    # These make values without the dispatcher; fused steps are of real devices only.
    monkeypatch.setattr(torch, "tensor", lambda data, *, device=None, **more: moved(tensor(data, **more), device))
    monkeypatch.setattr(torch, "as_tensor", converted)
    monkeypatch.setattr(torch.Tensor, "new_tensor", new_tensor)
    adamw, autocast = torch.optim.AdamW, torch.autocast
    monkeypatch.setattr(torch, "autocast", lambda kind, *given, **named: autocast("cpu", *given, **named))
    monkeypatch.setattr(
        torch.optim, "AdamW", lambda given, **named: adamw(given, **{**named, "fused": False, "foreach": False})
    )
    with Accelerator():
        yield DEVICE
