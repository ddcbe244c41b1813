"""The loss's gradient against differences: where eigenvalues tie there is none, and a sound loss is not blamed."""

from __future__ import annotations

import pytest

from ris_verified.audit.context import Context, small_config
from ris_verified.audit.laws.loss_bench import separated
from ris_verified.audit.rules import rules
from ris_verified.audit.runner import PACKAGE, run_rule
from ris_verified.config import Config
from ris_verified.pipeline import Pipeline


# At seed 0 two eigenvalues of R_pred alone are equal in the span of one scene's sources.
@pytest.mark.parametrize("preset", ["quick", "small"])
@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_a_sound_loss_passes_where_eigenvalues_of_the_blend_tie(preset: str, beta: float) -> None:
    pipeline = Pipeline.default(Config.load(preset).replaced({"covariance.beta": beta}))
    results = run_rule(rules()["RV0604"], Context(pipeline, "quick", PACKAGE))
    assert [r.message for r in results if r.status != "pass"] == []


def test_no_two_eigenvalues_stay_together() -> None:
    import torch

    context = Context(Pipeline.default(small_config(Config())), "quick", PACKAGE)
    values = torch.linalg.eigvalsh(separated(0 * context.blend.R))
    assert float(values.diff().min()) > 0.9 / values.shape[-1]
