"""Written globals, draws without a generator, builtins on tensors and failures that leave no trace."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from ris_verified.audit.static.globals_written import decorators, written_globals
from ris_verified.audit.static.randomness import without_generator
from ris_verified.audit.static.swallow import swallowed_failures
from ris_verified.audit.static.syntax import SourceFile, read_file
from ris_verified.audit.static.tensors import builtins_on_tensors


def source(folder: Path, text: str) -> SourceFile:
    (folder / "a.py").write_text(text, encoding="utf-8")
    return read_file(folder / "a.py", folder)


HEAD = "COUNT = 0\nSEEN = []\nTABLE: dict = {}\nclass State: ...\n_state = State()\n"


@pytest.mark.parametrize(
    "body",
    [
        "global COUNT\n    COUNT = 1",
        "global COUNT\n    COUNT += 1",
        "global FRESH\n    import FRESH",
        "SEEN.append(1)",
        "SEEN[0] = 1",
        "TABLE['a'] = 1",
        "TABLE['a']['b'] = 1",
        "TABLE.update(a=1)",
        "TABLE.setdefault('a', []).append(1)",
        "del TABLE['a']",
        "TABLE['a'] += 1",
        "_state.value = 1",
        "globals()['COUNT'] = 1",
        "def g():\n        SEEN.append(1)\n    return g",
    ],
)
def test_globals_that_functions_write(tmp_path: Path, body: str) -> None:
    file = source(tmp_path, f"{HEAD}def f():\n    {body}\n")
    assert file.tree is not None
    assert len(list(written_globals(file, file.tree))) == 1


@pytest.mark.parametrize(
    "text",
    [
        "def f():\n    SEEN = []\n    SEEN.append(1)\n",
        "def f(TABLE):\n    TABLE['a'] = 1\n",
        "def f():\n    return SEEN[0], TABLE.get('a'), COUNT\n",
        "def f(x):\n    for SEEN in x:\n        SEEN.append(1)\n",
        "SEEN.append(1)\nTABLE['a'] = 1\n",
        "class C:\n    def f(self):\n        self.SEEN.append(1)\n        self.TABLE['a'] = 1\n",
        "def f():\n    SEEN.copy().append(1)\n    return sorted(SEEN)\n",
        "def __getattr__(name):\n    globals()[name] = 1\n    return 1\n",
    ],
)
def test_names_of_their_own_are_no_globals(tmp_path: Path, text: str) -> None:
    file = source(tmp_path, HEAD + text)
    assert file.tree is not None
    assert list(written_globals(file, file.tree)) == []


REGISTRY = (
    "KINDS = {}\n\ndef register(name):\n    def keep(f):\n        KINDS[name] = f\n"
    "        return f\n    return keep\n\n"
)
LISTED = "KINDS = []\n\ndef register(f):\n    KINDS.append(f)\n    return f\n\n"


@pytest.mark.parametrize(
    ("text", "count"),
    [
        (f"{REGISTRY}@register('a')\ndef a():\n    return 1\n", 0),
        (f"{LISTED}@register\nclass A:\n    pass\n", 0),
        (f"{LISTED}def train_step(x):\n    return register(x)\n", 1),
        (f"{LISTED.replace('append(f)', 'append(1)')}@register\ndef a():\n    return 1\n", 1),
    ],
)
def test_a_decorator_may_register_what_it_decorates(tmp_path: Path, text: str, count: int) -> None:
    file = source(tmp_path, text)
    assert file.tree is not None
    assert len(list(written_globals(file, file.tree, decorators([file])))) == count


@pytest.mark.parametrize(
    "text",
    [
        "import numpy as np\nx = np.random.randn(3)\n",
        "import numpy as np, time\nnp.random.seed(int(time.time()))\n",
        "import numpy\nx = numpy.random.normal()\n",
        "import numpy.random as npr\nx = npr.rand()\n",
        "from numpy import random\nx = random.choice([1])\n",
        "from numpy import random as r\nx = r.permutation(3)\n",
        "from numpy.random import uniform\nx = uniform()\n",
        "import numpy as np\ndraw = np.random.rand\n",
        "import random\nx = random.random()\n",
        "import random\nrandom.seed()\n",
        "from random import shuffle as mix\nmix([1])\n",
        "import numpy as np\nr = np.random.default_rng()\n",
        "import numpy as np\nr = np.random.default_rng(None)\n",
        "from numpy.random import default_rng\nr = default_rng()\n",
        "import numpy as np\nr = np.random.Generator(np.random.PCG64())\n",
        "import numpy as np\nr = np.random.RandomState()\n",
        "import random\nr = random.Random()\n",
        "import numpy as np, time\nr = np.random.default_rng(int(time.time()))\n",
    ],
)
def test_draws_without_a_seeded_generator(tmp_path: Path, text: str) -> None:
    assert len(list(without_generator(source(tmp_path, text)))) == 1


@pytest.mark.parametrize(
    "text",
    [
        "import numpy as np\nr = np.random.default_rng(3)\nx = r.normal()\n",
        "import numpy as np\nr = np.random.default_rng(seed=3)\n",
        "import numpy as np\nr = np.random.Generator(np.random.PCG64(1))\n",
        "import numpy as np\nstate = np.random.get_state()\nnp.random.set_state(state)\n",
        "import numpy as np\ndef f(rng: np.random.Generator):\n    return rng.random()\n",
        "import random\nimport numpy as np\ndef seed_all(n):\n    random.seed(n)\n    np.random.seed(n)\n",
        "import numpy as np, torch\ndef init(worker):\n    np.random.seed(torch.initial_seed() % 2**32)\n",
        "import random\nr = random.Random(3)\nx = r.random()\n",
        "import torch\ntorch.manual_seed(0)\nx = torch.randn(3, generator=torch.Generator().manual_seed(0))\n",
        "def f(random):\n    return random.random()\n",
        "import jax\nx = jax.random.normal(1)\n",
    ],
)
def test_seeded_draws_are_left_alone(tmp_path: Path, text: str) -> None:
    assert list(without_generator(source(tmp_path, text))) == []


@pytest.mark.parametrize(
    "text",
    [
        "def f(x: torch.Tensor):\n    return max(x, 0)\n",
        "def f(x: 'Float[Tensor, \"b n\"]'):\n    return min(x)\n",
        "def f(x: torch.Tensor):\n    return max(x.abs().max(), 1e-9)\n",
        "def f(y):\n    x = torch.zeros(3)\n    return max(x[0], 1)\n",
        "def f(x):\n    return max(x.abs().mean(), 0)\n",
        "def f(a, b):\n    return max(torch.norm(a), torch.norm(b))\n",
        "def f(x: torch.Tensor):\n    return sum(x)\n",
        "def f(x: torch.Tensor):\n    return max([x.mean(), x.std()])\n",
        "def f(x: torch.Tensor):\n    return max(r.norm() for r in x.unbind())\n",
        "def f(x: torch.Tensor):\n    return any(x > 0) or all(x)\n",
    ],
)
def test_builtins_that_are_given_a_tensor(tmp_path: Path, text: str) -> None:
    assert len(list(builtins_on_tensors(source(tmp_path, f"import torch\n{text}"), set()))) == 1


@pytest.mark.parametrize(
    "text",
    [
        "def f(x):\n    return max(1, int(x))\n",
        "def f(a):\n    return max(len(a), 2)\n",
        "def f(values):\n    return max(values, key=len)\n",
        "def f(x: torch.Tensor):\n    return max(x.shape[0], x.size(1), x.dim(), x.numel())\n",
        "def f(x: torch.Tensor):\n    return max(x.max().item(), 1.0)\n",
        "def f(x: torch.Tensor):\n    return max(float(x), 1.0)\n",
        "def f(losses):\n    return sum(losses) / max(len(losses), 1)\n",
        "def f(xs: list[torch.Tensor]):\n    return max(len(x) for x in xs)\n",
        "def f(x: torch.Tensor):\n    B, L = x.shape\n    return max(B, L)\n",
        "def f(x: torch.Tensor):\n    return torch.max(x, dim=0), x.max()\n",
        "def f(x: torch.Tensor):\n    return sum(p.numel() for p in x)\n",
        "from torch import max\ndef f(x: torch.Tensor):\n    return max(x)\n",
        "def f(n: int = 3):\n    return max(n, torch.cuda.device_count())\n",
    ],
)
def test_builtins_on_numbers_are_left_alone(tmp_path: Path, text: str) -> None:
    assert list(builtins_on_tensors(source(tmp_path, f"import torch\n{text}"), set())) == []


@pytest.mark.parametrize(
    "line",
    [
        "suppress(Exception)",
        "contextlib.suppress(ValueError, BaseException)",
        "torch.nan_to_num(x)",
        "np.nan_to_num(x, nan=0.0)",
        "x[torch.isnan(x)] = 0",
        "x[~np.isfinite(x)] = 0.0",
        "x[x != x] = 0",
        "torch.where(torch.isnan(x), 0, x)",
        "np.where(np.isfinite(x), x, 0.0)",
        "torch.where(torch.isnan(x), torch.zeros_like(x), x)",
        "x.masked_fill(torch.isnan(x), 0)",
        "frame.fillna(0)",
        "frame[frame.isna()] = 0",
        "frame[pd.isnull(frame)] = 0",
        "data.decode('utf-8', errors='ignore')",
        "open(x, errors='ignore')",
    ],
)
def test_numbers_for_what_is_missing(tmp_path: Path, line: str) -> None:
    assert len(list(swallowed_failures(source(tmp_path, f"{line}\n")))) == 1


@pytest.mark.parametrize(
    "line",
    [
        "suppress(FileNotFoundError)",
        "torch.nan_to_num(x, nan=float('inf'))",
        "torch.where(x > 0, 0, x)",
        "torch.where(torch.isnan(x), other, x)",
        "x[mask] = 0",
        "x[x != y] = 0",
        "x[x == x] = 0",
        "x[x != x != y] = 0",
        "torch.sum(torch.isnan(x), 0)",
        "open(x, errors=mode)",
        "x[torch.isnan(x)] = float('nan')",
        "x.masked_fill(mask, 0)",
        "data.decode('utf-8', errors='replace')",
        "re.sub('a', 'b', x)",
        "bad = torch.isnan(x).any()",
    ],
)
def test_decisions_about_values_are_left_alone(tmp_path: Path, line: str) -> None:
    assert list(swallowed_failures(source(tmp_path, f"{line}\n"))) == []


def test_each_finding_has_the_line_of_its_statement(tmp_path: Path) -> None:
    file = source(tmp_path, "import random\n\n\ndef f():\n    return random.random()\n")
    assert isinstance(file.tree, ast.Module)
    assert [line for line, _ in without_generator(file)] == [5]
