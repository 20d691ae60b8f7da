"""The floor: best of n, by a search of everything that was asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from attacker.attacks import RandomDraws
from attacker.priors.prior import load_prior
from tests.attacker.latent_cases import save_affine
from tests.toy import (
    FULL,
    LABEL,
    SHAPE,
    C,
    Contract,
    D,
    ToyOracle,
    finish,
    random_model,
    softmax_regression,
)


def test_random_draws_keep_the_best() -> None:
    model = random_model()
    oracle = ToyOracle(model, SHAPE)
    snapshots = list(RandomDraws(draws=1500).run(oracle, list(range(C)), 0))
    assert [snapshot.mark for snapshot in snapshots] == [100, 300, 375]
    assert oracle.shared == oracle.spent == 1500
    seen = np.concatenate(oracle.asked)
    p = model(torch.from_numpy(seen)).double().softmax(1).numpy()
    for n, snapshot in zip((400, 1200, 1500), snapshots, strict=True):
        assert (snapshot.images == seen[p[:n].argmax(0)]).all()


def test_random_draws_of_labels_keep_the_first() -> None:
    model = random_model()
    oracle = ToyOracle(model, SHAPE, LABEL)
    last = finish(RandomDraws(draws=300), oracle)
    seen = np.concatenate(oracle.asked)
    labels = model(torch.from_numpy(seen)).argmax(1).numpy()
    for c in range(C):
        first = seen[(labels == c).argmax()] if (labels == c).any() else np.zeros(SHAPE)
        assert (last.images[c] == first).all()
        assert last.extras["found"][c] == (labels == c).any()


def test_nothing_found_is_said() -> None:
    model = softmax_regression(np.zeros((C, D)), np.array([5.0, 0, 0, 0]))
    last = finish(RandomDraws(draws=50), ToyOracle(model, SHAPE, LABEL))
    assert last.extras["found"].tolist() == [True, False, False, False]
    assert not last.images[1:].any()


def test_random_draws_of_public_images(tmp_path: Path) -> None:
    images = np.random.default_rng(3).random((5, *SHAPE), np.float32)
    np.save(tmp_path / "images.npy", images)
    last = finish(RandomDraws(draws=100, public=tmp_path), ToyOracle(random_model(), SHAPE))
    assert all(any((image == one).all() for one in images) for image in last.images)


@pytest.mark.parametrize("contract", [FULL, LABEL])
def test_random_draws_of_a_prior(contract: Contract, tmp_path: Path) -> None:
    """Images of the prior's codes as its seed draws them, each for all targets; the best or first of them are kept."""
    axes = 0.2 * np.random.default_rng(2).normal(size=(5, D))
    folder = save_affine(tmp_path / "prior", axes, 0.5, shape=SHAPE, low=0.0, high=1.0)
    model, prior = random_model(), load_prior(folder)
    oracle = ToyOracle(model, SHAPE, contract, max_rows=50)
    last = finish(RandomDraws(draws=330, prior=folder, public=tmp_path / "nothing"), oracle, seed=4)
    assert oracle.shared == oracle.spent == 330
    assert last.mark == 330 / C
    random, seen = torch.Generator().manual_seed(4), np.concatenate(oracle.asked)
    drawn = np.concatenate([prior.images(prior.codes.draw(len(batch), random)) for batch in oracle.asked])
    np.testing.assert_array_equal(seen, drawn)
    p = model(torch.from_numpy(seen)).double().softmax(1).numpy()
    labels = p.argmax(1)
    for c in range(C):
        place = p[:, c].argmax() if contract is FULL else (labels == c).argmax()
        assert last.extras["found"][c] == (contract is FULL or c in labels)
        np.testing.assert_array_equal(last.images[c], seen[place] if last.extras["found"][c] else np.zeros(SHAPE))
    assert last.extras["found"].sum() > 1
    other = finish(RandomDraws(draws=330, prior=folder), ToyOracle(model, SHAPE, contract, max_rows=50), seed=5)
    assert (other.images != last.images).any()


def test_a_prior_of_other_images(tmp_path: Path) -> None:
    folder = save_affine(tmp_path / "prior", shape=(1, 2, 3), low=0.0, high=1.0)
    oracle = ToyOracle(random_model(), SHAPE)
    with pytest.raises(ValueError, match="train one on what was published for it"):
        finish(RandomDraws(draws=10, prior=folder), oracle)
    assert oracle.spent == 0
