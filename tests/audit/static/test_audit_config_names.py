"""Configuration names that are read, against those that are defined."""

from __future__ import annotations

from pathlib import Path

import pytest

from ris_verified.audit.runner import audit
from ris_verified.audit.static.config_judge import findings, nearest
from ris_verified.audit.static.config_names import read_uses
from ris_verified.audit.static.config_read import read_schema
from ris_verified.audit.static.config_schema import ANY
from ris_verified.audit.static.syntax import read_tree

CONFIG = """
from dataclasses import dataclass, field

@dataclass
class BlendConfig:
    beta: float = 0.3

    def half(self):
        return self.beta / 2

@dataclass
class Config:
    blend: BlendConfig = field(default_factory=BlendConfig)
    seed: int = 0
"""


def unknown(folder: Path, text: str) -> set[str]:
    (folder / "config.py").write_text(CONFIG, encoding="utf-8")
    (folder / "use.py").write_text(text, encoding="utf-8")
    tree = read_tree(folder)
    schema = read_schema(tree)
    return {read.name for read, _ in findings(read_uses(tree, schema), schema, own=True)}


@pytest.mark.parametrize(
    "text",
    [
        "def f(cfg):\n    return cfg.blend.betta\n",
        "def f(cfg):\n    b = cfg.blend\n    return b.betta\n",
        "def f(cfg):\n    a, b = cfg.seed, cfg.blend\n    return b.betta\n",
        "def f(blend: BlendConfig):\n    return blend.betta\n",
        "def f(cfg):\n    return getattr(cfg.blend, 'betta', 0.3)\n",
        "def f(self):\n    return hasattr(self.cfg.blend, 'betta')\n",
        "def f(cfg):\n    return cfg.blend.get('betta', 1)\n",
        "def f(cfg):\n    return cfg.blend['betta']\n",
        "def f():\n    return Config().blend.betta\n",
        "import dataclasses\ndef f(cfg):\n    other = dataclasses.replace(cfg, seed=1)\n    return other.blend.betta\n",
        "def f(pipeline):\n    return pipeline.config.blend.betta\n",
    ],
)
def test_unknown_names_are_found(tmp_path: Path, text: str) -> None:
    assert unknown(tmp_path, text) == {"betta"}


@pytest.mark.parametrize(
    "text",
    [
        "def f(cfg):\n    return cfg.blend.beta, cfg.seed, cfg.blend.half()\n",
        "import elsewhere as config\ndef f():\n    return config.anything\n",
        "def f(config: str):\n    return config.upper()\n",
        "def f(args):\n    config = args.read()\n    return config.strip()\n",
        "def f(cfg, name):\n    return getattr(cfg, name)\n",
        "def f(cfg):\n    return cfg.__class__\n",
        "def f(cfg):\n    return cfg._replace(seed=1), cfg.blend._asdict(), cfg._fields\n",
    ],
)
def test_sound_reads_are_left_alone(tmp_path: Path, text: str) -> None:
    assert unknown(tmp_path, text) == set()


@pytest.mark.parametrize(
    ("slip", "name"),
    [("hybrid_beta", "HYBRID_COV_BETA"), ("tikh_alpha", "NF_MLE_TIKHONOV_LAMBDA"), ("eps_cov", "C_EPS")],
)
def test_historical_slips_are_blockers_with_the_right_hint(tmp_path: Path, slip: str, name: str) -> None:
    (tmp_path / "train.py").write_text(
        f"x = 1\n\ndef f(cfg):\n    return getattr(cfg, '{slip}', 1.0)\n", encoding="utf-8"
    )
    report = audit(None, source=tmp_path)
    (found,) = [r for r in report.results if r.id == "RV0101"]
    assert (found.status, found.severity, found.where) == ("fail", "blocker", "train.py:4")
    assert slip in found.message
    assert name in found.message
    assert report.verdict == "NO-GO"


