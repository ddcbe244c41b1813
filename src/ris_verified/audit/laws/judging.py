"""What metric, bound and loop must obey; the rules of their checklist lines call these."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from ris_verified.audit.drills import tiny_folder, tiny_trials
from ris_verified.audit.laws.fed import Fed
from ris_verified.audit.laws.scored_errors import SIGMA, measured_by_own_bound
from ris_verified.audit.oracle import relative, wave, wave_slopes
from ris_verified.audit.rule import Measurement, at_most, close, equal

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from torch import Tensor

    from ris_verified.audit.context import Context
    from ris_verified.scene.scene import Scene


def _truth(context: Context) -> Tensor:
    import torch

    s = context.config.scene
    ptr = torch.full((2, max(2, s.sources_max), 3), torch.nan, dtype=torch.float64)
    ptr[0, 0] = torch.tensor([0.3, -0.2, 2.0])
    ptr[0, 1] = torch.tensor([-0.4, 0.1, 4.0])
    ptr[1, 0] = torch.tensor([0.1, 0.25, 3.0])
    return ptr


def _largest(errors: Tensor) -> float:
    """Return the largest error; infinite where none was measured, as when no estimate met its source."""
    import torch

    finite = errors[torch.isfinite(errors)]
    return float(finite.abs().max()) if finite.numel() else float("inf")


def metric_obeys(context: Context) -> list[Measurement]:
    """Known displacements of known sources: errors, ratio to the bound, found, missed, any order."""
    import torch

    from ris_verified.estimate.result import Peaks

    p, ptr = context.pipeline, _truth(context)
    K_MAX = ptr.shape[1]
    crb = torch.diag_embed(torch.tensor(SIGMA, dtype=torch.float64).square().repeat(K_MAX)).expand(2, -1, -1)

    def judged(moved: Tensor) -> Any:
        return p.metric(p, Peaks(*moved.unbind(-1)), ptr, crb)

    eps = 64 * torch.finfo(torch.float64).eps
    perfect, swapped = judged(ptr), judged(ptr.flip(1))
    found = [
        at_most(_largest(perfect.position), 10 * eps, "error of the truth", "m", "metric"),
        equal(perfect.found.tolist(), [True, True], "scenes found by the truth", where="metric"),
        equal(torch.isfinite(perfect.position).sum().item(), 3, "errors of three sources", where="metric"),
        equal(torch.isfinite(swapped.position).sum().item(), 3, "the same in another order", where="metric"),
        at_most(
            _largest(swapped.position),
            10 * eps,
            "error with sources in another order",
            "m",
            "metric",
        ),
    ]
    for axis, name in enumerate(("azimuth", "elevation", "range")):
        step = ptr.clone()
        step[..., axis] += SIGMA[axis]
        error = vars(judged(step))[name]
        found.append(
            close(float(error[0, 0].abs()), SIGMA[axis], 1e3 * eps, f"{name} error of one sigma", where="metric")
        )
    found += measured_by_own_bound(context, ptr)
    lost = ptr.clone()
    lost[0, 1] = torch.nan
    found.append(
        equal(judged(lost).found.tolist(), [False, True], "scenes found with a source missing", where="metric")
    )
    return found


def bound_obeys(context: Context) -> list[Measurement]:
    """Compare the bound with the inverse of the whole Fisher matrix, symbols and all, for both of each kind."""
    small, found = context.small, []
    scenes = [s for s in small.scenes if len(s.azimuth) <= 2][:2] or small.scenes[:1]
    for amplitude in ("unit", "spherical"):
        place = small.with_config(small.config.replaced({"array.amplitude": amplitude}))
        found += [m for scene in scenes for m in _bounded(place, scene, f'amplitude "{amplitude}"')]
    one = small.with_config(small.config.replaced({"scene.symbols": "constant", "covariance.centre": False}))
    same = dataclasses.replace(scenes[0], symbols=scenes[0].symbols[:1].repeat(len(scenes[0].codes), 0))
    return [*found, *_bounded(one, same, "constant symbols")]


def _bounded(place: Context, scene: Scene, what: str) -> list[Measurement]:
    import torch

    given = [torch.from_numpy(v)[None] for v in (scene.azimuth, scene.elevation, scene.range, scene.symbols,
                                                 scene.H_full, scene.codes)]  # fmt: skip
    C = place.pipeline.bound(*given, scene.noise_variance, place.config)[0].double()
    inverse, error = _inverse_fisher(place, scene)
    wanted = torch.from_numpy(inverse)
    scale = wanted.diagonal().sqrt()
    apart = relative((C / scale / scale[:, None])[None], (wanted / scale / scale[:, None])[None])
    text = f"bound against the inverse Fisher matrix, K = {len(scene.azimuth)}, {what}"
    return [at_most(apart, max(1e-4, error), text, where="bound"), _with_a_gap(place, scene, given, C)]


def _with_a_gap(place: Context, scene: Scene, given: list[Tensor], wanted: Tensor) -> Measurement:
    """An empty slot in the middle, NaN as in stored truths, leaves the bounds of the others where they belong."""
    import torch

    K, at = len(scene.azimuth), len(scene.azimuth) // 2
    slots = [k + (k >= at) for k in range(K)]
    places = [torch.full((1, K + 1), torch.nan, dtype=v.dtype) for v in given[:3]]
    symbols = given[3].new_zeros(*given[3].shape[:2], K + 1)
    for part, value in zip((*places, symbols), given[:4], strict=True):
        part[..., slots] = value
    C = place.pipeline.bound(*places, symbols, *given[4:], scene.noise_variance, place.config)[0].double()
    rows = [3 * slot + axis for slot in slots for axis in range(3)]
    size = wanted.diagonal().sqrt()
    error = float(((C[rows][:, rows] - wanted) / size / size[:, None]).abs().max())
    text = f"bound of {K} sources around an empty slot, against that without it"
    return at_most(error if error == error else float("inf"), 1e-6, text, where="bound")


def _inverse_fisher(context: Context, scene: Scene) -> tuple[Any, float]:
    """J = 2/σ² Re Dᴴ D, D the derivatives of Φ_l A(p) s_l; also how much rounding grows in its inverse."""
    import numpy as np

    K, joint = len(scene.azimuth), context.config.scene.symbols == "constant"
    s = np.broadcast_to(scene.symbols[:1] if joint else scene.symbols, (len(scene.codes), K))
    place = (scene.azimuth, scene.elevation, scene.range)
    A, slopes = wave(context.config.array, *place), wave_slopes(context.config.array, *place)

    def seen(field: Any) -> Any:
        return ((scene.codes * field) @ scene.H_full.T).ravel()

    columns = [seen(s[:, k, None] * slope[k]) for k in range(K) for slope in slopes]
    for k in range(K):
        each = np.ones((1, len(s))) if joint else np.eye(len(s))
        columns += [seen(turn * alone[:, None] * A[k]) for alone in each for turn in (1, 1j)]
    D = np.stack(columns, 1)
    J = 2 / scene.noise_variance * (D.conj().T @ D).real
    size = np.sqrt(np.diagonal(J))
    grown = np.linalg.cond(J / size / size[:, None])
    return np.linalg.inv(J)[: 3 * K, : 3 * K], float(64 * np.finfo(np.float64).eps * grown)


def loop_obeys(context: Context) -> list[Measurement]:
    """Train two epochs on four scenes: what was validated is in the file, what was logged was used, all were shown."""
    import dataclasses

    import torch

    small = tiny_trials(context)
    config = dataclasses.replace(
        small.config,
        train=dataclasses.replace(small.config.train, epochs=2, batch_size=2, accumulation=1),
        data=dataclasses.replace(small.config.data, train_scenes=4, validation_scenes=1),
    )
    pipeline = dataclasses.replace(small, config=config)
    fed, judged = Fed(pipeline), list[int]()
    with tiny_folder(context) as folder:
        result = pipeline.train(
            fed.pipeline, folder / "data", folder / "out", curves=False, judge=lambda model, epoch: judged.append(epoch)
        )
        found = [*_saved(pipeline, result, folder), *_logged(context, pipeline, folder / "out" / "log.jsonl", torch)]
        found.append(equal(judged, [1, 2], "epochs that the judge of a training is told", where="train: judge"))
        return [*found, *fed.judged(folder / "data", 2)]


def _saved(pipeline: Any, result: Any, folder: Path) -> list[Measurement]:
    import torch

    from ris_verified.data.dataset import SceneDataset
    from ris_verified.train.weights import load_model

    dataset = SceneDataset(folder / "data", "validation")
    batch = pipeline.unpack(dataset.batch(torch.arange(1)), "cpu")
    figures = pipeline.validate(pipeline, load_model(result.weights, pipeline), [batch])
    epochs = [record["validation"] for record in result.history]
    reported, means = epochs[result.best_epoch - 1], [(epoch["capture"] + epoch["order"]) / 2 for epoch in epochs]
    found = []
    for name in ("loss", "capture"):
        bound = 1e-6 * max(1.0, abs(reported[name]))
        found.append(
            close(figures[name], reported[name], bound, f"validated {name} of the saved weights", where="train")
        )
    kept = means[result.best_epoch - 1]
    found.append(close(kept, max(means), 0.0, "mean of capture and order of the epoch that was kept", where="train"))
    returned = pipeline.validate(pipeline, result.model.cpu(), [batch])
    found.append(close(returned["loss"], figures["loss"], 1e-6, "returned against saved weights", where="train"))
    return found


def _logged(context: Context, pipeline: Any, log: Path, torch: Any) -> list[Measurement]:
    from ris_verified.train.log import read_log
    from ris_verified.train.state import TrainState

    steps, _ = read_log(log)
    dry = TrainState.create(pipeline, total_steps=len(steps), model=context.small.model)
    planned = []
    for _ in steps:
        planned.append(dry.rates())
        with torch.no_grad():
            dry.optimizer.step()
        dry.scheduler.step()
    logged = [record["learning_rates"] for record in steps]
    return [
        equal(len(steps), 4, "steps logged for two epochs of two batches", where="train"),
        equal(logged, planned, "rates logged against a dry run of the schedule", where="train"),
    ]
