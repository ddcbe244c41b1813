"""Slips in array, steering, scenes and batches."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ris_verified.array.grid import view_grid
from ris_verified.array.steering import fresnel_steering, steering
from ris_verified.audit.faults.fault import Fault
from ris_verified.data.batch import FIELDS, Batch
from ris_verified.pipeline import Pipeline
from ris_verified.scene.codes import code_values
from ris_verified.scene.scene import Scene, forward

Changed = Callable[[Scene, Any], Scene]


def drawing(change: Changed) -> Callable[[Pipeline], Pipeline]:
    """Return a plant that changes every drawn scene."""

    def plant(pipeline: Pipeline) -> Pipeline:
        def draw(cfg: Any, *key: int) -> Scene:
            return change(pipeline.draw_scene(cfg, *key), cfg)

        return dataclasses.replace(pipeline, draw_scene=draw)

    return plant


def unpacking(change: Callable[[Batch], Batch]) -> Callable[[Pipeline], Pipeline]:
    """Return a plant that changes every unpacked batch."""

    def plant(pipeline: Pipeline) -> Pipeline:
        def unpack(batch: Any, device: Any = "cpu") -> Batch:
            return change(pipeline.unpack(batch, device))

        return dataclasses.replace(pipeline, unpack=unpack)

    return plant


def remeasured(scene: Scene, **changes: Any) -> Scene:
    """Return the scene measured anew through `A` with other channel, codes or symbols; noise scaled to the SNR."""
    A = changes.pop("A")
    scene = dataclasses.replace(scene, **changes)
    clean = forward(scene.H_full, scene.codes, A, scene.symbols)
    noise = scene.y - scene.y_clean
    scale = np.sqrt(np.mean(np.abs(clean) ** 2) / 10 ** (scene.snr_db / 10) / scene.noise_variance)
    variance = scene.noise_variance * scale**2
    return dataclasses.replace(scene, y_clean=clean, y=clean + scale * noise, noise_variance=float(variance))


def _places(scene: Scene) -> list[torch.Tensor]:
    return [torch.from_numpy(v) for v in (scene.azimuth, scene.elevation, scene.range)]


def _exact(scene: Scene, cfg: Any) -> Any:
    return steering(cfg.array, *_places(scene)).numpy().T


def _loud(scene: Scene, cfg: Any) -> Scene:
    return dataclasses.replace(scene, y=scene.y_clean + np.sqrt(2) * (scene.y - scene.y_clean))


def _no_line_of_sight(scene: Scene, cfg: Any) -> Scene:
    rng = np.random.default_rng(scene.code_index[0].tolist())
    H = rng.standard_normal((*scene.H_full.shape, 2)).view(np.complex128)[..., 0] / np.sqrt(2 * scene.H_full.shape[1])
    return remeasured(scene, H_full=H, A=_exact(scene, cfg))


def _flat_codes(scene: Scene, cfg: Any) -> Scene:
    grid = scene.code_index.reshape(-1, cfg.array.vertical, cfg.array.horizontal)
    index = np.ascontiguousarray(np.broadcast_to(grid[:, :1], grid.shape)).reshape(scene.codes.shape)
    codes = code_values(index, cfg.scene.code_bits)
    return remeasured(scene, code_index=index, codes=codes, A=_exact(scene, cfg))


def _pilots(scene: Scene, cfg: Any) -> Scene:
    return remeasured(scene, symbols=np.repeat(scene.symbols[:1], len(scene.symbols), 0), A=_exact(scene, cfg))


def _fresnel(scene: Scene, cfg: Any) -> Scene:
    return remeasured(scene, A=fresnel_steering(cfg.array, *_places(scene)).numpy().T)


def _snr_after_noise(scene: Scene, cfg: Any) -> Scene:
    return dataclasses.replace(scene, noise_variance=scene.noise_variance * 2)


def _narrow(pipeline: Pipeline) -> Pipeline:
    def draw(cfg: Any, *key: int) -> Scene:
        view = dataclasses.replace(cfg.scene, azimuth_max=cfg.scene.azimuth_max / 2)
        return pipeline.draw_scene(dataclasses.replace(cfg, scene=view), *key)

    return dataclasses.replace(pipeline, draw_scene=draw)


def _key_ignored(pipeline: Pipeline) -> Pipeline:
    def draw(cfg: Any, *key: int) -> Scene:
        return pipeline.draw_scene(cfg, *key[-1:])

    return dataclasses.replace(pipeline, draw_scene=draw)


def _unseeded(pipeline: Pipeline) -> Pipeline:
    def draw(cfg: Any, *key: int) -> Scene:
        return pipeline.draw_scene(cfg, *key, secrets.randbelow(2**31))

    return dataclasses.replace(pipeline, draw_scene=draw)


def _on_grid(pipeline: Pipeline) -> Pipeline:
    def draw(cfg: Any, *key: int) -> Scene:
        scene = pipeline.draw_scene(cfg, *key)
        step = np.pi / 180
        snapped = {n: np.round(vars(scene)[n] / step) * step for n in ("azimuth", "elevation")}
        scene = dataclasses.replace(scene, **snapped, range=np.round(scene.range, 1).clip(cfg.scene.range_min))
        return remeasured(scene, A=_exact(scene, cfg))

    return dataclasses.replace(pipeline, draw_scene=draw)


def _on_search_grid(pipeline: Pipeline) -> Pipeline:
    def draw(cfg: Any, *key: int) -> Scene:
        scene, e = pipeline.draw_scene(cfg, *key), cfg.estimate
        azimuths = view_grid(cfg.scene, (e.grid_range, e.grid_elevation, e.grid_azimuth))[: e.grid_azimuth, 0].numpy()
        nearest = np.abs(scene.azimuth[:, None] - azimuths).argmin(-1)
        scene = dataclasses.replace(scene, azimuth=azimuths[nearest])
        return remeasured(scene, A=_exact(scene, cfg))

    return dataclasses.replace(pipeline, draw_scene=draw)


def _off_centre(pipeline: Pipeline) -> Pipeline:
    def positions(array: Any, *rest: Any) -> torch.Tensor:
        p = pipeline.element_positions(array, *rest)
        return p - p[0]

    return dataclasses.replace(pipeline, element_positions=positions)


def _full_wavelength(pipeline: Pipeline) -> Pipeline:
    def positions(array: Any, *rest: Any) -> torch.Tensor:
        return pipeline.element_positions(array, *rest) * 2

    return dataclasses.replace(pipeline, element_positions=positions)


def _degrees(pipeline: Pipeline) -> Pipeline:
    def steer(array: Any, azimuth: Any, elevation: Any, range: Any) -> torch.Tensor:
        return pipeline.inference_steering(array, azimuth * 180 / np.pi, elevation * 180 / np.pi, range)

    return dataclasses.replace(pipeline, inference_steering=steer)


def _upside_down(pipeline: Pipeline) -> Pipeline:
    def steer(array: Any, azimuth: Any, elevation: Any, range: Any) -> torch.Tensor:
        return pipeline.steering(array, azimuth, -elevation, range)

    return dataclasses.replace(pipeline, steering=steer, inference_steering=steer)


def _planar(pipeline: Pipeline) -> Pipeline:
    def steer(array: Any, azimuth: Any, elevation: Any, range: Any) -> torch.Tensor:
        return fresnel_steering(array, azimuth, elevation, range)

    return dataclasses.replace(pipeline, inference_steering=steer)


def _split_halves(batch: Batch) -> Batch:
    y = batch.y
    halves = torch.cat([y[..., 0], y[..., 1]], -1).reshape(y.shape)
    return dataclasses.replace(batch, y=halves)


def _transposed(batch: Batch) -> Batch:
    return dataclasses.replace(batch, y=batch.y.transpose(1, 2).contiguous())


def _doubled(batch: Batch) -> Batch:
    return dataclasses.replace(batch, C=batch.C.double())


def _echo(batch: Batch) -> Batch:
    return dataclasses.replace(batch, H=batch.y)


def _short(batch: Batch) -> Batch:
    return Batch(**{name: vars(batch)[name][:-1] for name in FIELDS})


def _any_trace(batch: Batch) -> Batch:
    return dataclasses.replace(batch, R_in=batch.R_in * batch.K[:, None, None])


def _mirrored_truth(batch: Batch) -> Batch:
    return dataclasses.replace(batch, R_in=batch.R_in.conj().resolve_conj())


def _by_position(pipeline: Pipeline) -> Pipeline:
    def unpack(batch: Any, device: Any = "cpu") -> Batch:
        if isinstance(batch, tuple | list):
            batch = (batch[1], batch[0], *batch[2:])
        return pipeline.unpack(batch, device)

    return dataclasses.replace(pipeline, unpack=unpack)


FAULTS = (
    Fault("snr_off_by_3_db", "RV1601", "σ² per real part is used for each part of a complex number", drawing(_loud)),
    Fault("line_of_sight_lost", "RV1601", "κ is drawn, logged and not used", drawing(_no_line_of_sight)),
    Fault("codes_vary_in_one_axis", "RV1601", "the vertical beam index repeats", drawing(_flat_codes)),
    Fault("half_the_view", "RV1601", "the field of view is read as its full width", _narrow),
    Fault("pilots_constant", "RV0706", "one pilot for all snapshots, then centred", drawing(_pilots)),
    Fault("fresnel_generator", "RV0804", "scenes are made with the second-order wave", drawing(_fresnel)),
    Fault("stated_variance_doubled", "RV1004", "σ² is stored per complex number twice", drawing(_snr_after_noise)),
    Fault("key_ignored", "RV1609", "only the index seeds a scene, not its split", _key_ignored),
    Fault("unseeded", "RV1005", "a scene takes fresh entropy", _unseeded),
    Fault("sources_on_the_grid", "RV1005", "positions are rounded to degrees and decimetres", _on_grid),
    Fault("sources_on_the_search_grid", "RV1005", "azimuths are drawn from the spectrum's grid", _on_search_grid),
    Fault("array_off_centre", "RV1601", "element 0 sits at the origin", _off_centre),
    Fault("spacing_of_a_wavelength", "RV1601", "λ is used for λ/2", _full_wavelength),
    Fault("degrees_at_inference", "RV0804", "the search passes degrees", _degrees),
    Fault("degrees_in_one_path", "RV0802", "the search passes degrees", _degrees),
    Fault("upside_down_everywhere", "RV1601", "θ is measured downwards in both paths alike", _upside_down),
    Fault("fresnel_at_inference", "RV0804", "MUSIC uses the second-order wave", _planar),
    Fault("halves_instead_of_pairs", "RV0703", "all real parts, then all imaginary parts", unpacking(_split_halves)),
    Fault("antennas_first", "RV0702", "y is stored antenna by snapshot", unpacking(_transposed)),
    Fault("codes_in_float64", "RV0702", "NumPy's default precision survives", unpacking(_doubled)),
    Fault("y_fed_as_channel", "RV0702", "the measurement is passed where H c_l belongs", unpacking(_echo)),
    Fault("last_scene_dropped", "RV1302", "a slice to −1 in the collate function", unpacking(_short)),
    Fault("truth_with_any_trace", "RV0801", "R_true = A P Aᴴ is stored without scaling", unpacking(_any_trace)),
    Fault("truth_conjugated", "RV1002", "R_true = A* P Aᵀ: the mirrored scene", unpacking(_mirrored_truth)),
    Fault("tuple_in_another_order", "RV1003", "the loader's tuple has y and H swapped", _by_position),
)
