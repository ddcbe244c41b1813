"""What counts as a refusal that names both shapes, and which calls are made."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from ris_verified.audit.context import Context, small_config
from ris_verified.audit.laws.contracts_asked import BOTH, Question, questions
from ris_verified.audit.runner import PACKAGE
from ris_verified.config import Config
from ris_verified.errors import InvariantError, RisVerifiedError, ShapeError
from ris_verified.pipeline import Pipeline
from ris_verified.shapes import require_axes


def _answer(error: Exception, right: tuple[int, ...] = (8, 24, 24), wrong: tuple[int, ...] = (9, 24, 24)) -> str:
    def call() -> None:
        raise error

    return str(Question("stage", "R", call, right, wrong).answer().measured)


@pytest.mark.parametrize(
    "error",
    [
        ShapeError("[9, 24, 24]", where="R", expected="[8, 24, 24]"),
        ShapeError("R complex64 [9, 24, 24]", expected="R Complex[Tensor, 'B N N']"),
        InvariantError("R is (9, 24, 24)", expected="(8, N, N)"),
        RisVerifiedError("R is [9 x 24 x 24] and must be [8 x 24 x 24]"),
    ],
)
def test_an_error_of_one_s_own_that_names_both_is_enough(error: Exception) -> None:
    assert _answer(error) == BOTH


@pytest.mark.parametrize(
    ("error", "missing"),
    [
        (ValueError("[9, 24, 24], expected [8, 24, 24]"), "another kind"),
        (AssertionError(), "another kind"),
        (ShapeError("wrong shape", expected="another"), "without [9, 24, 24]"),
        (ShapeError("[9, 24, 24]", expected="another"), "without [8, 24, 24]"),
        (ShapeError("R [9, 24, 24], S [8, 24, 24]", expected="shapes that fit"), "without [8, 24, 24]"),
        (ShapeError("[9, 24, 24]", expected="[7, 24, 24]"), "without [8, 24, 24]"),
        (ShapeError("[9, 24, 24]", expected="[8, 24]"), "without [8, 24, 24]"),
    ],
)
def test_an_error_that_leaves_one_out_is_not(error: Exception, missing: str) -> None:
    assert missing in _answer(error)


def test_pairs_may_be_told_as_complex_numbers_and_nothing_else_may() -> None:
    error = ShapeError("complex64 [8, 7, 4]", expected="[8, 6, 4]")
    assert _answer(error, (8, 6, 4, 2), (8, 7, 4, 2)) == BOTH
    assert "without" in _answer(ShapeError("[9]", expected="[8]"), (8, 2), (9, 2))


@pytest.fixture(scope="module")
def context() -> Context:
    return Context(Pipeline.default(small_config(Config())), "quick", PACKAGE)


def test_every_stage_that_takes_tensors_is_asked_with_a_wrong_rank_and_a_wrong_size(context: Context) -> None:
    asked = list(questions(context))
    stages = {question.stage for question in asked}
    assert stages == {
        "predicted_covariance", "inference_predicted_covariance", "sample_covariance", "inference_sample_covariance",
        "blend", "inference_blend", "model", "loss", "spectrum", "newton", "steering", "inference_steering", "order",
        "localize", "mle", "bound", "match", "metric", "unpack",
    }  # fmt: skip
    assert all(question.right != question.wrong for question in asked)
    ranks = {question.stage for question in asked if len(question.right) != len(question.wrong)}
    # Any number of axes may broadcast.
    assert stages - ranks == {"steering", "inference_steering"}
    assert {question.stage for question in asked if len(question.right) == len(question.wrong)} == stages


def test_a_bare_function_is_found_and_one_that_asks_first_is_not(context: Context) -> None:
    def bare(R: torch.Tensor, K: torch.Tensor, cfg: Config) -> object:
        return torch.linalg.eigvalsh(R)

    def asking(R: torch.Tensor, K: torch.Tensor, cfg: Config) -> object:
        require_axes("mine", {"R": "B N N", "K": "B"}, {"R": R, "K": K}, {"N": cfg.array.elements})
        return bare(R, K, cfg)

    found = {}
    for stage in (bare, asking):
        place = Context(dataclasses.replace(context.pipeline, spectrum=stage), "quick", PACKAGE)
        vars(place).update(batch=context.batch, outputs=context.outputs, blend=context.blend, model=context.model)
        answers = [question.answer() for question in questions(place) if question.stage == "spectrum"]
        found[stage] = [answer.passed for answer in answers]
    assert not all(found[bare])
    assert all(found[asking])
