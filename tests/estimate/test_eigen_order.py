"""Eigenvalue criteria against the published table, published cases and formulas by hand."""

from __future__ import annotations

import math

import pytest
import torch

from ris_verified.array.steering import planar_steering
from ris_verified.config import ArrayConfig
from ris_verified.errors import InputError, ShapeError
from ris_verified.estimate.eigen_order import eigenvalue_criterion, eigenvalue_order

both = pytest.mark.parametrize("criterion", ["aic", "mdl"])

# Seven sensors, 100 snapshots, two sources.
EIGENVALUES = [21.2359, 2.1717, 1.4279, 1.0979, 1.0544, 0.9432, 0.7324]
AIC = [1180.8, 100.5, 71.4, 75.5, 86.8, 93.2, 96.0]
MDL = [590.4, 67.2, 66.9, 80.7, 95.5, 105.2, 110.5]


@pytest.mark.parametrize(("criterion", "printed"), [("aic", AIC), ("mdl", MDL)])
def test_the_published_table_is_reproduced(criterion, printed):
    """Wax and Kailath, IEEE Trans. ASSP 33 (1985), section on simulation results, one decimal."""
    value = eigenvalue_criterion(torch.tensor([EIGENVALUES], dtype=torch.float64), 100, criterion)[0]
    assert ((value - torch.tensor(printed, dtype=torch.float64)).abs() <= 0.05).all()
    assert int(value.argmin()) == 2


def test_the_formula_on_eigenvalues_4_1_1():
    value = torch.tensor([[4.0, 1.0, 1.0]], dtype=torch.float64)
    # Three eigenvalues: mean 2, geometric mean 4^(1/3), so the misfit is 3 L ln(2/4^(1/3)) = L ln 2.
    aic, mdl = (eigenvalue_criterion(value, 10, criterion)[0].tolist() for criterion in ("aic", "mdl"))
    assert aic == pytest.approx([20 * math.log(2), 10, 16], rel=1e-14)
    assert mdl == pytest.approx([10 * math.log(2), 2.5 * math.log(10), 4 * math.log(10)], rel=1e-14)


@both
@pytest.mark.parametrize("K", range(1, 11))
def test_ideal_eigenvalues_of_twenty_sensors(criterion, K):
    """morriswmz/doatools.py, doatools/tests/test_source_number.py, `test_ideal_case`."""
    eigenvalues = torch.full((1, 20), 0.1, dtype=torch.float64)
    eigenvalues[:, :K] = 1.0
    assert eigenvalue_order(torch.diag_embed(eigenvalues).to(torch.complex128), 10000, criterion).tolist() == [K]


@both
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_it_counts_waves_on_a_line_at_high_snr(criterion, dtype):
    M, L, generator = 20, 200, torch.Generator().manual_seed(723)
    R = []
    for K in range(6):
        A = planar_steering(ArrayConfig(horizontal=M, vertical=1), torch.linspace(-1, 1, K).double(), 0.0).mT
        s, n = (torch.randn(rows, L, dtype=torch.complex128, generator=generator) for rows in (K, M))
        Y = 10 * A @ s + n
        R.append(Y @ Y.mH / L)
    assert eigenvalue_order(torch.stack(R).to(dtype), L, criterion).tolist() == list(range(6))


def test_too_few_snapshots_are_refused():
    with pytest.raises(InputError, match="at least 5"):
        eigenvalue_order(torch.eye(5, dtype=torch.complex128)[None], 4, "mdl")


def test_a_singular_covariance_is_refused():
    R = torch.diag_embed(torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]])).to(torch.complex64)
    with pytest.raises(InputError, match=r"R\[1\]"):
        eigenvalue_order(R, 10, "aic")


def test_a_wrong_criterion_is_one_clear_error():
    with pytest.raises(ShapeError):
        eigenvalue_order(torch.eye(5, dtype=torch.complex128)[None], 10, "bic")
