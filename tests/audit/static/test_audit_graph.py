"""What leaves the graph of gradients in a forward and in a loss."""

from __future__ import annotations

from pathlib import Path

import pytest

from ris_verified.audit.runner import audit


def lines(folder: Path, text: str, name: str = "a.py") -> list[int]:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    results = audit(None, source=folder, select=["RV0503"]).results
    return sorted(int(r.where.rsplit(":", 1)[1]) for r in results if r.status == "fail")


FORWARD = "import torch\nclass Net(torch.nn.Module):\n    def forward(self, x, mask=None, depth=0):\n"
LOSS = "import torch\ndef nmse_loss(R, R_true, R_samp, weight):\n    error = (R - R_true).abs().square().mean()\n"


@pytest.mark.parametrize(
    "line",
    [
        "x[..., 0] = 0",
        "x[:, 1:] *= 2",
        "x += 1",
        "x.add_(1)",
        "x.zero_()",
        "x[0].copy_(x[1])",
        "self.mean.mul_(0.9)",
        "y = x.view(-1); y[0] = 1",
        "x = x.data",
        "x.data = x",
        "x = x.detach()",
        "x = torch.detach(x)",
        "x = float(x)",
        "x = torch.tensor(x)",
        "with torch.no_grad(): x = x * 2",
        "with torch.set_grad_enabled(False): x = x * 2",
        "with torch.inference_mode(): x = x * 2",
        "x = x.cpu().numpy()",
        "x = x.tolist()",
        "x = x.requires_grad_(False)",
    ],
)
def test_forward(tmp_path: Path, line: str) -> None:
    assert lines(tmp_path, f"{FORWARD}        {line}\n        return x\n") == [4]


@pytest.mark.parametrize(
    "line",
    [
        "out = torch.zeros(3); out[0] = x[0]",
        "out = x.new_zeros(3); out.copy_(x)",
        "out = x.clone(); out += 1; out[0] = 1",
        "x = x + 1; x = x * 2",
        "depth += 1",
        "cache = {}; cache['x'] = x",
        "out = []; out.append(x)",
        "with torch.enable_grad(): x = x * 2",
        "x = x.masked_fill(mask, 0)",
        "n = x.size(0); m = int(n)",
        "torch.nn.init.zeros_(self.weight)",
        "x = torch.zeros(3).fill_(2)",
        "R_samp = x; x = R_samp.detach()",
    ],
)
def test_forward_that_stays_in_the_graph(tmp_path: Path, line: str) -> None:
    assert lines(tmp_path, f"{FORWARD}        {line}\n        return x\n") == []


@pytest.mark.parametrize(
    ("line", "result"),
    [
        ("error = error.detach()", "error"),
        ("pass", "error.detach()"),
        ("pass", "error.item()"),
        ("pass", "error.detach(), {}"),
        ("pass", "{'loss': error.detach(), 'nmse': error}"),
        ("pass", "LossResult(error.data, 1)"),
        ("value = float(error)", "value"),
        ("d = R.detach(); error = (d - R_true).abs().mean()", "error"),
        ("error = error + 2 * R.detach().abs().mean()", "error"),
        ("terms = [error.detach()]; total = sum(terms)", "total"),
        ("with torch.no_grad(): error = error * 2", "error"),
        ("R[..., 0] = 0", "error"),
        ("R -= R_true", "error"),
        ("R.sub_(R_true)", "error"),
    ],
)
def test_loss(tmp_path: Path, line: str, result: str) -> None:
    assert lines(tmp_path, f"{LOSS}    {line}\n    return {result}\n") in ([4], [5])


