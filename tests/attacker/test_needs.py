"""What a method needs against what a contract gives."""

from __future__ import annotations

import doctest

import pytest

import attacker.needs
import attacker.snapshot
from attacker.needs import Needs, refuse
from attacker.snapshot import on_ladder, rung_above
from tests.toy import Contract

CLASSES = 40
WEIGHTS, FULL, LABEL = Contract("weights"), Contract("scores"), Contract("label")
ROUNDED, TOP_1, ALL_OF_40 = Contract(round_to=0.1), Contract(top_k=1), Contract(top_k=CLASSES)

GRANTS = [  # contract, what it satisfies
    (WEIGHTS, {Needs.WEIGHTS, Needs.ALL_SCORES, Needs.SCORES, Needs.LABELS}),
    (FULL, {Needs.ALL_SCORES, Needs.SCORES, Needs.LABELS}),
    (ROUNDED, {Needs.ALL_SCORES, Needs.SCORES, Needs.LABELS}),
    (ALL_OF_40, {Needs.ALL_SCORES, Needs.SCORES, Needs.LABELS}),
    (TOP_1, {Needs.SCORES, Needs.LABELS}),
    (Contract(top_k=CLASSES - 1, round_to=0.01), {Needs.SCORES, Needs.LABELS}),
    (LABEL, {Needs.LABELS}),
]


@pytest.mark.parametrize(("contract", "satisfied"), GRANTS, ids=[str(contract) for contract, _ in GRANTS])
@pytest.mark.parametrize("needs", Needs)
def test_table(contract: Contract, satisfied: set[Needs], needs: Needs) -> None:
    assert (refuse(needs, contract, CLASSES) is None) == (needs in satisfied)


@pytest.mark.parametrize(
    ("needs", "contract", "sentence"),
    [
        (
            Needs.WEIGHTS,
            LABEL,
            "mi_face needs the weights, but this key's contract releases labels only; "
            "use a key with access 'weights', or a method that needs less (attacker list)",
        ),
        (
            Needs.ALL_SCORES,
            TOP_1,
            "mi_face needs the scores of all classes, but this key's contract releases the largest score only; "
            "use a key with access 'scores' and no top_k, or a method that needs less (attacker list)",
        ),
        (
            Needs.SCORES,
            LABEL,
            "mi_face needs scores, but this key's contract releases labels only; "
            "use a key with access 'scores', or a method that needs less (attacker list)",
        ),
    ],
)
def test_sentence(needs: Needs, contract: Contract, sentence: str) -> None:
    assert refuse(needs, contract, CLASSES, method="mi_face") == sentence


@pytest.mark.parametrize(
    ("contract", "satisfied"), [(WEIGHTS, set(Needs)), (ROUNDED, {Needs.ALL_SCORES, Needs.SCORES, Needs.LABELS})]
)
def test_a_feature_model_has_no_classes_and_its_numbers_count_as_scores(
    contract: Contract, satisfied: set[Needs]
) -> None:
    assert {needs for needs in Needs if refuse(needs, contract, 0) is None} == satisfied


def test_an_access_from_a_newer_server_is_not_guessed_at() -> None:
    with pytest.raises(ValueError, match="access='gradients'"):
        refuse(Needs.LABELS, Contract("gradients"), CLASSES)


@pytest.mark.parametrize("module", [attacker.needs, attacker.snapshot])
def test_examples(module: object) -> None:
    results = doctest.testmod(module)  # type: ignore[arg-type]
    assert results.attempted > 0
    assert results.failed == 0


def test_ladder() -> None:
    assert [mark for mark in range(200_000) if on_ladder(mark)] == [100, 300, 1000, 3000, 10_000, 30_000, 100_000]
    assert rung_above(2576.25) == 3000
