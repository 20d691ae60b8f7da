"""The control: public images that fool the target, within a size, which is the optimum where there is a closed form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from attacker.attacks import Adversarial
from attacker.attacks.descent import identity_loss
from attacker.needs import refuse
from attacker.snapshot import Snapshot
from tests.attacker.latent_cases import Counted
from tests.toy import FULL, SHAPE, WEIGHTS, C, D, ToyOracle, blocks, finish, random_model, softmax_regression

STARTS = 6


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise, a little wider than the range of the target."""
    folder = tmp_path_factory.mktemp("public")
    np.save(folder / "images.npy", np.random.default_rng(0).uniform(-0.1, 1.1, (40, *SHAPE)).astype(np.float32))
    return folder


def method(public: Path | None, **settings: Any) -> Adversarial:
    return Adversarial(public=public, **{"starts": STARTS} | settings)


def oracle(model: torch.nn.Module, **settings: Any) -> ToyOracle:
    return ToyOracle(model, SHAPE, WEIGHTS, **settings)


def margins(model: torch.nn.Module, samples: np.ndarray) -> np.ndarray:
    """Of each target's samples (T, n, *SHAPE), (T, n)."""
    label = torch.arange(len(samples)).repeat_interleave(samples.shape[1])
    logits = model(torch.from_numpy(samples.reshape(-1, *SHAPE)))
    return np.asarray(identity_loss(logits, label, "margin").reshape(samples.shape[:2]))


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-0.5, 2.5)])
@pytest.mark.parametrize("size", [0.03, 0.2])
def test_images_stay_within_size_and_range(low: float, high: float, size: float, public: Path) -> None:
    extras = finish(method(public, size=size), oracle(random_model(), low=low, high=high)).extras
    samples, originals = extras["samples"], extras["originals"]
    assert samples.shape == originals.shape == (C, STARTS, *SHAPE)
    assert low <= samples.min()
    assert samples.max() <= high
    assert abs(samples - originals).max() == pytest.approx(size * (high - low), abs=1e-6)


def test_originals_are_public_images(public: Path) -> None:
    images = np.load(public / "images.npy").clip(0, 1).reshape(40, D)
    found = {}
    for seed in (0, 1):
        originals = finish(method(public), oracle(random_model()), seed=seed).extras["originals"].reshape(-1, D)
        rows = [np.flatnonzero((images == of).all(1)).tolist() for of in originals]
        assert all(len(of) == 1 for of in rows)
        found[seed] = [of[0] for of in rows]
        assert len(set(found[seed])) > STARTS  # targets do not share them
    assert found[0] != found[1]


def test_the_optimum_of_a_linear_target(public: Path) -> None:
    """Of two classes the margin has one slope, and every pixel goes as far down it as it may."""
    weight = np.random.default_rng(1).normal(size=(2, D))
    last = finish(method(public, size=0.1, steps=12), oracle(softmax_regression(weight)), [0, 1])
    sign = np.sign(weight[0] - weight[1]).reshape(SHAPE)
    towards = 0.1 * np.array([1, -1]).reshape(2, 1, 1, 1, 1) * sign
    wanted = (last.extras["originals"] + towards).clip(0, 1)
    np.testing.assert_allclose(last.extras["samples"], wanted, atol=1e-6)


def test_the_target_is_fooled(public: Path) -> None:
    model = random_model()
    last = finish(method(public, size=0.5), oracle(model))
    before, after = margins(model, last.extras["originals"]), margins(model, last.extras["samples"])
    assert (after < before).all()
    assert before.max(1).min() > 0  # some are of another class
    assert (after < 0).all()
    tiny = finish(method(public, size=1e-4), oracle(model))  # a control
    assert (margins(model, tiny.extras["samples"]) > 0).mean() == pytest.approx((before > 0).mean(), abs=0.05)
    assert (before > 0).mean() > 0.5


def test_the_margin_falls_and_the_image_is_the_best(public: Path) -> None:
    model, lowest = blocks(gain=0.5), []
    last: Snapshot | None = None
    for last in method(public, size=0.3, steps=40).run(oracle(model), list(range(C)), 0):
        lowest.append(margins(model, last.images[:, None])[:, 0])
    assert last is not None
    assert len(lowest) > 3
    assert (np.diff(lowest, axis=0) <= 0.05).all()
    assert (lowest[-1] < lowest[0] - 1).all()
    samples = last.extras["samples"]
    best = margins(model, samples).argmin(1)
    assert (last.images == samples[np.arange(C), best]).all()
    assert len(set(best.tolist())) > 1


def test_marks_count_evaluations(public: Path) -> None:
    model = Counted(random_model())
    asked = oracle(model)
    model.rows, marks = 0, []
    for snapshot in method(public, steps=30).run(asked, [0, 3], 0):
        marks.append(snapshot.mark)
        assert snapshot.mark == model.rows / 2
    assert marks[0] == STARTS
    assert marks[-1] == 30 * STARTS
    assert marks == sorted(set(marks))
    assert asked.spent == 0


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"public": None}, "^adversarial changes public images: name a folder with images.npy"),
        *(({name: 0}, f"^{name}=0 must be above 0 and finite$") for name in ("size", "step", "steps", "starts")),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], sentence: str, public: Path) -> None:
    with pytest.raises(ValueError, match=sentence):
        finish(method(**{"public": public} | settings), oracle(random_model()))


def test_images_that_do_not_fit(public: Path) -> None:
    with pytest.raises(ValueError, match="name a folder that was published for this model"):
        finish(method(public), ToyOracle(random_model(), (1, 6, 4), WEIGHTS))


def test_scores_are_not_enough() -> None:
    assert "needs the weights, but" in str(refuse(Adversarial.needs, FULL, C))
