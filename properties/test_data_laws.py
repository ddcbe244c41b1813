"""Laws of drawn and stored scenes over panels, books, fields of view, powers, seeds and parts."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ris_verified.config import ArrayConfig, Config, CovarianceConfig, DataConfig, SceneConfig
from ris_verified.data.batch import FIELDS, unpack
from ris_verified.data.dataset import SceneDataset, scenes_to_batch, scenes_to_truth
from ris_verified.data.generate import generate
from ris_verified.data.manifest import SPLITS, data_digest, planned_shards, verify
from ris_verified.scene.channel import draw_channel
from ris_verified.scene.codes import BEAMS, code_values, draw_codes
from ris_verified.scene.scene import draw_scene

EPS, HALF = float(np.finfo(np.float32).eps), float(np.finfo(np.float16).eps)
SIGMAS = 7
seeds = st.integers(0, 2**31)


@st.composite
def arrays(draw, least=1):
    return ArrayConfig(
        horizontal=draw(st.integers(least, 7)),
        vertical=draw(st.integers(least, 6)),
        wavelength=draw(st.sampled_from([0.05, 0.3])),
        spacing_wavelengths=draw(st.floats(0.25, 1.0)),
        amplitude=draw(st.sampled_from(["unit", "spherical"])),
    )


@st.composite
def configs(draw):
    array = draw(arrays())
    antennas = draw(st.integers(2, 9))
    most = draw(st.integers(1, min(antennas - 1, array.elements)))
    snr, kappa, distance = (sorted(draw(st.tuples(x, x))) for x in (_snr, _kappa, _distance))
    scene = SceneConfig(
        antennas=antennas,
        snapshots=draw(st.integers(2, 8)),
        sources_min=draw(st.integers(1, most)),
        sources_max=most,
        azimuth_max=draw(st.floats(0, 1.5)),
        elevation_max=draw(st.floats(0, 1.5)),
        range_min=distance[0],
        range_max=distance[1],
        snr_db_min=snr[0],
        snr_db_max=snr[1],
        rician_factor_min=kappa[0],
        rician_factor_max=kappa[1],
        base_station_distance=draw(st.floats(5, 100)),
        codebook=draw(st.sampled_from(["random", "dft2d", "hadamard"])),
        code_bits=draw(st.integers(1, 8)),
        symbols=draw(st.sampled_from(["varying", "constant"])),
        power_spread_db=draw(st.floats(0, 20)),
    )
    return Config(seed=draw(seeds), array=array, scene=scene)


_snr, _kappa, _distance = st.floats(-20, 60), st.floats(0, 50), st.floats(0.5, 50)


def _wave(cfg, scene):
    a = cfg.array
    v, h = np.divmod(np.arange(a.elements), a.horizontal)
    element = np.stack([0 * h, h - (a.horizontal - 1) / 2, v - (a.vertical - 1) / 2], -1) * a.spacing
    flat, r = np.cos(scene.elevation), scene.range
    source = r * np.stack([flat * np.cos(scene.azimuth), flat * np.sin(scene.azimuth), np.sin(scene.elevation)])
    away = np.linalg.norm(source.T - element[:, None], axis=-1)
    gain = r / away if a.amplitude == "spherical" else 1.0
    return gain * np.exp(-2j * np.pi / a.wavelength * (away - r))


def _power(z):
    return float(np.mean(np.abs(z) ** 2))


def _bytes(scene):
    return b"".join(np.asarray(value).tobytes() for value in vars(scene).values())


@given(configs(), seeds)
def test_the_same_key_gives_the_same_bytes_and_another_another_scene(cfg, index):
    scene = draw_scene(cfg, 0, index)
    assert _bytes(scene) == _bytes(draw_scene(cfg, 0, index))
    others = [draw_scene(cfg, 1, index), draw_scene(cfg, 0, index + 1)]
    others.append(draw_scene(dataclasses.replace(cfg, seed=cfg.seed + 1), 0, index))
    assert len({other.y.tobytes() for other in [scene, *others]}) == 4


@given(configs(), seeds)
def test_a_scene_keeps_to_its_configuration(cfg, index):
    scene, s = draw_scene(cfg, index), cfg.scene
    K = scene.azimuth.size
    assert s.sources_min <= K <= s.sources_max
    assert scene.azimuth.shape == scene.elevation.shape == scene.range.shape == scene.powers.shape == (K,)
    assert (np.abs(scene.azimuth) <= s.azimuth_max).all()
    assert (np.abs(scene.elevation) <= s.elevation_max).all()
    assert ((scene.range >= s.range_min) & (scene.range <= s.range_max)).all()
    assert s.snr_db_min <= scene.snr_db <= s.snr_db_max
    assert s.rician_factor_min <= scene.rician_factor <= s.rician_factor_max
    # Powers and their mean are rounded a few times each; decibels lose a digit at most.
    spread = 10 * np.log10(scene.powers.max() / scene.powers.min())
    assert spread <= s.power_spread_db + 1e3 * np.finfo(float).eps
    assert abs(scene.powers.mean() - 1) <= 4 * K * np.finfo(float).eps
    if s.symbols == "constant":
        assert (scene.symbols == scene.symbols[0]).all()
    else:
        assert len(np.unique(scene.symbols, axis=0)) == s.snapshots


@given(configs(), seeds)
def test_the_measurement_is_the_forward_model_and_the_stated_snr_is_measured(cfg, index):
    scene, a = draw_scene(cfg, index), cfg.array
    A = _wave(cfg, scene)
    clean = np.stack([scene.H_full @ np.diag(c) @ A @ s for c, s in zip(scene.codes, scene.symbols, strict=True)])
    # The plain difference of distances has an error of eps times the longest of them, in waves.
    turns = 8 * np.finfo(float).eps * (cfg.scene.range_max + a.spacing * a.elements) / a.wavelength
    reach = a.elements * np.abs(A).max() * np.abs(scene.symbols).sum(1).max() * np.abs(scene.H_full).max()
    assert np.abs(clean - scene.y_clean).max() <= (2 * np.pi * turns + 8 * a.elements * np.finfo(float).eps) * reach
    stated = _power(scene.y_clean) / scene.noise_variance
    assert abs(10 * np.log10(stated) - scene.snr_db) <= 64 * np.finfo(float).eps * max(abs(scene.snr_db), 1)


@settings(max_examples=25)
@given(configs(), seeds)
def test_noise_has_the_stated_variance_no_mean_and_no_preferred_phase(cfg, index):
    scenes = [draw_scene(cfg, index, i) for i in range(20)]
    noise = np.concatenate([((s.y - s.y_clean) / np.sqrt(s.noise_variance)).ravel() for s in scenes])
    n = noise.size
    # |n|² is exponential (variance 1), n² and n have variance 2 and 1.
    assert abs(_power(noise) - 1) <= SIGMAS / np.sqrt(n)
    assert abs(np.mean(noise)) <= SIGMAS / np.sqrt(n)
    assert abs(np.mean(noise**2)) <= SIGMAS * np.sqrt(2 / n)


@given(arrays(), st.sampled_from(["random", "dft2d", "hadamard"]), st.integers(1, 8), st.integers(2, 40), seeds)
def test_codes_are_unit_modulus_on_the_phase_grid(array, book, bits, snapshots, seed):
    scene = SceneConfig(snapshots=snapshots, codebook=book, code_bits=bits)
    index = draw_codes(array, scene, np.random.default_rng(seed))
    assert index.shape == (snapshots, array.elements)
    assert index.dtype == np.uint8
    assert int(index.max()) < 1 << bits
    codes = code_values(index, bits)
    # Cosine and sine are each rounded; the power 2^bits multiplies what is left.
    eps = np.finfo(float).eps
    assert np.abs(np.abs(codes) - 1).max() <= 4 * eps
    assert np.abs(codes ** (1 << bits) - 1).max() <= 16 * eps * (1 << bits)
    if book == "hadamard":
        assert set(np.unique(index)) <= {0, 1 << (bits - 1)}


@given(arrays(least=2), st.integers(3, 8), st.integers(0, 30), seeds)
def test_structured_books_span_both_axes(array, bits, more, seed):
    H, V = array.horizontal, array.vertical
    order = 1 << (max(H, V) - 1).bit_length()
    for book, beams in (("dft2d", BEAMS), ("hadamard", order)):
        scene = SceneConfig(snapshots=beams + more, codebook=book, code_bits=bits)
        codes = code_values(draw_codes(array, scene, np.random.default_rng(seed)), bits).reshape(-1, V, H)
        assert np.linalg.matrix_rank(codes[:, 0]) == min(beams, H)
        # A stride just above the number of beams steps over one vertical beam where it wraps.
        assert min(beams - 1, V) <= np.linalg.matrix_rank(codes[:, :, 0]) <= min(beams, V)


@settings(max_examples=25)
@given(arrays(), st.integers(2, 9), st.floats(0, 50), seeds)
def test_the_rician_factor_is_measured_and_the_mean_power_is_one_over_N(array, antennas, kappa, seed):
    # Straight ahead the direct path is known without asking the generator.
    scene = SceneConfig(antennas=antennas, azimuth_max=0.0, elevation_max=0.0, sources_max=1)
    rng, S = np.random.default_rng(seed), 60
    H = np.stack([draw_channel(array, scene, kappa, rng) for _ in range(S)]) * np.sqrt(array.elements)
    v, h = np.divmod(np.arange(array.elements), array.horizontal)
    y = (h - (array.horizontal - 1) / 2) * array.spacing
    z = (v - (array.vertical - 1) / 2) * array.spacing
    m = (np.arange(antennas) - (antennas - 1) / 2) * array.wavelength / 2
    d = scene.base_station_distance
    direct = np.exp(-1j * array.wavenumber * np.sqrt(d**2 + (m[:, None] - y) ** 2 + z**2))
    share, n = kappa / (kappa + 1), H.size
    along = np.mean(H * direct.conj())
    spread = np.sqrt((1 - share) / n)
    assert abs(along - np.sqrt(share)) <= SIGMAS * spread + HALF
    rest = _power(H - along * direct)
    # The projection takes one of n degrees of freedom; half precision rounds each entry.
    assert (
        abs(rest - (1 - share) * (1 - 1 / n))
        <= SIGMAS * (1 - share) / np.sqrt(n) + 2 * HALF * np.sqrt(1 - share) + HALF**2
    )
    assert abs(_power(H) - 1) <= SIGMAS * np.sqrt((1 - share**2) / n) + 2 * HALF


@given(configs(), seeds, st.integers(1, 4))
def test_a_batch_holds_its_scenes(cfg, key, count):
    scenes = [draw_scene(cfg, key, index) for index in range(count)]
    batch, truth, N = scenes_to_batch(scenes, cfg), scenes_to_truth(scenes, cfg), cfg.array.elements
    assert unpack(tuple(vars(batch)[name] for name in FIELDS)) == unpack(vars(batch))
    complexes = {name: torch.view_as_complex(vars(batch)[name]).numpy() for name in ("y", "H", "C", "H_full")}
    for i, scene in enumerate(scenes):
        K = int(batch.K[i])
        assert scene.azimuth.size == K
        assert np.array_equal(complexes["y"][i], scene.y.astype(np.complex64))
        assert np.array_equal(complexes["H_full"][i], scene.H_full)
        assert np.array_equal(complexes["C"][i], scene.codes.astype(np.complex64))
        seen = scene.codes @ scene.H_full.T
        reach = np.abs(scene.H_full).sum(1).max()
        assert np.abs(complexes["H"][i] - seen).max() <= 4 * N * EPS * reach
        place = np.stack([scene.azimuth, scene.elevation, scene.range], -1)
        assert np.array_equal(truth.ptr[i, :K], place)
        assert np.array_equal(batch.ptr[i, :K], place.astype(np.float32))
        assert torch.isnan(batch.ptr[i, K:]).all()
        assert torch.isnan(truth.powers[i, K:]).all()


@given(configs(), seeds)
def test_R_true_is_A_P_Ah_of_the_scene(cfg, key):
    scene, N = draw_scene(cfg, key), cfg.array.elements
    R = scenes_to_batch([scene], cfg).R_in[0]
    assert R.dtype == torch.complex64
    A = _wave(cfg, scene)
    expected = (A * scene.powers) @ A.conj().T
    expected *= N / np.trace(expected).real
    K = scene.azimuth.size
    assert np.linalg.norm(R.numpy() - expected) <= 8 * EPS * np.sqrt(K) * N
    assert abs(float(torch.diagonal(R).real.double().sum()) - N) <= 4 * EPS * N
    values = torch.linalg.eigvalsh(R.to(torch.complex128))
    assert float(values[: max(N - K, 0)].abs().max() if N > K else 0.0) <= 8 * EPS * np.sqrt(K) * N


@st.composite
def stored(draw):
    size = st.integers(1, 6)
    data = DataConfig(
        train_scenes=draw(size), validation_scenes=draw(size), test_scenes=draw(size),
        shard_scenes=draw(st.integers(1, 7)), workers=1,
    )  # fmt: skip
    scene = SceneConfig(antennas=3, snapshots=2, sources_max=2)
    return Config(seed=draw(seeds), array=ArrayConfig(horizontal=2, vertical=2), scene=scene, data=data)


@settings(max_examples=12)
@given(stored(), st.integers(1, 5), st.randoms(use_true_random=False))
def test_any_division_over_machines_in_any_order_makes_the_same_folder(cfg, count, random):
    order = random.sample(range(1, count + 1), count)
    with tempfile.TemporaryDirectory() as name:
        whole, parts = Path(name) / "whole", Path(name) / "parts"
        manifest = generate(cfg, whole)
        made = [generate(cfg, parts, part=(number, count)) for number in order]
        assert made[-1] == manifest
        found = [{path.name: path.read_bytes() for path in folder.iterdir()} for folder in (whole, parts)]
        assert found[0] == found[1]
        assert verify(parts, cfg) == []
        digests = [SceneDataset(parts, split).scene_digests() for split in SPLITS]
        assert len(set().union(*digests)) == sum(map(len, digests))


@settings(max_examples=12)
@given(stored(), st.data())
def test_one_changed_bit_anywhere_is_named(cfg, data):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        generate(cfg, folder)
        shard = data.draw(st.sampled_from(planned_shards(cfg))).file
        content = bytearray((folder / shard).read_bytes())
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        (folder / shard).write_bytes(content)
        (problem,) = verify(folder, cfg)
        assert problem.startswith(shard)


@given(configs(), st.integers(1, 64), st.floats(0, 1))
def test_the_digest_of_data_knows_what_shapes_it_and_nothing_else(cfg, workers, beta):
    digest = data_digest(cfg)
    same = dataclasses.replace(
        cfg, covariance=CovarianceConfig(beta=beta), data=dataclasses.replace(cfg.data, workers=workers)
    )
    assert data_digest(same) == digest
    changed = [
        dataclasses.replace(cfg, seed=cfg.seed + 1),
        dataclasses.replace(cfg, array=dataclasses.replace(cfg.array, wavelength=0.31)),
        dataclasses.replace(cfg, scene=dataclasses.replace(cfg.scene, snr_db_max=61.0)),
        dataclasses.replace(cfg, data=dataclasses.replace(cfg.data, shard_scenes=cfg.data.shard_scenes + 1)),
    ]
    assert len({digest, *map(data_digest, changed)}) == 5