def test_a_source_without_classes_is_judged_by_this_package(tmp_path: Path) -> None:
    text = "def f(cfg):\n    return cfg.covariance.beta, cfg.C_EPS, cfg.covariance.betta\n"
    (tmp_path / "a.py").write_text(text, encoding="utf-8")
    found = [r.message for r in audit(None, source=tmp_path, select=["RV0101"]).results]
    assert len(found) == 1
    assert "'betta'" in found[0]
    assert "covariance.beta" in found[0]


SCRIPT = """
import argparse
from ris_verified.config import Config

parser = argparse.ArgumentParser()
parser.add_argument("--scenes", type=int)
args = parser.parse_args()

def most(cfg):
    return cfg.scene.{name}

cfg = Config.load(None, [])
print(most(cfg.replaced({{}})), args.{argument})
"""


@pytest.mark.parametrize(
    ("name", "argument", "count"),
    [("sources_max", "scenes", 0), ("sources_mx", "scenes", 1), ("sources_max", "scens", 1)],
)
def test_a_script_with_arguments_that_imports_this_package_is_judged_by_both(
    tmp_path: Path, name: str, argument: str, count: int
) -> None:
    (tmp_path / "a.py").write_text(SCRIPT.format(name=name, argument=argument), encoding="utf-8")
    results = audit(None, source=tmp_path, select=["RV0101"]).results
    assert sum(r.status == "fail" for r in results) == count


OWN = """
import dataclasses
import ris_verified as rv
from ris_verified.config import Config, TrainConfig

@dataclasses.dataclass(frozen=True)
class RunConfig:
    smoothing: float = 0.1
    unread: float = 0.2

def main(path, cfg: Config, train: TrainConfig, run: RunConfig):
    pipeline = rv.Pipeline.default(rv.Config.load(path))
    options = RunConfig()
    return pipeline.config.train.epochs, cfg.seed, train.{known}, options.smoothing, run.{own}
"""


@pytest.mark.parametrize(
    ("known", "own", "found"),
    [
        ("clip_norm", "smoothing", []),
        ("clipnorm", "smoothing", ["clipnorm"]),
        ("clip_norm", "smothing", ["smothing"]),
    ],
)
def test_a_class_of_one_s_own_beside_this_package_s_is_judged_by_both(
    tmp_path: Path, known: str, own: str, found: list[str]
) -> None:
    (tmp_path / "a.py").write_text(OWN.format(known=known, own=own), encoding="utf-8")
    results = audit(None, source=tmp_path, select=["RV0101", "RV0102"]).results
    failed = {r.id: r.message for r in results if r.status == "fail"}
    assert ("RV0101" in failed) == bool(found)
    assert all(repr(name) in failed["RV0101"] for name in found)
    # Fields of the package are not the tree's to delete.
    assert failed["RV0102"] == "RunConfig.unread is defined and never read"


@pytest.mark.parametrize(
    ("line", "written"),
    [
        ("object.__setattr__(cfg.train, 'epochs', 3)", True),
        ("cfg.train.__dict__['epochs'] = 3", True),
        ("vars(cfg.train)['epochs'] = 3", True),
        ("vars(cfg.train).update(epochs=3)", True),
        ("cfg.train.epochs = 3", True),
        ("cfg = cfg.replaced({'train.epochs': 3})", False),
        ("seen = dict(vars(cfg.train)); seen['epochs'] = 3", False),
        ("seen = dataclasses.asdict(cfg.train); seen['epochs'] = 3", False),
    ],
)
@pytest.mark.parametrize("where", ["given", "made", "made by the package"])
def test_this_package_s_configuration_is_not_written(tmp_path: Path, line: str, written: bool, where: str) -> None:
    head = "import dataclasses\n\nimport ris_verified as rv\nfrom ris_verified.config import Config\n\n\n"
    maker = "Config.load" if where == "made" else "rv.Config.load"
    function = "def f(cfg: Config):\n" if where == "given" else f"def f(path):\n    cfg = {maker}(path)\n"
    (tmp_path / "a.py").write_text(f"{head}{function}    {line}\n    return cfg\n", encoding="utf-8")
    results = audit(None, source=tmp_path, select=["RV0101"]).results
    if where != "given" and line.startswith("cfg.train.epochs"):
        return  # What was just made may be filled in; this package's classes refuse it themselves.
    assert [r.status for r in results] == ["fail" if written else "pass"]


