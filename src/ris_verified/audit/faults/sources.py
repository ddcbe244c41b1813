"""Slips in source code, each a small tree of files."""

from __future__ import annotations

from ris_verified.audit.faults.fault import SourceFault

_CONFIG = """
from dataclasses import dataclass

@dataclass
class TrainConfig:
    HYBRID_COV_BETA: float = 0.3
    NF_MLE_TIKHONOV_LAMBDA: float = 1e-2
    C_EPS: float = 1e-3
    EPOCHS: int = 12

cfg = TrainConfig()

def used(cfg):
    return cfg.HYBRID_COV_BETA, cfg.NF_MLE_TIKHONOV_LAMBDA, cfg.C_EPS, cfg.EPOCHS
"""

_BRANCH = """
def run(batch, hybrid):
    if hybrid:
        B_final = batch.shape[0]
        R = batch
    else:
        R = batch * 2
    return R.reshape(B_final, -1)
"""

_UNDEFINED = """
def angles(cov):
    A_r = cov.real
    return A_c + A_r
"""

_FORWARD = """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return self._finish(self.body(x))

    def _finish(self, x):
        return self.head(x.detach())
"""

_NUMPY = """
import torch
from torch import nn

class Net(nn.Module):
    def forward(self, x):
        return torch.from_numpy(x.cpu().numpy()).sum()
"""

_SWALLOW = """
def objective(trial, train):
    try:
        return train(trial)
    except Exception:
        pass
    return float("inf")
"""

_ZERO = """
def rmse(errors):
    try:
        return sum(errors) / len(errors)
    except ZeroDivisionError:
        return 0.0
"""

_NAN = """
import torch

def score(loss):
    return torch.nan_to_num(loss)
"""

_STUDY = """
import argparse
from audit import audit

def main(pipeline, study):
    parser = argparse.ArgumentParser()
    parser.add_argument("--n_trials", type=int)
    parser.add_argument("--epochs_per_trial", type=int)
    parser.add_argument("--space")
    args = parser.parse_args()
    if audit(pipeline).verdict == "GO":
        study.optimize(args.n_trials)
"""

_MODEL = """
from torch import nn

class Net(nn.Module):
    def forward(self, x):
        return x * 2
"""

SOUND = {"config.py": _CONFIG, "model.py": _MODEL, "hpo/__main__.py": _STUDY}

FAULTS = (
    SourceFault("hybrid_beta", "RV0101", "a default for ever: the name is HYBRID_COV_BETA",
                {"config.py": _CONFIG, "train.py": 'def f(cfg):\n    return getattr(cfg, "hybrid_beta", 0.3)\n'}),
    SourceFault("tikh_alpha", "RV0101", "the name is NF_MLE_TIKHONOV_LAMBDA",
                {"config.py": _CONFIG, "mle.py": 'def f(mdl_cfg):\n    return getattr(mdl_cfg, "tikh_alpha", 1e-2)\n'}),
    SourceFault("eps_cov", "RV0101", "the name is C_EPS",
                {"config.py": _CONFIG, "infer.py": "def f(self):\n    return self.cfg.eps_cov\n"}),
    SourceFault("dead_knob", "RV0102", "a weight that nothing reads",
                {"config.py": _CONFIG.replace("    EPOCHS", "    MUSIC_PEAK_THRESH: float = 0.1\n    EPOCHS")}),
    SourceFault("two_defaults", "RV0105", "1e-3 in the configuration, 1.0 in the loss",
                {"config.py": _CONFIG, "loss.py": "C_EPS = 1.0\n\ndef f(R):\n    return R + C_EPS\n"}),
    SourceFault("default_in_getattr", "RV0105", "a second default at the point of use",
                {"config.py": _CONFIG, "loss.py": 'def f(cfg):\n    return getattr(cfg, "C_EPS", 1.0)\n'}),
    SourceFault("bound_in_one_branch", "RV0201", "B_final is bound where hybrid is on", {"infer.py": _BRANCH}),
    SourceFault("undefined_name", "RV0201", "A_c is bound nowhere", {"music.py": _UNDEFINED}),
    SourceFault("detach_in_forward", "RV0503", "the body never learns", {"model.py": _FORWARD}),
    SourceFault("numpy_in_forward", "RV0503", "a round trip through NumPy", {"model.py": _NUMPY}),
    SourceFault("import_cycle", "RV1101", "model and loss import each other",
                {"model.py": "from loss import term\n\ndef net():\n    return term\n",
                 "loss.py": "import model\n\ndef term():\n    return model\n"}),
    SourceFault("syntax_error", "RV1101", "a merge left a conflict mark", {"train.py": "x = 1\n<<<<<<< HEAD\n"}),
    SourceFault("option_renamed", "RV1501", "the option follows another style guide",
                {"hpo/__main__.py": _STUDY.replace('"--n_trials"', '"--trials"')}),
    SourceFault("study_without_gate", "RV1501", "the study starts whatever the audit says",
                {"hpo/__main__.py": _STUDY.replace('if audit(pipeline).verdict == "GO":', "if args.n_trials:")}),
    SourceFault("exception_swallowed", "RV1607", "a failed trial looks like a bad one", {"hpo.py": _SWALLOW}),
    SourceFault("zero_for_failure", "RV1607", "no estimate means no error", {"metric.py": _ZERO}),
    SourceFault("nan_to_zero", "RV1607", "a diverged trial has the best loss", {"hpo.py": _NAN}),
)  # fmt: skip
