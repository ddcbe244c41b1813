"""Slips in what a scene is drawn from: noise, symbols, codes, channel, positions, counts and keys."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ris_verified.array.geometry import element_positions
from ris_verified.array.steering import steering
from ris_verified.audit.faults.fault import Fault
from ris_verified.audit.faults.scenes import drawing, remeasured
from ris_verified.pipeline import Pipeline
from ris_verified.scene.codes import code_values
from ris_verified.scene.scene import Scene


def _noisy(change: Callable[[Any], Any]) -> Callable[[Pipeline], Pipeline]:
    def noise(scene: Scene, cfg: Any) -> Scene:
        return dataclasses.replace(scene, y=scene.y_clean + change(scene.y - scene.y_clean))

    return drawing(noise)


def _anew(scene: Scene, cfg: Any, **changes: Any) -> Scene:
    moved = dataclasses.replace(scene, **{n: changes.pop(n) for n in ("azimuth", "elevation", "range") if n in changes})
    place = [torch.from_numpy(v) for v in (moved.azimuth, moved.elevation, moved.range)]
    return remeasured(moved, A=steering(cfg.array, *place).numpy().T, **changes)


def _coded(change: Callable[[Any, Any], Any]) -> Callable[[Pipeline], Pipeline]:
    def codes(scene: Scene, cfg: Any) -> Scene:
        index = np.ascontiguousarray(change(scene.code_index, cfg)).astype(np.uint8)
        return _anew(scene, cfg, code_index=index, codes=code_values(index, cfg.scene.code_bits))

    return drawing(codes)


def _rank_one(index: Any, cfg: Any) -> Any:
    grid = index.reshape(-1, cfg.array.vertical, cfg.array.horizontal).astype(int)
    return ((grid[:, :, :1] + grid[:, :1]) % 2**cfg.scene.code_bits).reshape(index.shape)


def _placed(name: str, change: Callable[[Any, Any], Any]) -> Callable[[Pipeline], Pipeline]:
    return drawing(lambda scene, cfg: _anew(scene, cfg, **{name: change(vars(scene)[name], cfg.scene)}))


def _wrapped(scene: Scene, cfg: Any) -> Scene:
    if len(scene.azimuth) < cfg.scene.sources_max:
        return scene
    last = scene.symbols[:, :1] * np.sqrt(scene.powers[-1] / scene.powers[0])
    return _anew(scene, cfg, symbols=np.concatenate([scene.symbols[:, :-1], last], 1))


def _lone_above(scene: Scene, cfg: Any) -> Scene:
    return scene if len(scene.azimuth) > 1 else _anew(scene, cfg, elevation=np.abs(scene.elevation))


def _channel(scene: Scene, cfg: Any, direct: Any, scattered: Any) -> Scene:
    share = scene.rician_factor / (scene.rician_factor + 1)
    H = (np.sqrt(share) * direct + np.sqrt(1 - share) * scattered) / np.sqrt(cfg.array.elements)
    return _anew(scene, cfg, H_full=H.view(np.float64).astype(np.float16).astype(np.float64).view(np.complex128))


def _parts(scene: Scene, cfg: Any) -> tuple[Any, Any]:
    """Return a planar line of sight and fresh scattering, `M x N` each, seeded by the scene."""
    rng, s = np.random.default_rng(scene.code_index[0].tolist()), cfg.scene
    azimuth, elevation = rng.uniform(-s.azimuth_max, s.azimuth_max), rng.uniform(-s.elevation_max, s.elevation_max)
    flat = np.cos(elevation)
    u = np.array([flat * np.cos(azimuth), flat * np.sin(azimuth), np.sin(elevation)])
    q = np.zeros((s.antennas, 3))
    q[:, 1] = (np.arange(s.antennas) - (s.antennas - 1) / 2) * cfg.array.wavelength / 2
    k, p = cfg.array.wavenumber, element_positions(cfg.array).numpy()
    drawn = rng.standard_normal((s.antennas, len(p), 2)).view(np.complex128)[..., 0] / np.sqrt(2)
    return np.exp(1j * k * ((p @ u)[None] - (q @ u)[:, None])), drawn


def _planar_sight(scene: Scene, cfg: Any) -> Scene:
    return _channel(scene, cfg, *_parts(scene, cfg))


def _one_antenna(scene: Scene, cfg: Any) -> Scene:
    direct, scattered = _parts(scene, cfg)
    return _channel(scene, cfg, np.broadcast_to(direct[:1], direct.shape), scattered)


def _real_scatter(scene: Scene, cfg: Any) -> Scene:
    direct, scattered = _parts(scene, cfg)
    return _channel(scene, cfg, direct, np.sqrt(2) * scattered.real + 0j)


def _never_full(pipeline: Pipeline) -> Pipeline:
    def draw(cfg: Any, *key: int) -> Scene:
        s = cfg.scene
        most = s.sources_max - 1 if s.sources_max > s.sources_min else s.sources_max
        return pipeline.draw_scene(dataclasses.replace(cfg, scene=dataclasses.replace(s, sources_max=most)), *key)

    return dataclasses.replace(pipeline, draw_scene=draw)


def _low_bits(pipeline: Pipeline) -> Pipeline:
    def draw(cfg: Any, *key: int) -> Scene:
        return pipeline.draw_scene(cfg, *(k if i < len(key) - 1 else k % 1024 for i, k in enumerate(key)))

    return dataclasses.replace(pipeline, draw_scene=draw)


def _added_keys(pipeline: Pipeline) -> Pipeline:
    def draw(cfg: Any, *key: int) -> Scene:
        return pipeline.draw_scene(cfg, sum(key))

    return dataclasses.replace(pipeline, draw_scene=draw)


def _hashed_keys(pipeline: Pipeline) -> Pipeline:
    def draw(cfg: Any, *key: int) -> Scene:
        digest = hashlib.sha256(repr((cfg.seed, key)).encode()).digest()
        return pipeline.draw_scene(cfg, int.from_bytes(digest[:8], "big") % 1_000_003)

    return dataclasses.replace(pipeline, draw_scene=draw)


def _first_layout(pipeline: Pipeline) -> Pipeline:
    layouts: dict[int, Any] = {}

    def steer(array: Any, *place: torch.Tensor) -> torch.Tensor:
        first = layouts.setdefault(array.elements, array)
        layout = dataclasses.replace(array, horizontal=first.horizontal, vertical=first.vertical)
        return pipeline.steering(layout, *place)

    return dataclasses.replace(pipeline, steering=steer, inference_steering=steer)


def _turned(pipeline: Pipeline) -> Pipeline:
    def positions(array: Any, *rest: Any) -> torch.Tensor:
        p = pipeline.element_positions(array, *rest)
        return p.reshape(array.vertical, array.horizontal, 3).transpose(0, 1).reshape(-1, 3)

    return dataclasses.replace(pipeline, element_positions=positions)


def _stretched(pipeline: Pipeline) -> Pipeline:
    def positions(array: Any, *rest: Any) -> torch.Tensor:
        p = pipeline.element_positions(array, *rest)
        return p * p.new_tensor([1.0, 1.0, 2.0])

    return dataclasses.replace(pipeline, element_positions=positions)


def _other_kappa(scene: Scene, cfg: Any) -> Scene:
    top = cfg.scene.rician_factor_max
    return dataclasses.replace(scene, rician_factor=cfg.scene.rician_factor_min + top - scene.rician_factor)


def _second_half_again(index: Any, cfg: Any) -> Any:
    half = (len(index) + 1) // 2
    return np.concatenate([index[:half], index[: len(index) - half]])


def _amplitudes(scene: Scene, cfg: Any) -> Scene:
    weights = np.sqrt(scene.powers) / np.sqrt(scene.powers).mean()
    return _anew(scene, cfg, powers=weights, symbols=scene.symbols * np.sqrt(weights / scene.powers))


FAULTS = (
    Fault("codes_repeat", "RV1601", "the second half of the snapshots has the codes of the first",
          _coded(_second_half_again)),
    Fault("decibels_of_amplitudes", "RV1601", "20 for 10 in the spread of powers", drawing(_amplitudes)),
    Fault("noise_real", "RV1601", "the imaginary part of the noise is lost", _noisy(lambda n: np.sqrt(2) * n.real)),
    Fault("noise_same_in_snapshots", "RV1601", "noise is drawn once and broadcast",
          _noisy(lambda n: np.repeat(n[:1], len(n), 0))),
    Fault("noise_over_neighbours", "RV1601", "noise of neighbouring antennas is shared",
          _noisy(lambda n: (n + np.roll(n, 1, 1)) / np.sqrt(2))),
    Fault("noise_in_every_other_snapshot", "RV1601", "the noise mask keeps every other row, at twice the power",
          _noisy(lambda n: n * np.sqrt(2) * (np.arange(len(n)) % 2 == 0)[:, None])),
    Fault("sources_coherent", "RV1601", "one symbol stream for all sources",
          drawing(lambda x, cfg: _anew(x, cfg, symbols=np.repeat(x.symbols[:, :1], x.symbols.shape[1], 1)))),
    Fault("last_symbols_of_the_first", "RV1601", "an index wraps where sources are most", drawing(_wrapped)),
    Fault("lone_sources_above", "RV1601", "abs() is left over for scenes of one source", drawing(_lone_above)),
    Fault("codes_all_equal", "RV1601", "the panel keeps its first code",
          _coded(lambda q, c: np.repeat(q[:1], len(q), 0))),
    Fault("codes_of_two_bits", "RV1601", "one bit of the phases is cut off", _coded(lambda q, c: q // 2 * 2)),
    Fault("codes_of_rank_one", "RV1601", "a row code plus a column code", _coded(_rank_one)),
    Fault("line_of_sight_planar", "RV1601", "the base station is taken to be far away", drawing(_planar_sight)),
    Fault("line_of_sight_shared", "RV1601", "every antenna sees what the first one sees", drawing(_one_antenna)),
    Fault("scattering_real", "RV1601", "scattering is drawn real", drawing(_real_scatter)),
    Fault("stated_kappa_is_another", "RV1601", "κ is stated from the other end of its limits", drawing(_other_kappa)),
    Fault("never_all_sources", "RV1601", "the upper limit of the number of sources is exclusive", _never_full),
    Fault("left_half_empty", "RV1601", "azimuths are drawn from zero", _placed("azimuth", lambda v, s: np.abs(v))),
    Fault("ranges_uniform_in_inverse", "RV1601", "ranges are drawn uniform in 1/r",
          _placed("range", lambda v, s: 1 / (1 / s.range_min + (v - s.range_min) / (s.range_max - s.range_min)
                                             * (1 / s.range_max - 1 / s.range_min)))),
    Fault("vertical_index_fastest", "RV1601", "elements are counted down the columns", _turned),
    Fault("vertical_spacing_of_a_wavelength", "RV1601", "λ is used for λ/2 in one axis", _stretched),
    Fault("key_of_ten_bits", "RV1005", "the scene's index is cut to ten bits", _low_bits),
    Fault("key_hashed_to_a_million", "RV1005", "of 80,000 scenes three thousand come twice", _hashed_keys),
    Fault("layout_kept_by_its_number", "RV0804", "a panel of 9 × 16 gets the phases of 12 × 12", _first_layout),
    Fault("keys_added", "RV1005", "split and index are added into one seed", _added_keys),
)  # fmt: skip