@pytest.mark.parametrize(
    ("line", "result"),
    [
        ("logs = {'nmse': error.detach()}", "error, logs"),
        ("logs = {}; logs['nmse'] = error.item()", "error, logs"),
        ("pass", "error, error.detach()"),
        ("pass", "{'loss': error, 'nmse': error.detach()}"),
        ("pass", "LossResult(error, nmse=error.detach())"),
        ("with torch.no_grad(): nmse = error * 2", "error, nmse"),
        ("with torch.no_grad(): weight = weight * 2", "error * weight"),
        ("R = 0.7 * R + 0.3 * R_samp.detach(); error = R.mean()", "error"),
        ("error = error / R_true.detach().norm()", "error"),
        ("made = torch.zeros_like(R); made[0] = 1", "error + made.mean()"),
        ("print(error.item())", "error"),
    ],
)
def test_loss_that_stays_in_the_graph(tmp_path: Path, line: str, result: str) -> None:
    assert lines(tmp_path, f"{LOSS}    {line}\n    return {result}\n") == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("loss/terms.py", "import torch\ndef alignment(R, U):\n    return R.detach() @ U\n"),
        ("my_losses.py", "import torch\ndef alignment(R, U):\n    return R.detach() @ U\n"),
        ("a.py", "import torch\nclass AlignLoss:\n    def __call__(self, R, U):\n        return R.detach() @ U\n"),
        ("a.py", "import torch\nclass Criterion:\n    def compute(self, R, U):\n        return R.detach() @ U\n"),
        ("a.py", "import torch\n@torch.no_grad()\ndef total_loss(R, U):\n    return R @ U\n"),
    ],
)
def test_what_is_called_a_loss(tmp_path: Path, name: str, text: str) -> None:
    assert len(lines(tmp_path, text, name)) == 1


def test_what_is_no_loss_may_detach(tmp_path: Path) -> None:
    text = "import torch\ndef score(R, U):\n    return R.detach() @ U\n\ndef plot(loss):\n    return loss.item()\n"
    assert lines(tmp_path, text) == []


def test_a_matching_in_a_file_of_losses_may_leave_the_graph(tmp_path: Path) -> None:
    text = "import torch\n@torch.no_grad()\ndef assign(cost) -> torch.Tensor:\n    return cost.cpu().argmin()\n"
    assert lines(tmp_path, text, "loss/assignment.py") == []


def test_a_loss_without_torch_has_no_graph(tmp_path: Path) -> None:
    text = "def huber_loss(f, scale):\n    f += scale\n    f[0] = 1\n    return f.item()\n"
    assert lines(tmp_path, text) == []


STEP = """import torch
def step(model, optimizer, other, loss_of, batch):
    outputs = model(batch.y)
    {first}
    {second}
    {third}
    return outputs
"""
FIRST = "total = loss_of(outputs, batch)"


@pytest.mark.parametrize(
    ("first", "second", "third", "found"),
    [
        (f"optimizer.zero_grad(); {FIRST}", "total.backward()", "optimizer.step()", False),
        (FIRST, "optimizer.zero_grad(set_to_none=True); total.backward()", "optimizer.step()", False),
        (FIRST, "total.backward()", "optimizer.step(); optimizer.zero_grad()", False),
        (FIRST, "total.backward(); optimizer.zero_grad()", "optimizer.step()", True),
        (f"{FIRST}; optimizer.zero_grad()", "optimizer.step()", "total.backward()", True),
        (FIRST, "total.backward(); other.zero_grad()", "optimizer.step()", False),
        (f"optimizer.step(); optimizer.zero_grad(); {FIRST}", "total.backward()", "pass", False),
        (FIRST, "total.backward()", "optimizer.step", True),
        (FIRST, "total.backward", "optimizer.step()", True),
        ("total = sum(v.item() for v in outputs)", "torch.tensor(total, requires_grad=True).backward()", "pass", True),
        (
            "R = torch.from_numpy(outputs.R.detach().numpy()); total = loss_of(R, batch)",
            "total.backward()",
            "pass",
            True,
        ),
        ("R = outputs.R.detach().requires_grad_(); total = loss_of(R, batch)", "total.backward()", "pass", True),
        (
            "R = outputs.R.detach().requires_grad_(); total = loss_of(R, batch)",
            "total.backward()",
            "model(R.grad)",
            False,
        ),
        ("total = loss_of(outputs, batch) / batch.K.sum().item()", "total.backward()", "pass", False),
        (FIRST, "total.backward()", "print(total.item())", False),
        (f"{FIRST}; print(total.item())", "total.backward()", "logs = total.detach()", False),
        ("known = outputs.k.detach(); total = loss_of(outputs, known)", "total.backward()", "pass", False),
    ],
)
def test_a_training_step(tmp_path: Path, first: str, second: str, third: str, found: bool) -> None:
    assert bool(lines(tmp_path, STEP.format(first=first, second=second, third=third))) is found


def test_a_straight_through_step_stays_in_the_graph(tmp_path: Path) -> None:
    text = f"{FORWARD}        y = x + (torch.round(x) - x).detach()\n        return (x.sign() - y).detach() + y\n"
    assert lines(tmp_path, text) == []
    assert lines(tmp_path, f"{FORWARD}        return mask + (torch.round(x) - x).detach()\n") == [4]
