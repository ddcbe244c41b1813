"""Print the time of covariance and loss in a training step, forward and backward, as written over ours.

As written: an N x N solve for every snapshot, the true subspace from the eigendecomposition of R_true, the gap from all
eigenvalues of R_blend. Ours: push-through, the subspace from the steering vectors, K x K eigenvalues. R_blend, the
covariance error and the alignment of both must agree to rounding before they are timed.

Run: python benchmarks/literal_step.py [--batch 64] [--repeats 7]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parent))
from covariance import literal

from ris_verified.cli.common import say
from ris_verified.config import Config
from ris_verified.data.batch import Batch
from ris_verified.data.dataset import draw_batch
from ris_verified.loss.terms import alignment, covariance_error, positions_error
from ris_verified.model.output import ModelOutput
from ris_verified.pipeline import Pipeline
from ris_verified.shapes import from_ri


def _leaves(outputs: ModelOutput) -> ModelOutput:
    return replace(outputs, **{f.name: vars(outputs)[f.name].detach().requires_grad_() for f in fields(outputs)})


def _ours(pipeline: Pipeline, outputs: ModelOutput, batch: Batch) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    blended = pipeline.covariances(outputs, batch)
    result = pipeline.loss(outputs, blended.R_pred, batch, pipeline.config, R_blend=blended.R)
    return result.total, blended.R, result.terms


def _written(pipeline: Pipeline, outputs: ModelOutput, batch: Batch) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    cfg = pipeline.config
    R_samp = literal(from_ri(batch.y), from_ri(batch.H_full), from_ri(batch.C), cfg)
    R = pipeline.blend(
        pipeline.predicted_covariance(outputs.cov_fact_angle, outputs.cov_fact_range, cfg), R_samp, cfg
    ).R
    N, kept = R.shape[-1], torch.arange(cfg.scene.sources_max) < batch.K[:, None]
    U = torch.linalg.eigh(batch.R_in)[1].flip(-1)[..., : cfg.scene.sources_max] * kept[:, None]

    def gap(matrix: Tensor) -> Tensor:
        values = torch.linalg.eigvalsh(matrix).flip(-1)
        noise = values.sum(-1) - (values[:, : kept.shape[1]] * kept).sum(-1)
        return values.gather(1, batch.K[:, None] - 1)[:, 0] - noise / (N - batch.K)

    terms = {"covariance": covariance_error(R, batch.R_in), "alignment": alignment(R, U)}
    terms["eigengap"] = functional.relu(gap(batch.R_in) - gap(R)) * batch.K / N
    terms["angle"], terms["range"] = positions_error(outputs.angles, outputs.ranges, batch.ptr)
    terms["order"] = functional.cross_entropy(outputs.k_logits, batch.K - 1, reduction="none")
    means = {name: value.mean() for name, value in terms.items()}
    total = sum((vars(cfg.loss)[name] * value for name, value in means.items()), R.real.new_zeros(()))
    return total, R, {name: value.detach() for name, value in means.items()}


Form = Callable[[Pipeline, ModelOutput, Batch], tuple[Tensor, Tensor, dict[str, Tensor]]]


def _seconds(form: Form, pipeline: Pipeline, outputs: ModelOutput, batch: Batch) -> float:
    leaves, began = _leaves(outputs), time.perf_counter()
    form(pipeline, leaves, batch)[0].backward()
    return time.perf_counter() - began


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    pipeline = Pipeline.default(Config.load("quick"))
    batch = draw_batch(pipeline.config, options.batch, 9)
    with torch.no_grad():
        outputs = pipeline.build_model(pipeline.config)(batch.y, batch.H, batch.C, batch.H_full)
    (_, R, terms), (_, R_written, written) = (form(pipeline, _leaves(outputs), batch) for form in (_ours, _written))
    # R_samp of the solve in single precision errs by its condition; see benchmarks/covariance.py for that bound.
    bound = 64 * R.shape[-1] * torch.finfo(torch.float32).eps
    worst = float(((R - R_written).norm(dim=(1, 2)) / R.norm(dim=(1, 2))).detach().max())
    worst = max(worst, *(abs(float(terms[n] - written[n])) for n in ("covariance", "alignment", "angle", "range")))
    if worst > bound:
        say(f"the two differ by {worst:.1e}, bound {bound:.1e}")
        return 1
    times: dict[str, list[float]] = {"ours": [], "written": []}
    for _ in range(options.repeats + 1):
        times["ours"].append(_seconds(_ours, pipeline, outputs, batch))
        times["written"].append(_seconds(_written, pipeline, outputs, batch))
    ours, long = (statistics.median(times[name][1:]) for name in ("ours", "written"))
    say(f"batch {options.batch}, {torch.get_num_threads()} thread(s), forms differ by {worst:.1e}, bound {bound:.1e}")
    say(f"as written {long * 1e3:.0f} ms, ours {ours * 1e3:.1f} ms: {long / ours:.1f} times as fast")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
