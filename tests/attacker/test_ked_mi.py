"""KED-MI: its losses by hand, what the target tells the GAN, distributions around the right bar, and its price."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from attacker.attacks import KEDMI
from attacker.attacks.ked_mi import Discriminator, contest_loss, label_loss, prior_loss
from attacker.needs import refuse
from tests.attacker.prior_cases import PLACES, SHAPE, bars, which
from tests.toy import FULL, WEIGHTS, ToyOracle, constant, finish

TARGETS = list(range(PLACES))
LEARNS = {  # settings that learn the bars in seconds
    "latent": 4,
    "training_steps": 200,
    "width": 16,
    "learning_rate": 0.003,
    "critic_rate": 0.006,
    "mirrored": False,
    "steps": 60,
    "batch": 4,
    "step": 0.05,
    "samples": 20,
}
STEPS = 6  # of a round of the quick ones
QUICK = LEARNS | {"training_steps": 2 * STEPS + 2, "width": 2, "batch_size": 8, "steps": 12, "samples": 3}


class Places(nn.Module):
    """z_c = 20 * (mean of the columns of bar c): the class of an image is its bar's place."""

    def forward(self, x: Tensor) -> Tensor:
        return 20 * torch.stack([x[..., 5 * c : 5 * c + 5].mean((1, 2, 3)) for c in range(PLACES)], 1)


class Counted(nn.Module):
    """A model that counts the rows it is asked, and fails when there would be more than `most`."""

    def __init__(self, model: nn.Module, most: float = np.inf) -> None:
        super().__init__()
        self.inner, self.rows, self.most = model, 0, most

    def forward(self, x: Tensor) -> Tensor:
        self.rows += len(x)
        if self.rows > self.most:
            raise InterruptedError
        answer: Tensor = self.inner(x)
        return answer


@pytest.fixture
def public(tmp_path: Path) -> Path:
    np.save(tmp_path / "images.npy", bars())
    return tmp_path


@pytest.fixture
def _short_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attacker.priors.rounds.STEPS", STEPS)


def oracle(model: nn.Module | None = None) -> ToyOracle:
    return ToyOracle(model or Places(), SHAPE, WEIGHTS)


def curves(of: ToyOracle) -> dict[str, list[float]]:
    """Of the training, a number for each round."""
    found: dict[str, list[float]] = json.loads((of.folder / "training.json").read_text())
    return found


def share_right(samples: np.ndarray) -> np.ndarray:
    """The share of each target's samples (T, n, *SHAPE) with their bar at its place."""
    return np.array([np.mean([which(image[None]) == {c} for image in of]) for c, of in enumerate(samples)])


def test_losses_by_hand() -> None:
    """Z is the logit of p(real) = sum e^l / (1 + sum e^l), and the losses are the two halves of its cross-entropy."""
    told = torch.tensor([[0.3, -1.0, 0.5], [-2.0, -3.0, -1.5]], dtype=torch.float64)
    of_made = torch.tensor([[-4.0, -1.0, 0.0], [1.0, 2.0, -1.0]], dtype=torch.float64)
    real, made = (of.exp().sum(1) / (1 + of.exp().sum(1)) for of in (told, of_made))
    wanted = functional.binary_cross_entropy(real, torch.ones(2, dtype=torch.float64))
    wanted = wanted + functional.binary_cross_entropy(made, torch.zeros(2, dtype=torch.float64))
    assert float(contest_loss(told, of_made)) == pytest.approx(float(wanted), rel=1e-12)
    assert float(contest_loss(of_made, told)) != pytest.approx(float(wanted), rel=0.1)  # a control
    np.testing.assert_allclose(prior_loss(told), -real.log(), rtol=1e-12)
    soft = torch.tensor([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]], dtype=torch.float64)
    by_hand = -(soft * (told.exp() / told.exp().sum(1, keepdim=True)).log()).sum(1).mean()
    assert float(label_loss(told, soft)) == pytest.approx(float(by_hand), rel=1e-12)
    assert prior_loss(torch.tensor([[-200.0, -300.0]])).isfinite().all()


def test_the_discriminator_has_an_output_for_each_class() -> None:
    D = Discriminator(SHAPE, 4, 7).eval()  # noqa: N806
    x = torch.from_numpy(bars(3))
    f = D.features(x)
    assert D(x).shape == (3, 7)
    assert torch.equal(D.layers[-1](f), D.unit(x))
    assert f.shape == (3, D.layers[-1].in_features)


