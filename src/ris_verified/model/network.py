"""The network: physics features in, factors on the steering manifold out."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ris_verified.array.folded import FoldedGrid, folded
from ris_verified.array.steering import planar_steering, steering
from ris_verified.config import Config, SceneConfig
from ris_verified.covariance.predicted import pack_factor
from ris_verified.errors import ConfigError, InputError
from ris_verified.estimate.measurement import Measurement
from ris_verified.estimate.proposals import FIGURES, Proposals, propose
from ris_verified.model.backbone import Backbone
from ris_verified.model.dictionary import Dictionary
from ris_verified.model.heads import Head, Slots
from ris_verified.model.output import ModelOutput
from ris_verified.shapes import as_complex, from_ri, require_axes

AXES = {"y": "B L M", "H": "B L M", "C": "B L N", "H_full": "B M N"}


class LocalisationModel(nn.Module):
    """CNN and transformer over back-projected snapshots, with factor heads on the steering manifold.

    Features: the power of whitened measurements, projected back, on a dictionary of steering vectors. Each
    of K_MAX slots is a proposal, which the head moves by what it is uncertain; its power is that of the likelihood.
    Its factors are the plane wave of its direction (times the root of the slot's power) and the
    curvature at that direction and range, so that their product is the exact steering vector, plus a
    small learned residual where the configuration asks for one.

    Args:
        cfg: reads `array`, `scene` and `model`.

    Raises:
        ConfigError: the field of view has no width, height or depth to learn in.
    """

    takes_proposals = True

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        _require_view(cfg.scene)
        self.cfg = cfg
        self.dictionary = Dictionary(cfg)
        self.backbone = Backbone(2 * cfg.model.dictionary_range + 2, cfg.model)
        self.head = Head(cfg)
        edge = [cfg.scene.azimuth_max, cfg.scene.elevation_max, 1 / cfg.scene.range_min]
        self.register_buffer("edge", torch.tensor(edge), persistent=False)
        self.edge: Tensor

    def forward(self, y: Tensor, H: Tensor, C: Tensor, H_full: Tensor, proposals: Tensor | None = None) -> ModelOutput:
        """Return factors, order logits, angles and ranges.

        Args:
            y: `B x L x M x 2` float32.
            H: `B x L x M x 2` float32, H_full c_l; it does not determine the channel and adds
                nothing to H_full and C, from which the features are made.
            C: `B x L x N x 2` float32.
            H_full: `B x M x N x 2` float32.
            proposals: `B x K_MAX x 11` float32, as stored with scenes; None makes them.

        Returns:
            A `ModelOutput`.

        Raises:
            ShapeError: the axes do not agree.
            InputError: a gradient is asked for in what was measured.
        """
        y, H_full, C = self._checked(y, H, C, H_full, proposals)
        grid = folded(self.cfg.array, self.cfg.scene, self.dictionary.shape, y.real.dtype, y.device)
        with torch.autocast(y.device.type, enabled=False):
            features = self._features(y, H_full, C, grid)
            found = propose(y, H_full, C, self.cfg) if proposals is None else Proposals.of(proposals)
        # What is made for long sequences is slower on some ten tokens.
        with sdpa_kernel(SDPBackend.MATH):
            feature_map, context = self.backbone(features)
            slots = self.head(feature_map, context, found, self.dictionary)
        with torch.autocast(y.device.type, enabled=False):
            return self._factors(slots)

    def _checked(
        self, y: Tensor, H: Tensor, C: Tensor, H_full: Tensor, proposals: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return y, H_full and C as complex numbers."""
        given = {"y": y, "H_full": H_full, "C": C}
        done = {name: as_complex(value, name, AXES[name]) for name, value in given.items()}
        asked = [name for name, value in given.items() if value.requires_grad]
        if asked and torch.is_grad_enabled():
            raise InputError(
                "requires a gradient",
                where=asked[0],
                expected="a measurement without a graph: the features are made of it in place",
                remedy="detach it, or run under torch.no_grad()",
            )
        axes, inputs = dict(AXES), {**done, "H": as_complex(H, "H", "B L M")}
        if proposals is not None:
            axes, inputs = {**axes, "proposals": f"B K {FIGURES}"}, {**inputs, "proposals": proposals}
        sizes = {"N": self.cfg.array.elements, "K": self.cfg.scene.sources_max}
        require_axes("model", axes, inputs, sizes)
        return done["y"], done["H_full"], done["C"]

    def _features(self, y: Tensor, H_full: Tensor, C: Tensor, grid: FoldedGrid) -> Tensor:
        whitener = _whitener(H_full)
        data = Measurement.of(y @ whitener.mT, whitener @ H_full, C, self.cfg)
        back = data.back(data.y.conj()[:, :, None])[:, :, 0]
        power = grid.inside(back.mH).unflatten(1, grid.shape)
        log = power.clamp_min(torch.finfo(power.dtype).tiny).log()
        peak = (log - log.amax((1, 2, 3), keepdim=True)).exp()
        # One element sees every direction alike.
        spread = log.std((1, 2, 3), keepdim=True).clamp_min(torch.finfo(log.dtype).eps)
        log = (log - log.mean((1, 2, 3), keepdim=True)) / spread
        where = self.dictionary.coordinates[:, :2].unflatten(0, self.dictionary.shape)[0]
        where = (where / self.edge[:2]).permute(2, 0, 1).expand(len(log), -1, -1, -1)
        return torch.cat([log, peak, where], 1)

    def _factors(self, slots: Slots) -> ModelOutput:
        limit = torch.stack([-self.edge, self.edge])
        limit[0, 2] = 1 / self.cfg.scene.range_max
        azimuth, elevation, inverse = slots.coordinates.clamp(limit[0], limit[1]).unbind(-1)
        range = 1 / inverse
        plane = planar_steering(self.cfg.array, azimuth, elevation)
        exact = steering(self.cfg.array, azimuth, elevation, range)
        angle = plane * (slots.log_power / 2).exp()[..., None]
        distance = exact * plane.conj()
        if slots.residual is not None:
            residual = from_ri(slots.residual)
            angle, distance = angle + residual[:, :, 0], distance + residual[:, :, 1]
        return ModelOutput(
            pack_factor(angle.mT), pack_factor(distance.mT), slots.k_logits,
            torch.stack([azimuth, elevation], -1), range,
        )  # fmt: skip


def _whitener(H_full: Tensor) -> Tensor:
    """Return (S² + mean S²)^(−1/2) Uᴴ of H = U S Vᴴ: directions of about equal strength, as far as noise allows."""
    values, left = torch.linalg.eigh(H_full @ H_full.mH)
    lifted = values.clamp_min(0) + values.mean(-1, keepdim=True)
    whitener: Tensor = lifted.rsqrt()[..., None] * left.mH
    return whitener


def build_model(cfg: Config) -> LocalisationModel:
    """Return the network with weights drawn from `cfg.seed`; the global generator is left alone.

    Args:
        cfg: sizes and seed.

    Returns:
        A module; module(y, H, C, H_full) returns a `ModelOutput`.
    """
    with torch.random.fork_rng(devices=[]):
        # `torch.manual_seed` would seed accelerators as well, which nothing here gives back.
        torch.default_generator.manual_seed(cfg.seed)
        return LocalisationModel(cfg)


def _require_view(scene: SceneConfig) -> None:
    # Positions are learned as shares of the view. What is known has no share, and 0/0 no gradient.
    extents = {
        "azimuth_max": scene.azimuth_max, "elevation_max": scene.elevation_max,
        "range_max": scene.range_max - scene.range_min,
    }  # fmt: skip
    for name, extent in extents.items():
        if extent <= 0:
            raise ConfigError(
                f"leaves a view without extent, {vars(scene)[name]!r}",
                where=f"scene.{name}",
                expected="more than scene.range_min" if name == "range_max" else "more than 0",
                remedy="a network learns positions in a view that has some; `localize` without a model needs none",
            )
