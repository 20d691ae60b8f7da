"""Inversion networks on a target whose inverse is known: four blocks of six pixels, each block of one level.

The scores are then a function of the levels, and the levels are known from the logits up to a common shift. Levels that
sum to 2 are therefore known exactly from full scores; from a label alone only the mean image of a class is.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from attacker.attacks import InversionNetwork
from attacker.oracle import BudgetSpent
from attacker.snapshot import Snapshot
from tests.toy import FULL, LABEL, SHAPE, C, Contract, ToyOracle, blocks, finish, release

MODEL = blocks(gain=0.5)
FAST = InversionNetwork(epochs=40, batch_size=50, learning_rate=3e-3, decay="cosine", width=4)


def levels(count: int, seed: int) -> np.ndarray:
    """Images (count, *SHAPE) whose blocks have levels that sum to 2."""
    drawn = np.random.default_rng(seed).dirichlet(np.full(C, 3.0), 6 * count)
    drawn = 2 * drawn[drawn.max(1) <= 0.5][:count]
    assert len(drawn) == count
    return np.repeat(drawn, 6, axis=1).reshape(count, *SHAPE).astype(np.float32)


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("public")
    np.save(folder / "images.npy", levels(1000, seed=0))
    return folder


X = levels(200, seed=1)
SPREAD = float(((X - X.mean(0)) ** 2).mean())  # the error of the mean image


def given(folder: Path, contract: Contract) -> Path:
    """What a benign key gets on X."""
    with torch.no_grad():
        answer = release(MODEL(torch.from_numpy(X)).numpy(), contract)
    table = answer.scores
    if table is None:
        assert answer.labels is not None
        table = np.where(np.arange(C) == answer.labels[:, None], 1.0, np.nan)
    np.savez(folder / "answers.npz", answers=table)
    return folder / "answers.npz"


def error(snapshot: Snapshot) -> float:
    return float(((snapshot.images - X) ** 2).mean())


def inverted(method: InversionNetwork, contract: Contract, public: Path, folder: Path, **given_under: Any) -> Snapshot:
    path = given(folder, given_under.get("given_under", contract))
    return finish(
        replace(method, public=public, given=path), ToyOracle(MODEL, SHAPE, contract, max_rows=64), range(200)
    )


def test_full_scores_give_everything_away_and_a_label_its_class(public: Path, tmp_path: Path) -> None:
    full, label = (error(inverted(FAST, contract, public, tmp_path)) for contract in (FULL, LABEL))
    place = X.reshape(200, C, 6).mean(2).argmax(1)
    classes = np.stack([X[place == c].mean(0) for c in range(C)])
    best = float(((classes[place] - X) ** 2).mean())  # that of the class means
    assert full < 0.05 * SPREAD
    assert 0.95 * best < label < 1.1 * best


def test_answers_that_tell_nothing_give_the_mean_image(public: Path, tmp_path: Path) -> None:
    """The negative control: the same network on another victim's answers."""
    path = given(tmp_path, FULL)
    with np.load(path) as file:
        answers = file["answers"]
    np.savez(path, answers=np.roll(answers, 1, axis=0))
    oracle = ToyOracle(MODEL, SHAPE, FULL, max_rows=64)
    assert error(finish(replace(FAST, public=public, given=path), oracle, range(200))) > 1.5 * SPREAD


def test_truncation_is_learned_and_prior_work_does_not_learn_it(public: Path, tmp_path: Path) -> None:
    two = Contract(top_k=2)
    ours = error(inverted(FAST, two, public, tmp_path))
    prior = error(inverted(replace(FAST, withheld="zero"), FULL, public, tmp_path, given_under=two))
    assert ours < 0.6 * SPREAD
    assert prior > 2 * ours


def test_scores_rounded_to_zero_are_harmless(public: Path, tmp_path: Path) -> None:
    coarse = inverted(FAST, Contract(round_to=0.4), public, tmp_path)
    assert np.isfinite(coarse.images).all()
    assert error(coarse) < 1.05 * SPREAD


def test_rescaling_matters(public: Path, tmp_path: Path) -> None:
    """Probabilities of a sure model are nearly one-hot; their logarithms are not (equation 9)."""
    sure, under = blocks(gain=3.0), {}
    for rescale in (True, False):
        with torch.no_grad():
            scores = release(sure(torch.from_numpy(X)).numpy(), FULL).scores
        np.savez(tmp_path / "answers.npz", answers=scores)
        method = replace(FAST, epochs=20, rescale=rescale, public=public, given=tmp_path / "answers.npz")
        under[rescale] = error(finish(method, ToyOracle(sure, SHAPE, FULL, max_rows=64), range(200)))
    assert under[True] < 0.7 * under[False]


