"""Sections 01 and 02 on the pipeline: values of the configuration, and odd sizes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ris_verified.audit.context import Context
from ris_verified.audit.laws.batch_sizes import own_answers
from ris_verified.audit.rule import Measurement, equal, mended, rule
from ris_verified.errors import ConfigError

if TYPE_CHECKING:
    from ris_verified.config import Config

OWN = "index every scene by its own place in the batch, and treat a last, partial block like the others"


@rule(
    "RV0104",
    "Configuration values are in range and consistent",
    law="every section and their whole pass their own validation; N = N_H·N_V; heads divide the widths; K_MAX ≤ N; "
    "K_MAX < M; limits ordered",
    why="A frozen dataclass can still be bent after construction, and a foreign one may not validate at all.",
    how="Each section is built again from its own values, and the configuration from these sections, which runs their "
    "checks; then the relations are computed.",
    remedy="correct the value; build configurations through their constructors only",
)
def values_consistent(context: Context) -> Sequence[Measurement]:
    """Every comparison is between integers or a value and its own limit: no tolerance."""
    refused = _refused(context.config)
    if refused:
        return refused
    array, scene, model = context.config.array, context.config.scene, context.config.model
    N = len(context.pipeline.element_positions(array))
    return [
        equal(N, array.horizontal * array.vertical, "N = N_H · N_V", where="array"),
        equal(model.width % model.heads, 0, "remainder of model.width by model.heads", where="model"),
        equal(scene.sources_max <= N, True, "K_MAX ≤ N", where="scene.sources_max"),
        equal(scene.sources_max < scene.antennas, True, "K_MAX < M", where="scene.sources_max"),
        equal(scene.range_min <= scene.range_max, True, "range limits are ordered", where="scene"),
    ]


def _refused(config: Config) -> list[Measurement]:
    """Return what the constructors say of the sections' values, or of the sections together where each is sound."""
    found: list[Measurement] = []
    built: dict[str, Any] = {}
    for item in dataclasses.fields(config):
        section = vars(config)[item.name]
        if dataclasses.is_dataclass(section) and not isinstance(section, type):
            try:
                built[item.name] = dataclasses.replace(section)
            except ConfigError as error:
                found.append(Measurement("refused", "accepted", False, str(error), where=item.name))
    if not found:
        try:
            dataclasses.replace(config, **built)
        except ConfigError as error:
            found.append(Measurement("refused", "accepted", False, str(error), where=error.where or "config"))
    return found


@rule(
    "RV0202",
    "Every stage runs at odd sizes",
    law="shapes and traces hold for B ∈ {1, 3}, N_H ≠ N_V, L ≠ M, K = 1 and K = K_MAX; a scene's answer is its own in "
    "batches of 1 and of 131, at the first call and after 300",
    why="A size that is hard-coded, or two that happen to be equal, fails on the last partial batch only.",
    how="The pipeline's stages, from drawing to the loss, on a panel of 6 × 4 with 8 antennas and 6 snapshots. Then "
    "each stage that takes a batch gets eight scenes one by one, and 131 made of the same eight: answers must agree "
    "to 1e-3 of their size; where a stage chooses between candidates, two scenes may turn, beside those that turn "
    "when the measurements are disturbed by rounding. Covariances and blend are called 300 times more.",
    remedy="take every size from the tensors or the configuration",
)
def odd_sizes(context: Context) -> Iterator[Measurement]:
    """Shapes are integers: no tolerance; 1e-3 is far above float32 sums in another order."""
    small, found = context.small, []
    config, K_MAX = small.config, small.config.scene.sources_max
    for B, K in ((1, 1), (3, K_MAX)):
        scene = dataclasses.replace(config.scene, sources_min=K, sources_max=K)
        fixed = dataclasses.replace(config, scene=scene)
        try:
            found += _small_forward(small, small.draw(B, fixed, key=2), f"B = {B}, K = {K}")
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            found.append(Measurement(type(error).__name__, "no error", False, str(error), where=f"B = {B}, K = {K}"))
    yield from found
    if all(m.passed for m in found):
        yield from mended(own_answers(context), OWN)


def _small_forward(small: Context, scenes: list[Any], where: str) -> list[Measurement]:
    pipeline, config = small.pipeline, small.config
    batch = small.as_batch(scenes)
    outputs, blended = pipeline.forward(small.model, batch)
    result = pipeline.loss(outputs, blended.R_pred, batch, config, R_blend=blended.R, training=False)
    shape = [len(scenes), config.array.elements, config.array.elements]
    finite = abs(float(result.total.detach())) < float("inf")
    return [
        equal(list(blended.R.shape), shape, "shape of R_blend", where=where),
        equal(finite, True, "the loss is finite", where=where),
    ]
