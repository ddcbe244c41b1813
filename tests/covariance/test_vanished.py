"""Factors whose squares overflow vanish in the scaling to trace N: this is divergence, not a broken stage."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from ris_verified.audit.context import small_config
from ris_verified.config import Config
from ris_verified.contracts import check_covariance
from ris_verified.covariance.predicted import predicted_covariance
from ris_verified.data.dataset import draw_batch
from ris_verified.errors import DivergedError, InvariantError
from ris_verified.pipeline import Pipeline
from ris_verified.train.state import TrainState


@pytest.mark.parametrize(("mode", "size"), [("product", 1e12), ("real", 1e12), ("sum", 1e20)])
def test_overflow_is_divergence(mode: str, size: float) -> None:
    # Real ones: what is left of (1 + i)² is zero by itself.
    factors = torch.tensor([1.0, 0.0]).repeat(2, 720)
    factors[1] *= size
    config = Config().replaced({"covariance.factor_mode": mode})
    with pytest.raises(DivergedError, match=r"R_pred\[1\]: zero throughout"):
        predicted_covariance(factors, factors, config)


def test_a_matrix_without_its_diagonal_is_a_broken_stage() -> None:
    R = torch.ones(1, 4, 4, dtype=torch.complex64)
    R.diagonal(dim1=1, dim2=2).zero_()
    with pytest.raises(InvariantError, match="trace is not N") as caught:
        check_covariance(R, "R")
    assert not isinstance(caught.value, DivergedError)


def test_a_step_of_overflowing_factors_is_skipped() -> None:
    pipeline = Pipeline.default(small_config(Config()))
    state = TrainState.create(pipeline, total_steps=3)
    state.model.register_forward_hook(
        lambda m, given, out: dataclasses.replace(
            out, cov_fact_angle=1e15 * out.cov_fact_angle, cov_fact_range=1e15 * out.cov_fact_range
        )
    )
    before = [p.detach().clone() for p in state.model.parameters()]
    report = pipeline.train_step(state, draw_batch(pipeline.config, 2, 5), pipeline)
    assert (report.skipped, state.skipped) == (True, 1)
    assert all(torch.equal(a, b) for a, b in zip(before, state.model.parameters(), strict=True))
