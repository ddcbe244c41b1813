"""The evidence that rules share, computed once and only when a rule asks for it."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ris_verified.audit.rule import NotApplicable, Profile
from ris_verified.audit.static.syntax import Tree, read_tree

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ris_verified.audit.drills import TrialRun
    from ris_verified.audit.laws.heard import Heard
    from ris_verified.audit.plain_step import Drill
    from ris_verified.config import Config
    from ris_verified.covariance.blend import Blend
    from ris_verified.data.batch import Batch
    from ris_verified.model.output import ModelOutput
    from ris_verified.pipeline import Pipeline
    from ris_verified.scene.scene import Scene
    from ris_verified.train.state import TrainState

KEY = 7_204_881  # keys of training, validation and test are small: the audit's scenes are in none of them
SCENES = 8


@dataclass
class Context:
    """What a check may look at; everything is lazily drawn from the pipeline's own stages.

    Args:
        stages: the audited pipeline, None for an audit of source only.
        profile: `quick` or `full`.
        source: folder of Python files, read as syntax trees.
        data: folder of stored scenes, or None.
        seed: begins the key of the audit's own scenes.
    """

    stages: Pipeline | None
    profile: Profile
    source: Path
    data: Path | None = None
    seed: int = 0

    @property
    def pipeline(self) -> Pipeline:
        """The audited pipeline.

        Raises:
            NotApplicable: only source is audited.
        """
        if self.stages is None:
            raise NotApplicable("no pipeline is audited")
        return self.stages

    @property
    def config(self) -> Config:
        """The pipeline's configuration."""
        return self.pipeline.config

    @cached_property
    def tree(self) -> Tree:
        """Syntax trees of the source folder."""
        return read_tree(self.source)

    @cached_property
    def scenes(self) -> list[Scene]:
        """Eight scenes from the pipeline's `draw_scene`, the last with the most sources."""
        most = dataclasses.replace(self.config.scene, sources_min=self.config.scene.sources_max)
        full = dataclasses.replace(self.config, scene=most)
        drawn = [self.pipeline.draw_scene(self.config, KEY, self.seed, i) for i in range(SCENES - 1)]
        return [*drawn, self.pipeline.draw_scene(full, KEY, self.seed, SCENES)]

    @cached_property
    def many(self) -> list[Scene]:
        """64 further scenes, for averages."""
        return self.draw(64, key=3)

    @cached_property
    def batch(self) -> Batch:
        """The eight scenes as a batch."""
        return self.as_batch(self.scenes)

    def as_batch(self, scenes: list[Scene]) -> Batch:
        """Return scenes as the pipeline would unpack them."""
        from ris_verified.data.dataset import scenes_to_batch

        return self.pipeline.unpack(scenes_to_batch(scenes, self.config), "cpu")

    def draw(self, count: int, config: Config | None = None, key: int = 1) -> list[Scene]:
        """Draw further scenes, of another configuration where one is given."""
        return [self.pipeline.draw_scene(config or self.config, KEY + key, self.seed, i) for i in range(count)]

    @cached_property
    def model(self) -> nn.Module:
        """The audit's own copy of the network, in evaluation mode; rules leave it unchanged."""
        return copy.deepcopy(self.pipeline.build_model(self.config)).cpu().eval()

    @property
    def own_network(self) -> bool:
        """Whether the network is this library's, of which the checklist states sizes."""
        from ris_verified.model.network import LocalisationModel

        return isinstance(self.model, LocalisationModel)

    @cached_property
    def outputs(self) -> ModelOutput:
        """The model's output on the batch, without a graph."""
        import torch

        b = self.batch
        with torch.no_grad():
            outputs: ModelOutput = self.model(b.y, b.H, b.C, b.H_full)
        return outputs

    @cached_property
    def blend(self) -> Blend:
        """The blend of the batch, without a graph."""
        import torch

        with torch.no_grad():
            return self.pipeline.covariances(self.outputs, self.batch)

    @cached_property
    def groups(self) -> list[dict[str, Any]]:
        """Optimiser groups of the audit's model."""
        from ris_verified.model.groups import named_groups

        return named_groups(self.pipeline.parameter_groups(self.model, self.config))

    def state(self, total_steps: int = 20) -> TrainState:
        """Return a fresh training state around a copy of the audit's model."""
        from ris_verified.train.state import TrainState

        model = copy.deepcopy(self.model).train()
        return TrainState.create(self.pipeline, total_steps=total_steps, model=model)

    def leaves(self) -> ModelOutput:
        """Return the model's output as leaf tensors that take a gradient."""
        made = {k: v.detach().clone().requires_grad_() for k, v in vars(self.outputs).items()}
        return dataclasses.replace(self.outputs, **made)

    def blended(self, outputs: ModelOutput, batch: Batch | None = None) -> Blend:
        """Return covariances and blend of given outputs."""
        return self.pipeline.covariances(outputs, batch or self.batch)

    @cached_property
    def trials(self) -> list[TrialRun]:
        """Equal trials on a handful of scenes: three, or ten in the full profile."""
        from ris_verified.audit.drills import run_trials

        return run_trials(self, 10 if self.profile == "full" else 3)

    @cached_property
    def heard(self) -> tuple[Heard, Heard]:
        """Two short trainings at the small size with what they said, the second of a blend that is off."""
        from ris_verified.audit.laws.heard import trained

        return trained(self)

    @cached_property
    def small(self) -> Context:
        """The same stages at a small size, for drills that take many steps."""
        return self.with_config(small_config(self.config))

    def with_config(self, config: Config) -> Context:
        """Return the same stages under another configuration."""
        pipeline = dataclasses.replace(self.pipeline, config=config)
        return Context(pipeline, self.profile, self.source, None, self.seed)

    @cached_property
    def weighted(self) -> Context:
        """The same evidence with weight one on every loss term that the configuration leaves out.

        A head whose term has weight zero gets no gradient by declaration; these rules ask for the network's own gaps.
        """
        missing = {f"loss.{name}": 1.0 for name, weight in vars(self.config.loss).items() if not weight}
        place = self.with_config(self.config.replaced(missing)) if missing else self
        vars(place).update(model=self.model, batch=self.batch)
        return place

    @cached_property
    def drills(self) -> list[Drill]:
        """The pipeline's training step beside a plain one, at the small size."""
        from ris_verified.audit.plain_step import drills

        return drills(self.small)

    def true_covariance(self, scene: Scene) -> Tensor:
        """Return N A P Aᴴ/tr of a scene, complex128, from the pipeline's steering vectors."""
        import torch

        place = [torch.from_numpy(v) for v in (scene.azimuth, scene.elevation, scene.range)]
        A = self.pipeline.steering(self.config.array, *place).mT
        R = (A * torch.from_numpy(scene.powers)) @ A.mH
        return R * (len(R) / torch.diagonal(R).real.sum())


def small_config(config: Config) -> Config:
    """Return the configuration with a panel of 6 × 4, 8 antennas, 6 snapshots and a network to match."""
    return dataclasses.replace(
        config,
        array=dataclasses.replace(config.array, horizontal=6, vertical=4),
        scene=dataclasses.replace(config.scene, antennas=8, snapshots=6, sources_min=1, sources_max=3),
        model=dataclasses.replace(
            config.model, channels=8, width=16, layers=1, heads=2, head_width=16, head_layers=1, dropout=0.0,
            dictionary_azimuth=8, dictionary_elevation=4, dictionary_range=3,
        ),
        train=dataclasses.replace(config.train, precision="float32"),
    )  # fmt: skip
