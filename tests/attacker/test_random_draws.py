"""The floor: best of n, by a search of everything that was asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from attacker.attacks import RandomDraws
from tests.toy import (
    LABEL,
    SHAPE,
    C,
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