def test_soft_labels_reach_the_discriminator(public: Path) -> None:
    """It learns the classes of public images from the target alone; of a target that knows nothing, nothing."""
    method = KEDMI(public=public, **LEARNS | {"training_steps": 100, "entropy": 0.0})
    x = torch.from_numpy(bars(30, seed=1))
    places = Places()(x).argmax(1)
    losses, hits = {}, {}
    for name, model in (("knows", Places()), ("constant", constant(PLACES, int(np.prod(SHAPE))))):
        asked = oracle(model)
        _, D = method._learn(asked, model, bars(), 0)  # noqa: N806
        hits[name] = float((D(x).argmax(1) == places).double().mean())
        losses[name] = curves(asked)["labels"]
    assert losses["knows"][-1] < 0.01 < losses["knows"][0]
    assert hits["knows"] == 1
    assert min(losses["constant"]) == pytest.approx(np.log(PLACES), abs=0.02)  # the least there is
    assert hits["constant"] < 0.9


def test_images_that_the_target_is_sure_of(public: Path) -> None:
    """The generator's loss holds the entropy of the target's prediction."""
    unsure = {}
    for entropy in (1e-4, 1.0):
        asked = oracle()
        finish(KEDMI(public=public, **LEARNS | {"training_steps": 100, "entropy": entropy, "steps": 1}), asked, TARGETS)
        unsure[entropy] = curves(asked)["entropy"][-1]
    assert unsure[1.0] < 0.5 * unsure[1e-4]


@pytest.mark.parametrize("seed", [0, 1])
def test_a_distribution_around_the_right_bar(public: Path, seed: int) -> None:
    last = finish(KEDMI(public=public, **LEARNS), oracle(), TARGETS, seed)
    assert [which(image[None]) for image in last.images] == [{c} for c in TARGETS]
    samples, codes = last.extras["samples"], last.extras["codes"]
    assert samples.shape == (PLACES, 20, *SHAPE)
    assert codes.shape == (PLACES, 20, 4)
    assert share_right(samples).min() >= 0.8
    assert samples.std(1).mean((1, 2, 3)).min() > 0.01  # no two are alike
    assert 0 <= samples.min() <= samples.max() <= 1


def test_without_the_target_it_is_any_bar(public: Path) -> None:
    """A control."""
    last = finish(KEDMI(public=public, **LEARNS | {"weight": 1e-9}), oracle(), TARGETS)
    assert share_right(last.extras["samples"]).min() < 0.5


def test_the_image_is_the_best_of_the_last_draws(public: Path) -> None:
    """Of 64 draws of N(0, I), which no step has changed."""
    settings = QUICK | {"training_steps": 60, "width": 8, "steps": 1, "batch": 64, "step": 1e-9, "samples": 64}
    last = finish(KEDMI(public=public, **settings), oracle(), TARGETS)
    assert abs(last.extras["divergence"]).max() < 1e-6
    for c, (image, samples) in enumerate(zip(last.images, last.extras["samples"], strict=True)):
        best, others = (Places()(torch.from_numpy(x)).softmax(1)[:, c] for x in (image[None], samples))
        assert float(best) > float(others.quantile(0.8))


def test_snapshots_are_copies_in_range(public: Path) -> None:
    kept = []
    for snapshot in KEDMI(public=public, **QUICK | {"batch": 40}).run(oracle(), TARGETS, 0):
        kept.append((snapshot, snapshot.images.copy()))
        assert snapshot.images.shape == (PLACES, *SHAPE)
        assert snapshot.images.dtype == np.float32
        assert 0 <= snapshot.images.min() <= snapshot.images.max() <= 1
    assert len(kept) > 3
    assert all((snapshot.images == then).all() for snapshot, then in kept)


def test_the_divergence_is_that_of_the_codes(public: Path) -> None:
    settings = QUICK | {"steps": 40, "samples": 4000, "step": 0.1}
    extras = finish(KEDMI(public=public, **settings), oracle(), TARGETS).extras
    mean, variance = extras["codes"].mean(1), extras["codes"].var(1)
    wanted = 0.5 * (variance + mean**2 - 1 - np.log(variance)).sum(1)
    assert extras["divergence"].shape == (PLACES,)
    assert wanted.min() > 0.3
    np.testing.assert_allclose(extras["divergence"], wanted, rtol=0.1)


