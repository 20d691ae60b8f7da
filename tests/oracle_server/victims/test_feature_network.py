"""The network that tells morphometrics: it learns, is found again in the cache, and is hosted with what it has seen."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from oracle_server.models.repository import Repository
from oracle_server.victims import feature_network
from oracle_server.victims.feature_network import (
    FeatureNetwork,
    FeatureRecipe,
    train_and_host_features,
    train_feature_network,
)
from oracle_server.victims.images import ImageSet
from oracle_server.victims.morphometrics import OUTPUTS, morphometrics
from protos import archive

QUICK = FeatureRecipe(steps=2, batch_size=8, width=2)


def strokes(count: int, seed: int, side: int = 24) -> np.ndarray:
    """Images (N, 1, side, side) of two thick line segments each, as much like digits as three numbers make them."""
    rng = np.random.default_rng(seed)
    ends = rng.uniform(0.15, 0.85, (count, 2, 2, 2)) * side
    grid = np.stack(np.meshgrid(np.arange(side), np.arange(side), indexing="ij"), axis=-1) + 0.5
    along = ends[:, :, 1] - ends[:, :, 0]
    to = grid[None, None] - ends[:, :, 0][:, :, None, None]
    share = np.clip((to * along[:, :, None, None]).sum(-1) / (along**2).sum(-1)[:, :, None, None], 0, 1)
    away = np.linalg.norm(to - share[..., None] * along[:, :, None, None], axis=-1).min(axis=1)
    return np.clip(rng.uniform(1.5, 2.5, (count, 1, 1)) - away, 0, 1)[:, None].astype(np.float32)


def test_it_learns_far_more_than_the_mean(tmp_path: Path) -> None:
    """On shapes never seen, its error is well below that of telling everybody's mean."""
    learned, unseen = strokes(600, 0), strokes(100, 1)
    recipe = FeatureRecipe(steps=144, batch_size=50, width=8, learning_rate=5e-3)
    module = train_feature_network(learned, recipe=recipe, cache=tmp_path).module
    truth = morphometrics(unseen)
    mean = np.abs(truth - morphometrics(learned).mean(axis=0)).mean()
    error = np.abs(module(torch.from_numpy(unseen)).numpy() - truth).mean()
    assert error < 0.65 * mean
    untrained = FeatureNetwork(80, (1, 24, 24), 8).eval()
    with torch.no_grad():
        assert np.abs(untrained(torch.from_numpy(unseen)).numpy() - truth).mean() > 0.9 * mean, "negative control"


def test_the_cache_knows_what_made_it(tmp_path: Path) -> None:
    images = strokes(20, 0)
    first = train_feature_network(images, recipe=QUICK, cache=tmp_path)
    again = train_feature_network(images, recipe=QUICK, cache=tmp_path)
    assert (first.cached, again.cached, first.key) == (False, True, again.key)
    torch.testing.assert_close(again.module.state_dict(), first.module.state_dict(), rtol=0, atol=0)
    others = [
        train_feature_network(images, recipe=QUICK, seed=1, cache=tmp_path),
        train_feature_network(images[:19], recipe=QUICK, cache=tmp_path),
        train_feature_network(images, recipe=FeatureRecipe(steps=3, batch_size=8, width=2), cache=tmp_path),
    ]
    assert len({first.key, *(other.key for other in others)}) == 4
    elsewhere = train_feature_network(images, recipe=QUICK, cache=tmp_path / "new")
    torch.testing.assert_close(elsewhere.module.state_dict(), first.module.state_dict(), rtol=0, atol=0)


def test_progress_counts_epochs(tmp_path: Path) -> None:
    told = []
    train_feature_network(strokes(20, 0), recipe=QUICK, cache=tmp_path, progress=told.append)
    assert [(epoch.number, epoch.total) for epoch in told] == [(1, 1)]
    assert 0 < told[0].error < 1


def test_bad_trainings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="0 images are too few"):
        train_feature_network(strokes(3, 0)[:0], cache=tmp_path)
    with pytest.raises(ValueError, match="must be positive"):
        FeatureRecipe(steps=0)
    with pytest.raises(ValueError, match="must be positive"):
        FeatureRecipe(learning_rate=float("inf"))
    with pytest.raises(ValueError, match="at least 8 pixels"):
        FeatureNetwork(80, (1, 7, 9))
    with pytest.raises(ValueError, match="lower the learning rate"):
        train_feature_network(strokes(20, 0), recipe=FeatureRecipe(9, 8, 1e38, 2), cache=tmp_path)


@pytest.fixture
def toy_split(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    """Thirty strokes, of which five are test rows."""
    data = ImageSet(strokes(30, 5), np.arange(30) % 3, "strokes", credit="drawn")
    split = SimpleNamespace(name="toy", test=(1, 3, 5, 7, 9), sha256=lambda: "ab" * 32)
    monkeypatch.setattr(feature_network, "split_named", lambda name: split)
    monkeypatch.setattr(feature_network, "load", lambda split: data)
    monkeypatch.setenv("MIRAGE_CACHE", str(tmp_path / "cache"))
    return SimpleNamespace(data=data, split=split)


def test_it_is_hosted_with_the_rows_that_it_has_seen(toy_split: SimpleNamespace, tmp_path: Path) -> None:
    repository = Repository(tmp_path)
    card = train_and_host_features("toy", repository, name="faces", device="cpu", recipe=QUICK)
    assert (card.kind, card.outputs, card.deterministic, card.input_shape) == ("features", OUTPUTS, True, (1, 24, 24))
    assert "mean absolute error 0." in card.description
    folder = repository.archive(card).parent
    seen = json.loads((folder / "split.json").read_text())
    assert seen["rows"] == [row for row in range(30) if row not in toy_split.split.test]
    assert seen["data_sha256"] == toy_split.data.sha256()
    out = archive.load(folder / "model.pt2")(torch.from_numpy(toy_split.data.images))
    assert out.shape == (30, 80)
    with pytest.raises(FileExistsError, match="faces/1 is there already"):
        train_and_host_features("toy", repository, name="faces", device="cpu", recipe=QUICK)
    few = train_and_host_features("toy", repository, name="few", device="cpu", recipe=QUICK, rows=range(10, 20))
    assert json.loads((repository.archive(few).parent / "split.json").read_text())["rows"] == list(range(10, 20))
    assert few.archive_sha256 != card.archive_sha256


@pytest.mark.parametrize(
    ("rows", "sentence"), [([0, 1], "rows meet the test rows"), ([], "at least one"), ([0, 0], ""), ([30], "0 to 29")]
)
def test_rows_that_nobody_may_learn(rows: list[int], sentence: str, toy_split: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=sentence or "different"):
        train_and_host_features("toy", Repository(tmp_path), name="m", rows=rows, device="cpu", recipe=QUICK)
    assert not (tmp_path / "models").exists()
