"""Configuration names that are read, against those that are defined."""

from __future__ import annotations

from pathlib import Path

import pytest

from ris_verified.audit.config_judge import findings, nearest
from ris_verified.audit.config_names import read_uses
from ris_verified.audit.config_read import read_schema
from ris_verified.audit.config_schema import ANY
from ris_verified.audit.runner import audit
from ris_verified.audit.syntax import read_tree

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


def test_several_flat_classes_are_taken_together(tmp_path: Path) -> None:
    (tmp_path / "c.py").write_text("class ACfg:\n    x = 1\n\nclass BCfg:\n    y = 2\n", encoding="utf-8")
    schema = read_schema(read_tree(tmp_path))
    assert schema.root == ANY
    assert schema.knows(ANY, "x")
    assert schema.knows(ANY, "y")
    assert not schema.knows(ANY, "z")


def test_nearest_prefers_equal_words() -> None:
    assert nearest("grid_rnge", ["estimate.grid_range", "scene.range_min"]) == "estimate.grid_range"
