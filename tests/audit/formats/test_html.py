"""The page: one file, failures first, readable by parser, screen reader and phone."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser

import pytest

from ris_verified.audit.formats import render
from ris_verified.audit.formats.plots import KINDS, Plot, bars, plot, slowest
from ris_verified.audit.result import Report, Result
from ris_verified.audit.rule import at_least, at_most

VOID = {"meta", "link", "br", "hr", "img", "rect", "line", "circle"}


class Page(HTMLParser):
    """Tags with attributes, and the text of each article."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.articles: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "article":
            self.articles.append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "article" in self.open:
            self.articles[-1] += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_one_file_that_asks_for_nothing(report: Report) -> None:
    text = render(report, "html")
    page = Page(text)
    assert page.open == []
    assert {"script", "link", "img", "iframe"}.isdisjoint(tag for tag, _ in page.tags)
    assert not any({"src", "href", "onload", "onclick"} & set(attributes) for _, attributes in page.tags)
    assert "url(" not in text
    assert "@import" not in text
    (policy,) = [m["content"] for m in page.named("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert str(policy).startswith("default-src 'none'")


def test_the_verdict_then_each_failing_rule_with_all_that_is_known_of_it(report: Report) -> None:
    text = render(report, "html")
    page = Page(text)
    assert len(page.articles) == len({r.id for r in report.results if r.status in ("fail", "error")})
    assert [re.findall(r"RV\d{4}", article)[0] for article in page.articles] == ["RV0702", "RV0501", "RV0102"]
    loss = page.articles[1]
    assert loss.count("Found") == 2
    for said in (
        "loss/total.py:17",
        "3 dB, bound 2 dB, margin -1 dB",
        "remedy of RV0501",
        "Law",
        "Why",
        "How",
        "Bound",
    ):
        assert said in loss
    assert text.index("NO-GO") < text.index("What failed") < text.index("What was measured")
    assert "SURVIVED (pass clean, pass planted)" in text
    assert text.index("SURVIVED") < text.index("swapped_beta")
    assert "abc123" in text
    assert report.warnings[0] in text
    assert "waived: kept for 0.9" in text


def test_a_failed_warning_looks_unlike_what_stops_the_launch(report: Report) -> None:
    page = Page(render(report, "html"))
    assert [a["class"] for a in page.named("article")] == ["stops", "stops", "stays"]


def test_a_sound_report_shows_no_failure(sound: Report) -> None:
    assert Page(render(sound, "html")).articles == []


def test_hostile_texts_are_shown_and_nothing_else(report: Report) -> None:
    text = render(report, "html")
    assert "&lt;script&gt;" in text
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202e]", text)


def test_landmarks_labels_and_tables_that_scroll_on_their_own(report: Report) -> None:
    page = Page(render(report, "html"))
    tags = [tag for tag, _ in page.tags]
    assert [tags.count(name) for name in ("header", "main", "footer", "h1")] == [1, 1, 1, 1]
    assert page.named("html") == [{"lang": "en"}]
    ids = {str(attributes["id"]) for _, attributes in page.tags if "id" in attributes}
    assert all(a["aria-labelledby"] in ids for _, a in page.tags if "aria-labelledby" in a)
    before = [page.tags[i - 1][1] for i, tag in enumerate(tags) if tag == "table"]
    assert all("wide" in str(a["class"]) and a["role"] == "region" and a["tabindex"] == "0" for a in before)
    assert all(a.get("aria-hidden") == "true" or "bound" in str(a.get("aria-label")) for a in page.named("svg"))


@pytest.mark.parametrize(
    ("measured", "bound", "margin", "expected"),
    [
        (2.0, 2.0, 0.0, Plot(50.0, True, "log")),
        (0.0, 2.0, 2.0, Plot(0.0, True, "log")),
        (0.0, 2.0, -2.0, Plot(0.0, False, "log")),
        (1e9, 2.0, 2.0 - 1e9, Plot(100.0, True, "log")),
        (1e308, 1e-308, 1e308, Plot(100.0, False, "log")),
        (3.0, 0.0, -3.0, Plot(100.0, True, "linear")),
        (0.0, 0.0, 0.0, Plot(50.0, True, "linear")),
        (-1.0, -2.0, 1.0, Plot(75.0, False, "linear")),
        (-1.0, 4.0, 5.0, Plot(0.0, True, "linear")),
        ("text", 1.0, None, None),
        (1.0, "0.3 ± 0", 0.1, None),
        (float("nan"), 1.0, float("nan"), None),
        (1.0, float("inf"), float("inf"), None),
    ],
)
def test_a_plot_has_the_bound_in_its_middle_and_shades_what_is_allowed(
    measured: float | str, bound: float | str, margin: float | None, expected: Plot | None, report: Report
) -> None:
    drawn = plot(dataclasses.replace(report.results[0], measured=measured, bound=bound, margin=margin))
    assert drawn == expected


@pytest.mark.parametrize("value", [1.0, 3.0])
def test_the_shaded_side_is_that_of_the_comparison(value: float, report: Report) -> None:
    for compare, below in ((at_most, True), (at_least, False)):
        m = compare(value, 2.0, "m")
        drawn = plot(dataclasses.replace(report.results[0], measured=m.measured, bound=m.bound, margin=m.margin))
        assert drawn is not None
        assert drawn.below is below


def test_bars_count_what_is_waived_apart_and_fill_their_width(report: Report) -> None:
    names = sorted({r.id[:4] for r in report.results})
    found = {bar.name: bar for bar in bars(report.results, lambda r: r.id[:4], [*names, "RV99"])}
    assert list(found) == names
    assert found["RV08"].counts == {"error": 0, "fail": 0, "waived": 1, "skip": 0, "pass": 2}
    assert [piece[0] for piece in found["RV08"].pieces] == ["waived", "pass"]
    assert tuple(found["RV08"].counts) == KINDS
    assert all(sum(width for *_, width in bar.pieces) == pytest.approx(100) for bar in found.values())


def test_the_slowest_rules_are_named_once(report: Report) -> None:
    timed = [dataclasses.replace(r, seconds=float(i)) for i, r in enumerate(report.results)]
    ranked: list[tuple[Result, float]] = slowest(timed, 3)
    assert [r.id for r, _ in ranked] == ["RV0802", "RV0801", "RV1001"]
    assert ranked[0][1] == 100
    assert slowest([]) == []
