"""What an honest client gets, by hand and through the very release of the server."""

from __future__ import annotations

import numpy as np
import pytest

from oracle_server.threat_model import Access, Contract, Released, release
from referee.metrics.utility import utility

LABELS = np.array([0, 1, 6, 2])
# Rows: right; wrong, but second; sixth of seven; right by a tie that the lower class wins.
SCORES = np.array(
    [
        [0.70, 0.10, 0.05, 0.05, 0.05, 0.03, 0.02],
        [0.50, 0.30, 0.05, 0.05, 0.04, 0.03, 0.03],
        [0.30, 0.20, 0.15, 0.13, 0.12, 0.01, 0.09],
        [0.10, 0.05, 0.35, 0.35, 0.05, 0.05, 0.05],
    ]
)


def released(contract: Contract) -> Released:
    return release(np.log(SCORES), contract)


def test_full_scores() -> None:
    found = utility(released(Contract(Access.SCORES)), LABELS, 7)
    assert found.right.tolist() == [True, False, False, True]
    assert found.among_five is not None
    assert found.among_five.tolist() == [True, True, False, True]
    # Confidences .70 and .50, .30, .35 stand alone in their bins.
    assert found.calibration_error == pytest.approx((0.3 + 0.5 + 0.3 + 0.65) / 4)
    assert (found.accuracy, found.top5) == (0.5, 0.75)


def test_a_label_has_neither_five_nor_calibration() -> None:
    found = utility(released(Contract(Access.LABEL)), LABELS, 7)
    assert (found.accuracy, found.top5, found.calibration_error) == (0.5, None, None)


def test_of_the_largest_scores_no_more_is_known_than_was_released() -> None:
    one = utility(released(Contract(Access.SCORES, top_k=1)), LABELS, 7)
    assert one.top5 == 0.5  # only the first one is released
    assert one.calibration_error == utility(released(Contract(Access.SCORES)), LABELS, 7).calibration_error
    six = utility(released(Contract(Access.SCORES, top_k=6)), LABELS, 7)
    assert six.top5 == 0.75


def test_coarse_rounding_makes_ties_that_the_first_class_wins() -> None:
    found = utility(released(Contract(Access.SCORES, round_to=0.6)), LABELS, 7)
    assert found.answers.tolist() == [0, 0, 0, 2]  # 0.6, 0.6, and 0 or 0.6 by the tie
    assert found.calibration_error is not None


def test_rounded_above_one_is_no_mistake() -> None:
    sure = release(np.array([[20.0, 0.0]]), Contract(Access.SCORES, round_to=0.6))
    assert sure.scores is not None
    assert sure.scores.max() > 1
    assert utility(sure, np.array([0]), 2).calibration_error == 0.0


def test_with_five_classes_all_are_among_five() -> None:
    scores = release(np.zeros((3, 5)), Contract(Access.SCORES))
    assert utility(scores, np.array([4, 2, 0]), 5).top5 == 1.0


def test_agreement_is_the_share_of_equal_answers() -> None:
    a, b = (utility(Released(labels=np.array(labels)), LABELS, 7) for labels in ([0, 1, 2, 3], [0, 1, 3, 3]))
    assert a.agreement(b) == 0.75  # both are wrong on the third photo, each in its way
    assert a.accuracy == b.accuracy
    assert a.agreement(a) == 1.0


def test_numbers_have_no_class() -> None:
    with pytest.raises(ValueError, match="numbers have no class"):
        utility(Released(numbers=np.zeros(3)), LABELS[:3], 7)
