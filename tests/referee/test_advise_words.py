"""What is said of made-up cells: contracts that leak, that do not, that have no result, and which one to take."""

from __future__ import annotations

import numpy as np
import pytest

from referee.advise_words import Finding, Step, advise_in_words, find_leak, sentences
from referee.metrics import Interval
from referee.report.advice import advice_sections, leak_figures

CLASSES = 20


@pytest.fixture
def found(make_cell):
    """`found(attack, draws, contract)`: a finding with so many of 20 classes recognised after 100 and 1,000 rows."""

    def make(
        attack: tuple[int, int], draws: tuple[int, int], contract: str = "full scores", **changes: object
    ) -> Finding:
        cells = []
        for counts, method in ((attack, "yoshimura"), (draws, "random_draws")):
            top1 = np.stack([np.arange(CLASSES) < count for count in counts])
            cells.append(
                make_cell((False,) * CLASSES, method=method, top1=top1, marks=np.array([98.0, 1000.0]), **changes)
            )
        return find_leak(*cells, contract, asks_nothing=0.05, rows=1000)

    return make


def test_an_attack_that_beats_the_random_images_is_said_with_its_price(found):
    finding = found((1, 9), (1, 2))
    assert finding.sentence == (
        "With full scores, 1,000 queries a class give images of which 45% (95% interval 25% to 65%) are recognised,"
        " against 10% for the best of as many random images of the public data."
        " After 300 queries a class it is 5%, not told apart from images that ask nothing."
    )
    assert [step.rows for step in finding.steps] == [100, 300, 1000]  # 300: the image that 98 rows had paid for
    assert finding.last.beats_draws
    assert finding.first_leak == finding.last


def test_an_attack_that_does_no_better_than_the_random_images_is_said_to(found):
    finding = found((1, 8), (9, 9))
    assert not finding.last.beats_draws
    assert finding.last.leaks  # the choice among random images does
    assert "the attack does no better than the best of as many random images" in finding.sentence
    assert "40% (95% interval 20% to 60%) of its images are recognised after 1,000 queries a class, against 45%" in (
        finding.sentence
    )
    assert "Still the contract gives something away" in finding.sentence
    assert "After 100 queries a class it is 45% already." in finding.sentence


def test_an_attack_that_is_a_little_better_is_not_told_apart(found):
    assert "is not told apart from the best" in found((1, 9), (8, 8)).sentence


def test_where_neither_beats_an_image_that_asks_nothing_nothing_leaks(found):
    finding = found((1, 1), (0, 2))
    assert not finding.last.leaks
    assert finding.sentence.endswith("Of images that ask nothing 5% are recognised: nothing is seen to leak.")


def test_the_most_useful_contract_that_does_not_leak_is_taken(found):
    leaks, quiet = ((1, 9), (1, 2)), ((1, 1), (1, 1))
    findings = [found(*leaks), found(*quiet, "the largest score"), found(*quiet, "the label only")]
    advice = advise_in_words(findings)
    assert advice.take == 1
    assert advice.sentence == (
        "Take the largest score: within 1,000 queries a class (20,000 in all) it is not seen to leak, and with full"
        " scores it is 45% of the classes."
    )
    assert advise_in_words(findings[1:]).take == 0
    assert "no contract is seen to leak" in advise_in_words(findings[1:]).sentence


def test_a_contract_leaks_what_a_stricter_one_does(found):
    findings = [found((1, 1), (1, 1)), found((1, 9), (1, 2), "the label only")]
    assert advise_in_words(findings).take is None
    assert sentences(findings)[0].endswith("Yet it tells all that the label only tells, which does leak.")


def test_where_every_contract_leaks_a_smaller_budget_is_named_or_none(found):
    late = advise_in_words([found((1, 9), (1, 2), "the label only")])
    assert late.take is None
    assert "even with the label only 45% of the classes are recognised" in late.sentence
    assert "a budget of 300 queries a class (6,000 in all)" in late.sentence
    early = advise_in_words([found((8, 9), (1, 2), "the label only")])
    assert "after 100 queries it is 40% already" in early.sentence


def test_what_has_no_result_is_not_called_safe(found, make_cell, make_refused):
    void = found((1, 9), (1, 2), rows_attacker=11_000)
    assert "nothing can be said: the attack (yoshimura) counted 11,000 rows and the ledger 12,000" in void.sentence
    failed = find_leak(make_refused(status="failed", sentence="No."), None, "scores", asks_nothing=0.05, rows=10)
    assert failed.sentence == "With scores, nothing can be said: the attack (numeric) failed: No."
    assert "was not run" in find_leak(make_cell(), None, "scores", asks_nothing=0.05, rows=10).sentence
    early = find_leak(make_cell(), make_cell(), "scores", asks_nothing=0.05, rows=50)
    assert "has no image after 50 queries a class" in early.sentence
    assert "no contract can be advised" in advise_in_words([void]).sentence
    quiet = found((1, 1), (1, 1), "the label only")
    assert advise_in_words([void, quiet]).take == 1
    assert "of full scores nothing is known" in advise_in_words([void, quiet]).sentence
    assert "nothing is known" in advise_in_words([quiet, void]).sentence


def test_few_classes_are_said_to_be_few():
    share = Interval(0.5, 0.2, 0.8)
    step = Step(100, share, Interval(0.25, 0.0, 0.6), Interval(0.25, -0.2, 0.7), 0.25)
    assert "with so few classes" in Finding("full scores", "m", 4, (step,)).sentence


def test_sections_and_figures_hold_the_same_numbers(found):
    findings = [found((1, 9), (1, 2)), Finding("the label only", "brep_mi", CLASSES, lacking="it failed")]
    advice = advise_in_words(findings)
    take, told = advice_sections(advice, findings, asks_nothing=0.05, ceiling=0.97)
    assert take.paragraphs[0] == advice.sentence
    (table,) = told.tables
    assert [row[-1] for row in table.rows] == ["no", "no", "yes"]
    assert "97% are recognised" in table.note
    (chart,) = told.charts
    assert "classes recognised" in chart.svg
    assert {figure.name: figure.value for figure in leak_figures(findings, ["full", "label"])} == {
        "advise/full/100/recognised": 0.05,
        "advise/full/100/random_images": 0.05,
        "advise/full/300/recognised": 0.05,
        "advise/full/300/random_images": 0.05,
        "advise/full/1000/recognised": 0.45,
        "advise/full/1000/random_images": 0.1,
    }
