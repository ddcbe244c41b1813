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
    indent = " " * {NET: 8, LOSS: 4}.get(head, 0)
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
        (
            HEAD,
            [
                "class VQLoss(nn.Module):",
                "    def forward(self, q, z):",
                "        return (q - z.detach()).pow(2).mean() + 0.25 * (q.detach() - z).pow(2).mean()",
            ],
        ),
        (
            HEAD,
            [
                "class Byol(nn.Module):",
                "    def loss(self, a, b):",
                "        p = self.online(a)",
                "        with torch.no_grad():",
                "            z = self.target(b)",
                "        return (p - z).square().mean()",
            ],
        ),
        (NET, ["mean = x.mean(0)", "self.mean.mul_(0.9).add_(mean.detach(), alpha=0.1)", "return x - mean"]),
        (
            NET,
            [
                "mean = x.mean(0)",
                "with torch.no_grad():",
                "    self.mean.mul_(0.9).add_(mean, alpha=0.1)",
                "return x - mean",
            ],
        ),
        (
            NET,
            [
                "mean = x.mean(0)",
                "with torch.no_grad():",
                "    self.mean.mul_(0.9)",
                "    self.mean.add_(mean, alpha=0.1)",
                "return x - mean",
            ],
        ),
        (NET, ["self.mean.add_(torch.bincount(self.lin(x).argmax(-1), minlength=3))", "return self.lin(x)"]),
        (
            HEAD,
            [
                "def td_loss(net, target, s, r, s2, gamma):",
                "    q = net(s)",
                "    with torch.no_grad():",
                "        best = net(s2).argmax(1, keepdim=True)",
                "        want = r + gamma * target(s2).gather(1, best).squeeze(1)",
                "    return (q - want).square().mean()",
            ],
        ),
        (
            HEAD,
            [
                "def td_loss(net, target, s, r, s2, gamma):",
                "    with torch.no_grad():",
                "        want = r + gamma * target(s2).max(1).values",
                "    return torch.nn.functional.smooth_l1_loss(net(s), want)",
            ],
        ),
        (
            HEAD,
            [
                "class MultiLoss(nn.Module):",
                "    def forward(self, pred, target):",
                "        value = (pred - target).square().mean()",
                "        self.last = value.item()",
                "        return value",
            ],
        ),
        (
            HEAD,
            [
                "def iou_aware_loss(score, iou):",
                "    return nn.functional.binary_cross_entropy_with_logits(score, iou.detach()) + (1 - iou).mean()",
            ],
        ),
        (
            HEAD,
            [
                "def contrast_loss(logits, target):",
                "    m = logits.detach().max(-1, keepdim=True).values",
                "    return torch.logsumexp(logits - m, -1).mean() - (logits - m).gather(-1, target[:, None]).mean()",
            ],
        ),
        (
            HEAD,
            [
                "class Matcher(nn.Module):",
                "    @torch.no_grad()",
                "    def forward(self, pred, target):",
                "        cost = torch.cdist(pred, target)",
                "        rows, cols = linear_sum_assignment(cost.cpu().numpy())",
                "        return torch.as_tensor(rows), torch.as_tensor(cols)",
            ],
        ),
        (
            HEAD,
            [
                "class Criterion(nn.Module):",
                "    def forward(self, a, b):",
                "        losses = {'x': (a - b).square().mean()}",
                "        return sum(losses.values()), {k: v.detach() for k, v in losses.items()}",
            ],
        ),
        (NET, ["with torch.no_grad():", "    f = self.teacher(x)", "return self.lin(f)"]),
        (
            NET,
            [
                "self.mean.mul_(1 - self.rate).add_(x.detach().mean(0), alpha=self.rate)",
                "return self.lin(x - self.mean)",
            ],
        ),
        (NET, ["out = self.lin(x)", "return out, {'mean': out.detach().mean(), 'most': float(out.max())}"]),
        (
            HEAD,
            [
                "class Byol(nn.Module):",
                "    def loss(self, a, b):",
                "        p = self.online(a)",
                "        with torch.no_grad():",
                "            z = nn.functional.normalize(self.target(b), dim=-1)",
                "        return (2 - 2 * (p * z).sum(-1)).mean()",
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
        (LOSS, ["return torch.nn.functional.mse_loss(pred.detach(), target)"]),
        (HEAD, ["def angle_loss(angles, ptr):", "    return (angles.detach() - ptr).abs().mean()"]),
        (HEAD, ["def my_loss(q, z):", "    return (q.detach() - z.detach()).abs().mean()"]),
        (
            HEAD,
            [
                "def my_loss(q, z):",
                "    with torch.no_grad():",
                "        e = (q - z).abs()",
                "    return e.mean() + q.mean()",
            ],
        ),
        (
            HEAD,
            [
                "class Net(nn.Module):",
                "    @torch.no_grad()",
                "    def forward(self, x):",
                "        return self.lin(x)",
            ],
        ),
        (NET, ["self.mean.mul_(0.9).add_(x.mean(0), alpha=0.1)", "return self.lin(x - self.mean)"]),
        (NET, ["out = self.lin(x)", "return out.detach(), {'mean': out.mean()}"]),
        (NET, ["self.mean.mul_(1 - x.std()).add_(x.detach().mean(0))", "return self.lin(x - self.mean)"]),
    ],
)
def test_what_only_looks_so_is_found(tmp_path: Path, head: str, lines: list[str]) -> None:
    assert failures(tmp_path, head, lines)
