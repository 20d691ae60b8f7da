"""The report says what the cells hold: words, rows, page and terminal."""

from __future__ import annotations

import base64
import dataclasses
import doctest
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from referee.metrics import Interval
from referee.report import (
    Section,
    Table,
    charts,
    html,
    labels,
    print_report,
    tables,
)
from referee.report.headline import headline
from referee.report.pictures import data_address

ROUNDED = {"access": "scores", "top_k": None, "round_to": 0.05}
HITS = (True,) * 12 + (False,) * 8


# ---- words and rows -------------------------------------------------------------------------------------------


def test_rows_are_in_order_with_references_first(cells, campaign):
    rows = tables.build(cells, campaign)
    assert [(row.kind, row.contract, row.method) for row in rows] == [
        ("floor", "", "zero image"),
        ("ceiling", "", "photos 8-10"),
        ("attack", "weights", "mi_face"),
        ("attack", "full scores", "numeric probe 1"),
        ("attack", "full scores", "numeric probe 0.0001"),
        ("attack", "scores rounded to 0.05", "numeric probe 1"),
        ("attack", "label only", "numeric probe 1"),
    ]
    assert rows[3].top1 is not None
    assert rows[3].top1.value == 0.6
    assert rows[3].recognised == dict(enumerate(map(float, HITS)))


def test_seeds_share_a_row_and_are_clustered_by_target(make_cell, campaign):
    seeds = [make_cell(HITS, seed=seed, rows_ledger=10 + seed, rows_attacker=10 + seed) for seed in range(2)]
    (row,) = [row for row in tables.build(seeds, campaign) if row.kind == "attack"]
    (alone,) = [row for row in tables.build(seeds[:1], campaign) if row.kind == "attack"]
    assert row.top1 == alone.top1  # equal seeds are not more people
    assert tables.texts(row)["rows_ledger"] == "10.5"
    assert "mean of 2 seeds" in headline([row], campaign.split("att40")).lead


def test_other_keys_same_contract(make_cell, campaign):
    dates = [make_cell(HITS, seed=seed, contract={**ROUNDED, "expires": f"2026-01-0{seed + 1}"}) for seed in range(2)]
    assert len([row for row in tables.build(dates, campaign) if row.kind == "attack"]) == 1


def test_cells_may_stand_apart(make_cell, campaign):
    told = make_cell(name="inverted/full", parameters={"given": {"photos": 4}})
    assert [row.method for row in tables.build([told, make_cell()], campaign) if row.kind == "attack"] == [
        "inverted",
        "numeric",
    ]
    apart = dataclasses.replace(campaign, apart=frozenset({told.name}))
    assert [row.method for row in tables.build([told, make_cell()], apart) if row.kind == "attack"] == ["numeric"]


def test_a_count_that_differs_voids_the_row(make_cell, campaign):
    cells = [make_cell(HITS, rows_ledger=12_345, rows_attacker=12_300), make_cell(HITS, seed=1)]
    row = tables.build(cells, campaign)[-1]
    assert row.status == "void"
    assert row.top1 is None
    assert tables.texts(row)["agree"] == "no"
    page, words = html.render(cells, campaign), headline([row], campaign.split("att40"))
    assert "12,345" in page
    assert "0.600" not in page
    assert "No attack has a result that counts" in words.lead


def test_the_headline_says_who_leaks(cells, campaign):
    words = headline(tables.build(cells, campaign), campaign.split("att40"))
    assert (
        words.lead
        == "With the weights, 12 of 20 people are recognised from the downloaded model, without a query (mi_face)."
    )
    assert words.rest == (
        "With full scores, 12 of 20 from 12,000 rows (numeric probe 1).",
        "Not told apart from the floor (0.050): scores rounded to 0.05 (0 of 20).",
        "With the label only, the method was refused before the first query.",
        "Of real photos (photos 8-10), 100.0% are recognised.",
    )


def test_random_draws_are_a_floor_and_no_attack(make_cell, campaign):
    cells = [make_cell(HITS, method="random_draws"), make_cell((True,) * 14 + (False,) * 6)]
    rows = tables.build(cells, campaign)
    assert [row.kind for row in rows] == ["floor", "ceiling", "floor", "attack"]
    assert "Under no contract" in headline(rows, campaign.split("att40")).lead  # 0.70 is not above 0.60


@pytest.mark.parametrize(
    ("contract", "label"),
    [
        ({"access": "weights", "round_to": None}, "weights"),
        ({"access": "label"}, "label only"),
        ({"access": "scores", "top_k": 1}, "top-1 score"),
        (
            {"access": "scores", "defences": [["noise", {"scale": 0.1}], "hide"]},
            "full scores with noise(scale=0.1), hide",
        ),
        ({"access": "scores", "budget": 10_000, "rate": 5.0}, "full scores, at most 10,000 rows, 5 rows a second"),
    ],
)
def test_contracts_in_words(contract, label):
    assert labels.contract_label(contract) == label


