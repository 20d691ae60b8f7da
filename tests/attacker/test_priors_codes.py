"""Codes: the density of a mixture against torch.distributions, draws against its moments, and files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributions

from attacker.priors.codes import Codes


def mixture() -> Codes:
    generator = torch.Generator().manual_seed(1)
    factors = torch.randn(3, 4, 4, generator=generator).tril() * 0.3
    factors.diagonal(dim1=1, dim2=2).abs_().add_(0.2)
    return Codes(torch.tensor([0.5, 0.3, 0.2]), torch.randn(3, 4, generator=generator), factors)


def by_torch(codes: Codes) -> distributions.Distribution:
    return distributions.MixtureSameFamily(
        distributions.Categorical(codes.weights),
        distributions.MultivariateNormal(codes.means, scale_tril=codes.factors),
    )


@pytest.mark.parametrize("codes", [mixture(), Codes.standard(4)], ids=["mixture", "standard"])
def test_density_is_that_of_torch(codes: Codes) -> None:
    z = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(codes.log_density(z), by_torch(codes).log_prob(z), rtol=1e-4, atol=1e-4)
    wrong = Codes(codes.weights, codes.means + 0.5, codes.factors)
    assert (wrong.log_density(z) - by_torch(codes).log_prob(z)).abs().max() > 0.1


def test_density_has_the_gradient_of_torch() -> None:
    codes, z = mixture(), torch.randn(5, 4, requires_grad=True)
    (found,) = torch.autograd.grad(codes.log_density(z).sum(), z)
    (wanted,) = torch.autograd.grad(by_torch(codes).log_prob(z).sum(), z)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("codes", [mixture(), Codes.standard(4)], ids=["mixture", "standard"])
def test_draws_have_mean_and_covariance_of_the_mixture(codes: Codes) -> None:
    n = 40_000
    z = codes.draw(n, torch.Generator().manual_seed(2))
    assert z.dtype == torch.float32
    away = codes.means - codes.centre
    wanted = torch.einsum(
        "k,kab->ab", codes.weights, codes.factors @ codes.factors.mT + away[:, :, None] * away[:, None]
    )
    error = codes.spread / n**0.5
    assert ((z.mean(0) - codes.centre).abs() < 5 * error).all()
    assert (z.T.cov() - wanted).abs().max() < 0.05
    torch.testing.assert_close(codes.spread, wanted.diagonal().sqrt())
    assert ((z.mean(0) - codes.centre - 0.1).abs() > 5 * error).all()  # another mean is told apart


def test_draws_follow_from_the_seed_alone() -> None:
    codes = mixture()
    first = codes.draw(5, torch.Generator().manual_seed(7))
    codes.draw(3, torch.Generator().manual_seed(8))
    assert torch.equal(first, codes.draw(5, torch.Generator().manual_seed(7)))
    assert not torch.equal(first, codes.draw(5, torch.Generator().manual_seed(8)))


def test_files_keep_every_bit(tmp_path: Path) -> None:
    codes = mixture()
    codes.save(tmp_path / "codes.npz")
    found = Codes.load(tmp_path / "codes.npz")
    for name in ("weights", "means", "factors"):
        assert torch.equal(getattr(found, name), getattr(codes, name))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"means": np.zeros(4)}, "no mixture of Gaussians"),
        ({"factors": np.full((3, 4, 4), np.nan)}, "no mixture of Gaussians"),
        ({"weights": np.array([0.5, 0.6, -0.1])}, "weights below 0"),
        ({"factors": np.zeros((3, 4, 4))}, "covariance of lower rank"),
        ({"means": None}, "holds no codes"),
        ({"means": np.array([{}], object)}, "holds no codes"),
    ],
)
def test_crafted_files_are_refused(change: dict[str, np.ndarray | None], sentence: str, tmp_path: Path) -> None:
    codes = mixture()
    parts = {name: getattr(codes, name).numpy() for name in ("weights", "means", "factors")} | change
    np.savez(tmp_path / "codes.npz", **{name: part for name, part in parts.items() if part is not None})
    with pytest.raises(ValueError, match=sentence):
        Codes.load(tmp_path / "codes.npz")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"text"])
def test_other_files_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "codes.npz").write_bytes(content)
    with pytest.raises(ValueError, match="holds no codes"):
        Codes.load(tmp_path / "codes.npz")