def test_a_field_of_this_package_allows_no_second_default(tmp_path: Path) -> None:
    text = "from ris_verified.config import Config\n\n\nclass Options(Config):\n    ridge: float = 1e-3\n\n\n"
    (tmp_path / "a.py").write_text(f"{text}def solve(ridge=1e-2):\n    return ridge\n", encoding="utf-8")
    assert [r.status for r in audit(None, source=tmp_path, select=["RV0105"]).results] == ["fail"]


def test_several_flat_classes_are_taken_together(tmp_path: Path) -> None:
    (tmp_path / "c.py").write_text("class ACfg:\n    x = 1\n\nclass BCfg:\n    y = 2\n", encoding="utf-8")
    schema = read_schema(read_tree(tmp_path))
    assert schema.root == ANY
    assert schema.knows(ANY, "x")
    assert schema.knows(ANY, "y")
    assert not schema.knows(ANY, "z")


def test_nearest_prefers_equal_words() -> None:
    assert nearest("grid_rnge", ["estimate.grid_range", "scene.range_min"]) == "estimate.grid_range"


PROJECT = """
import argparse
from dataclasses import dataclass, field
from types import SimpleNamespace

BETA = 0.3

@dataclass
class Base:
    seed: int = 0

@dataclass
class ModelSection:
    width: int = 64

@dataclass
class TrainCfg(Base):
    lr: float = 3e-4
    model: ModelSection = field(default_factory=ModelSection)

    @property
    def double_lr(self):
        return 2 * self.lr

cfg = TrainCfg()
mdl_cfg = SimpleNamespace(HYBRID_COV_BETA=0.3, sub=SimpleNamespace(depth=2))
table_config = {"lr": 1, "inner": {"momentum": 0.9}}

def get_config():
    config = SimpleNamespace()
    config.made_here = 1
    return config
"""

HEAD = """
import argparse, copy, dataclasses, operator
import config as C
from config import TrainCfg as T, cfg, cfg as c, get_config, mdl_cfg, table_config

parser = argparse.ArgumentParser()
parser.add_argument("--batch-size", "-b", type=int)
parser.add_argument("data")
parser.add_argument("--x", dest="stored")
parser.set_defaults(extra=1)
args = parser.parse_args()

class Net:
    def __init__(self, config: T):
        self.held = config
        self.inner = config.model
"""


def slips(folder: Path, body: str) -> list[str]:
    (folder / "config.py").write_text(PROJECT, encoding="utf-8")
    (folder / "use.py").write_text(HEAD + body, encoding="utf-8")
    results = audit(None, source=folder, select=["RV0101"]).results
    return [r.message for r in results if r.status == "fail"]