def test_numbers_in_words():
    assert doctest.testmod(labels).failed == 0
    assert [labels.short(value) for value in (None, 12, 999_600, 2_477_000)] == ["–", "12", "1M", "2.48M"]
    assert labels.ratio(-0.25) == "−0.25"
    assert labels.number(2.3e-7) == "2.3e−07"


def test_sections_as_markdown(campaign):
    table = Table(["defence", "top-1"], [["a|b", "0.5"]], title="Leakage", note="A note.")
    shown = dataclasses.replace(campaign, sections=[Section("Faces", ["Words."], [table, Table(["none"], [])])])
    assert tables.sections_markdown(shown) == (
        "## Faces\n\nWords.\n\n**Leakage**\n\n| defence | top-1 |\n| --- | ---: |\n| a\\|b | 0.5 |\n\nA note.\n"
    )
    assert tables.sections_markdown(campaign) == ""


def test_markdown_for_the_readme(cells, campaign):
    text = tables.markdown(tables.build(cells, campaign), ["method", "top1", "status"])
    lines = text.splitlines()
    assert lines[:2] == ["| Method | Top-1 [95%] | Status |", "| --- | ---: | --- |"]
    assert lines[-1] == "| numeric probe 1 | – | refused: numeric needs scores; this key releases only a label. |"


# ---- page and terminal ----------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Collects addresses, checks that every tag is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for key, value in attrs if key in ("src", "href", "srcset", "data", "poster")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_needs_nothing_beside_it(cells, campaign):
    text = html.render(cells, campaign)
    page = Page(text)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert page.addresses
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    assert not re.search(r"url\(|@import|https?://", text)
    assert "prefers-color-scheme: dark" in text
    assert "Demo &lt;campaign&gt;" in text
    assert text == html.render(cells, campaign)


def test_the_page_shows_the_first_people_and_marks_the_recognised(cells, campaign):
    text = html.render(cells, campaign, faces=5)
    # Three contracts have images: five real photos each, and five faces for each of four methods.
    assert len(Page(text).addresses) == 3 * 5 + 4 * 5
    assert text.count("✓ recognised") == 5 + 5 + 1
    assert "Private photos are inside" in text
    assert "numeric needs scores; this key releases only a label." in text
    for word in ("referee demo", "Credit: the laboratory.", "A note.", "not a measured leak"):
        assert word in text


def test_without_private_images_there_is_no_image(cells, campaign):
    text = html.render(cells, campaign, private_images=False)
    assert "<img" not in text
    assert "data:image" not in text
    assert "Without private photos" in text
    assert "0.600" in text


def test_a_split_that_is_not_described_is_an_error(make_cell, campaign):
    with pytest.raises(KeyError, match="att30"):
        html.render([make_cell(split="att30")], campaign)


def test_a_picture_is_the_image():
    image = np.linspace(-0.5, 1.5, 24, dtype=np.float32).reshape(1, 6, 4)
    image[0, 0, 0] = np.nan
    data = base64.b64decode(data_address(image).split(",")[1])
    got = np.asarray(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(got, np.rint(np.clip(np.nan_to_num(image[0]), 0, 1) * 255))
    assert Image.open(io.BytesIO(base64.b64decode(data_address(np.zeros((3, 2, 2))).split(",")[1]))).mode == "RGB"
    with pytest.raises(ValueError, match="to be shown"):
        data_address(np.zeros((2, 6, 5)))


def test_curves_leave_out_own_steps_and_single_marks(cells, campaign):
    text = html.render(cells, campaign)
    assert "mi_face (weights)" in text  # named as left out
    assert text.count('<svg class="chart"') == 2  # numeric with either probe
    assert "0.600 [0.40, 0.80] after 3,000 rows per person" in text


def test_labels_of_close_curves_do_not_cover_each_other():
    values = [Interval(0.01 * i, 0.0, 0.1) for i in range(8)]
    lines = tuple(charts.Series(f"c{i}", i, (10.0, 900.0), (value, value)) for i, value in enumerate(values))
    (chart,) = charts.success([charts.Panel("m", lines)], 0.0)
    places = sorted(
        float(y) for y in re.findall(r'<g class="label [^>]*><path[^>]*/><text x="[^"]*" y="([^"]*)"', chart)
    )
    assert len(places) == 9
    assert min(np.diff(places)) >= charts.LABEL_GAP - 0.11
    assert charts.success([], 0.0) == []


@pytest.mark.parametrize("width", [80, 120])
def test_the_terminal_fits(cells, campaign, width):
    console = Console(width=width, file=io.StringIO())
    print_report(cells, campaign, console)
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= width
    for word in (
        "12 of 20 people",
        "0.600 [0.40, 0.80]",
        "refused",
        "this key releases only a label",
        "demo/top1",
        "pass",
    ):
        assert word in " ".join(text.split())
    assert ("attacker" in text) == (width == 120)
