"""The page at the end of a training, read as HTML: what it says is what the run's files say."""

from __future__ import annotations

import base64
import io
import shlex
from html.parser import HTMLParser

import matplotlib.image
import pytest
import torch

from ris_verified.cli.main import build_parser
from ris_verified.config import Config
from ris_verified.data.generate import generate
from ris_verified.data.manifest import Manifest
from ris_verified.pipeline import Pipeline
from ris_verified.train.curves import PANELS, curve_pictures
from ris_verified.train.log import read_log
from ris_verified.train.summary import differing, write_summary

TINY = [
    "array.horizontal=4", "array.vertical=4", "scene.antennas=5", "scene.snapshots=4", "scene.sources_max=3",
    "model.channels=8", "model.width=16", "model.layers=1", "model.heads=2", "model.head_width=16",
    "model.head_layers=1", "model.dictionary_azimuth=8", "model.dictionary_elevation=4", "model.dictionary_range=2",
    "estimate.grid_azimuth=8", "estimate.grid_elevation=4", "estimate.grid_range=2",
    "train.precision=float32", "train.batch_size=4", "train.epochs=2",
    "data.train_scenes=12", "data.validation_scenes=6", "data.test_scenes=2", "data.shard_scenes=6", "data.workers=1",
]  # fmt: skip
VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Tags with attributes, text by enclosing tag, and whether every tag is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip():
            self.texts.append((self.open[-1] if self.open else "", " ".join(data.split())))

    def within(self, tag: str) -> list[str]:
        return [text for where, text in self.texts if where == tag]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    # A folder whose name must be quoted, for a shell and for HTML.
    folder = tmp_path_factory.mktemp("a <b> & 'c'")
    pipeline = Pipeline.default(Config.load(None, TINY))
    generate(pipeline.config, folder / "data")
    result = pipeline.train(pipeline, folder / "data", folder / "out")
    page = Page((folder / "out" / "summary.html").read_text("utf-8"))
    return pipeline.config, folder, result, page


def test_the_page_is_whole_and_needs_nothing_else(run):
    _, folder, _, page = run
    assert page.open == []
    assert not {"script", "link", "iframe"} & {tag for tag, _ in page.tags}
    for tag, attributes in page.tags:
        for name in ("src", "href"):
            assert (attributes.get(name) or "data:image/png;base64,").startswith("data:image/png;base64,"), tag
    (style,) = page.within("style")
    assert "prefers-color-scheme: dark" in style
    assert "url(" not in style
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in page.tags
    assert folder.name in " ".join(page.within("code"))


def test_every_curve_is_a_picture(run):
    _, _, _, page = run
    pictures = {str(a["alt"]): str(a["src"]) for tag, a in page.tags if tag == "img"}
    assert list(pictures) == [f"{name} against the step" for name in PANELS]
    for source in pictures.values():
        image = matplotlib.image.imread(io.BytesIO(base64.b64decode(source.partition(",")[2])))
        assert image.shape[:2] == (600, 960)
        # Something is drawn: not one colour.
        assert image.std() > 0


def test_figures_are_those_of_the_log(run):
    _, folder, result, page = run
    steps, epochs = read_log(folder / "out" / "log.jsonl")
    assert page.within("h1") == [f"Epoch {result.best_epoch} of 2 is best"]
    cells = page.within("td")
    for record in epochs:
        held = record["validation"]
        row = [
            str(record["step"]), f"{record['train']:.4f}", f"{held['loss']:.4f}", f"{held['capture']:.3f}",
            f"{held['order']:.3f}", f"{held['nmse']:.3f}", f"{record['rate']:.1e}", str(record["skipped"]),
        ]  # fmt: skip
        at = cells.index(row[0])
        assert cells[at : at + len(row)] == row
    told = page.within("dd")
    assert told[0].startswith(f"{result.scenes_per_second:.1f} training scenes a second")
    assert told[1].startswith(f"0 of {len(steps)} steps")
    assert f"cpu; float32; processes: 1; threads: {torch.get_num_threads()}; " in told[2]


def test_settings_and_data_are_named_with_their_digests(run):
    cfg, folder, _, page = run
    codes, manifest = page.within("code"), Manifest.load(folder / "data")
    assert cfg.digest() in codes
    assert manifest.digest in codes
    changed = differing(cfg)
    assert {name for name, _, _ in changed} == {text.partition("=")[0] for text in TINY}
    for name, value, usual in changed:
        assert name in codes
        assert str(value) in page.within("td")
        assert str(usual) in page.within("td")
    assert [text for text in page.within("th") if text in ("train", "validation", "test")] == [
        "train", "validation", "test",
    ]  # fmt: skip
    assert differing(Config()) == []


def test_what_to_run_next_is_a_command_that_finds_its_files(run):
    _, folder, result, page = run
    (command,) = (text for text in page.within("code") if text.startswith("ris-verified"))
    args = build_parser().parse_args(shlex.split(command)[1:])
    assert args.command == "evaluate"
    assert (args.data, args.weights) == (folder / "data", result.weights)


def test_a_run_with_skipped_steps_has_a_page_and_curves_too(run, tmp_path):
    cfg, folder, result, _ = run
    bad = (
        '{"step": 1, "loss": "nan", "nmse": "nan", "gradient_norm": "inf", "terms": {}, '
        '"learning_rates": {"backbone": 0.001}, "skipped": true}\n'
    )
    lines = (folder / "out" / "log.jsonl").read_text().splitlines(keepends=True)
    kept = [line for line in lines if "epoch_end" in line]
    (tmp_path / "log.jsonl").write_text(bad + "".join(kept))
    assert list(curve_pictures(tmp_path / "log.jsonl")) == list(PANELS)
    page = write_summary(result, cfg, folder / "data", tmp_path)
    assert "of 1 steps" in page.read_text("utf-8")


def test_a_run_without_steps_has_empty_pictures(tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_text("")
    assert set(curve_pictures(log)) == set(PANELS)