@pytest.mark.usefixtures("_short_rounds")
@pytest.mark.parametrize("most", [64 + 8 * (STEPS - 3), 64 + 8 * (STEPS + 4)])
def test_a_stopped_training_ends_as_an_undisturbed_one(public: Path, most: int) -> None:
    method = KEDMI(public=public, **QUICK)
    whole = finish(method, oracle(), TARGETS, 3)
    model = Counted(Places())
    stopped = oracle(model)
    model.rows, model.most = 0, most
    with pytest.raises(InterruptedError):
        finish(method, stopped, TARGETS, 3)
    torch.randn(7)  # what else is drawn changes nothing
    model.rows, model.most = 0, np.inf
    said: list[str] = []
    stopped.notice = said.append  # type: ignore[method-assign]
    resumed = finish(method, stopped, TARGETS, 3)
    done = (most - 64) // 8 // STEPS * STEPS
    assert said[0].startswith(f"training: step {done} of {2 * STEPS + 2}")
    assert model.rows == 64 + 8 * (2 * STEPS + 2 - done) + 12 * 4 * PLACES
    assert resumed.mark == whole.mark
    assert (resumed.images == whole.images).all()
    assert all((resumed.extras[name] == whole.extras[name]).all() for name in whole.extras)
    other = finish(method, stopped, TARGETS, 4)  # another seed starts anew, whatever the folder holds
    assert (other.images != whole.images).any()


@pytest.mark.parametrize("entropy", [1e-4, 0.0])
def test_marks_count_evaluations(public: Path, entropy: float) -> None:
    """Public images and generated ones are shared by the targets; without entropy the latter are not asked."""
    model = Counted(Places())
    asked = oracle(model)
    model.rows, marks = 0, []
    method = KEDMI(public=public, **QUICK | {"entropy": entropy})
    for snapshot in method.run(asked, [0, 2], 0):
        marks.append(snapshot.mark)
        assert snapshot.mark == model.rows / 2
    shared = 64 + 8 * (2 * STEPS + 2) * (entropy > 0)
    assert marks[0] == shared / 2 + 4
    assert marks[-1] == shared / 2 + 12 * 4
    assert snapshot.extras["evaluations_training"] == shared
    assert marks == sorted(set(marks))
    assert asked.spent == 0


def test_another_range_and_a_mirror(public: Path) -> None:
    """Images reach the target, and leave, in the range of its oracle."""
    np.save(public / "images.npy", 3 * bars() - 1)
    asked = ToyOracle(Places(), SHAPE, WEIGHTS, low=-1.0, high=2.0)
    last = finish(KEDMI(public=public, **QUICK | {"mirrored": True}), asked, TARGETS)
    assert -1 <= last.images.min() < 0
    assert 1 < last.images.max() <= 2
    plain = finish(KEDMI(public=public, **QUICK), asked, TARGETS)
    assert (plain.images != last.images).any()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"public": None}, "trains a GAN on public images: name a folder"),
        *(
            ({name: 0}, f"{name}=0 must be above 0")
            for name in (
                *("latent", "training_steps", "width", "learning_rate", "critic_rate"),
                *("weight", "steps", "batch", "step", "samples"),
            )
        ),
        ({"batch_size": 1}, "batch_size=1 must be at least 2"),
        ({"entropy": -1.0}, "entropy=-1.0 must be at least 0 and finite"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], sentence: str, public: Path) -> None:
    with pytest.raises(ValueError, match=sentence):
        finish(KEDMI(**QUICK | {"public": public} | settings), oracle(), TARGETS)


def test_images_that_do_not_fit(public: Path) -> None:
    with pytest.raises(ValueError, match="name a folder that was published for this model"):
        finish(KEDMI(public=public, **QUICK), ToyOracle(Places(), (1, 17, 17), WEIGHTS), TARGETS)
    with pytest.raises(ValueError, match="too small"):
        finish(KEDMI(public=public, **QUICK), ToyOracle(constant(3, 24), (1, 4, 6), WEIGHTS), TARGETS)


def test_scores_are_not_enough() -> None:
    assert "needs the weights, but" in str(refuse(KEDMI.needs, FULL, 3))