@pytest.mark.parametrize(
    "body",
    [
        "cfg.lrr",
        "c.lrr",
        "C.cfg.lrr",
        "C.BETTA",
        "from config import BETTA",
        "mdl_cfg.HYBRID_BETA",
        "mdl_cfg.sub.depht",
        "table_config['lrr']",
        "table_config['inner']['momentun']",
        "table_config.get('lrr', 1)",
        "'lrr' in table_config",
        "vars(cfg)['lrr']",
        "cfg.__dict__['lrr']",
        "dataclasses.asdict(cfg)['lrr']",
        "dataclasses.replace(cfg, lrr=1)",
        "T(lrr=1)",
        "T().lrr",
        "T.lrr",
        "copy.deepcopy(cfg).lrr",
        "operator.attrgetter('model.widht')(cfg)",
        "getattr(cfg.model, 'widht', 1)",
        "hasattr(cfg, 'lrr')",
        "try:\n    cfg.lrr\nexcept AttributeError as e:\n    raise ValueError from e",
        "get_config().made_her",
        "args.batch",
        "args.x",
        "print(getattr(args, 'dat', None), args.data, args.stored)",
        "def f(t: T): return t.lrr",
        "def f(t: 'T | None'): return t.lrr",
        "def f(t: T):\n    m = t.model\n    return m.widht",
        "def f(cfg): return cfg.model.width, cfg.lr, cfg.lrr",
        "class N(Net):\n    def f(self): return self.cfg.lr, self.cfg.lrr",
        "class N:\n    def __init__(self, t: T): self.t = t\n    def f(self): return self.t.model.widht",
        "match cfg:\n    case T(lrr=x): pass",
        "def f(x):\n    return (x or cfg).lrr",
        "cfg.lr = 1\n",
        "def f(): cfg.lr = 1",
        "def f(): cfg.model.width += 1",
        "def f(): setattr(cfg, 'lr', 1)",
        "def f(): object.__setattr__(cfg, 'lr', 1)",
        "def f(): table_config['lr'] = 2",
        "def f(): table_config.update(lr=2)",
        "def f(): C.BETA = 2",
        "def f(): del cfg.lr",
        "def f():\n    mine = T()\n    mine.lrr = 1",
        "object.__getattribute__(cfg, 'lrr')",
        "cfg.__getattribute__('lrr')",
        "getattr(cfg, 'l' + 'rr')",
        "END = 'rr'\ngetattr(cfg, f'l{END}')",
        "name = 'lrr'\ngetattr(cfg, name, 1)",
        "for name in ('lr', 'lrr'): getattr(cfg, name, 1)",
        "for name, value in (('lr', 1), ('lrr', 2)): getattr(cfg, name, value)",
        "DEFAULTS = {'lr': 1, 'lrr': 2}\nfor name, value in DEFAULTS.items(): getattr(cfg, name, value)",
        "NAMES = 'lr', 'lrr'\ndef f(): return {n: getattr(cfg, n, 1) for n in sorted(NAMES)}",
        "NAMES = ['lr', 'lrr']\ndef f(): return [vars(cfg)[n] for n in NAMES]",
        "def f(cfg, name='lrr'): return getattr(cfg, name, 1)",
        "def f(cfg, *, name='lrr'): return getattr(cfg, name, 1)",
        "def f(old): return getattr(cfg, 'lrr' if old else 'lr', 1)",
        "def get(c, name, other=None): return getattr(c, name, other)\nget(cfg, 'lrr')",
        "def get(name, other=None): return getattr(cfg, name, other)\ndef f(): return get(name='lrr')",
        "def get(c, name): return c.get(name)\nfor name in ('lr', 'lrr'): get(table_config, name)",
        (
            "class M(Net):\n    def get(self, name): return getattr(self.cfg, name, 0)\n"
            "    def f(self): return self.get('lrr')"
        ),
    ],
)
def test_every_way_to_a_slip(tmp_path: Path, body: str) -> None:
    assert len(slips(tmp_path, f"{body}\n")) == 1


