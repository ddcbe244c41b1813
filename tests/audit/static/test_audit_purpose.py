"""What may leave the graph of gradients on purpose, beside what only looks so."""

from __future__ import annotations

from pathlib import Path

import pytest

from ris_verified.audit.runner import audit

HEAD = "import numpy as np\nimport torch\nfrom scipy.optimize import linear_sum_assignment\nfrom torch import nn\n\n\n"
NET = f"""{HEAD}class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer('mean', torch.zeros(3))
        self.register_buffer('running', torch.zeros(3))
        self.lin = nn.Linear(3, 3)

    def forward(self, x, mask=None):
"""
LOSS = f"{HEAD}def my_loss(pred, target, mask=None):\n"


def failures(folder: Path, head: str, lines: list[str]) -> list[str]:
    indent = " " * (8 if head == NET else 4)
    body = "".join(f"{indent}{line}\n" for line in lines)
    (folder / "a.py").write_text(head + body, encoding="utf-8")
    return [r.message for r in audit(None, source=folder, select=["RV0503"]).results if r.status == "fail"]


@pytest.mark.parametrize(
    ("head", "lines"),
    [
        (
            NET,
            [
                "with torch.no_grad():",
                "    idx = torch.cdist(x, self.mean[None]).argmin(-1)",
                "return self.lin(x)[idx]",
            ],
        ),
        (
            LOSS,
            [
                "with torch.no_grad():",
                "    cost = torch.cdist(pred, target)",
                "    rows, cols = linear_sum_assignment(cost.cpu().numpy())",
                "return (pred[rows] - target[cols]).square().mean()",
            ],
        ),
        (
            LOSS,
            [
                "cost = torch.cdist(pred, target).detach().cpu().numpy()",
                "rows, cols = linear_sum_assignment(cost)",
                "return (pred[rows] - target[cols]).square().mean()",
            ],
        ),
        (
            NET,
            [
                "if self.training:",
                "    with torch.no_grad():",
                "        self.running.lerp_(x.mean(0), 0.1)",
                "return self.lin(x - self.running)",
            ],
        ),
        (
            NET,
            [
                "if self.training:",
                "    self.running.lerp_(x.detach().mean(0), 0.1)",
                "return self.lin(x - self.running)",
            ],
        ),
        (
            NET,
            [
                "if self.training:",
                "    self.running = 0.9 * self.running + 0.1 * x.detach().mean(0)",
                "return self.lin(x - self.running)",
            ],
        ),
        (LOSS, ["n = mask.sum().item()", "return ((pred - target).abs() * mask).sum() / n"]),
        (LOSS, ["n = max(1, int(mask.sum()))", "return ((pred - target).abs() * mask).sum() / n"]),
        (NET, ["lengths = mask.sum(-1).tolist()", "return torch.cat([self.lin(v[:n]) for v, n in zip(x, lengths)])"]),
        (NET, ["n = int(mask.sum().item())", "return self.lin(x[:n])"]),
        (
            LOSS,
            [
                "ce = nn.functional.cross_entropy(pred, target, reduction='none')",
                "w = (1 - torch.exp(-ce)).detach() ** 2",
                "return (w * ce).mean()",
            ],
        ),
        (
            LOSS,
            [
                "ce = nn.functional.cross_entropy(pred, target, reduction='none')",
                "with torch.no_grad():",
                "    w = (1 - torch.exp(-ce)) ** 2",
                "return (w * ce).mean()",
            ],
        ),
        (
            LOSS,
            [
                "err = (pred - target).abs()",
                "balance = err.detach() / err.detach().mean()",
                "return (balance * err).mean()",
            ],
        ),
        (
            LOSS,
            [
                "with torch.no_grad():",
                "    best = (pred - target).abs().sum(-1).argmin(0)",
                "return (pred[best] - target[best]).abs().mean()",
            ],
        ),
    ],
)
def test_choices_counts_weights_and_statistics_carry_no_gradient(tmp_path: Path, head: str, lines: list[str]) -> None:
    assert failures(tmp_path, head, lines) == []


@pytest.mark.parametrize(
    ("head", "lines"),
    [
        (LOSS, ["w = (pred - target).abs().detach()", "return w.mean()"]),
        (LOSS, ["with torch.no_grad():", "    w = (pred - target).abs()", "return w.mean()"]),
        (NET, ["self.feat = self.lin(x).detach()", "return self.feat"]),
        (NET, ["self.running.lerp_(x.mean(0), 0.1)", "return self.lin(x - self.running)"]),
        (NET, ["with torch.no_grad():", "    return self.lin(x)"]),
        (NET, ["out = torch.zeros_like(x)", "with torch.no_grad():", "    out[0] = self.lin(x)[0]", "return out"]),
        (NET, ["with torch.no_grad():", "    v, idx = self.lin(x).topk(2, -1)", "return v"]),
        (NET, ["with torch.no_grad():", "    self.lin.weight.clamp_(-1, 1)", "return self.lin(x)"]),
        (LOSS, ["n = (pred - target).abs().sum().item()", "return (pred - target).square().sum() / n"]),
        (NET, ["h = x.detach()", "return self.lin(h)"]),
        (NET, ["with torch.no_grad():", "    h = self.lin(x)", "return h"]),
        (NET, ["s = x.abs().max().item()", "return self.lin(x) * s"]),
        (LOSS, ["v = (pred - target).abs().mean().item()", "return torch.tensor(v, requires_grad=True)"]),
        (LOSS, ["e = (pred.detach() - target).abs()", "return e.mean()"]),
        (LOSS, ["with torch.no_grad():", "    e = (pred - target).abs()", "return e.mean()"]),
        (NET, ["h = torch.from_numpy(np.abs(x.detach().numpy()))", "return self.lin(h)"]),
        (NET, ["with torch.no_grad():", "    v = x.argmax(-1, keepdim=True).float()", "return self.lin(v)"]),
        (NET, ["v = torch.tensor(x.tolist())", "return self.lin(v)"]),
        (
            LOSS,
            [
                "with torch.no_grad():",
                "    rows, cols = linear_sum_assignment(torch.cdist(pred, target).numpy())",
                "    p = pred[rows]",
                "return (p - target[cols]).square().mean()",
            ],
        ),
        (
            LOSS,
            ["ang = (pred - target).abs().mean().item()", "rng = (pred - target).square().mean()", "return rng + ang"],
        ),
        (
            LOSS,
            [
                "ce = nn.functional.cross_entropy(pred, target, reduction='none')",
                "w = (1 - torch.exp(-ce)) ** 2",
                "return (w * ce.detach()).mean()",
            ],
        ),
        (LOSS, ["err = (pred - target).abs().detach()", "return (err * err).mean()"]),
    ],
)
def test_what_only_looks_so_is_found(tmp_path: Path, head: str, lines: list[str]) -> None:
    assert failures(tmp_path, head, lines)
