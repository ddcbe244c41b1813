"""Parts of a state: each says what it holds as bytes, remembers it, and can put it back."""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor, UntypedStorage

ATOMS = (type(None), bool, int, float, complex, str, bytes)
Number = Callable[[object], int | None]
Pairs = list[tuple[Any, Any]]
Read = Callable[[], Pairs]
Write = Callable[[Pairs], None]


class Part(Protocol):
    """One thing that can change and be put back."""

    name: str

    def state(self, number: Number) -> bytes:
        """Return what it holds now; `number` gives the place of an object in the walk, None for a new one."""
        ...

    def put_back(self) -> None:
        """Write what was remembered."""
        ...


def canonical(value: object) -> bytes:
    """Return nested states of random generators and the like as bytes, equal for equal contents."""
    if isinstance(value, Mapping):
        return b"{" + b",".join(canonical(k) + b":" + canonical(v) for k, v in value.items()) + b"}"
    if isinstance(value, list | tuple):
        return b"[" + b",".join(canonical(item) for item in value) + b"]"
    if isinstance(value, ATOMS):
        return f"{type(value).__name__} {value!r}".encode()
    import numpy as np

    array = np.asarray(value)
    return f"{array.dtype} {array.shape} ".encode() + array.tobytes()


class Value:
    """A setting or generator that is read and written as a whole.

    Args:
        name: what people call it.
        read: returns its present value.
        write: sets it.
    """

    def __init__(self, name: str, read: Callable[[], Any], write: Callable[[Any], object]) -> None:
        self.name, self._read, self._write = name, read, write
        self._value = read()

    def state(self, number: Number) -> bytes:
        """See `Part`."""
        return canonical(self._read())

    def put_back(self) -> None:
        """See `Part`."""
        self._write(self._value)


class Holder:
    """A container: which objects and plain values it holds, by identity and by value.

    Args:
        name: path from the pipeline.
        read: returns keys and values.
        write: makes them the whole content.
    """

    def __init__(self, name: str, read: Read, write: Write) -> None:
        self.name, self._read, self._write = name, read, write
        self.pairs = read()

    def state(self, number: Number) -> bytes:
        """See `Part`."""

        def token(value: object) -> str:
            if isinstance(value, ATOMS):
                return f"{type(value).__name__} {value!r}"
            return f"#{number(value)}"

        return "\n".join(f"{token(key)}: {token(value)}" for key, value in self._read()).encode()

    def put_back(self) -> None:
        """See `Part`."""
        self._write(self.pairs)


class HeldTensor:
    """Shape, type, place in the storage, `requires_grad` and gradient of a tensor; its numbers are the storage's."""

    def __init__(self, name: str, tensor: Tensor) -> None:
        self.name, self._tensor = name, tensor
        # Of a tensor inside a graph torch keeps no gradient, and warns when asked.
        self._leaf = tensor.is_leaf
        self.grad = tensor.grad if self._leaf else None
        self._requires_grad = tensor.requires_grad
        self._data = tensor.detach()

    def state(self, number: Number) -> bytes:
        """See `Part`."""
        t = self._tensor
        grad = number(t.grad) if self._leaf and t.grad is not None else ""
        layout = f"{t.stride()} {t.storage_offset()}" if strided(t) else str(t.layout)
        where = storage_key(t) == storage_key(self._data)
        return f"{t.dtype} {tuple(t.shape)} {layout} {t.device} {t.requires_grad} #{grad} {where}".encode()

    def put_back(self) -> None:
        """See `Part`."""
        self._tensor.data = self._data
        if self._leaf:
            self._tensor.requires_grad_(self._requires_grad)
            self._tensor.grad = self.grad


class HeldStorage:
    """The bytes under one or more tensors."""

    def __init__(self, name: str, storage: UntypedStorage) -> None:
        self.name, self._storage = name, storage
        self._copy = self._view().clone()

    def _view(self) -> Tensor:
        import torch

        return torch.empty(0, dtype=torch.uint8, device=self._storage.device).set_(self._storage)

    def state(self, number: Number) -> bytes:
        """See `Part`."""
        if self._storage.device.type != "cpu":
            return hashlib.sha256(self._view().cpu().numpy().data).digest()
        # `numpy()` would mark the storage as not resizable for ever.
        bytes_at = ctypes.c_ubyte * self._storage.nbytes()
        return hashlib.sha256(bytes_at.from_address(self._storage.data_ptr())).digest()

    def put_back(self) -> None:
        """See `Part`."""
        if self._storage.nbytes() != len(self._copy):
            self._storage.resize_(len(self._copy))
        self._view().copy_(self._copy)


class HeldArray:
    """The numbers of a NumPy array."""

    def __init__(self, name: str, array: Any) -> None:
        self.name, self._array = name, array
        self._copy = array.copy()

    def state(self, number: Number) -> bytes:
        """See `Part`."""
        return hashlib.sha256(canonical(self._array)).digest()

    def put_back(self) -> None:
        """See `Part`."""
        self._array[...] = self._copy


def strided(tensor: Tensor) -> bool:
    """Return whether a tensor lies in a storage of its own device that can be read."""
    import torch

    return tensor.layout == torch.strided and tensor.device.type != "meta"


def storage_key(tensor: Tensor) -> tuple[int, int]:
    """Return address and size of a tensor's storage; zeros where it has none."""
    if not strided(tensor):
        return 0, 0
    storage = tensor.untyped_storage()
    return storage.data_ptr(), storage.nbytes()
