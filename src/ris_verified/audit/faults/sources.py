"""Slips in source code, each a small tree of files."""

from __future__ import annotations

from ris_verified.audit.faults.fault import SourceFault

SETTINGS = """
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

_LOSS = """
import numpy as np
import torch

def covariance_loss(R_pred, R_true, R_samp, beta):
    R = (1 - beta) * R_pred + beta * R_samp.detach()
    error = (R - R_true).abs().square().mean()
    made = torch.zeros_like(R)
    made[..., 0] = 1
    logs = {"nmse": error.detach(), "largest": max(1, len(R))}
    return error, logs

def draw(seed):
    return np.random.default_rng(seed).normal()
"""

SOUND = {"config.py": SETTINGS, "model.py": _MODEL, "loss.py": _LOSS, "hpo/__main__.py": _STUDY}


def _in_forward(line: str) -> dict[str, str]:
    return {"model.py": f"from torch import nn\n\nclass Net(nn.Module):\n    def forward(self, x):\n        {line}\n"
            "        return x\n"}  # fmt: skip


def _in_loss(line: str, result: str = "error") -> dict[str, str]:
    head = "import torch\n\ndef nmse_loss(R, R_true):\n    error = (R - R_true).abs().square().mean()\n"
    return {"terms.py": f"{head}    {line}\n    return {result}\n"}


def _use(text: str) -> dict[str, str]:
    return {"config.py": SETTINGS, "use.py": text}


def _handler(body: str) -> dict[str, str]:
    return {
        "hpo.py": f"def run(trial, train, note):\n    try:\n        loss = train(trial)\n    {body}\n    return loss\n"
    }


FAULTS = (
    SourceFault("hybrid_beta", "RV0101", "a default for ever: the name is HYBRID_COV_BETA",
                {"config.py": SETTINGS, "train.py": 'def f(cfg):\n    return getattr(cfg, "hybrid_beta", 0.3)\n'}),
    SourceFault("tikh_alpha", "RV0101", "the name is NF_MLE_TIKHONOV_LAMBDA",
                {"config.py": SETTINGS,
                 "mle.py": 'def f(mdl_cfg):\n    return getattr(mdl_cfg, "tikh_alpha", 1e-2)\n'}),
    SourceFault("eps_cov", "RV0101", "the name is C_EPS",
                {"config.py": SETTINGS, "infer.py": "def f(self):\n    return self.cfg.eps_cov\n"}),
    SourceFault("dead_knob", "RV0102", "a weight that nothing reads",
                {"config.py": SETTINGS.replace("    EPOCHS", "    MUSIC_PEAK_THRESH: float = 0.1\n    EPOCHS")}),
    SourceFault("two_defaults", "RV0105", "1e-3 in the configuration, 1.0 in the loss",
                {"config.py": SETTINGS, "loss.py": "C_EPS = 1.0\n\ndef f(R):\n    return R + C_EPS\n"}),
    SourceFault("default_in_getattr", "RV0105", "a second default at the point of use",
                {"config.py": SETTINGS, "loss.py": 'def f(cfg):\n    return getattr(cfg, "C_EPS", 1.0)\n'}),
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
    SourceFault("nested_slip", "RV0101", "a section has no such name",
                _use("from config import cfg\n\ndef f():\n    return cfg.EPOCH\n")),
    SourceFault("slip_of_an_alias", "RV0101", "the configuration goes by another name",
                _use("from config import cfg as c\n\ndef f():\n    return c.HYBRID_BETA\n")),
    SourceFault("slip_by_annotation", "RV0101", "only the annotation says what it is",
                _use("from config import TrainConfig\n\ndef f(t: TrainConfig):\n    return t.C_EPSILON\n")),
    SourceFault("slip_in_subscript", "RV0101", "a dictionary is asked for a key that it lacks",
                {"use.py": 'config = {"beta": 0.3, "opt": {"lr": 1e-3}}\n\n'
                 'def f():\n    return config["opt"]["lrate"]\n'}),
    SourceFault("slip_of_an_option", "RV0101", "the option is --epochs",
                {"main.py": "import argparse\n\np = argparse.ArgumentParser()\np.add_argument('--epochs')\n"
                 "args = p.parse_args()\nprint(args.epochs, args.epoch)\n"}),
    SourceFault("slip_of_a_keyword", "RV0101", "a field that the class does not have",
                _use("from config import TrainConfig\n\ncfg = TrainConfig(HYBRID_BETA=0.5)\n")),
    SourceFault("slip_of_a_yaml_key", "RV0101", "the file says learning_rate",
                {"conf.yaml": "learning_rate: 0.1\nepochs: 3\n",
                 "main.py": "def main(cfg):\n    return cfg.learning_rate, cfg.epochs, cfg.learning_rat\n"}),
    SourceFault("result_in_configuration", "RV0101", "inference leaves R_samp in the configuration",
                _use("def infer(cfg, R):\n    cfg.R_samp = R\n    return cfg.C_EPS\n")),
    SourceFault("known_name_written", "RV0101", "the blend changes for everybody",
                _use("from config import cfg\n\ndef tune(beta):\n    cfg.HYBRID_COV_BETA = beta\n")),
    SourceFault("dead_knob_with_a_namesake", "RV0102", "another section has a live field of that name",
                {"config.py": "from dataclasses import dataclass\n\n@dataclass\nclass AConfig:\n    scenes: int = 1\n\n"
                 "@dataclass\nclass BConfig:\n    scenes: int = 1\n\ndef f(b: BConfig):\n    return b.scenes\n"}),
    SourceFault("two_defaults_with_an_option", "RV0105", "the command line has a default of its own",
                _use("import argparse\n\np = argparse.ArgumentParser()\np.add_argument('--epochs', default=50)\n")),
    SourceFault("default_in_setdefault", "RV0105", "filled in where it is missing",
                _use("def f(cfg):\n    return cfg.setdefault('C_EPS', 1.0)\n")),
    SourceFault("deleted_in_a_loop", "RV0201", "gone in the second turn",
                {"a.py": "def f(xs):\n    R = 1\n    for x in xs:\n        x(R)\n        del R\n"}),
    SourceFault("exception_used_late", "RV0201", "the name of a caught exception ends with its block",
                {"a.py": "def f(g):\n    try:\n        g()\n    except ValueError as error:\n        g(error)\n"
                 "    return error\n"}),
    SourceFault("closure_called_early", "RV0201", "the inner function reads what is bound after the call",
                {"a.py": "def f():\n    def g():\n        return N\n    y = g()\n    N = 1\n    return y, N\n"}),
    SourceFault("bound_for_the_checker_only", "RV0201", "the import never runs",
                {"a.py": "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    import numpy as np\n\n"
                 "def f(x):\n    return np.sum(x)\n"}),
    SourceFault("exported_and_missing", "RV0201", "renamed everywhere but in __all__",
                {"a.py": '__all__ = ["blend"]\n\ndef blend_covariances():\n    return 1\n'}),
    SourceFault("module_level_branch", "RV0201", "bound by one branch of the module",
                {"a.py": "import sys\n\nif sys.argv:\n    DEVICE = 'cpu'\nprint(DEVICE)\n"}),
    SourceFault("written_in_forward", "RV0503", "the input of the caller changes", _in_forward("x[:, 0] = 0")),
    SourceFault("added_in_forward", "RV0503", "the input of the caller changes", _in_forward("x += 1")),
    SourceFault("in_place_method_in_forward", "RV0503", "the input of the caller changes", _in_forward("x.mul_(2)")),
    SourceFault("data_in_forward", "RV0503", "past the graph", _in_forward("x = x.data * 2")),
    SourceFault("detach_in_loss", "RV0503", "the loss trains nothing", _in_loss("error = error.detach()")),
    SourceFault("item_in_loss", "RV0503", "the loss is a number", _in_loss("value = error.item()", "value")),
    SourceFault("no_grad_in_loss", "RV0503", "computed as if in validation",
                _in_loss("with torch.no_grad():\n        error = error * 2")),
    SourceFault("written_in_loss", "RV0503", "the prediction changes while it is judged", _in_loss("R[..., 0] = 0")),
    SourceFault("global_written", "RV1101", "the second run begins where the first ended",
                {"a.py": "STEP = 0\n\ndef step():\n    global STEP\n    STEP += 1\n"}),
    SourceFault("global_container_changed", "RV1101", "results of all runs are in one list",
                {"a.py": "RESULTS = []\n\ndef note(x):\n    RESULTS.append(x)\n"}),
    SourceFault("global_state_of_numpy", "RV1101", "the order of calls decides the scenes",
                {"a.py": "import numpy as np\n\ndef draw(n):\n    return np.random.randn(n)\n"}),
    SourceFault("global_state_of_random", "RV1101", "the order of calls decides the split",
                {"a.py": "from random import shuffle\n\ndef split(x):\n    shuffle(x)\n    return x\n"}),
    SourceFault("generator_without_seed", "RV1101", "other scenes in every run",
                {"a.py": "import numpy as np\n\nrng = np.random.default_rng()\n"}),
    SourceFault("max_of_a_tensor", "RV1101", "compares whole tensors, or fails on them",
                {"a.py": "from torch import Tensor\n\ndef f(R: Tensor):\n    return max(R.abs().max(), 1e-9)\n"}),
    SourceFault("exception_printed_only", "RV1607", "nobody reads the terminal",
                _handler("except Exception as e:\n        print(e)")),
    SourceFault("infinity_for_failure", "RV1607", "a crash looks like a bad trial",
                _handler("except RuntimeError:\n        return float('inf')")),
    SourceFault("missing_values_masked", "RV1607", "a diverged entry has no error",
                {"a.py": "import torch\n\ndef f(x):\n    x[torch.isnan(x)] = 0\n    return x\n"}),
    SourceFault("missing_values_replaced", "RV1607", "a diverged entry has no error",
                {"a.py": "import torch\n\ndef f(x):\n    return torch.where(torch.isnan(x), 0, x)\n"}),
)  # fmt: skip
