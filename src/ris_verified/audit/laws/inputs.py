"""Whether a network reads its inputs as they are given."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ris_verified.audit.rule import Measurement, at_most

if TYPE_CHECKING:
    from torch import Tensor

    from ris_verified.audit.context import Context

# Share of a steering vector by which chance may lift what wrong inputs show.
CHANCE = 0.15


def _conjugate(z: Tensor) -> Tensor:
    return z * z.new_tensor([1.0, -1.0])


# Input and what an adapter may have done to it; each undoes itself, or is there both ways.
SPOILT: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "conjugated codes": ("C", _conjugate),
    "a conjugated channel": ("H_full", _conjugate),
    "conjugated measurements": ("y", _conjugate),
    "each snapshot's predecessor": ("y", lambda y: y.roll(1, 1)),
    "each snapshot's successor": ("y", lambda y: y.roll(-1, 1)),
    "antennas in reverse": ("y", lambda y: y.flip(2)),
    "codes of elements in reverse": ("C", lambda C: C.flip(2)),
}


def read_as_given(small: Context) -> list[Measurement]:
    """Measure by how much more of the true subspace a network captures with each spoilt input, before training.

    A network that knows nothing yet captures by chance with all of them, and one that stands on the physics most with
    the true ones: none may be better with a wrong one.

    Args:
        small: its network, pipeline and scenes are used.
    """
    import torch

    with torch.no_grad():
        true = _captured(small, {})
        found = []
        for what, (name, change) in SPOILT.items():
            given = _captured(small, {name: change(vars(small.batch)[name])})
            found.append(
                at_most(given - true, CHANCE, f"more of the true subspace is captured with {what}", where=name)
            )
    return found


def _captured(small: Context, spoilt: dict[str, Tensor]) -> float:
    from ris_verified.covariance.capture import subspace_capture

    b = small.batch
    out = small.model(*(spoilt.get(name, vars(b)[name]) for name in ("y", "H", "C", "H_full")))
    R = small.pipeline.predicted_covariance(out.cov_fact_angle, out.cov_fact_range, small.config)
    return float(subspace_capture(R, b.ptr, small.config.array).mean())
