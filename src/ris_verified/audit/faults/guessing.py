"""Slips in outputs, symbols, averages and estimates that only some scenes, settings or fields show."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ris_verified.array.steering import steering
from ris_verified.audit.faults.fault import DataFault, Fault, staged
from ris_verified.audit.faults.networks import outputs
from ris_verified.audit.faults.scenes import drawing, remeasured
from ris_verified.estimate.result import Peaks
from ris_verified.pipeline import Pipeline
from ris_verified.scene.scene import Scene


def _pilot_of_one(scene: Scene, cfg: Any) -> Scene:
    if len(scene.azimuth) > 1:
        return scene
    place = (torch.from_numpy(v) for v in (scene.azimuth, scene.elevation, scene.range))
    symbols = np.repeat(scene.symbols[:1], len(scene.symbols), 0)
    return remeasured(scene, symbols=symbols, A=steering(cfg.array, *place).numpy().T)


def _stored_pilot(folder: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import save

    from ris_verified.data.manifest import Manifest, checksum

    manifest = Manifest.load(folder)
    target = manifest.of("validation")[0]
    with safe_open(folder / target.file, "pt") as file:
        tensors, header = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    tensors["symbols"][0] = tensors["symbols"][0, :1]
    content = save(tensors, header)
    (folder / target.file).write_bytes(content)
    changed = dataclasses.replace(target, sha256=checksum(folder / target.file), bytes=len(content))
    shards = [changed if shard == target else shard for shard in manifest.shards]
    dataclasses.replace(manifest, shards=shards).save(folder)


def _shared_swa(sound: Any, state: Any, batch: Any, pipe: Any) -> Any:
    report = sound(state, batch, pipe)
    for averaged, live in zip(state.swa.module.parameters(), state.model.parameters(), strict=True):
        averaged.data = live.data
    return report


def _swa_alone(pipeline: Pipeline) -> Pipeline:
    config = pipeline.config.replaced({"train.ema_decay": 0.0, "train.swa_share": 0.3})
    return staged("train_step", _shared_swa)(dataclasses.replace(pipeline, config=config))


def _one_unless_bic(sound: Any, y: Tensor, H_full: Tensor, C: Tensor, cfg: Any) -> Tensor:
    found: Tensor = sound(y, H_full, C, cfg)
    return found if cfg.estimate.order_criterion == "bic" else torch.ones_like(found)


def _two_at_most(sound: Any, *given: Any) -> Tensor:
    found: Tensor = sound(*given)
    return found.clamp(max=2)


def _newton_on_noiseless_only(sound: Any, R: Tensor, K: Tensor, peaks: Peaks, cfg: Any) -> Peaks:
    refined: Peaks = sound(R, K, peaks, cfg)
    values = torch.linalg.eigvalsh(R)
    loaded = (values[:, 0] > 1e-4 * values.mean(1))[:, None]
    names = ("azimuth", "elevation", "range")
    return Peaks(*(torch.where(loaded, vars(peaks)[n].to(R.real.dtype), vars(refined)[n]) for n in names))


def _single_starts_kept(sound: Any, peaks: Peaks, *given: Any) -> Any:
    found = sound(peaks, *given)
    if peaks.azimuth.dtype != torch.float32:
        return found
    return dataclasses.replace(found, azimuth=peaks.azimuth, elevation=peaks.elevation, range=peaks.range)


FAULTS = (
    Fault("class_of_no_source", "RV0701", "the K head counts from 0",
          outputs(k_logits=lambda k: nn.functional.pad(k, (1, 0)))),
    Fault("angles_before_slots", "RV0701", "[2, K_MAX] in place of [K_MAX, 2]",
          outputs(angles=lambda a: a.transpose(1, 2))),
    Fault("ranges_as_a_column", "RV0701", "a squeeze was lost", outputs(ranges=lambda r: r[..., None])),
    Fault("ranges_in_whole_metres", "RV0701", "an index of a range bin", outputs(ranges=Tensor.long)),
    Fault("complex_angles", "RV0701", "the angles are a phase",
          outputs(angles=lambda a: torch.polar(a.new_ones(()), a))),
    Fault("pilots_constant_in_some_scenes", "RV0706", "a lone source sends one pilot", drawing(_pilot_of_one)),
    DataFault("stored_symbols_constant", "RV0706", "a stored scene was measured with one pilot", _stored_pilot),
    Fault("one_source_unless_bic", "RV1202", "a criterion that nobody wrote is the first class",
          staged("order", _one_unless_bic)),
    Fault("two_sources_at_most", "RV1202", "nested fits end at two", staged("order", _two_at_most)),
    Fault("newton_without_a_noise_floor", "RV1204", "loaded matrices have no null space, and peaks stay on the grid",
          staged("newton", _newton_on_noiseless_only)),
    Fault("single_starts_kept", "RV1204", "what comes from the network's covariance is taken for refined",
          staged("mle", _single_starts_kept)),
    Fault("lone_swa_shares_storage", "RV0504", "the average is a view, and no EMA is kept", _swa_alone),
)  # fmt: skip