@pytest.mark.parametrize(
    "body",
    [
        "cfg.lr, cfg.seed, cfg.double_lr, cfg.model.width, C.BETA, C.cfg.lr, mdl_cfg.sub.depth",
        "table_config['inner'].get('momentum'), table_config['lr'], table_config.items()",
        "args.batch_size, args.data, args.stored, args.extra",
        "def f(): args.rank = 3\nprint(args.rank)",
        "def f(*args): return args[0].anything, args.count(1)",
        "def f(): return [args for args in ((1, 2), (3, 4))][0].index(1)",
        "get_config().made_here",
        "dataclasses.replace(cfg, lr=1).lr, T(lr=1, seed=2)",
        "def f():\n    mine = T()\n    mine.lr = 1\n    return mine",
        "def f():\n    other = copy.deepcopy(cfg)\n    other.model.width = 1\n    return other",
        "def f(cfg: dict[str, int]): return cfg.popitem()",
        "def pytest_configure(config): config.addinivalue_line(1, 2)",
        "import logging.config\nlogging.config.dictConfig({})",
        "def f(t: T): return t.__class__, t.__dict__",
        "getattr(cfg, str(args.data)), vars(cfg)[str(args.data)]",
        "from other.config import cfg as theirs\ntheirs.whatever",
        "class W(T):\n    more: int = 1\n\ndef f(t: T): return t.more",
        "for name in ('lr', 'seed'): getattr(cfg, name)",
        "for name in ('lr', args.data): getattr(cfg, name, 1)",
        "def f(name='lr'):\n    for name in args.data: getattr(cfg, name, 1)",
        "name = 'lrr'\nname += args.data\ngetattr(cfg, name, 1)",
        "def get(c, name): return getattr(c, name, 1)\nget(parser, 'prog')",
        "def get(c, name): return getattr(c.model, name, 1)\nget(cfg, 'width')",
        "def get(c, name): return getattr(c, name, 1)\ndef f(name): return get(cfg, name)",
        (
            "class M:\n    def get(self, name): return getattr(self.cfg, name, 0)\n"
            "class O:\n    def f(self, m): return m.get('anything')"
        ),
        "class Open(T):\n    def __getattr__(self, name): return name\n\ndef f(t: Open): return t.anything",
    ],
)
def test_realistic_sound_uses(tmp_path: Path, body: str) -> None:
    assert slips(tmp_path, f"{body}\n") == []


@pytest.mark.parametrize("method", ["add", "append", "extend", "remove", "insert", "index", "count", "sort"])
def test_many_configurations_are_kept_in_a_container(tmp_path: Path, method: str) -> None:
    assert unknown(tmp_path, f"def f(self, cfg):\n    self.configs.{method}(cfg)\n    return cfg.seed\n") == set()


def test_keys_of_yaml_files_are_names(tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "train.yaml").write_text("optim:\n  lr: 0.1\nepochs: 3\n", encoding="utf-8")
    text = "def f(cfg):\n    return cfg.optim.lr, cfg.epochs, cfg.epoch\n"
    (tmp_path / "a.py").write_text(text, encoding="utf-8")
    found = [r.message for r in audit(None, source=tmp_path, select=["RV0101"]).results if r.status == "fail"]
    assert len(found) == 1
    assert "'epoch'" in found[0]
    assert "epochs" in found[0]


def test_a_variable_that_is_evidently_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "c.py").write_text("class Config:\n    lr = 1\n\ndef f(cfg):\n    return cfg.lr\n", encoding="utf-8")
    text = "def g(config):\n    return config.a, config.b, config.c, config.d, config.e\n"
    (tmp_path / "a.py").write_text(text, encoding="utf-8")
    assert {r.status for r in audit(None, source=tmp_path, select=["RV0101"]).results} == {"pass"}


def test_a_field_with_a_living_namesake_is_dead(tmp_path: Path) -> None:
    text = (
        "class AConfig:\n    scenes: int = 1\n    kept: int = 2\n\nclass BConfig:\n    scenes: int = 1\n\n"
        "def f(a: AConfig, b: BConfig):\n    return a.kept, b.scenes\n"
    )
    (tmp_path / "c.py").write_text(text, encoding="utf-8")
    found = [r.message for r in audit(None, source=tmp_path, select=["RV0102"]).results if r.status == "fail"]
    assert found == ["AConfig.scenes is defined and never read"]


@pytest.mark.parametrize(
    ("use", "dead"),
    [
        ("json.dump(dataclasses.asdict(c), out)", True),
        ("print(vars(c))", True),
        ("make(**dataclasses.asdict(c))", False),
        ("make(**vars(c))", False),
        ("[k for k in vars(c).items()]", False),
        ("getattr(c, name)", False),
        ("c.lr", False),
        ("other.lr", False),
    ],
)
def test_what_counts_as_a_read(tmp_path: Path, use: str, dead: bool) -> None:
    text = f"class Config:\n    lr: float = 1.0\n\ndef f(c: Config, other, name, make, out):\n    return {use}\n"
    (tmp_path / "c.py").write_text(text, encoding="utf-8")
    (result,) = audit(None, source=tmp_path, select=["RV0102"]).results
    assert (result.status == "fail") is dead


