"""How a run begins in a folder: where its checkpoint left it, or anew; what a former run left is not mistaken."""

from __future__ import annotations

from pathlib import Path

from ris_verified.config import Config
from ris_verified.errors import DataError, RisVerifiedError
from ris_verified.files import clear_folder
from ris_verified.train.checkpoint import Checkpoints, Standing
from ris_verified.train.identity import apart, shaping
from ris_verified.train.log import require_records
from ris_verified.train.sealed import notes_of
from ris_verified.train.state import TrainState
from ris_verified.train.weights import stored_config

# What a run writes besides its checkpoints and its configuration.
LOG, WEIGHTS = "log.jsonl", "weights.safetensors"
RESULTS = (WEIGHTS, "curves.png", "summary.html", LOG)


def begin(cfg: Config, out: Path, checkpoints: Checkpoints, state: TrainState, *, fresh: bool) -> Standing:
    """Return where a run stands, with the state brought there.

    The first process reads and gives to all: each on its own could choose another checkpoint.

    Args:
        cfg: of the run.
        out: its folder.
        checkpoints: of this run, in the folder.
        state: as it was created.
        fresh: whether to start over.

    Raises:
        DataError: what the folder holds is of another run or network, damaged or not whole.
        TrainingError: the processes have not the same configuration and data, or the first one could not begin.
    """
    state.ranks.require_same(checkpoints.identity, "configuration or data folder")

    def prepared() -> bytes:
        for folder in (out, checkpoints.folder):
            clear_folder(folder)
        if fresh:
            checkpoints.clear()
            for name in RESULTS:
                (out / name).unlink(missing_ok=True)
        return b"" if fresh else found(cfg, out, checkpoints)

    content = state.ranks.from_first(prepared)
    return checkpoints.restore(state, content) if content else Standing()


def found(cfg: Config, out: Path, checkpoints: Checkpoints, *, aloud: bool = True) -> bytes:
    """Return the checkpoint that a run goes on from, empty where it begins; nothing is changed.

    Args:
        cfg: of the run.
        out: its folder.
        checkpoints: of this run, in the folder.
        aloud: whether to warn of damaged ones.

    Raises:
        DataError: what the folder holds is of another run, damaged or not whole.
    """
    content = checkpoints.newest(aloud=aloud)
    if not content:
        _require_no_other(cfg, out)
        return content
    notes = notes_of(content)
    standing = Standing(**notes["standing"])
    require_records(out / LOG, notes["counters"]["step"], len(standing.history))
    if standing.best_epoch:
        _require_weights(cfg, out / WEIGHTS, standing.best_epoch)
    return content


def _require_no_other(cfg: Config, out: Path) -> None:
    """Without checkpoints the weights tell whose folder it is."""
    weights = out / WEIGHTS
    if not weights.exists():
        return
    differing = _differing(cfg, weights)
    if differing:
        raise DataError(
            f"is of another run: its {differing}",
            where=str(weights),
            expected="a folder without results, or those of this run",
            remedy="use another folder, or start over with --fresh",
        )


def _require_weights(cfg: Config, weights: Path, best: int) -> None:
    differing = _differing(cfg, weights)
    if differing:
        raise DataError(
            f"is not what the run left: {differing}",
            where=str(weights),
            expected=f"the weights of epoch {best}, the best one so far",
            remedy="put the file back, or start over with --fresh",
        )


def _differing(cfg: Config, weights: Path) -> str:
    try:
        return apart(shaping(stored_config(weights)), shaping(cfg))
    except RisVerifiedError as error:
        return error.what
