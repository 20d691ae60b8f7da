"""The critic of a GAN: what it is penalised for, what of it is kept, what an archive of it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from attacker.priors.critic import Critic, gradient_penalty
from attacker.priors.dcgan import DCGAN
from attacker.priors.learning import Learning
from attacker.priors.train import train_prior
from tests.attacker.prior_cases import SHAPE, bars, distance

WASSERSTEIN = {"loss": "wasserstein", "critic_steps": 2, "width": 2, "latent": 3, "batch_size": 8}


def pair(n: int = 5) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return (
        torch.rand(n, *SHAPE, generator=draw),
        torch.rand(n, *SHAPE, generator=draw),
        torch.rand(n, 1, 1, 1, generator=draw),
    )


@pytest.mark.parametrize("length", [0.0, 1.0, 3.0])
def test_penalty_of_a_linear_critic_is_known(length: float) -> None:
    """D(x) = a x has the slope a everywhere: (|a| - 1)^2."""
    a = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    a = (length * a / a.norm()).requires_grad_(True)
    penalty = gradient_penalty(lambda x: (a * x).sum((1, 2, 3)), *pair())
    assert penalty.item() == pytest.approx((length - 1) ** 2, abs=1e-5)
    penalty.backward()
    assert a.grad is not None
    if length:  # d/da (|a| - 1)^2 = 2 (|a| - 1) a / |a|
        torch.testing.assert_close(a.grad, 2 * (length - 1) * a.detach() / length)


def test_penalty_is_taken_between_the_images() -> None:
    """D(x) = |x|^2 / 2 has the slope x, so that the penalty tells where it was taken."""
    x, made, between = pair()
    at = x + between * (made - x)
    there = (at.flatten(1).norm(dim=1) - 1).square().mean()
    penalty = gradient_penalty(lambda x: x.square().sum((1, 2, 3)) / 2, x, made, between)
    torch.testing.assert_close(penalty, there)
    assert penalty.item() != pytest.approx(gradient_penalty(lambda x: x.square().sum() / 2, made, x, between).item())


def test_what_is_kept_says_what_was_trained() -> None:
    x = torch.from_numpy(bars(6))
    critic = Critic(SHAPE, 4, low=-1.0, high=3.0)
    for _ in range(3):
        critic.unit(x)  # in training: the power iteration goes on
    told = critic.eval()(4 * x - 1)
    torch.testing.assert_close(told, critic.unit(x))  # its own range is scaled inside
    kept = critic.train().finished()
    assert torch.equal(kept(4 * x - 1), told)
    assert told.shape == (6, 1)
    assert not any("parametrizations" in name for name in kept.state_dict())
    assert not kept.training
    assert not any(p.requires_grad for p in kept.parameters())


def test_spectral_norm_is_the_hinge_losss_alone() -> None:
    for spectral in (True, False):
        made = Critic(SHAPE, 4, spectral=spectral)
        assert any("parametrizations" in name for name in made.state_dict()) == spectral
        assert not any(isinstance(layer, nn.BatchNorm2d) for layer in made.modules())


def test_a_critic_learns_which_images_are_real(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", bars())
    words = (
        "loss='wasserstein' steps=60 width=16 latent=4 batch_size=16 critic_steps=3 critic_rate=0.002 mirrored=False"
    )
    prior = train_prior("dcgan", words.split(), tmp_path, 0, tmp_path / "prior")
    assert prior.critic is not None
    real, noise = torch.from_numpy(bars(seed=1)), torch.rand(64, *SHAPE, generator=torch.Generator().manual_seed(0))
    assert prior.critic(real).min() > prior.critic(noise).max()
    x = real[:2].requires_grad_(True)
    prior.critic(x).sum().backward()  # an attack climbs it
    assert x.grad is not None
    assert x.grad.abs().max() > 0


def test_wasserstein_settings_change_what_is_learned(tmp_path: Path) -> None:
    def learned(**settings: object) -> torch.Tensor:
        method = DCGAN(**{**WASSERSTEIN, "steps": 3, **settings})  # type: ignore[arg-type]
        (tmp_path / repr(sorted(settings))).mkdir(exist_ok=True)
        made = method.learn(bars(), 0, Learning(tmp_path / repr(sorted(settings))))
        return torch.as_tensor(made.generator(torch.ones(1, 3)))

    plain = learned()
    assert torch.equal(learned(), plain)
    for other in ({"penalty": 0.0}, {"critic_steps": 1}, {"loss": "hinge"}):
        assert not torch.equal(learned(**other), plain)
    assert 0 < distance(plain.numpy()) < 1
