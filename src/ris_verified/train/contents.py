"""What of a training a checkpoint holds, as tensors and numbers, and how it is put back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ris_verified.train.state import TrainState

# `parts` too: sums over other micro-batches round differently.
COUNTERS = ("step", "skipped", "consecutive", "parts")


def _modules(state: TrainState) -> dict[str, nn.Module]:
    found = {"live": state.model, "ema": state.ema, "swa": state.swa}
    return {name: module for name, module in found.items() if module is not None}


def numbers_in(state: TrainState) -> dict[str, Any]:
    """Return the counters of a training and its schedule."""
    schedule = state.scheduler.state_dict()
    # The rate's law follows from the configuration; a function cannot be stored.
    schedule["lr_lambdas"] = [None] * len(schedule["lr_lambdas"])
    return {"counters": {name: vars(state)[name] for name in COUNTERS}, "scheduler": schedule}


def tensors_in(state: TrainState) -> dict[str, Tensor]:
    """Return weights, averages and the optimiser's moments by name, and every process's generators; all call it."""
    found = {
        f"{name}/{key}": value.detach().cpu().contiguous()
        for name, module in _modules(state).items()
        for key, value in module.state_dict().items()
    }
    for name, parameter in state.model.named_parameters():
        for key, value in state.optimizer.state[parameter].items():
            found[f"optimizer/{key}/{name}"] = value.detach().cpu().contiguous()
    return found | _gathered_randomness(state)


def _gathered_randomness(state: TrainState) -> dict[str, Tensor]:
    found = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        found["cuda"] = torch.cuda.get_rng_state()
    return {
        f"random/{name}/{rank}": part
        for name, value in found.items()
        for rank, part in enumerate(state.ranks.gathered(value))
    }


def misfit(state: TrainState, tensors: dict[str, Tensor]) -> str:
    """Return which part of a new state is not like what is stored; empty where all fits."""
    mine = {f"{n}/{key}": value for n, module in _modules(state).items() for key, value in module.state_dict().items()}
    stored = {name: value for name, value in tensors.items() if name.partition("/")[0] in _modules(state)}
    if mine.keys() != stored.keys():
        return f"one of the two has no {sorted(mine.keys() ^ stored.keys())[0]}"
    for name, value in mine.items():
        other = stored[name]
        if value.shape != other.shape or value.dtype != other.dtype:
            return (
                f"size mismatch for {name}: {list(other.shape)} {other.dtype}, here {list(value.shape)} {value.dtype}"
            )
    drawn = tensors.get(f"random/cpu/{state.ranks.index}")
    # Of another version of torch; the stored weights fit, but the run would not be the same.
    if drawn is not None and drawn.shape != torch.get_rng_state().shape:
        return f"size mismatch for the generator's state: {len(drawn)}, here {len(torch.get_rng_state())}"
    return ""


def put_back(state: TrainState, notes: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Bring a new state, which fits, to what is stored."""
    for name, module in _modules(state).items():
        prefix = f"{name}/"
        module.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
    for name, parameter in state.model.named_parameters():
        for key in ("step", "exp_avg", "exp_avg_sq"):
            if (value := tensors.get(f"optimizer/{key}/{name}")) is not None:
                state.optimizer.state[parameter][key] = value.to(parameter.device)
    state.scheduler.load_state_dict(notes["scheduler"])
    for group, rate in zip(state.optimizer.param_groups, state.scheduler.get_last_lr(), strict=True):
        group["lr"] = rate
    for name, value in notes["counters"].items():
        setattr(state, name, value)
    for name, put in (("cpu", torch.set_rng_state), ("cuda", torch.cuda.set_rng_state)):
        if (value := tensors.get(f"random/{name}/{state.ranks.index}")) is not None:
            put(value)
