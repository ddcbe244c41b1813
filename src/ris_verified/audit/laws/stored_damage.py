"""What RV1401 measures on damaged folders: what the data set, the training and a trial of a study make of them."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ris_verified.audit.context import Context
from ris_verified.audit.damage import damage_file, tiny_data
from ris_verified.audit.rule import Measurement, equal

if TYPE_CHECKING:
    from ris_verified.data.manifest import Shard

FLIPPED = "flipped bit"
KINDS = ("missing", "truncated", FLIPPED)
TOLD = "DataError with file, scenes and remedy"
Reader = Callable[[Path], bool]


def damage_told(context: Context) -> Iterator[Measurement]:
    """Damage one shard of each split in turn, and see what those who read it say."""
    from ris_verified.data.manifest import SPLITS, Manifest

    with tempfile.TemporaryDirectory() as name:
        sound, folder = Path(name) / "sound", Path(name) / "data"
        tiny_data(context, sound)
        shards = {shard.file: shard for shard in Manifest.load(sound).shards}
        for kind, split in itertools.product(KINDS, SPLITS):
            for where, read in _readers(context, split, kind).items():
                shutil.copytree(sound, folder)
                damaged = shards[damage_file(kind, split)(folder)]
                said = _said(read, folder, damaged)
                shutil.rmtree(folder)
                if said:
                    yield equal(said, TOLD, f"what is said of a shard of {split} that is {kind}", where=where)


def _readers(context: Context, split: str, kind: str) -> dict[str, Reader]:
    """Return who reads a split, by name: each returns whether it used what it found.

    A trial collects garbage when it ends, which takes its time: it is given the damage that only a checksum tells.
    """
    from ris_verified.data.dataset import SceneDataset

    steps, small = [0], context.small.pipeline
    brief = small.config.replaced({"train.epochs": 1, "hpo.epochs_per_trial": 1})

    def step(*given: Any) -> Any:
        steps[0] += 1
        return small.train_step(*given)

    pipeline = dataclasses.replace(small, config=brief, train_step=step)

    def opened(folder: Path) -> bool:
        return len(SceneDataset(folder, split)) > 0

    def trained(folder: Path) -> bool:
        pipeline.train(pipeline, folder, folder / "out", curves=False)
        # A training of one's own that takes other steps may read other data.
        return steps[0] > 0

    def tried(folder: Path) -> bool:
        pipeline.objective(pipeline, folder, folder / "out", {}, 0)
        return steps[0] > 0

    readers: dict[str, Reader] = {"SceneDataset": opened}
    if split != "test":
        readers["train"] = trained
        if kind == FLIPPED:
            readers["objective"] = tried
    return readers


def _said(read: Reader, folder: Path, damaged: Shard) -> str:
    """Return how a reader refuses a damaged shard; nothing where it reads no such folder."""
    from ris_verified.errors import DataError

    try:
        return "no word" if read(folder) else ""
    except DataError as error:
        named = {"file": damaged.file in str(error), "scenes": f"{damaged.scenes} scene" in str(error),
                 "remedy": bool(error.remedy)}  # fmt: skip
        missing = [name for name, there in named.items() if not there]
        return f"DataError without {', '.join(missing)}: {error}" if missing else TOLD
    except Exception as error:  # noqa: BLE001 — whatever a stage of another raises instead is what is measured
        return f"{type(error).__name__}: {error}"