def test_every_image_is_paid_once(public: Path, tmp_path: Path) -> None:
    oracle = ToyOracle(MODEL, SHAPE, FULL, max_rows=64)
    method = replace(FAST, epochs=3, public=public, given=given(tmp_path, FULL))
    snapshot = finish(method, oracle, range(200))
    assert oracle.spent == oracle.shared == 1000
    assert snapshot.mark == 1000 / 200
    assert snapshot.extras["classes_seen"] == C
    assert len(snapshot.extras["held_out_mse"]) == 3
    again = ToyOracle(MODEL, SHAPE, FULL, max_rows=64)
    slow = finish(replace(method, queries_first=False), again, range(200))
    assert again.spent == 1000 + 3 * 900  # the held-out answers are in the first thousand
    np.testing.assert_array_equal(slow.images, snapshot.images)


def test_the_best_epoch_is_chosen_on_held_out_images(public: Path, tmp_path: Path) -> None:
    """A step that is far too long makes the error rise and fall: the network that is kept is the best one's."""
    method = replace(FAST, epochs=6, learning_rate=0.3, decay="none", public=public, given=given(tmp_path, FULL))
    oracle = ToyOracle(MODEL, SHAPE, FULL, max_rows=64)
    snapshot = finish(method, oracle, range(200))
    best = int(snapshot.extras["best_epoch"])
    held_out = snapshot.extras["held_out_mse"]
    assert held_out[best - 1] == held_out.min() < held_out.max()
    short = finish(replace(method, epochs=best), ToyOracle(MODEL, SHAPE, FULL, max_rows=64), range(200))
    np.testing.assert_array_equal(short.images, snapshot.images)


def test_a_stopped_training_goes_on(public: Path, tmp_path: Path) -> None:
    method = replace(FAST, epochs=4, public=public, given=given(tmp_path, FULL))

    class Stops(ToyOracle):
        def notice(self, text: str) -> None:
            if text.startswith("epoch 2 "):
                raise KeyboardInterrupt

    stopped, undisturbed = Stops(MODEL, SHAPE, FULL, max_rows=64), ToyOracle(MODEL, SHAPE, FULL, max_rows=64)
    with pytest.raises(KeyboardInterrupt):
        finish(method, stopped, range(200))
    resumed = ToyOracle(MODEL, SHAPE, FULL, max_rows=64)
    told: list[str] = []
    resumed.notice = told.append  # type: ignore[method-assign]
    resumed.__dict__["folder"] = stopped.folder
    again = finish(method, resumed, range(200))
    assert [text.split(":")[0] for text in told] == ["epoch 3 of 4", "epoch 4 of 4"]
    np.testing.assert_array_equal(again.images, finish(method, undisturbed, range(200)).images)
    assert len(json.loads((stopped.folder / "training.json").read_text())["seconds"]) == 4


def test_a_budget_that_ends_early_is_used_up(public: Path, tmp_path: Path) -> None:
    class Poor(ToyOracle):
        def _answer(self, inputs: np.ndarray, targets: np.ndarray | int | None) -> Any:
            if self.spent + len(inputs) > 200:
                raise BudgetSpent("the budget is spent")
            return super()._answer(inputs, targets)

    method = replace(FAST, epochs=2, public=public, given=given(tmp_path, FULL))
    oracle = Poor(MODEL, SHAPE, FULL, max_rows=64)
    made = []
    with pytest.raises(BudgetSpent):
        made.extend(method.run(oracle, list(range(200)), 0))
    (snapshot,) = made  # of what was answered before
    assert snapshot.images.shape == (200, *SHAPE)
    assert 0 < oracle.spent <= 200


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"epochs": 0}, "epochs, batch_size, width"),
        ({"hidden": -1}, "rows and hidden must not be below 0"),
        ({"held_out": 1.0}, "held_out=1.0 must lie between"),
        ({"decay": "linear"}, "decay='linear' must be one of none, cosine"),
        ({"withheld": "mean"}, "withheld='mean' must be one of told, zero"),
        ({"rows": 3}, "3 auxiliary images are too few"),
        ({"public": None}, "needs an auxiliary set"),
        ({"pose": "up"}, "no pose 'up'"),
    ],
)
def test_bad_settings_cost_nothing(public: Path, change: dict[str, Any], sentence: str) -> None:
    oracle = ToyOracle(MODEL, SHAPE, FULL)
    with pytest.raises(ValueError, match=sentence):
        list(replace(FAST, **({"public": public} | change)).run(oracle, [0], 0))
    assert oracle.spent == 0
