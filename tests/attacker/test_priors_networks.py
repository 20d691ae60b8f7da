"""Networks as priors: they learn, they resume bit for bit, their archives compute what they computed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from attacker.priors import KINDS
from attacker.priors.dcgan import DCGAN
from attacker.priors.layers import Generator
from attacker.priors.learning import Learning
from attacker.priors.prior import Prior
from attacker.priors.style import Style
from attacker.priors.train import train_prior
from attacker.priors.vae import VAE
from tests.attacker.prior_cases import PLACES, SHAPE, bars, distance, which

LEARNS = {  # settings that learn the bars in seconds
    "vae": "steps=150 width=8 latent=4 components=3 learning_rate=0.005 mirrored=False",
    "dcgan": "steps=300 width=16 latent=4 learning_rate=0.003 critic_rate=0.006 batch_size=16 average=0.95 shift=0.0"
    " mirrored=False",
    "style": "steps=200 width=16 latent=4 style=8 learning_rate=0.003 critic_rate=0.006 batch_size=16 average=0.95"
    " mirrored=False",
}
NEAR = 0.22  # between draws that look like the bars and draws that don't
STEPS = 6  # of a round, in these tests
QUICK = {
    "vae": VAE(steps=2 * STEPS + 2, width=2, latent=3, components=2, batch_size=8),
    "dcgan": DCGAN(steps=2 * STEPS + 2, width=2, latent=3, batch_size=8),
    "style": Style(steps=2 * STEPS + 2, width=2, latent=3, style=4, batch_size=8, critic_steps=2),
}
each = pytest.mark.parametrize("kind", sorted(QUICK))


@pytest.fixture
def public(tmp_path: Path) -> Path:
    np.save(tmp_path / "images.npy", bars())
    return tmp_path


@pytest.fixture(autouse=True)
def _short_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attacker.priors.rounds.STEPS", STEPS)


def drawn(prior: Prior) -> np.ndarray:
    return prior.images(prior.codes.draw(64, torch.Generator().manual_seed(5)))


@each
def test_draws_look_like_the_images(kind: str, public: Path, tmp_path: Path) -> None:
    words = LEARNS[kind].split()
    prior = train_prior(kind, words, public, 0, tmp_path / "prior")
    untrained = train_prior(kind, [*words, "steps=1"], public, 0, tmp_path / "untrained")
    assert prior.card.shape == SHAPE
    assert distance(bars(seed=1)) < distance(drawn(prior)) < NEAR < distance(drawn(untrained))
    assert which(drawn(prior)) == set(range(PLACES))
    assert distance(bars().mean(0, keepdims=True)) > NEAR  # a blur of all three is not near


def test_autoencoder_gives_images_back_and_its_error_falls(public: Path, tmp_path: Path) -> None:
    prior = train_prior("vae", LEARNS["vae"].split(), public, 0, tmp_path / "prior")
    x = bars(seed=2)
    assert np.sqrt(np.square(prior.images(prior.encode(x)) - x).mean()) < 0.15
    curve = json.loads((tmp_path / "prior" / "training.json").read_text())
    assert curve["error"][-1] < 0.5 * curve["error"][0]
    far = torch.full((1, 4), 9.0)
    assert prior.codes.log_density(prior.encode(x)).median() > prior.codes.log_density(far).item()


class Stops(Exception):
    """What a progress bar raises where a test wants a training to end."""


def stop_at(step: int) -> Callable[[int, int, str], None]:
    def progress(done: int, total: int, words: str) -> None:
        if done == step:
            raise Stops

    return progress


def weights(learned: Any) -> list[torch.Tensor]:
    parts = [part for part in (learned.generator, learned.encoder, learned.critic) if part is not None]
    return [tensor for part in parts for tensor in part.state_dict().values()]


def learning(at: Path, progress: Callable[[int, int, str], None] = lambda done, total, words: None) -> Learning:
    at.mkdir(exist_ok=True)
    return Learning(at, progress=progress)


@each
@pytest.mark.parametrize("step", [STEPS - 3, STEPS + 4])
def test_a_stopped_training_ends_as_an_undisturbed_one(kind: str, step: int, tmp_path: Path) -> None:
    x, method = bars(), QUICK[kind]
    undisturbed = method.learn(x, 3, learning(tmp_path / "whole"))
    with pytest.raises(Stops):
        method.learn(x, 3, learning(tmp_path / "stopped", stop_at(step)))
    torch.randn(7)  # what else is drawn changes nothing
    seen: list[int] = []
    resumed = method.learn(x, 3, learning(tmp_path / "stopped", lambda done, total, words: seen.append(done)))
    assert (seen[0], seen[-1]) == (step // STEPS * STEPS, 2 * STEPS + 2)
    assert all(torch.equal(a, b) for a, b in zip(weights(resumed), weights(undisturbed), strict=True))
    assert torch.equal(resumed.codes.means, undisturbed.codes.means)
    other = method.learn(x, 4, learning(tmp_path / "stopped"))  # another seed starts anew, whatever the folder holds
    assert not all(torch.equal(a, b) for a, b in zip(weights(other), weights(undisturbed), strict=True))


@each
def test_archives_compute_the_same_numbers(kind: str, public: Path, tmp_path: Path) -> None:
    learned = QUICK[kind].learn(bars(), 0, learning(tmp_path / "learned"))
    settings = [f"{name}={value}" for name, value in vars(QUICK[kind]).items()]
    prior = train_prior(kind, settings, public, 0, tmp_path / "prior")
    z = prior.codes.draw(20, torch.Generator().manual_seed(0))
    rounding = 0 if prior.layers == 1 else 1e-6  # an archive without views is laid out anew
    np.testing.assert_allclose(prior.generator(z).numpy(), learned.generator(z).numpy(), rtol=0, atol=rounding)
    if learned.encoder is not None and prior.encoder is not None:
        x = torch.from_numpy(bars())
        assert torch.equal(prior.encoder(x), learned.encoder(x))
    if learned.critic is not None and prior.critic is not None:
        x = torch.from_numpy(bars())
        torch.testing.assert_close(prior.critic(x), learned.critic(x))
        assert not torch.allclose(prior.critic(x), learned.critic(1 - x))
    assert (prior.encoder is None, prior.critic is None) == (learned.encoder is None, learned.critic is None)
    networks = {"generator.pt2"} if prior.layers == 1 else {"mapping.pt2", "synthesis.pt2"}
    left = {file.name for file in (tmp_path / "prior").iterdir()} - {"encoder.pt2", "critic.pt2"}
    assert left == {"card.json", "codes.npz", "samples.png", "training.json"} | networks  # and no checkpoint


@each
@pytest.mark.parametrize("shape", [(3, 19, 26), (1, 16, 16)])
def test_any_shape_and_range(kind: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    x = np.random.default_rng(0).uniform(-1, 3, (6, *shape)).astype(np.float32)
    np.save(tmp_path / "images.npy", x)
    prior = train_prior(kind, ["steps=3", "width=2", "latent=2"], tmp_path, 0, tmp_path / "prior")
    images = drawn(prior)
    assert images.shape == (64, *shape)
    assert (prior.card.low, prior.card.high) == (x.min(), x.max())
    assert x.min() <= images.min() < images.max() <= x.max()
    z = torch.zeros(1, 2, requires_grad=True)
    prior.decode(z).sum().backward()
    assert z.grad is not None
    assert z.grad.abs().max() > 0


def test_averaged_weights_have_batch_statistics_of_their_own(tmp_path: Path) -> None:
    """The first layer's inputs are those of N(0, I): its normalised outputs have mean 0 and variance 1."""
    learned = QUICK["dcgan"].learn(bars(), 0, learning(tmp_path))
    made: list[torch.Tensor] = []
    assert isinstance(learned.generator, Generator)
    norm = learned.generator.blocks[0]
    norm.register_forward_hook(
        lambda module, inputs, output: made.append((output - module.bias[:, None, None]) / module.weight[:, None, None])
    )
    learned.generator(learned.codes.draw(4000, torch.Generator().manual_seed(0)))
    assert made[0].mean((0, 2, 3)).abs().max() < 0.1
    assert (made[0].var((0, 2, 3)) - 1).abs().max() < 0.2
    norm.reset_running_stats()
    learned.generator(learned.codes.draw(4000, torch.Generator().manual_seed(0)))
    assert (made[1].var((0, 2, 3)) - 1).abs().max() > 0.2


