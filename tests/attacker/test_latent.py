"""What attacks in a latent space share: scores read by hand, starts that are paired, codes that are asked in order."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from attacker.answers import Answer
from attacker.attacks.latent import ask_codes, log_scores, mean_codes, next_due
from attacker.public import public_images, read_public, sha256_of_public
from attacker.settings import parse_settings
from tests.attacker.latent_cases import SHAPE, M, affine, gaussian, oracle, regression
from tests.toy import FULL, LABEL

nan = np.nan


@pytest.fixture
def public(tmp_path: Path) -> Path:
    np.save(tmp_path / "images.npy", np.random.default_rng(0).normal(size=(40, *SHAPE)).astype(np.float32))
    return tmp_path


@pytest.mark.parametrize(
    ("scores", "label", "round_to", "score"),
    [
        ([0.7, 0.2, 0.1], 1, None, 0.2),
        ([0.6, nan, nan], 1, None, 0.2),  # an equal share of the 0.4 that are left
        ([0.6, nan, nan], 0, None, 0.6),
        ([0.6, 0.1, nan, nan], 3, None, 0.1),  # 0.15 would be more than the smallest released one
        ([0.8, nan], 1, 0.1, 0.2),
        ([1.0, nan, nan], 2, 0.1, 0.05),  # nothing is left: half the rounding step
        ([0.6, 0.5, nan], 2, 0.1, 0.05),  # less than nothing is left, after rounding
        ([1.0, 0.0, 0.0], 1, 0.01, 0.005),
        ([1.0, 0.0, 0.0], 1, None, np.finfo(np.float64).tiny),
        ([1.0, nan, nan], 1, None, np.finfo(np.float64).tiny),
    ],
)
def test_scores_by_hand(scores: list[float], label: int, round_to: float | None, score: float) -> None:
    seen = np.array([scores, scores])
    found = log_scores(Answer(seen), np.array([label, label]), round_to)
    np.testing.assert_allclose(found, np.log([score, score]), rtol=1e-12)
    np.testing.assert_array_equal(seen, np.array([scores, scores]))  # the answer is left as it came


def test_labels_have_no_scores() -> None:
    with pytest.raises(ValueError, match="releases no scores: use a key with access 'scores'"):
        log_scores(Answer(labels=np.array([0])), np.array([0]), None)


def test_starts_are_means_of_sixteen_public_images(public: Path) -> None:
    found = mean_codes(affine(), public, oracle(regression()), 5, 3)
    images = np.load(public / "images.npy").reshape(40, M)
    for i, start in enumerate(found.numpy()):
        rows = np.random.default_rng((3, i)).choice(40, 16, replace=False)
        np.testing.assert_allclose(start, images[rows].mean(0), atol=1e-6)
    assert len(np.unique(found.numpy(), axis=0)) == 5


@pytest.mark.parametrize("encoder", [True, False])
@pytest.mark.parametrize("with_public", [True, False])
def test_a_start_is_the_same_whatever_their_number(encoder: bool, with_public: bool, public: Path) -> None:
    def starts(n: int, seed: int) -> np.ndarray:
        prior = affine(codes=gaussian(5.0, 0.5), encoder=encoder)
        return mean_codes(prior, public if with_public else None, oracle(regression()), n, seed).numpy()

    np.testing.assert_allclose(starts(5, 0)[:3], starts(3, 0), atol=1e-6)
    assert (np.abs(starts(3, 1) - starts(3, 0)) > 1e-3).any(1).all()
    assert starts(4, 0).mean() == pytest.approx(0.0 if encoder and with_public else 5.0, abs=0.2)


def test_starts_from_draws_have_a_quarter_of_their_deviation() -> None:
    found = mean_codes(affine(codes=gaussian(5.0, 0.5), encoder=False), None, oracle(regression()), 200, 0)
    assert float(found.std()) == pytest.approx(0.5 / 4, rel=0.1)
    assert float(found.std()) != pytest.approx(0.5, rel=0.1)  # as a single draw would have


def test_few_public_images_are_all_taken(public: Path) -> None:
    images = np.load(public / "images.npy")[:7]
    np.save(public / "images.npy", images)
    found = mean_codes(affine(), public, oracle(regression()), 2, 0).numpy()
    np.testing.assert_allclose(found, np.tile(images.reshape(7, M).mean(0), (2, 1)), atol=1e-6)


def test_codes_are_asked_in_order_and_in_range() -> None:
    z = 20 * torch.randn(23, M)
    targets = np.arange(23) % 3
    asked = oracle(regression(), FULL, max_rows=7)  # which refuses what is out of range
    answer = ask_codes(asked, affine(low=-99, high=99), z, targets)
    np.testing.assert_array_equal(np.concatenate(asked.asked).reshape(23, M), z.numpy().clip(-9, 9))
    assert [len(batch) for batch in asked.asked] == [7, 7, 7, 2]
    assert (asked.spent_on[0], asked.spent_on[1], asked.spent_on[2], asked.shared) == (8, 8, 7, 0)
    assert answer.scores is not None
    assert answer.scores.shape == (23, 3)
    shared = oracle(regression(), LABEL)
    np.testing.assert_array_equal(ask_codes(shared, affine(), z.clip(-9, 9), None).labels, answer.decision())
    assert shared.shared == shared.spent == 23


def test_snapshots_are_due_on_the_ladder_and_between() -> None:
    assert [next_due(mark) for mark in (0, 1, 90, 100, 250, 300)] == [0, 1.5, 100, 150, 300, 450]


@dataclass(frozen=True)
class Settings:
    step: float = 0.1
    points: int = 3
    first: str = "mean"
    sure: bool = True
    prior: Path | None = None


def test_settings_are_read_by_the_type_of_their_default() -> None:
    words = ["step=1", "points=5", "first=draw", "sure=False"]
    found = parse_settings(Settings, "method", words, without=("prior",))
    assert found == {"step": 1.0, "points": 5, "first": "draw", "sure": False}
    assert [type(value) for value in found.values()] == [float, int, str, bool]
    assert parse_settings(Settings, "method", []) == {}


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("prior=x", "method has the parameters step, points, first, sure; write parameter=value"),
        ("points", "write parameter=value"),
        ("points=1.5", "points is a int, for example 3"),
        ("step=far", "step is a float, for example 0.1"),
        ("first=3", "first is a str, for example 'mean'"),
    ],
)
def test_settings_that_there_are_not(setting: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        parse_settings(Settings, "method", [setting], without=("prior",))


def test_public_data(public: Path, tmp_path: Path) -> None:
    images, before = np.load(public / "images.npy"), sha256_of_public(public)
    np.testing.assert_array_equal(public_images(public, oracle(regression())), images)
    np.save(public / "images.npy", images[:, :, :1])
    assert sha256_of_public(public) != before
    with pytest.raises(ValueError, match=r"has shape \(40, 1, 1, 3\), the oracle takes"):
        public_images(public, oracle(regression()))
    np.save(public / "images.npy", images[:0])
    with pytest.raises(ValueError, match=r"has shape \(0, 1, 2, 3\)"):
        public_images(public, oracle(regression()))
    (public / "images.npy").write_bytes(b"no array")
    with pytest.raises(ValueError, match="is no array of images"):
        read_public(public)
    for reader in (read_public, sha256_of_public):
        with pytest.raises(ValueError, match=r"holds no images\.npy: name a folder"):
            reader(tmp_path / "elsewhere")
