"""Slips in the scripts that train: steps, seeds, failures and configurations of one's own."""

from __future__ import annotations

from ris_verified.audit.faults.fault import SourceFault
from ris_verified.audit.faults.sources import SETTINGS


def _step(lines: str) -> dict[str, str]:
    head = "import torch\n\n\ndef step(model, optimizer, loss_of, batch):\n    outputs = model(batch.y)\n"
    return {"train.py": f"{head}{lines}    return outputs\n"}


def _run(lines: str) -> dict[str, str]:
    head = "import time\nfrom contextlib import suppress\n\nimport torch\n\n\ndef run(batches, train_step, name):\n"
    return {"train.py": f"{head}{lines}"}


def _loss(lines: str) -> dict[str, str]:
    return {"loss.py": f"import torch\n\n\ndef range_loss(ranges, target, logits):\n{lines}"}


def _configured(line: str) -> dict[str, str]:
    head = "from ris_verified.config import Config\n\n\ndef main(path):\n    cfg = Config.load(path)\n"
    return {"main.py": f"{head}    {line}\n    return cfg\n"}


def _beside_settings(text: str) -> dict[str, str]:
    return {"config.py": SETTINGS, "use.py": text}


FAULTS = (
    SourceFault("cleared_before_the_step", "RV0503", "every step has the gradient zero",
                _step("    loss_of(outputs).backward()\n    optimizer.zero_grad()\n    optimizer.step()\n")),
    SourceFault("step_before_backward", "RV0503", "gradients are cleared, and then used",
                _step("    optimizer.zero_grad()\n    optimizer.step()\n    loss_of(outputs).backward()\n")),
    SourceFault("step_not_called", "RV0503", "the brackets are missing",
                _step("    optimizer.zero_grad()\n    loss_of(outputs).backward()\n    optimizer.step\n")),
    SourceFault("total_of_numbers", "RV0503", "a sum of items has no graph",
                _step("    total = sum(term.item() for term in loss_of(outputs))\n"
                      "    torch.tensor(total, requires_grad=True).backward()\n    optimizer.step()\n")),
    SourceFault("round_trip_before_the_loss", "RV0503", "R_blend goes through NumPy",
                _step("    R = torch.from_numpy(outputs.R.detach().numpy())\n    loss_of(outputs, R).backward()\n")),
    SourceFault("leaf_before_the_loss", "RV0503", "the gradient ends in a leaf",
                _step("    R = outputs.R.detach().requires_grad_()\n    loss_of(outputs, R).backward()\n")),
    SourceFault("term_of_a_number", "RV0503", "one of two terms is an item of an error",
                _loss("    near = (ranges - target).abs().mean().item()\n"
                      "    return (ranges - target).square().mean() + near\n")),
    SourceFault("error_without_a_graph", "RV0503", "the error is cut off, not the target",
                _loss("    error = (ranges - target).detach()\n    return (error * error).mean() + logits.mean()\n")),
    SourceFault("weight_alone", "RV0503", "what should weigh the error is the error",
                _loss("    with torch.no_grad():\n        w = (ranges - target).abs()\n    return w.mean()\n")),
    SourceFault("seed_of_the_clock", "RV1101", "no run can be repeated",
                _run("    torch.manual_seed(int(time.time()))\n    return [train_step(b) for b in batches]\n")),
    SourceFault("seed_of_a_hash", "RV1101", "texts hash differently in every process",
                _run("    torch.manual_seed(hash(name) % 2**31)\n    return [train_step(b) for b in batches]\n")),
    SourceFault("seeded_by_chance", "RV1101", "seed() takes one from the system",
                _run("    generator = torch.Generator()\n    generator.seed()\n    return generator\n")),
    SourceFault("never_seeded", "RV1101", "every epoch has the same order",
                _run("    generator = torch.Generator()\n"
                     "    return torch.randperm(len(batches), generator=generator)\n")),
    SourceFault("default_that_remembers", "RV1101", "the second run begins with the losses of the first",
                {"a.py": "def note(loss, seen=[]):\n    seen.append(loss)\n    return seen\n"}),
    SourceFault("return_in_finally", "RV1607", "whatever was raised is forgotten",
                _run("    try:\n        train_step(batches)\n    finally:\n        return name\n")),
    SourceFault("context_that_swallows", "RV1607", "every step may fail unseen",
                {"a.py": "class Quiet:\n    def __enter__(self):\n        return self\n\n"
                 "    def __exit__(self, kind, error, trace):\n        return True\n"}),
    SourceFault("failed_step_passed_over", "RV1607", "an epoch of failed steps is an epoch",
                _run("    for batch in batches:\n        try:\n            train_step(batch)\n"
                     "        except RuntimeError:\n            continue\n")),
    SourceFault("failed_step_suppressed", "RV1607", "an epoch of failed steps is an epoch",
                _run("    for batch in batches:\n        with suppress(RuntimeError):\n"
                     "            train_step(batch)\n")),
    SourceFault("exception_kept_unread", "RV1607", "the last error is kept, and nobody asks for it",
                _run("    for batch in batches:\n        try:\n            train_step(batch)\n"
                     "        except Exception as error:\n            last = error\n    return name\n")),
    SourceFault("zero_after_a_test", "RV1607", "a diverged step has the best loss",
                _run("    loss = train_step(batches)\n    if not torch.isfinite(loss):\n"
                     "        return torch.zeros(())\n    return loss\n")),
    SourceFault("slip_among_looped_names", "RV0101", "the names stand in a table",
                _beside_settings('WANTED = {"HYBRID_COV_BETA": 0.3, "hybrid_beta": 0.3}\n\ndef f(cfg):\n'
                     "    return [getattr(cfg, name, value) for name, value in WANTED.items()]\n")),
    SourceFault("slip_through_a_helper", "RV0101", "a helper with a default for ever",
                _beside_settings('def get(cfg, name, default):\n    return getattr(cfg, name, default)\n\n'
                     'def f(cfg):\n    return get(cfg, "tikh_alpha", 1e-2)\n')),
    SourceFault("slip_in_two_parts", "RV0101", "the name is put together",
                _beside_settings('def f(cfg):\n    return getattr(cfg, "eps" + "_cov", 1e-3)\n')),
    SourceFault("frozen_field_set", "RV0101", "past the frozen class",
                _configured('object.__setattr__(cfg.train, "epochs", 3)')),
    SourceFault("frozen_dictionary_set", "RV0101", "past the frozen class",
                _configured('vars(cfg.train)["epochs"] = 3')),
    SourceFault("slip_beside_a_class_of_one_s_own", "RV0101", "the package's field is clip_norm",
                {"main.py": "from dataclasses import dataclass\n\nfrom ris_verified.config import Config\n\n\n"
                 "@dataclass\nclass RunConfig:\n    smoothing: float = 0.1\n\n\ndef f(cfg: Config, run: RunConfig):\n"
                 "    return cfg.train.clipnorm, run.smoothing\n"}),
)  # fmt: skip