@each
@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"latent": 0}, "latent=0 must be at least 1"),
        ({"steps": 0}, "steps=0 must be at least 1"),
        ({"width": -1}, "width=-1 must be at least 1"),
        ({"batch_size": 0}, "batch_size=0 must be at least"),
        ({"learning_rate": 0.0}, "learning_rate=0.0 must be above 0"),
        ({"learning_rate": float("nan")}, "learning_rate=nan must be above 0"),
    ],
)
def test_settings_out_of_range_are_refused(kind: str, wrong: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=sentence):
        KINDS[kind](**wrong).learn(bars(), 0, learning(tmp_path))


@pytest.mark.parametrize(
    ("method", "sentence"),
    [
        (VAE(components=0), "components=0 must be at least 1"),
        (VAE(beta=0.0), "beta=0.0 must be above 0"),
        (VAE(batch_size=1), "batch_size=1 must be at least 2"),
        (DCGAN(batch_size=1), "batch_size=1 must be at least 2"),
        (DCGAN(critic_rate=-1.0), "critic_rate=-1.0 must be above 0"),
        (DCGAN(average=1.0), "average=1.0 must be at least 0 and below 1"),
        (DCGAN(shift=0.6), "shift=0.6 must lie between 0 and 0.5"),
        (DCGAN(loss="least squares"), "loss=least squares must be one of hinge, wasserstein"),  # type: ignore[arg-type]
        (DCGAN(penalty=-1.0), "penalty=-1.0 must be at least 0"),
        (DCGAN(critic_steps=0), "critic_steps=0 must be at least 1"),
        (Style(style=0), "style=0 must be at least 1"),
        (Style(mixing=1.5), "mixing=1.5 must lie between 0 and 1"),
        (Style(loss="least squares"), "loss=least squares must be one of hinge, wasserstein"),  # type: ignore[arg-type]
        (Style(penalty=float("inf")), "penalty=inf must be at least 0 and finite"),
    ],
    ids=str,
)
def test_their_own_settings_too(method: Any, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=sentence):
        method.learn(bars(), 0, learning(tmp_path))


@each
def test_images_that_teach_nothing_are_refused(kind: str, tmp_path: Path) -> None:
    for images, sentence in ((bars(1), "one image"), (np.zeros((5, 1, 7, 9), np.float32), "too small")):
        with pytest.raises(ValueError, match=sentence):
            QUICK[kind].learn(images, 0, learning(tmp_path))


def test_without_the_package_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.mixture", None)
    with pytest.raises(ValueError, match="scikit-learn, which is not installed"):
        QUICK["vae"].learn(bars(), 0, learning(tmp_path))
    assert not list(tmp_path.iterdir())  # nothing was trained in vain