@pytest.mark.parametrize(
    "line",
    [
        "def f(beta_max=0.5): ...",
        "p.add_argument('--beta-max', default=0.5)",
        "p.add_argument('--bm', dest='beta_max', default=0.5)",
        "p.set_defaults(beta_max=0.5)",
        "x = cfg.get('beta_max', 0.5)",
        "x = cfg.setdefault('beta_max', 0.5)",
        "x = kwargs.pop('beta_max', 0.5)",
        "x = getattr(args, 'beta_max', 0.5)",
        "BETA_MAX = 0.5",
        "BETA_MAX = -0.3",
        "def f(*, beta_max=2 * 0.3): ...",
    ],
)
def test_second_defaults(tmp_path: Path, line: str) -> None:
    (tmp_path / "c.py").write_text("class Config:\n    beta_max: float = 0.3\n", encoding="utf-8")
    (tmp_path / "a.py").write_text(f"{line}\n", encoding="utf-8")
    (result,) = audit(None, source=tmp_path, select=["RV0105"]).results
    assert (result.status, result.where) in (("fail", "c.py:2"), ("fail", "a.py:1"))


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("", "pass"),
        ("x = getattr(args, 'epochs', 10)", "pass"),
        ("x = getattr(args, 'epochs', 50)", "fail"),
        ("EPOCHS = 50", "fail"),
    ],
)
def test_each_command_may_have_a_default_of_its_own(tmp_path: Path, line: str, status: str) -> None:
    head = "import argparse\n\np = argparse.ArgumentParser()\nq = p.add_subparsers()\n"
    train = f"{head}a = q.add_parser('train')\na.add_argument('--epochs', default=100)\n"
    tune = "b = q.add_parser('tune')\nb.add_argument('--epochs', default=10)\nargs = p.parse_args()\n"
    (tmp_path / "a.py").write_text(f"{train}{tune}print(args.epochs)\n{line}\n", encoding="utf-8")
    assert [r.status for r in audit(None, source=tmp_path, select=["RV0105"]).results] == [status]


@pytest.mark.parametrize(
    "line",
    [
        "def f(beta_max=0.3): ...",
        "def f(seed=1): ...",
        "class Layer:\n    seed = 3",
        "x = cache.get('beta_max', 0.5)",
        "x = cfg.get('other', 0.5)",
        "beta_max = compute()",
        "p.add_argument('--beta-max', type=float)",
    ],
)
def test_the_same_default_twice_is_one(tmp_path: Path, line: str) -> None:
    (tmp_path / "c.py").write_text("class Config:\n    beta_max: float = 0.3\n    seed: int = 0\n", encoding="utf-8")
    (tmp_path / "a.py").write_text(f"{line}\n", encoding="utf-8")
    assert {r.status for r in audit(None, source=tmp_path, select=["RV0105"]).results} == {"pass"}


@pytest.mark.parametrize(
    "read",
    ["cfg['optimizer']['lr'], cfg['epochs']", "cfg.optimizer.lr, cfg.n_epoch", "cfg.model.hidden, cfg.data.root"],
)
@pytest.mark.parametrize(("head", "found"), [("", False), ("import json\n", False), ("import ris_verified\n", True)])
def test_a_tree_of_another_kind_is_not_asked_for_this_package_s_names(
    tmp_path: Path, read: str, head: str, found: bool
) -> None:
    (tmp_path / "a.py").write_text(f"{head}\n\ndef main(cfg):\n    return {read}\n", encoding="utf-8")
    results = audit(None, source=tmp_path, select=["RV0101"]).results
    assert [r.status for r in results if r.status == "fail"] == ["fail"] * (2 * found)


def test_a_historical_slip_is_one_in_every_tree(tmp_path: Path) -> None:
    text = "def main(cfg):\n    return getattr(cfg, 'hybrid_beta', 0.3)\n"
    (tmp_path / "a.py").write_text(text, encoding="utf-8")
    assert [r.status for r in audit(None, source=tmp_path, select=["RV0101"]).results] == ["fail"]
