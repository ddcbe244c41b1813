"""The loss at known points, its isolation of terms, and what it reads."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from ris_verified.array.steering import steering
from ris_verified.config import ArrayConfig, Config, LossConfig, SceneConfig
from ris_verified.covariance.trace import trace_normalised
from ris_verified.data.batch import Batch
from ris_verified.data.dataset import draw_batch
from ris_verified.errors import InvariantError
from ris_verified.loss.assignment import assign
from ris_verified.loss.terms import alignment, covariance_error, eigengap, positions_error, true_subspace
from ris_verified.loss.total import loss
from ris_verified.model.output import ModelOutput
from ris_verified.pipeline import Pipeline

SMALL = Config(
    array=ArrayConfig(horizontal=4, vertical=4),
    scene=SceneConfig(antennas=4, snapshots=4, sources_max=3),
    loss=LossConfig(),
)


def _truth(cfg=SMALL, dtype=torch.float64, counts=(1, 2, 3)):
    generator = torch.Generator().manual_seed(3)
    most = cfg.scene.sources_max
    low, high = torch.tensor([-1.0, -0.5, 0.6]), torch.tensor([1.0, 0.5, 6.0])
    ptr = (low + (high - low) * torch.rand(len(counts), most, 3, generator=generator)).to(dtype)
    K = torch.tensor(counts)
    absent = torch.arange(most) >= K[:, None]
    A = steering(cfg.array, *ptr.unbind(-1)).mT * ~absent[:, None]
    R = trace_normalised(A @ A.mH)
    empty = torch.zeros(len(counts), 1, 1, 2)
    batch = Batch(empty, empty, empty, ptr.masked_fill(absent[..., None], torch.nan), K, R, torch.zeros(3), empty)
    outputs = ModelOutput(empty, empty, 20.0 * torch.nn.functional.one_hot(K - 1, most), ptr[..., :2], ptr[..., 2])
    return batch, outputs


def test_a_perfect_prediction_scores_zero_in_every_term():
    batch, outputs = _truth()
    result = loss(outputs, batch.R_in, batch, SMALL, training=False)
    assert set(result.terms) == {f.name for f in dataclasses.fields(LossConfig)}
    for name, value in result.terms.items():
        # The order logits are 20 apart, not infinitely.
        assert float(value) <= (1e-8 if name == "order" else 1e-12), name


def test_exact_values_of_nmse_and_alignment():
    batch, _ = _truth()
    R, zero = batch.R_in, torch.zeros_like(batch.R_in)
    assert torch.equal(covariance_error(R, R), torch.zeros(3).double())
    assert torch.equal(covariance_error(zero, R), torch.ones(3).double())
    U, kept = true_subspace(batch.ptr, SMALL.array)
    assert kept.sum(-1).tolist() == [1, 2, 3]
    complement = torch.eye(16) - U @ U.mH
    assert torch.allclose(alignment(R, U), torch.zeros(3).double(), atol=1e-13)
    assert torch.allclose(alignment(complement, U), torch.ones(3).double(), atol=1e-13)
    assert (eigengap(complement, R, U, kept) > 0.3).all()


def test_terms_read_the_blend_where_it_is_given_and_the_prediction_where_not():
    batch, outputs = _truth()
    other = torch.eye(16, dtype=torch.complex128).expand(3, -1, -1)
    read_blend = loss(outputs, batch.R_in, batch, SMALL, R_blend=other, training=False)
    read_hat = loss(outputs, other, batch, SMALL, training=False)
    for name in ("covariance", "alignment", "eigengap"):
        assert read_blend.terms[name] == read_hat.terms[name] > 0.01
    assert read_blend.nmse == read_hat.nmse > 0.01


def test_training_requires_a_graph_and_evaluation_does_not():
    batch, outputs = _truth()
    with pytest.raises(InvariantError, match="R_hat"):
        loss(outputs, batch.R_in, batch, SMALL, training=True)
    loss(outputs, batch.R_in, batch, SMALL, training=False)


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(LossConfig)])
def test_a_term_with_weight_zero_leaves_and_a_sole_term_has_a_gradient(name):
    batch, outputs = _truth()
    generator = torch.Generator().manual_seed(0)
    A = torch.randn(3, 16, 3, dtype=torch.complex128, generator=generator).requires_grad_()
    R = trace_normalised(A @ A.mH)
    leaves = {f.name: (vars(outputs)[f.name].double() + 0.1).requires_grad_() for f in dataclasses.fields(ModelOutput)}
    weights = dict.fromkeys((f.name for f in dataclasses.fields(LossConfig)), 0.0)
    cfg = dataclasses.replace(SMALL, loss=LossConfig(**{**weights, name: 1.0}))
    result = loss(ModelOutput(**leaves), R, batch, cfg)
    assert list(result.terms) == [name]
    result.total.backward()
    moved = {"A": A, **leaves}
    total = sum(float(leaf.grad.abs().sum()) for leaf in moved.values() if leaf.grad is not None)
    assert total > 0
    assert all(torch.isfinite(leaf.grad).all() for leaf in moved.values() if leaf.grad is not None)


def test_gradients_are_right_with_repeated_eigenvalues_and_rank_one():
    batch, _ = _truth()
    U, kept = true_subspace(batch.ptr, SMALL.array)
    eye = torch.eye(16, dtype=torch.complex128).expand(3, -1, -1)
    for R in (eye, batch.R_in[:1].expand(3, -1, -1)):
        start = (R + 0).clone().requires_grad_()
        for term in (
            lambda R: covariance_error(R, batch.R_in).sum(),
            lambda R: alignment(R, U).sum(),
            lambda R: eigengap((R + R.mH) / 2, batch.R_in, U, kept).sum(),
        ):
            (gradient,) = torch.autograd.grad(term(start), start)
            assert torch.isfinite(torch.view_as_real(gradient)).all()
    generator = torch.Generator().manual_seed(1)
    A = torch.randn(3, 16, 3, dtype=torch.complex128, generator=generator).requires_grad_()
    assert torch.autograd.gradcheck(lambda A: eigengap(A @ A.mH, batch.R_in, U, kept), A)
    assert torch.autograd.gradcheck(lambda A: alignment(A @ A.mH, U), A)


def test_nothing_depends_on_the_order_of_the_sources():
    batch, outputs = _truth()
    order = torch.tensor([2, 0, 1])
    shuffled = dataclasses.replace(batch, ptr=batch.ptr[:, order])
    first = loss(outputs, batch.R_in * 0.5, batch, SMALL, training=False).terms
    second = loss(outputs, batch.R_in * 0.5, shuffled, SMALL, training=False).terms
    for name in first:
        assert float(first[name]) == pytest.approx(float(second[name]), abs=1e-12)


def test_a_term_moves_when_its_cause_moves_and_only_then():
    batch, outputs = _truth()
    moved = dataclasses.replace(outputs, ranges=outputs.ranges * 1.2)
    before = loss(outputs, batch.R_in, batch, SMALL, training=False).terms
    after = loss(moved, batch.R_in, batch, SMALL, training=False).terms
    assert float(after["range"]) > float(before["range"])
    for name in set(before) - {"range"}:
        assert float(after[name]) == pytest.approx(float(before[name]), abs=1e-12)


@pytest.mark.parametrize("slots", [3, 7])
def test_both_assignments_are_the_cheapest(slots):
    generator = torch.Generator().manual_seed(slots)
    cost = torch.rand(4, slots, slots, generator=generator)
    chosen = assign(cost)
    assert torch.equal(chosen.sort(-1)[0], torch.arange(slots).expand(4, -1))
    total = cost.gather(1, chosen[:, None])[:, 0].sum(-1)
    for _ in range(200):
        other = torch.stack([torch.randperm(slots, generator=generator) for _ in range(4)])
        assert (total <= cost.gather(1, other[:, None])[:, 0].sum(-1) + 1e-6).all()


def test_position_error_is_the_huber_of_chord_and_curvature():
    batch, outputs = _truth(counts=(1, 1, 1))
    ranges = outputs.ranges.clone()
    ranges[:, 0] = 1 / (1 / ranges[:, 0] + 0.05)
    ranges[:, 1:], angles = 1e6, outputs.angles.clone()
    angles[:, 1:] = -2.0
    chord, bend = positions_error(angles, ranges, batch.ptr)
    assert torch.allclose(chord, torch.zeros(3).double(), atol=1e-15)
    assert torch.allclose(bend, torch.full((3,), 0.05**2 / 2 / 0.1).double(), rtol=1e-6)


@pytest.mark.parametrize("apart", [0.05, 0.1, 0.35])
def test_beyond_the_knee_the_error_grows_as_its_size(apart):
    batch, outputs = _truth(counts=(1, 1, 1))
    ranges = outputs.ranges.clone()
    ranges[:, 0] = 1 / (1 / ranges[:, 0] + apart)
    ranges[:, 1:], angles = 1e6, outputs.angles.clone()
    angles[:, 1:] = -2.0
    _, bend = positions_error(angles, ranges, batch.ptr)
    wanted = apart**2 / 2 / 0.1 if apart <= 0.1 else apart - 0.05
    assert torch.allclose(bend, torch.full((3,), wanted).double(), rtol=1e-6)


def test_the_missing_gap_by_hand():
    # A panel of four, one source on the first axis: gap 2 − (1 + 1)/3 here, 4 − 0 in truth; times K/N.
    R, R_true = (torch.diag(torch.tensor(d)).to(torch.complex128)[None] for d in ([2.0, 1, 1, 0], [4.0, 0, 0, 0]))
    U = torch.zeros(1, 4, 2, dtype=torch.complex128)
    U[0, 0, 0] = 1
    gap = eigengap(R, R_true, U, torch.tensor([[True, False]]))
    assert float(gap) == pytest.approx((4 - (2 - 2 / 3)) / 4, rel=1e-14)


def test_as_many_sources_as_elements_leave_a_finite_loss():
    cfg = Config.load(overrides=[
        "array.horizontal=2", "array.vertical=2", "scene.sources_min=4", "scene.sources_max=4", "scene.antennas=8",
        "model.channels=8", "model.width=16", "model.layers=1", "model.heads=2", "model.head_width=16",
    ])  # fmt: skip
    pipeline, batch = Pipeline.default(cfg), draw_batch(cfg, 3, 5)
    outputs, blended = pipeline.forward(pipeline.build_model(cfg), batch)
    result = pipeline.loss(outputs, blended.R_pred, batch, cfg, R_blend=blended.R)
    assert torch.isfinite(result.total)
    assert torch.isfinite(result.terms["eigengap"])
