"""What the K head says before any step; measured for RV1405."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ris_verified.audit.rule import Measurement, at_least

if TYPE_CHECKING:
    from ris_verified.audit.context import Context

SCENES = 128
# What a source must gain in log-likelihood to be worth its three coordinates, a nat each (Akaike).
WORTH = 3.0
# Standard deviations of the number right by chance.
SURE = 3.0


def counts_from_the_start(context: Context) -> list[Measurement]:
    """Compare the K head at its first weights with a guess, where the likelihood itself knows more than that."""
    import torch

    from ris_verified.estimate.proposals import propose
    from ris_verified.shapes import from_ri

    small = context.small
    most = small.config.scene.sources_max
    if not small.own_network or most < 2:
        return []
    b = small.as_batch(small.draw(SCENES, key=11))
    with torch.no_grad():
        found = propose(from_ri(b.y), from_ri(b.H_full), from_ri(b.C), small.config)
        out = small.model(b.y, b.H, b.C, b.H_full)
    likely = (found.gain > WORTH).sum(-1).clamp_min(1)
    guessed = 1 / most + SURE * math.sqrt((1 - 1 / most) / most / SCENES)
    if float((likely == b.K).double().mean()) < guessed:
        return []
    right = float((out.k_logits.argmax(-1) + 1 == b.K).double().mean())
    text = "share of scenes of which the K head tells K before any step"
    return [at_least(right, guessed, text, where="build_model: head.count")]
