"""Sections beside the cells: words, tables, charts and images, on the page and on the terminal."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from rich.console import Console

from referee.report import Campaign, Chart, Figure, Section, Strip, StripRow, Table, bars, html, print_report

FACE = np.linspace(0, 1, 30, dtype=np.float32).reshape(1, 6, 5)


class Page(HTMLParser):
    """The tags and the text of a page; fails for a tag that is not closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)


def section(**changes: object) -> Section:
    drawn = bars.bars("A <chart>", ["a & b"], [bars.Line("<one>", [bars.Value(0.5, 0.1)])])
    table = Table(["<Head>", "n"], [["<script>alert(1)</script>", "1"], ["weak", "2"]], note="A note.", weak={1})
    strip = Strip("People <1>", [StripRow("made & real", [FACE, None], ["seen", "none"], [True, False])], note="Below.")
    known = {"paragraphs": ["Words & <words>."], "tables": [table], "charts": [Chart("A <title>", drawn, "Why.")]}
    return Section("Section <1>", **{**known, "strips": [strip], **changes})  # type: ignore[arg-type]


def bare(*sections: Section) -> Campaign:
    """A campaign without cells."""
    return Campaign("Tables", "2026-01-01", "referee run", splits=[], sections=sections, credits=["Credit <them>."])


def test_everything_is_shown_and_escaped():
    page = html.render([], bare(section()))
    words = " ".join(Page(page).words)
    for text in ("Section <1>", "Words & <words>.", "<Head>", "<script>alert(1)</script>", "A note.", "A <title>"):
        assert text in words
    for text in ("People <1>", "made & real", "seen", "Below.", "Why.", "Credit <them>."):
        assert text in words
    assert "script" not in Page(page).tags
    assert page.count('<tr class="weak">') == 1
    assert page.count('class="face recognised"') == 1
    assert page == html.render([], bare(section()))


def test_images_are_left_out_of_a_page_without_private_ones():
    shown, hidden = (html.render([], bare(section()), private_images=wanted) for wanted in (True, False))
    assert "data:image/png" in shown
    assert "Private photos are inside" in shown
    assert "data:image" not in hidden
    assert "<img" not in hidden
    assert "Without private photos" in hidden
    assert "People" not in " ".join(Page(hidden).words)


def test_a_page_that_has_no_picture_promises_none():
    page = html.render([], bare(section(strips=())))
    assert 'class="banner"' not in page
    assert "bootstrap over people" not in page  # there is no interval of a cell
    assert "cells with their parameters" not in page


def test_sections_come_after_the_cells_and_before_the_figures(cells, campaign):
    page = html.render(cells, replace(campaign, sections=[section()]))
    places = [page.index(f"<h2>{title}") for title in ("Contracts and methods", "Section &lt;1&gt;", "Figures")]
    assert places == sorted(places)
    assert html.render(cells, campaign) == html.render(cells, replace(campaign, sections=[]))


@pytest.mark.parametrize("width", [80, 130])
def test_the_terminal_shows_words_and_tables(width):
    table = Table(["who", "a", "b"], [["x", "1", "22222"]], note="Said below.", narrow=(0, 1))
    figures = [Figure("f/1", 0.5)]
    console = Console(width=width, file=io.StringIO())
    print_report([], replace(bare(section(tables=[table])), figures=figures), console)
    said = console.file.getvalue()
    for word in ("Section <1>", "Words & <words>.", "who", "Said below.", "f/1"):
        assert word in said
    assert ("22222" in said) == (width == 130)
    assert "Own and others" not in said


def test_a_row_of_another_length_is_an_error():
    with pytest.raises(ValueError, match="a row of 1 texts under 2 heads: lonely"):
        Table(["a", "b"], [["lonely"]])


# ---- bars and lines ---------------------------------------------------------------------------------------------


def heights(svg: str) -> list[float]:
    return [float(h) for h in re.findall(r'<rect x="[^"]*" y="[^"]*" width="[^"]*" height="([^"]*)"><title>', svg)]


def test_a_bar_is_as_high_as_its_value():
    series = [
        bars.Line("one", [bars.Value(0.2), bars.Value(0.4)]),
        bars.Line("two", [bars.Value(-0.1), bars.Value(None)]),
    ]
    drawn = str(bars.bars("t", ["a", "b"], series))
    found = heights(drawn)
    assert len(found) == 3  # what was not measured has no bar
    assert found[2] == pytest.approx(2 * found[0], abs=0.3)
    assert found[1] == pytest.approx(found[0] / 2, abs=0.3)  # and hangs below zero
    assert ">–</text>" in drawn
    Page(drawn)


def test_lines_carry_their_errors_and_leave_gaps():
    values = [bars.Value(0.5, 0.1), bars.Value(None), bars.Value(0.7)]
    drawn = str(bars.lines("t", ["1", "2", "3"], [bars.Line("a", values)], x_name="l"))
    assert drawn.count("<circle") == 2
    assert drawn.count('class="whisker"') == 1
    assert "a: 0.5 ± 0.1" in drawn
    Page(drawn)
    Page(str(bars.lines("empty", ["1"], [bars.Line("a", [bars.Value(None)])], x_name="l")))


@pytest.mark.parametrize("values", [(0.0, 0.0), (1e-4, 3e-4), (-0.2, -0.1), (120.0, 7.0)])
def test_every_value_lies_inside_the_frame(values):
    drawn = str(bars.bars("t", ["a", "b"], [bars.Line("one", [bars.Value(v, 0.0) for v in values])]))
    ys = [float(y) for y in re.findall(r'<rect x="[^"]*" y="([^"]*)" width', drawn)[:2]]
    for y, height in zip(ys, heights(drawn), strict=True):
        assert bars.TOP - 0.1 <= y <= y + height <= bars.HEIGHT - bars.BOTTOM + 0.1
