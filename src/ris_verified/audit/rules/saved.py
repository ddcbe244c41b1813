"""Section 16: what a training leaves is what it did."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from ris_verified.audit.context import Context
from ris_verified.audit.laws.judging import loop_obeys
from ris_verified.audit.laws.model_laws import repeats
from ris_verified.audit.laws.runs import run_obeys
from ris_verified.audit.laws.step_laws import report_laws
from ris_verified.audit.rule import Measurement, at_most, mended, rule

LAWS = {
    repeats: "let the output depend on weights, buffers and inputs alone, and the weights on `cfg.seed`",
    report_laws: "report means over all scenes of the step, the norm before clipping and the rates that were used",
    loop_obeys: "validate, save, log and return the same weights, and show every scene once an epoch",
    run_obeys: "keep weights, optimiser, schedule, averages, random state, place in the epoch and best figure, and go "
    "on from all of them",
}


@rule(
    "RV1605",
    "What is saved reloads to the same output",
    law="load(save(model)) gives the same bits; the averaged weights are what is saved; a step reports what it did; "
    "every epoch shows every training scene once, with its own truth, in an order of its own; a run that is killed and "
    "begun again ends with the same bits",
    why="Validating the average and saving the live weights loses the score that was reported.",
    how="The small model after three steps: its validated weights (`state.best`) saved, loaded and run on the same "
    "batch. Two evaluations and two builds repeat each other to the bit, share no storage, and another seed draws "
    "other weights. Reported loss, terms, NMSE, norm before clipping and rates beside those of a plain step written "
    "in the audit, bound 1e4 eps. Two epochs of a training on four scenes: validated figures of the saved weights, "
    "logged rates, and what each step was given beside the stored scenes. Three epochs of three accumulated steps, "
    "with curriculum, dropout and both averages, from a folder with more scenes than are asked for, 130 of them to "
    "validate: few sources first, scenes shown and validated, rates, weight decay, mean loss, the epoch kept, of the "
    "highest mean of capture and order; killed before step 5 and begun again. Bound: equal.",
    remedy="save `state.best`, with every buffer that the output depends on",
    apart=True,
)
def reloads(context: Context) -> Iterator[Measurement]:
    """Equal weights and operations give equal bits."""
    import torch

    from ris_verified.train.weights import load_model, save_model

    small = context.small
    state = small.state()
    for _ in range(3):
        small.pipeline.train_step(state, small.batch, small.pipeline)
    b = small.batch
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        save_model(state.best, small.config, Path(folder) / "weights.safetensors")
        loaded = load_model(Path(folder) / "weights.safetensors", small.pipeline)
        was = state.best.eval()(b.y, b.H, b.C, b.H_full)
        now = loaded.eval()(b.y, b.H, b.C, b.H_full)
    for name, value in vars(was).items():
        yield at_most(float((vars(now)[name] - value).abs().max()), 0.0, "reloaded minus saved", where=name)
    for law, remedy in LAWS.items():
        yield from mended(law(context), remedy)
