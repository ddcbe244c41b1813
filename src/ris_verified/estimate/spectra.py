"""MUSIC, MVDR and beamformer spectra of a dense or low-rank covariance over any grid.

Each of them subtracts nearly equal numbers where it peaks, so both forms compute in double
precision and round once, at the end, to the precision of the covariance.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from ris_verified.covariance.low_rank import LowRank
from ris_verified.errors import InputError, ShapeError
from ris_verified.estimate.subspace import pseudo_spectrum, signal_subspace, subspace_power
from ris_verified.shapes import describe, shaped

# Grid points at a time: B x BLOCK x N complex numbers are the largest intermediate.
BLOCK = 4096


@shaped
def music_spectrum(
    R: Complex[Tensor, "B N N"] | LowRank, K: Int[Tensor, " B"], atoms: Complex[Tensor, "G N"]
) -> Float[Tensor, "B G"]:
    """Return the MUSIC spectrum 1/(1 − ‖U_Kᴴ a‖²/‖a‖²).

    Args:
        R: `B x N x N` complex, Hermitian, or a `LowRank` with a factor of at least K columns.
        K: `B` int64, number of sources.
        atoms: `G x N` complex, steering vectors of any length.

    Returns:
        `B x G` real, at most 1/eps of R's precision.

    Raises:
        ShapeError: the axes do not agree.
        InputError: more sources than directions.

    Source: Schmidt, "Multiple emitter location and signal parameter estimation", IEEE Trans.
    Antennas Propag. 34 (1986).
    """
    dtype = _precision(R, atoms)
    U = signal_subspace(_double(R), K, int(K.max()))
    share = _over(atoms, lambda a: subspace_power(U, a) / _square(a))
    return pseudo_spectrum(share, torch.finfo(dtype).eps).to(dtype)


@shaped
def mvdr_spectrum(R: Complex[Tensor, "B N N"] | LowRank, atoms: Complex[Tensor, "G N"]) -> Float[Tensor, "B G"]:
    """Return the minimum-variance (Capon) spectrum 1/(aᴴ R⁻¹ a).

    A low-rank R is inverted by R⁻¹ = (I − F (cI + FᴴF)⁻¹ Fᴴ)/c.

    Args:
        R: `B x N x N` complex, positive definite, or a `LowRank` with a positive floor.
        atoms: `G x N` complex, steering vectors.

    Returns:
        `B x G` real, in the unit of a source's power.

    Raises:
        ShapeError: the axes do not agree.
        InputError: R is singular.

    Source: Capon, "High-resolution frequency-wavenumber spectrum analysis", Proc. IEEE 57 (1969);
    Woodbury, "Inverting modified matrices" (1950).
    """
    dtype = _precision(R, atoms)
    loss = _inverse_form(_double(R))
    return (1 / _over(atoms, loss)).to(dtype)


@shaped
def beamformer_spectrum(R: Complex[Tensor, "B N N"] | LowRank, atoms: Complex[Tensor, "G N"]) -> Float[Tensor, "B G"]:
    """Return the conventional (Bartlett) spectrum aᴴ R a/(aᴴ a)².

    Scaled so that R = p a aᴴ gives p at a; `mvdr_spectrum` nowhere exceeds it.

    Args:
        R: `B x N x N` complex, Hermitian, or a `LowRank`.
        atoms: `G x N` complex, steering vectors.

    Returns:
        `B x G` real, in the unit of a source's power.

    Raises:
        ShapeError: the axes do not agree.

    Source: Krim and Viberg, "Two decades of array signal processing research", IEEE Signal
    Process. Mag. 13 (1996), over aᴴ a once more.
    """
    dtype, wide = _precision(R, atoms), _double(R)
    if isinstance(wide, LowRank):
        F, c = wide.factor, wide.floor

        def power(a: Tensor) -> Tensor:
            return subspace_power(F, a) + c[:, None] * _square(a)
    else:
        dense = wide

        def power(a: Tensor) -> Tensor:
            return _quadratic(dense, a)

    return _over(atoms, lambda a: power(a) / _square(a).square()).to(dtype)


def _precision(R: Tensor | LowRank, atoms: Tensor) -> torch.dtype:
    if isinstance(R, LowRank):
        if R.factor.shape[1] != atoms.shape[-1]:
            raise ShapeError(describe(atoms), where="atoms", expected=f"complex [G, {R.factor.shape[1]}]")
        return R.factor.real.dtype
    return R.real.dtype


def _double(R: Tensor | LowRank) -> Tensor | LowRank:
    if isinstance(R, LowRank):
        return LowRank(R.factor.to(torch.complex128), R.floor.double())
    return R.to(torch.complex128)


def _square(a: Tensor) -> Tensor:
    return a.abs().square().sum(-1)


def _quadratic(W: Tensor, a: Tensor) -> Tensor:
    # aᴴ W a; the rows of `a` are vectors, so (a* W)_n a_n summed over n.
    form: Tensor = ((a.conj() @ W) * a).real.sum(-1)
    return form


def _over(atoms: Tensor, form: Callable[[Tensor], Tensor]) -> Tensor:
    return torch.cat([form(block.to(torch.complex128)) for block in atoms.split(BLOCK)], -1)


def _inverse_form(R: Tensor | LowRank) -> Callable[[Tensor], Tensor]:
    """Return the function a → aᴴ R⁻¹ a over rows."""
    if isinstance(R, LowRank):
        F, c = R.factor, R.floor
        if not bool((c > 0).all()):
            raise _singular(~(c > 0))
        eye = torch.eye(F.shape[-1], dtype=F.dtype, device=F.device)
        lower = torch.linalg.cholesky(F.mH @ F + c[:, None, None] * eye)
        W = torch.linalg.solve_triangular(lower, F.mH, upper=False).mH
        return lambda a: (_square(a) - subspace_power(W, a)) / c[:, None]
    lower, info = torch.linalg.cholesky_ex(R)
    if bool(info.any()):
        raise _singular(info != 0)
    inverse = torch.cholesky_inverse(lower)
    return lambda a: _quadratic(inverse, a)


def _singular(bad: Tensor) -> InputError:
    return InputError(
        "not positive definite",
        where=f"R[{int(bad.nonzero()[0])}]",
        expected="a covariance with an inverse",
        remedy="add a diagonal loading before the minimum-variance spectrum",
    )
