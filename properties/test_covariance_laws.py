"""Laws of the three covariances over sizes, ranks, powers, phases and precisions."""

from __future__ import annotations

import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from ris_verified.config import ArrayConfig, Config, CovarianceConfig, SceneConfig
from ris_verified.contracts import tolerance
from ris_verified.covariance.blend import blend
from ris_verified.covariance.predicted import pack_factor, predicted_covariance, unpack_factor
from ris_verified.covariance.sample import least_squares_snapshots, sample_covariance
from ris_verified.loss.dense import inside, read, squared_distance
from ris_verified.shapes import from_ri, to_ri


@st.composite
def cases(draw, symbols=("varying",)):
    M = draw(st.integers(2, 8))
    array = ArrayConfig(horizontal=draw(st.integers(2, 6)), vertical=draw(st.integers(2, 5)))
    K = draw(st.integers(1, min(M - 1, array.elements)))
    scene = SceneConfig(
        antennas=M, snapshots=draw(st.integers(2, 7)), sources_max=K, symbols=draw(st.sampled_from(symbols))
    )
    covariance = CovarianceConfig(
        beta=draw(st.floats(0, 1)), loading=draw(st.floats(0, 0.1)), ridge=draw(st.floats(1e-3, 1))
    )
    cfg = Config(array=array, scene=scene, covariance=covariance)
    dtype = draw(st.sampled_from([torch.complex64, torch.complex128]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    return cfg, dtype, generator, draw(st.integers(1, 4))


def _normal(generator, dtype, *shape):
    return torch.randn(*shape, dtype=dtype, generator=generator)


def _measurement(cfg, dtype, generator, B):
    L, M, N = cfg.scene.snapshots, cfg.scene.antennas, cfg.array.elements
    return tuple(_normal(generator, dtype, *shape) for shape in ((B, L, M), (B, M, N), (B, L, N)))


def _law(R, N, rank):
    bound = tolerance(R.dtype, N)
    assert torch.allclose(R, R.mH, rtol=0, atol=bound * N)
    trace = torch.diagonal(R, dim1=-2, dim2=-1).real.double().sum(-1)
    assert ((trace - N).abs() / N).max() <= bound
    values = torch.linalg.eigvalsh(R.to(torch.complex128))
    assert values.min() >= -bound * N
    assert ((values > bound * N).sum(-1) <= rank).all()


@given(cases(("varying", "constant")))
def test_sample_covariance_keeps_its_law(case):
    cfg, dtype, generator, B = case
    y, H, C = _measurement(cfg, dtype, generator, B)
    R = sample_covariance(y.requires_grad_(), H.requires_grad_(), C, cfg)
    assert not R.requires_grad
    constant = cfg.scene.symbols == "constant"
    _law(R, cfg.array.elements, 1 if constant else cfg.scene.snapshots - 1)


@given(cases())
def test_push_through_equals_the_literal_solve(case):
    cfg, _, generator, B = case
    y, H, C = _measurement(cfg, torch.complex128, generator, B)
    Phi = H[:, None] * C[:, :, None]
    G = Phi.mH @ Phi
    alpha = cfg.covariance.ridge * (torch.diagonal(G, dim1=-2, dim2=-1).real.sum(-1) / G.shape[-1] + 1e-12)
    eye = torch.eye(G.shape[-1], dtype=G.dtype)
    literal = torch.linalg.solve(G + alpha[..., None, None] * eye, (Phi.mH @ y[..., None]))[..., 0]
    ours = least_squares_snapshots(y, H, C, cfg)
    assert torch.allclose(ours, literal, rtol=0, atol=1e-9 * float(literal.abs().max()))


@given(cases(), st.floats(0, 6.28), st.floats(0.01, 100))
def test_sample_covariance_ignores_common_phase_gain_and_snapshot_order(case, phase, gain):
    cfg, _, generator, B = case
    y, H, C = _measurement(cfg, torch.complex128, generator, B)
    R = sample_covariance(y, H, C, cfg)
    turned = sample_covariance(y * gain * torch.exp(torch.tensor(1j * phase)), H, C, cfg)
    assert torch.allclose(R, turned, rtol=0, atol=1e-9 * cfg.array.elements)
    order = torch.randperm(cfg.scene.snapshots, generator=generator)
    shuffled = sample_covariance(y[:, order], H, C[:, order], cfg)
    assert torch.allclose(R, shuffled, rtol=0, atol=1e-9 * cfg.array.elements)


@given(cases())
def test_real_and_complex_forms_give_the_same_sample_covariance(case):
    cfg, dtype, generator, B = case
    y, H, C = _measurement(cfg, dtype, generator, B)
    assert torch.equal(sample_covariance(y, H, C, cfg), sample_covariance(to_ri(y), to_ri(H), to_ri(C), cfg))


@given(cases())
def test_unit_codes_take_the_shared_gram_to_the_same_answer(case):
    cfg, _, generator, B = case
    y, H, C = _measurement(cfg, torch.complex128, generator, B)
    codes = torch.exp(1j * C.angle())
    shared = least_squares_snapshots(y, H, codes, cfg)
    # A modulus a hair off one takes the general path.
    general = least_squares_snapshots(y, H, codes * (1 + 1e-13), cfg)
    assert torch.allclose(shared, general, rtol=0, atol=1e-9 * float(shared.abs().max()))


@given(cases())
def test_packing_round_trips_exactly(case):
    cfg, dtype, generator, B = case
    A = _normal(generator, dtype, B, cfg.array.elements, cfg.scene.sources_max)
    assert torch.equal(unpack_factor(pack_factor(A), "A", cfg), A)
    assert torch.equal(from_ri(to_ri(A)), A)


@given(cases(), st.sampled_from(["product", "sum", "real"]))
def test_predicted_covariance_keeps_its_law(case, mode):
    cfg, dtype, generator, B = case
    cfg = Config(array=cfg.array, scene=cfg.scene, covariance=CovarianceConfig(factor_mode=mode))
    N, K = cfg.array.elements, cfg.scene.sources_max
    A, D = (_normal(generator, dtype, B, N, K) for _ in range(2))
    R = predicted_covariance(pack_factor(A), pack_factor(D), cfg)
    _law(R, N, 2 * K if mode == "sum" else K)
    order = torch.randperm(K, generator=generator)
    permuted = predicted_covariance(pack_factor(A[..., order]), pack_factor(D[..., order]), cfg)
    assert torch.allclose(R, permuted, rtol=0, atol=tolerance(dtype, N) * N)
    if mode == "product":
        phases = torch.exp(1j * _normal(generator, dtype, B, 1, K).real).to(dtype)
        turned = predicted_covariance(pack_factor(A * phases), pack_factor(D), cfg)
        assert torch.allclose(R, turned, rtol=0, atol=tolerance(dtype, N) * N)


def _blended(case):
    cfg, dtype, generator, B = case
    N, K = cfg.array.elements, cfg.scene.sources_max
    A = _normal(generator, dtype, B, N, K).requires_grad_()
    P = predicted_covariance(pack_factor(A), pack_factor(torch.ones_like(A)), cfg)
    S = sample_covariance(*_measurement(cfg, dtype, generator, B), cfg)
    return cfg, A, blend(P, S, cfg)


@given(cases())
def test_blend_keeps_its_law_and_its_identities(case):
    cfg, _, blended = _blended(case)
    N = cfg.array.elements
    _law(blended.R, N, N)
    assert blended.proof.holds.all()
    floor = torch.linalg.eigvalsh(blended.R.detach().to(torch.complex128)).min()
    loading = cfg.covariance.loading
    assert floor >= loading / (1 + loading) - tolerance(blended.R.dtype, N) * N


@given(cases())
def test_blend_before_loading_is_at_most_prediction_plus_sample_in_rank(case):
    cfg, _, blended = _blended(case)
    values = torch.linalg.eigvalsh(blended.R_raw.detach().to(torch.complex128))
    rank = (values > tolerance(blended.R_raw.dtype, cfg.array.elements) * cfg.array.elements).sum(-1)
    K = cfg.scene.sources_max
    assert (rank <= K + cfg.scene.snapshots - 1).all()
    # Ky Fan: the K largest eigenvalues hold at least what the rank-K part was given.
    share = values[:, -K:].sum(-1) / values.sum(-1)
    assert (share >= 1 - cfg.covariance.beta - tolerance(blended.R_raw.dtype, cfg.array.elements)).all()


def _same(a, b, factor):
    scale = max(float(b.detach().abs().max()), torch.finfo(torch.float64).tiny)
    assert torch.allclose(a, b, rtol=0, atol=factor * torch.finfo(torch.float64).eps * scale)


def _same_with_slopes(ours, written, leaf, generator):
    N, probe = ours.shape[-1], _normal(generator, ours.dtype, *ours.shape)
    slopes = [torch.autograd.grad((probe.conj() * R).real.sum(), leaf, retain_graph=True)[0] for R in (ours, written)]
    _same(ours, written, 64 * N)
    _same(*slopes, 64 * N * N)


@given(cases())
def test_blend_and_its_gradient_are_those_of_the_steps_as_written(case):
    cfg, _, generator, B = case
    N, (beta, loading) = cfg.array.elements, (cfg.covariance.beta, cfg.covariance.loading)
    A = _normal(generator, torch.complex128, B, N, cfg.scene.sources_max)
    P = predicted_covariance(pack_factor(A), pack_factor(torch.ones_like(A)), cfg).requires_grad_()
    S = sample_covariance(*_measurement(cfg, torch.complex128, generator, B), cfg)

    def normalised(R):
        return R * (N / torch.diagonal(R, dim1=-2, dim2=-1).real.sum(-1))[:, None, None]

    raw = (1 - beta) * P + beta * S
    written = normalised(normalised((raw + raw.mH) / 2) + loading * torch.eye(N, dtype=torch.float64))
    ours = blend(P, S, cfg)
    _same_with_slopes(ours.R, written, P, generator)
    _same_with_slopes(ours.R_raw, raw, P, generator)
    # Both at once, as a loss could read them.
    _same_with_slopes(ours.R + 2 * ours.R_raw, written + 2 * raw, P, generator)


@given(cases())
def test_predicted_covariance_and_its_gradient_are_those_of_the_steps_as_written(case):
    cfg, _, generator, B = case
    N = cfg.array.elements
    A = _normal(generator, torch.complex128, B, N, cfg.scene.sources_max).requires_grad_()
    product = A @ A.mH
    written = product * (N / torch.diagonal(product, dim1=-2, dim2=-1).real.sum(-1))[:, None, None]
    _same_with_slopes(predicted_covariance(pack_factor(A), pack_factor(torch.ones_like(A)), cfg), written, A, generator)


@given(cases())
def test_what_the_loss_reads_and_its_gradient_are_those_of_the_sums_as_written(case):
    cfg, _, generator, B = case
    N, K = cfg.array.elements, cfg.scene.sources_max
    R, T = (_normal(generator, torch.complex128, B, N, N) for _ in range(2))
    U, weight = _normal(generator, torch.complex128, B, N, K), _normal(generator, torch.complex128, B, K, K)
    R.requires_grad_()

    def figure(distance, block, total):
        return (distance + 3 * (weight.conj() * block).real.sum((1, 2)) - 2 * total.cos()).sum()

    wrong = R - T
    written = (wrong.abs().square().sum((1, 2)), U.mH @ R @ U, torch.diagonal(R, dim1=-2, dim2=-1).real.sum(-1))
    for ours in ((squared_distance(R, T), *inside(R, U)), read(R, T, U)):
        for mine, theirs in zip(ours, written, strict=True):
            _same(mine, theirs, 64 * N * N)
        slopes = [torch.autograd.grad(figure(*values), R, retain_graph=True)[0] for values in (ours, written)]
        _same(*slopes, 64 * N * N)
        for mine, theirs in zip(ours, written, strict=True):
            alone = [torch.autograd.grad(v.abs().sum(), R, retain_graph=True)[0] for v in (mine, theirs)]
            _same(*alone, 64 * N * N)


@given(cases())
def test_gradient_passes_the_prediction_with_one_minus_beta(case):
    cfg, A, blended = _blended(case)
    assume(cfg.covariance.beta < 0.999)
    probe = torch.randn(blended.R_raw.shape, dtype=torch.float64).to(blended.R_raw.dtype)
    (blended.R_raw * probe).real.sum().backward()
    through_blend, A.grad = A.grad.clone(), None
    P = predicted_covariance(pack_factor(A), pack_factor(torch.ones_like(A)), cfg)
    (P * probe).real.sum().backward()
    expected = (1 - cfg.covariance.beta) * A.grad
    scale = float(A.grad.abs().max())
    assert torch.allclose(through_blend, expected, rtol=0, atol=scale * tolerance(A.dtype, cfg.array.elements))


@given(cases())
def test_beta_zero_and_one_are_the_parts(case):
    cfg, dtype, generator, B = case
    N = cfg.array.elements
    for beta in (0.0, 1.0):
        ends = Config(array=cfg.array, scene=cfg.scene, covariance=CovarianceConfig(beta=beta, loading=0.0))
        A = _normal(generator, dtype, B, N, cfg.scene.sources_max)
        P = predicted_covariance(pack_factor(A), pack_factor(torch.ones_like(A)), ends)
        S = sample_covariance(*_measurement(ends, dtype, generator, B), ends)
        R = blend(P, S, ends).R
        assert torch.allclose(R, P if beta == 0 else S, rtol=0, atol=tolerance(dtype, N) * N)
