"""The page at the end of a training: what was run on what, how it went, and what to run next."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ris_verified.config import Config
from ris_verified.data.manifest import SPLITS, Manifest
from ris_verified.files import atomic_write
from ris_verified.page import embedded, templates
from ris_verified.train.board import FOLDER
from ris_verified.train.curves import curve_pictures
from ris_verified.train.identity import precision
from ris_verified.train.log import read_log
from ris_verified.train.ranks import count_of_environment

if TYPE_CHECKING:
    from ris_verified.train.result import TrainResult


def differing(cfg: Config) -> list[tuple[str, Any, Any]]:
    """Return dotted name, value and default of each setting that is not at its default."""
    mine, usual = _flat(dataclasses.asdict(cfg)), _flat(dataclasses.asdict(Config()))
    return [(name, value, usual[name]) for name, value in mine.items() if value != usual[name]]


def _flat(tree: Mapping[str, Any], at: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in tree.items():
        found |= _flat(value, f"{at}{name}.") if isinstance(value, Mapping) else {f"{at}{name}": value}
    return found


def _sizes(manifest: Manifest) -> list[tuple[str, int, float]]:
    # Split, scenes and megabytes.
    shards = {split: manifest.of(split) for split in SPLITS}
    return [(name, sum(s.scenes for s in held), sum(s.bytes for s in held) / 1e6) for name, held in shards.items()]


def _device(cfg: Config, device: torch.device) -> str:
    name = f"{device}, {torch.cuda.get_device_name(device)}" if device.type == "cuda" else str(device)
    counts = f"processes: {count_of_environment()}; threads: {torch.get_num_threads()}"
    return f"{name}; {precision(cfg, device)}; {counts}; torch {torch.__version__}"


def _next(data: Path, out: Path) -> list[str]:
    weights, evaluation = str(out / "weights.safetensors"), str(out / "evaluation")
    asked = ["ris-verified", "evaluate", "--data", str(data), "--weights", weights, "--out", evaluation]
    board = ["tensorboard", "--logdir", str(out / FOLDER)]
    return [shlex.join(words) for words in ([asked, board] if (out / FOLDER).is_dir() else [asked])]


def write_summary(result: TrainResult, cfg: Config, data: Path, out: Path) -> Path:
    """Write `summary.html` beside the weights.

    Args:
        result: of the run that has ended.
        cfg: its configuration.
        data: the folder that it was trained on.
        out: holds its `log.jsonl`.

    Returns:
        The page; it needs no other file, no script and no network.

    Raises:
        DataError: the data folder has no manifest any more.
        StorageError: the page could not be written.
    """
    import jinja2

    manifest, log = Manifest.load(data), out / "log.jsonl"
    steps, epochs = read_log(log)
    environment = jinja2.Environment(loader=templates("ris_verified.train"), autoescape=True, trim_blocks=True)
    page = environment.get_template("summary.html.j2").render(
        result=result,
        best=next(record for record in epochs if record["epoch"] == result.best_epoch)["validation"],
        epochs=epochs,
        steps=len(steps),
        cfg=cfg,
        digest=cfg.digest(),
        changed=differing(cfg),
        data=data,
        manifest=manifest,
        sizes=_sizes(manifest),
        device=_device(cfg, next(result.model.parameters()).device),
        parameters=sum(p.numel() for p in result.model.parameters()),
        pictures={name: embedded(png) for name, png in curve_pictures(log).items()},
        commands=_next(data, out),
    )
    atomic_write(out / "summary.html", page.encode())
    return out / "summary.html"
