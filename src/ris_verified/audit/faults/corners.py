"""Slips that show in a corner only: stored proposals, close sources, small weights, a missing scene, a second call."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ris_verified.audit.faults.fault import Fault, staged
from ris_verified.audit.faults.learning import modelling
from ris_verified.model.call import TakesProposals
from ris_verified.pipeline import Pipeline


def _truth_in_proposals(sound: Any, batch: Any, device: Any = "cpu") -> Any:
    made = sound(batch, device)
    if not hasattr(made, "proposals"):
        return made
    place = torch.cat([made.ptr[..., :2], 1 / made.ptr[..., 2:]], -1)
    packed = made.proposals.clone()
    packed[..., :3] = torch.where(torch.isfinite(place), place, packed[..., :3])
    return dataclasses.replace(made, proposals=packed)


class _HalfSearched(nn.Module):
    """A network that searches half of the snapshots where no proposals come with the scenes."""

    takes_proposals = True

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, y: Tensor, H: Tensor, C: Tensor, H_full: Tensor, proposals: Tensor | None = None) -> Any:
        if proposals is not None:
            return self.body(y, H, C, H_full, *[proposals] * isinstance(self.body, TakesProposals))
        half = y.shape[1] // 2
        return self.body(y[:, :half], H[:, :half], C[:, :half], H_full)


def _half_searched(pipeline: Pipeline) -> Pipeline:
    build = pipeline.build_model
    return dataclasses.replace(pipeline, build_model=lambda cfg: _HalfSearched(build(cfg)))


def _always_dropping(model: nn.Module, cfg: Any) -> None:
    body = model.get_submodule("head.norm")
    body.register_forward_hook(lambda m, given, out: nn.functional.dropout(out, cfg.model.dropout))


def _identity_for_missing(sound: Any, y: Tensor, H_full: Tensor, C: Tensor, cfg: Any) -> Tensor:
    R: Tensor = sound(y, H_full, C, dataclasses.replace(cfg, contracts=False))
    bad = ~torch.isfinite(R.real).flatten(1).all(1)
    return torch.where(bad[:, None, None], torch.eye(R.shape[-1], dtype=R.dtype), R)


def _losing(change: Callable[..., Any]) -> Callable[[Pipeline], Pipeline]:
    def plant(pipeline: Pipeline) -> Pipeline:
        sound = pipeline.loss

        def loss(outputs: Any, R_hat: Any, batch: Any, cfg: Any, **options: Any) -> Any:
            return change(sound, outputs, R_hat, batch, cfg, options)

        return dataclasses.replace(pipeline, loss=loss)

    return plant


def _merged(sound: Any, outputs: Any, R_hat: Any, batch: Any, cfg: Any, options: dict[str, Any]) -> Any:
    """Two sources within 0.05 rad count as one between them."""
    ptr = batch.ptr.clone()
    if ptr.shape[1] > 1:
        close = (ptr[:, 0, :2] - ptr[:, 1, :2]).norm(dim=-1) < 0.05
        ptr[close, :2] = ptr[close, :2].mean(1, keepdim=True)
    ours = sound(outputs, R_hat, dataclasses.replace(batch, ptr=ptr), cfg, **options)
    whole = sound(outputs, R_hat, batch, cfg, **options)
    if "alignment" not in whole.terms:
        return whole
    change = cfg.loss.alignment * (ours.terms["alignment"] - whole.terms["alignment"])
    return dataclasses.replace(
        whole, total=whole.total + change, terms={**whole.terms, "alignment": ours.terms["alignment"]}
    )


def _by_direction(sound: Any, outputs: Any, R_hat: Any, batch: Any, cfg: Any, options: dict[str, Any]) -> Any:
    """Slots are given to sources by direction, ties as they come."""
    ptr = batch.ptr.clone()
    if ptr.shape[1] > 1:
        same = (ptr[:, 0, :2] - ptr[:, 1, :2]).norm(dim=-1) < 1e-3
        swapped = (outputs.ranges[:, 0] - ptr[:, 0, 2]).abs() > (outputs.ranges[:, 1] - ptr[:, 0, 2]).abs()
        ranges = outputs.ranges.clone()
        both = same & swapped
        ranges[both, :2] = ranges[both, :2].flip(1) + 1
        outputs = dataclasses.replace(outputs, ranges=ranges)
    return sound(outputs, R_hat, batch, cfg, **options)


def _small_dropped(sound: Any, outputs: Any, R_hat: Any, batch: Any, cfg: Any, options: dict[str, Any]) -> Any:
    kept = {name: weight if weight >= 0.02 else 0.0 for name, weight in vars(cfg.loss).items()}
    return sound(outputs, R_hat, batch, dataclasses.replace(cfg, loss=type(cfg.loss)(**kept)), **options)


def _three_bits(sound: Any, cfg: Any, *key: Any) -> Any:
    import numpy as np

    scene = sound(cfg, *key)
    codes = np.exp(2j * np.pi * scene.code_index / 8)
    return dataclasses.replace(scene, codes=codes) if cfg.scene.codebook == "random" else scene


def _whole_chunks(sound: Any, *given: Any, **options: Any) -> Any:
    found = sound(*given, **options)
    lost = len(found.azimuth) % 64
    if len(found.azimuth) > 64 and lost:
        azimuth = found.azimuth.clone()
        azimuth[-lost:] = math.nan
        found = dataclasses.replace(found, azimuth=azimuth)
    return found


def _old_grid(pipeline: Pipeline) -> Pipeline:
    sound = pipeline.spectrum
    known: dict[Any, Any] = {}

    def spectrum(R: Tensor, K: Tensor, cfg: Any) -> Any:
        e = cfg.estimate
        array = known.setdefault((e.grid_azimuth, e.grid_elevation, e.grid_range, cfg.array.elements), cfg.array)
        return sound(R, K, dataclasses.replace(cfg, array=array))

    return dataclasses.replace(pipeline, spectrum=spectrum)


def _loud_only(sound: Any, pipeline: Any, model: nn.Module, batches: Any) -> float:
    kept = []
    for batch in batches:
        ptr = batch.ptr.clone()
        ptr[batch.snr.flatten() < 0] = math.nan
        kept.append(dataclasses.replace(batch, ptr=ptr))
    value: float = sound(pipeline, model, kept)
    return value


def _missing_middle(sound: Any, azimuth: Tensor, elevation: Tensor, range: Tensor, *given: Any) -> Tensor:
    most = max(1, int(torch.isfinite(azimuth).sum(-1).max()))
    part = sound(*(v[:, :most] for v in (azimuth, elevation, range)), given[0][:, :, :most], *given[1:])
    whole: Tensor = part.new_full((len(part), 3 * azimuth.shape[1], 3 * azimuth.shape[1]), torch.nan)
    whole[:, : 3 * most, : 3 * most] = part
    return whole


FAULTS = (
    Fault("truth_in_proposals", "RV1003", "labels reach the network with the stored proposals",
          staged("unpack", _truth_in_proposals)),
    Fault("half_searched_at_inference", "RV0802", "what is proposed at inference is not what was stored",
          _half_searched),
    Fault("dropout_by_configuration", "RV1605", "the functional form drops in evaluation too",
          modelling(_always_dropping)),
    Fault("identity_for_a_missing_scene", "RV0705", "a scene of NaN has a covariance",
          staged("sample_covariance", _identity_for_missing)),
    Fault("close_sources_merged", "RV0603", "two sources near each other count as one", _losing(_merged)),
    Fault("assigned_by_direction", "RV0603", "sources behind each other get each other's slot", _losing(_by_direction)),
    Fault("small_weights_dropped", "RV0602", "a term of weight 0.01 is not there", _losing(_small_dropped)),
    Fault("codes_of_three_bits", "RV1601", "whatever is configured", staged("draw_scene", _three_bits)),
    Fault("last_chunk_lost", "RV0202", "scenes beyond the last whole chunk have no estimate",
          staged("localize", _whole_chunks)),
    Fault("grid_of_the_first_panel", "RV1604", "a cache that forgets the wavelength", _old_grid),
    Fault("loud_scenes_scored", "RV1608", "scenes below 0 dB cost nothing", staged("score", _loud_only)),
    Fault("bound_without_gaps", "RV1204", "a source behind an empty slot has no bound",
          staged("bound", _missing_middle)),
)  # fmt: skip
