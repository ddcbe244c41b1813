"""What RV1608 measures of the score on batches of unequal size: each scene counts once, by the configured stages."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ris_verified.audit.laws.watched import modes_of
from ris_verified.audit.rule import Measurement, at_most, close, equal

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ris_verified.audit.context import Context
    from ris_verified.data.batch import Batch
    from ris_verified.estimate.result import Estimates, Peaks
    from ris_verified.pipeline import Pipeline

FIRST = 5
# Metres by which spectrum, Newton and NF-MLE miss, a scene: unequal, and below the metre at which an error is cut.
STEP = {"spectrum": 0.10, "newton": 0.07, "mle": 0.04}


def parts(batch: Batch) -> list[Batch]:
    """Return the first five scenes and the rest, of another number."""
    ends = ((0, FIRST), (FIRST, len(batch)))
    return [
        dataclasses.replace(batch, **{name: value[low:high] for name, value in vars(batch).items()})
        for low, high in ends
    ]


def wrong_counts(batch: Batch, K_MAX: int) -> Tensor:
    """Return numbers of sources that a head might see: right in some scenes, wrong by one and by more in others."""
    import torch

    off = torch.tensor([0, 1, -1, 0, 2, 0, 0, 1])[torch.arange(len(batch)) % 8]
    return (batch.K - 1 + off) % K_MAX + 1


def told(small: Context, modes: list[bool]) -> nn.Module:
    """Return a model of mixed modes that knows the first five scenes and confuses the sources' places of the others.

    Args:
        small: its batch is what the model knows, whole or in the two parts.
        modes: receives whether any part of the model is in training mode, at each call.
    """
    from torch import nn

    from ris_verified.model.output import ModelOutput

    batch, K_MAX = small.batch, small.config.scene.sources_max
    logits = 20.0 * nn.functional.one_hot(wrong_counts(batch, K_MAX) - 1, K_MAX).float()
    answers = {**vars(_known(small)), "k_logits": logits}
    pieces = {len(batch): slice(None), FIRST: slice(0, FIRST), len(batch) - FIRST: slice(FIRST, None)}

    class Told(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dropout, self.frozen = nn.Dropout(0.5), nn.Dropout(0.5)

        def forward(self, y: Tensor, *_: Tensor) -> ModelOutput:
            modes.append(any(part.training for part in self.modules()))
            piece = pieces[len(y)]
            return ModelOutput(**{name: value[piece] for name, value in answers.items()})

    model = Told().train()
    model.frozen.eval()
    return model


def _known(small: Context) -> Any:
    import torch

    from ris_verified.model.output import ModelOutput
    from ris_verified.shapes import to_ri

    batch, cfg = small.batch, small.config
    present = torch.isfinite(batch.ptr).all(-1)
    ptr = torch.where(present[..., None], batch.ptr.double(), torch.ones((), dtype=torch.float64))
    # Behind the first part the positions are mirrored: what it captures differs from part to part.
    ptr[FIRST:, :, 0] *= -1
    A = small.pipeline.steering(cfg.array, *ptr.unbind(-1)).mT * present[:, None]
    other = torch.ones_like(A) if cfg.covariance.factor_mode == "product" else A
    angle, range = (to_ri(v).float().flatten(1) for v in (A, other))
    return ModelOutput(angle, range, range[:, :0], ptr[..., :2].float(), ptr[..., 2].float())


def mode_laws(before: list[bool], model: nn.Module, modes: list[bool], where: str) -> list[Measurement]:
    """Measure that a model was called in evaluation mode and has its modes back.

    Args:
        before: modes of its parts.
        model: from `told`.
        modes: those of its calls.
        where: stage that called it.
    """
    return [
        equal(any(modes), False, "a part of the model was in training mode when it was called", where=where),
        equal(modes_of(model), before, "training modes of the model's parts afterwards", where=where),
    ]


@dataclass
class Calls:
    """What a score asked of the estimators.

    Args:
        counts: numbers of sources that reached the spectrum, scene by scene.
        given: y, H_full and C that reached NF-MLE, batch by batch.
        starts: of Newton and NF-MLE, whose peaks they were given, by name; `others` where no stage found these.
        names: stages that were called.
    """

    counts: list[int] = field(default_factory=list)
    given: list[tuple[Tensor, ...]] = field(default_factory=list)
    starts: dict[str, str] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)


class _Estimators:
    """Estimators that miss every scene by its own distance, the scenes told apart by how many there are."""

    def __init__(self, batch: Batch, steps: dict[str, float]) -> None:
        self.ptr, self.steps, self.calls = batch.ptr.double(), steps, Calls()

    def place(self, name: str, B: int) -> Tensor:
        import torch

        low = FIRST if len(self.ptr) - FIRST == B else 0
        far = self.steps[name] * (1 + low + torch.arange(B, dtype=torch.float64))
        outwards = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
        return self.ptr[low : low + B] + far[:, None, None] * outwards

    def found(self, name: str, B: int) -> Peaks:
        from ris_verified.estimate.result import Peaks

        self.calls.names.add(name)
        return Peaks(*self.place(name, B).unbind(-1))

    def spectrum(self, R: Tensor, K: Tensor, cfg: Any) -> Peaks:
        self.calls.counts += K.tolist()
        return self.found("spectrum", len(R))

    def begun(self, name: str, peaks: Peaks) -> None:
        import torch

        given, B = peaks.range.double(), len(peaks.range)
        # Far looser than single precision, far closer than one estimator's places are to another's.
        near = {n: torch.isclose(self.place(n, B)[..., 2], given, atol=1e-3, equal_nan=True) for n in STEP}
        self.calls.starts[name] = next((n for n, same in near.items() if bool(same.all())), "others")

    def newton(self, R: Tensor, K: Tensor, peaks: Peaks, cfg: Any) -> Peaks:
        self.begun("newton", peaks)
        return self.found("newton", len(R))

    def mle(self, peaks: Peaks, y: Tensor, H_full: Tensor, C: Tensor, cfg: Any) -> Estimates:
        import torch

        from ris_verified.estimate.result import Estimates

        self.begun("mle", peaks)
        self.calls.given.append((y, H_full, C))
        found, (B, K_MAX) = self.found("mle", len(y)), peaks.azimuth.shape
        covariance = torch.full((B, 3 * K_MAX, 3 * K_MAX), torch.nan, dtype=torch.float64)
        return Estimates(**vars(found), order=torch.isfinite(found.range).sum(-1), covariance=covariance)


def _recording(small: Context, stages: Pipeline, steps: dict[str, float]) -> tuple[Pipeline, Calls]:
    by = _Estimators(small.batch, steps)
    return dataclasses.replace(stages, spectrum=by.spectrum, newton=by.newton, mle=by.mle), by.calls


def _configured(small: Context, newton: bool, mle: bool) -> Pipeline:
    estimate = dataclasses.replace(small.config.estimate, newton_nearfield=newton, mle=mle)
    return dataclasses.replace(small.pipeline, config=dataclasses.replace(small.config, estimate=estimate))


def score_counts(small: Context) -> list[Measurement]:
    """Score eight scenes in batches of five and three, with Newton and NF-MLE together and each alone."""
    return [m for newton, mle in ((True, True), (True, False), (False, True)) for m in _scored(small, newton, mle)]


def _scored(small: Context, newton: bool, mle: bool) -> list[Measurement]:
    modes: list[bool] = []
    model, chain = told(small, modes), ["spectrum", *["newton"] * newton, *["mle"] * mle]
    before, text = modes_of(model), " → ".join(chain)
    stages, calls = _recording(small, _configured(small, newton, mle), STEP)
    split = float(stages.score(stages, model, parts(small.batch)))
    # All estimators at the last one's place, all scenes at once.
    plain, _ = _recording(small, stages, dict.fromkeys(STEP, STEP[chain[-1]]))
    whole = float(plain.score(plain, told(small, []), [small.batch]))
    counts = wrong_counts(small.batch, small.config.scene.sources_max).tolist()
    starts = dict(zip(chain[1:], chain, strict=False))
    found = [
        close(split, whole, 1e-5, f"score of batches of 5 and 3 against one of 8 ({text})", where="score"),
        equal(sorted(calls.names), sorted(chain), f"estimators of the score ({text})", where="score"),
        equal(calls.counts, counts, f"numbers of sources that the score searches for ({text})", where="score"),
        equal(calls.starts, starts, f"where the score's estimators begin ({text})", where="score"),
        *mode_laws(before, model, modes, "score"),
    ]
    return [*found, _measured(calls, small.batch)] if mle else found


def _measured(calls: Calls, batch: Batch) -> Measurement:
    """The measurements that reach NF-MLE in the score are the batch's, in real or in complex form."""
    import torch

    from ris_verified.shapes import as_complex

    axes = {"y": "B L M", "H_full": "B M N", "C": "B L N"}
    apart = 0.0 if calls.given else float("inf")
    for i, (name, letters) in enumerate(axes.items()):
        wanted = as_complex(vars(batch)[name], name, letters)
        got = [as_complex(given[i], name, letters) for given in calls.given]
        if got:
            joined = torch.cat(got)
            same = joined.shape == wanted.shape
            apart = max(apart, float((joined - wanted).abs().max()) if same else float("inf"))
    return at_most(apart, 0.0, "what NF-MLE is given in the score, against the batch", where="score")
