"""The weighted sum of the terms."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from jaxtyping import Complex
from torch import Tensor
from torch.nn import functional

from ris_verified.config import Config
from ris_verified.data.batch import Batch
from ris_verified.errors import InvariantError
from ris_verified.loss.dense import inside, read, squared_norm
from ris_verified.loss.terms import aligned, covariance_error, missing_gap, positions_error, true_subspace
from ris_verified.model.output import ModelOutput
from ris_verified.shapes import require_axes, shaped

# Of what the terms read.
AXES = {
    "R_hat": "B N N", "R_in": "B N N", "ptr": "B K 3", "K": "B", "k_logits": "B K", "angles": "B K 2", "ranges": "B K",
}  # fmt: skip


@dataclass(frozen=True)
class LossResult:
    """What one evaluation of the loss gives.

    Args:
        total: scalar, Σ weight · term, carries the gradient.
        terms: scalar of each term with a non-zero weight, unweighted, detached.
        nmse: scalar, the covariance error of what the loss read, detached, for the log.
    """

    total: Tensor
    terms: dict[str, Tensor]
    nmse: Tensor


@shaped
def loss(
    outputs: ModelOutput,
    R_hat: Complex[Tensor, "B N N"],
    batch: Batch,
    cfg: Config,
    *,
    R_blend: Complex[Tensor, "B N N"] | None = None,
    training: bool = True,
) -> LossResult:
    """Return total and terms; covariance, alignment, eigengap and NMSE read R_blend where given.

    Args:
        outputs: of the model.
        R_hat: `B x N x N` complex, predicted covariance.
        batch: the truth.
        cfg: reads `loss` and `array`.
        R_blend: `B x N x N` complex; R_hat is read where it is None.
        training: in training R_hat must carry a gradient.

    Returns:
        A `LossResult`.

    Raises:
        InvariantError: in training R_hat carries no gradient.
        ShapeError: the axes do not agree.
    """
    require_axes("loss", AXES, {"R_hat": R_hat} | vars(batch) | vars(outputs), {"N": cfg.array.elements})
    if training and not R_hat.requires_grad:
        raise InvariantError(
            "carries no gradient",
            where="R_hat",
            expected="a graph from the factor heads in training",
            remedy="remove the detach or no_grad between model and loss, or pass training=False",
        )
    R = R_hat if R_blend is None else R_blend
    weights = {f.name: vars(cfg.loss)[f.name] for f in dataclasses.fields(cfg.loss)}
    values = _of_matrices(R, batch, cfg)
    nmse = values["covariance"].detach().mean()
    if weights["angle"] or weights["range"]:
        values["angle"], values["range"] = positions_error(outputs.angles, outputs.ranges, batch.ptr)
    values["order"] = functional.cross_entropy(outputs.k_logits, batch.K - 1, reduction="none")
    used = {name: values[name].mean() for name, weight in weights.items() if weight}
    total = sum((weights[name] * value for name, value in used.items()), R.real.new_zeros(()))
    return LossResult(total, {name: value.detach() for name, value in used.items()}, nmse)


def _of_matrices(R: Tensor, batch: Batch, cfg: Config) -> dict[str, Tensor]:
    if not (cfg.loss.alignment or cfg.loss.eigengap):
        return {"covariance": covariance_error(R, batch.R_in)}
    U, kept = true_subspace(batch.ptr, cfg.array)
    U = U.to(R.dtype)
    distance, *seen = read(R, batch.R_in, U)
    values = {"covariance": distance / squared_norm(batch.R_in), "alignment": aligned(*seen)}
    if cfg.loss.eigengap:
        values["eigengap"] = missing_gap((seen[0], seen[1]), inside(batch.R_in, U), kept, R.shape[-1])
    return values
