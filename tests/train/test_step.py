"""One training step: groups, rates, clipping, guards, averages."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math

import pytest
import torch

from ris_verified.config import Config
from ris_verified.data.batch import Batch
from ris_verified.data.dataset import draw_batch
from ris_verified.errors import TrainingError
from ris_verified.pipeline import Pipeline
from ris_verified.train.schedule import curriculum_order, rate_factor
from ris_verified.train.state import TrainState

# Fewer measurements leave flat objectives, whose minima move with the rounding of another batch shape.
TINY = [
    "array.horizontal=8", "array.vertical=8", "scene.antennas=8", "scene.snapshots=12", "scene.sources_max=3",
    "model.channels=8", "model.width=16", "model.layers=1", "model.heads=2", "model.head_width=16",
    "model.head_layers=1", "model.dictionary_azimuth=8", "model.dictionary_elevation=4",
    "model.dictionary_range=2", "model.dropout=0.0", "train.precision=float32", "train.batch_size=6",
]  # fmt: skip

CPU_FULL = RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried")


def _pipeline(*overrides: str) -> Pipeline:
    return Pipeline.default(Config.load(None, [*TINY, *overrides]))


def _batch(pipeline: Pipeline, count: int = 6) -> Batch:
    return draw_batch(pipeline.config, count, 7)


def _flat(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


class TrainStepContract:
    """What every training step of a pipeline must do."""

    pipeline = staticmethod(_pipeline)

    def _start(self, *overrides, steps=10):
        pipeline = self.pipeline(*overrides)
        return pipeline, TrainState.create(pipeline, total_steps=steps), _batch(pipeline)

    @pytest.mark.parametrize("most", [1, 2, 3])
    @pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(), CPU_FULL])
    def test_out_of_memory_halves_the_micro_batch_and_keeps_the_gradient(self, most, error):
        pipeline, state, batch = self._start()
        sizes = []

        def loss(outputs, R_hat, part, cfg, **options):
            if len(part) > most:
                raise error
            sizes.append(len(part))
            return pipeline.loss(outputs, R_hat, part, cfg, **options)

        other = TrainState.create(pipeline, total_steps=10, model=copy.deepcopy(state.model))
        pipeline.train_step(other, batch, pipeline)
        report = pipeline.train_step(state, batch, dataclasses.replace(pipeline, loss=loss))
        assert not report.skipped
        assert sum(sizes) == len(batch)
        halved, whole = (torch.cat([p.grad.flatten() for p in s.model.parameters()]) for s in (state, other))
        eps = torch.finfo(torch.float32).eps
        # The search before the network solves systems of condition up to a thousand.
        assert (halved - whole).norm() <= 1024 * eps * whole.norm()
        sizes.clear()
        pipeline.train_step(state, batch, dataclasses.replace(pipeline, loss=loss))
        assert max(sizes) <= most
        assert sum(sizes) == len(batch)

    def test_out_of_memory_on_the_way_back_halves_too(self):
        pipeline, state, batch = self._start()
        calls = []

        def full(gradient):
            calls.append(gradient)
            if len(calls) == 1:
                raise RuntimeError("could not create a primitive")

        next(state.model.parameters()).register_hook(full)
        assert not pipeline.train_step(state, batch, pipeline).skipped
        assert (state.parts, len(calls)) == (2, 3)

    def test_out_of_memory_with_one_scene_is_one_error(self):
        pipeline, state, batch = self._start()

        def loss(*_args, **_options):
            raise torch.OutOfMemoryError("CUDA out of memory")

        before = _flat(state.model)
        with pytest.raises(TrainingError, match="out of memory"):
            pipeline.train_step(state, batch, dataclasses.replace(pipeline, loss=loss))
        assert torch.equal(before, _flat(state.model))

    def test_other_runtime_errors_are_not_taken_for_lack_of_memory(self):
        pipeline, state, batch = self._start()

        def loss(*_args, **_options):
            raise RuntimeError("shapes do not agree")

        with pytest.raises(RuntimeError, match="shapes do not agree"):
            pipeline.train_step(state, batch, dataclasses.replace(pipeline, loss=loss))

    def test_one_call_is_one_optimiser_step_that_moves_every_parameter(self):
        pipeline, state, batch = self._start()
        before = [p.detach().clone() for p in state.model.parameters()]
        report = pipeline.train_step(state, batch, pipeline)
        assert not report.skipped
        assert state.step == 1
        assert math.isfinite(float(report.loss))
        assert float(report.gradient_norm) > 0
        for old, (name, new) in zip(before, state.model.named_parameters(), strict=True):
            assert not torch.equal(old, new), name

    @pytest.mark.parametrize("share", [0.5, 2.0])
    def test_gradients_beyond_the_limit_are_scaled_to_it_and_others_stay_bit_for_bit(self, share):
        def gradient(limit):
            pipeline, state, batch = self._start(f"train.clip_norm={limit}")
            report = pipeline.train_step(state, batch, pipeline)
            return torch.cat([p.grad.flatten() for p in state.model.parameters()]), float(report.gradient_norm)

        whole, norm = gradient(1e6)
        clipped, reported = gradient(share * norm)
        assert reported == norm == pytest.approx(float(whole.double().norm()), rel=1e-5)
        if share > 1:
            assert torch.equal(clipped, whole)
        # torch divides by norm + 1e-6.
        assert float(clipped.norm()) == pytest.approx(min(share, 1) * norm, rel=1e-6 / norm + 1e-5)

    def test_head_learns_at_four_times_the_rate_before_and_after_every_step(self):
        pipeline, state, batch = self._start("train.epochs=1")
        for _ in range(6):
            report = pipeline.train_step(state, batch, pipeline)
            for rates in (report.learning_rates, state.rates()):
                assert rates["head"] == pytest.approx(4 * rates["backbone"], rel=1e-12)

    def test_reported_rates_are_those_of_a_dry_run_of_the_schedule(self):
        pipeline, state, batch = self._start()
        train = pipeline.config.train
        for step in range(10):
            report = pipeline.train_step(state, batch, pipeline)
            expected = train.learning_rate * rate_factor(step, 10, train)
            assert report.learning_rates["backbone"] == pytest.approx(expected, rel=1e-12)

    # The optimiser put in is not the one that the schedule has seen.
    @pytest.mark.filterwarnings("ignore:Detected call of .lr_scheduler.step:UserWarning")
    def test_accumulation_gives_the_step_of_the_whole_batch(self):
        weights = []
        for parts in (1, 3):
            pipeline, state, batch = self._start(f"train.accumulation={parts}", "train.ema_decay=0.0")
            # Plain SGD shows the gradient itself; AdamW's first step shows only its sign.
            state.optimizer = torch.optim.SGD(pipeline.parameter_groups(state.model, pipeline.config))
            pipeline.train_step(state, batch, pipeline)
            weights.append(_flat(state.model))
        moved = (weights[0] - _flat(pipeline.build_model(pipeline.config))).abs().max()
        assert (weights[0] - weights[1]).abs().max() <= 1000 * torch.finfo(torch.float32).eps * (1 + moved)

    @pytest.mark.filterwarnings("error")
    def test_a_skipped_first_step_warns_of_no_wrong_order(self):
        pipeline, state, batch = self._start()
        bad = dataclasses.replace(batch, R_in=batch.R_in * torch.nan)
        assert pipeline.train_step(state, bad, pipeline).skipped
        assert state.scheduler.last_epoch == 1

    @pytest.mark.parametrize("where", ["loss", "covariance", "gradient"])
    def test_a_non_finite_number_touches_nothing_and_is_counted(self, where):
        pipeline, state, batch = self._start("train.swa_share=0.9")
        pipeline.train_step(state, batch, pipeline)
        kept = [_flat(m) for m in (state.model, state.ema, state.swa)]
        moments = copy.deepcopy(state.optimizer.state_dict()["state"])
        if where == "loss":
            bad = dataclasses.replace(batch, R_in=batch.R_in * torch.nan)
            report = pipeline.train_step(state, bad, pipeline)
        elif where == "covariance":
            sound, huge = pipeline.predicted_covariance, 1e30
            diverged = dataclasses.replace(
                pipeline, predicted_covariance=lambda angle, distance, cfg: sound(huge * angle, huge * distance, cfg)
            )
            report = diverged.train_step(state, batch, diverged)
        else:
            hook = next(state.model.parameters()).register_hook(lambda g: g * torch.inf)
            report = pipeline.train_step(state, batch, pipeline)
            hook.remove()
        assert report.skipped
        assert state.skipped == 1
        for old, module in zip(kept, (state.model, state.ema, state.swa), strict=True):
            assert torch.equal(old, _flat(module))
        for key, values in state.optimizer.state_dict()["state"].items():
            assert all(torch.equal(values[name], moments[key][name]) for name in values)
        assert not pipeline.train_step(state, batch, pipeline).skipped
        assert state.consecutive == 0

    def test_too_many_non_finite_steps_stop_the_run(self):
        pipeline, state, batch = self._start("train.nonfinite_limit=2")
        bad = dataclasses.replace(batch, R_in=batch.R_in * torch.nan)
        for _ in range(2):
            pipeline.train_step(state, bad, pipeline)
        with pytest.raises(TrainingError, match="nonfinite_limit = 2"):
            pipeline.train_step(state, bad, pipeline)

    def test_averages_hold_no_graph_and_leave_the_live_weights_alone(self):
        pipeline, state, batch = self._start("train.swa_share=0.9")
        for _ in range(3):
            pipeline.train_step(state, batch, pipeline)
        live = _flat(state.model)
        for average in (state.ema, state.swa):
            assert all(p.grad_fn is None for p in average.parameters())
            assert not torch.equal(_flat(average.module), live)
        assert torch.equal(_flat(state.model), live)
        assert all(p.requires_grad for p in state.model.parameters())

    def test_a_step_repeats_exactly(self):
        results = []
        for _ in range(2):
            pipeline, state, batch = self._start()
            for _ in range(3):
                pipeline.train_step(state, batch, pipeline)
            results.append(_flat(state.model))
        assert torch.equal(*results)

    def test_a_small_set_can_be_memorised(self):
        pipeline, state, batch = self._start("train.learning_rate=2e-3", "train.ema_decay=0.0", steps=150)
        losses = [float(pipeline.train_step(state, batch, pipeline).loss) for _ in range(150)]
        assert sum(losses[-5:]) / 5 < 0.75 * losses[0]


class TestTrainStep(TrainStepContract):
    pass


def test_schedule_warms_up_then_falls_to_its_floor():
    train = Config().train
    factors = [rate_factor(step, 1000, train) for step in range(1000)]
    warmup = round(train.warmup_share * 1000)
    assert factors[warmup - 1] == 1.0
    assert all(b > a for a, b in itertools.pairwise(factors[:warmup]))
    assert all(b <= a for a, b in itertools.pairwise(factors[warmup:]))
    assert 0.02 <= factors[-1] < 0.021


def test_curriculum_shows_few_sources_first_and_fades():
    train = dataclasses.replace(Config().train, curriculum_share=0.5, epochs=4)
    generator = torch.Generator().manual_seed(0)
    K = torch.randint(1, 6, (2000,), generator=generator)
    order = torch.randperm(2000, generator=generator)
    slopes = []
    for epoch in range(4):
        shown = curriculum_order(order, K, epoch, train)
        assert torch.equal(shown.sort()[0], torch.arange(2000))
        half = K[shown].double()
        slopes.append(float(half[1000:].mean() - half[:1000].mean()))
    assert slopes[0] > slopes[1] > 0.5
    assert torch.equal(curriculum_order(order, K, 2, train), order)


@pytest.mark.parametrize(("epochs", "share"), [(1, 0.1), (3, 0.5), (4, 0.3)])
def test_curriculum_never_sorts_more_than_its_share_of_the_scenes(epochs, share):
    train = dataclasses.replace(Config().train, curriculum_share=share, epochs=epochs)
    K = torch.arange(1000).remainder(5)
    orders = [torch.randperm(1000, generator=torch.Generator().manual_seed(epoch)) for epoch in range(epochs)]
    shown = [curriculum_order(order, K, epoch, train) for epoch, order in enumerate(orders)]
    moved = [
        int((a != b).nonzero().max()) + 1 if not torch.equal(a, b) else 0 for a, b in zip(shown, orders, strict=True)
    ]
    assert 0 < sum(moved) <= share * epochs * 1000
    assert all(torch.equal(order.sort()[0], torch.arange(1000)) for order in shown)
