"""Families of distributions: their beginnings, densities that are those of their draws, and flows that are bijective.

Everything here is in double precision.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal, kl_divergence

from attacker.attacks.families import FAMILIES, Family, Flow, Gaussian, Mixture, family

G, M, K = 3, 4, 5  # distributions side by side, numbers in a code, components of a mixture
every_family = pytest.mark.parametrize("name", FAMILIES)


@pytest.fixture(autouse=True)
def _double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def made(name: str, seed: int = 0, groups: int = G, m: int = M, components: int = K) -> Family:
    return family(name, groups, m, components, random(seed))


@torch.no_grad()
def shaken(q: Family, by: float = 0.3) -> Family:
    """The same with every parameter changed by a normal number."""
    noise = random(7)
    for parameter in q.parameters():
        parameter.add_(by * torch.randn(parameter.shape, generator=noise))
    return q


def normal(v: Tensor, deviation: float = 1.0) -> Tensor:
    """log density of N(0, deviation^2 I)."""
    density: Tensor = Normal(0.0, deviation).log_prob(v).sum(-1)
    return density


def drawn(q: Family, n: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        v, log_q = q.draw(n, random(seed))
    return v, log_q


def away(values: Tensor, wanted: Tensor | float) -> Tensor:
    """How many standard errors the means of values (G, n) are from what was wanted."""
    errors: Tensor = (values.mean(1) - wanted).abs() / (values.std(1) / values.shape[1] ** 0.5)
    return errors


@pytest.mark.parametrize("name", ["gaussian", "flow"])
def test_it_begins_as_a_standard_normal(name: str) -> None:
    v, log_q = drawn(made(name), 50)
    np.testing.assert_allclose(log_q, normal(v), rtol=1e-12)
    np.testing.assert_allclose(v, torch.randn(G, 50, M, generator=random(1)), rtol=1e-12)
    v, log_q = drawn(shaken(made(name)), 50)
    assert (log_q - normal(v)).abs().amax(1).min() > 0.1  # a control


def test_a_mixture_begins_as_components_that_are_together_a_standard_normal() -> None:
    v, _ = drawn(made("mixture", components=1000, m=8), 1000)  # each component once, 24,000 numbers
    assert abs(v.mean()) < 4 / 24_000**0.5
    assert abs(v.square().mean() - 1) < 4 * (2 / 24_000) ** 0.5  # which no deviation of 0.98 or 1.02 passes
    first, other = made("mixture", 0), made("mixture", 1)
    assert not torch.equal(drawn(first, 9)[0], drawn(other, 9)[0])  # means are of a seed


def test_the_density_of_a_mixture_by_brute_force() -> None:
    q = shaken(made("mixture"))
    assert isinstance(q, Mixture)
    v, log_q = drawn(q, 50)
    for g in range(G):
        parts = Independent(Normal(q.mean[g], q.log_scale[g].exp()), 1)
        wanted = MixtureSameFamily(Categorical(torch.ones(K)), parts).log_prob(v[g])
        np.testing.assert_allclose(log_q[g].numpy(), wanted.detach(), rtol=1e-10)


@every_family
def test_draws_follow_their_density(name: str) -> None:
    """The mean of p / q over draws of q is 1 for every density p."""
    v, log_q = drawn(shaken(made(name, m=3), 0.1 if name == "flow" else 0.2), 40_000)
    dense = v[torch.arange(G), log_q.argmax(1)]
    log_p = normal(v - dense[:, None], deviation=0.3)
    weights, wrong = (log_p - log_q).exp(), (log_p - normal(v)).exp()
    assert (weights.std(1) / 200).max() < 0.03
    assert away(weights, 1.0).max() < 4
    assert away(wrong, 1.0).min() > 6  # a control: the density before the change


def test_the_divergence_of_a_gaussian() -> None:
    q = shaken(made("gaussian"), 0.5)
    assert isinstance(q, Gaussian)
    closed = q.divergence().detach()
    np.testing.assert_allclose(
        closed, kl_divergence(Normal(q.mean, q.log_scale.exp()), Normal(0.0, 1.0)).sum(1).detach(), rtol=1e-12
    )
    v, log_q = drawn(q, 40_000)
    assert away(log_q - normal(v), closed).max() < 4
    assert away(log_q - normal(v), closed.roll(1)).min() > 10  # a control: that of another Gaussian


def flow() -> Flow:
    """With a chain that is far from the identity."""
    q = shaken(made("flow"))
    assert isinstance(q, Flow)
    return q


def test_a_flow_is_bijective() -> None:
    q, u = flow(), torch.randn(G, 200, M, generator=random(1))
    v, _ = drawn(q, 200)
    straight = q.mean[:, None] + q.log_scale.exp()[:, None] * u
    assert (v - straight).abs().amax(1).min() > 0.1  # the couplings change every number
    with torch.no_grad():
        np.testing.assert_allclose(q.inverse(v), u, atol=1e-5)


@pytest.mark.parametrize("coupling", range(4))
def test_every_coupling_of_a_flow_counts(coupling: int) -> None:
    """A control: without any one of them it is not the inverse, for every distribution."""
    q, u = flow(), torch.randn(G, 200, M, generator=random(1))
    v, _ = drawn(q, 200)
    with torch.no_grad():
        for name, parameter in zip(q._names, q.stacked, strict=True):
            if name.startswith(f"parts.{coupling}.hyper.2"):
                parameter.zero_()
        assert (q.inverse(v) - u).abs().amax((1, 2)).min() > 0.1


def test_the_volume_of_a_flow_is_that_of_its_jacobian() -> None:
    q = flow()
    for seed in range(3):
        v, log_q = drawn(q, 1, seed)
        jacobian = torch.autograd.functional.jacobian(q.inverse, v)[:, 0, :, :, 0]  # (G, m, G, m)
        own = jacobian[torch.arange(G), :, torch.arange(G)]
        assert jacobian.abs().sum() == own.abs().sum()  # none depends on another
        with torch.no_grad():
            inner = normal(q.inverse(v))[:, 0]
        np.testing.assert_allclose(log_q[:, 0], inner + torch.linalg.slogdet(own)[1], rtol=1e-9)
        assert abs(log_q[:, 0] - inner).min() > 0.01  # a control: it has a volume


@every_family
def test_distributions_are_independent(name: str) -> None:
    q = shaken(made(name))
    v, log_q = drawn(q, 20)
    with torch.no_grad():
        for parameter in q.parameters():
            parameter[1] += 0.1
    others, later, log_later = [0, 2], *drawn(q, 20)
    np.testing.assert_allclose(later[others], v[others], rtol=1e-12)
    np.testing.assert_allclose(log_later[others], log_q[others], rtol=1e-12)
    assert (later[1] - v[1]).abs().min() > 1e-4


@every_family
def test_draws_have_gradients(name: str) -> None:
    q = shaken(made(name))
    v, log_q = q.draw(50, random())
    (v.square().sum() + log_q.sum()).backward()
    for parameter in q.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
        assert (parameter.grad.flatten(1) != 0).any(1).all()


@pytest.mark.parametrize("name", ["gaussian", "flow"])
def test_a_start_around_the_mean_of_codes(name: str) -> None:
    near = torch.tensor([-2.0, 0.0, 5.0])[:, None, None] + 0.6 * torch.randn(G, 40, M, generator=random())
    near[0, :, 0] *= 0.01  # narrower than a distribution may begin
    near[1, :, 0] *= 100  # and wider
    q = made(name)
    q.start(near)
    u, (v, log_q) = torch.randn(G, 9, M, generator=random(1)), drawn(q, 9)
    mean, deviation = near.mean(1, keepdim=True), near.std(1, keepdim=True).clamp(0.3, 1)
    assert {0.3, 1.0} < set(deviation.flatten().tolist())
    np.testing.assert_allclose(v, mean + deviation * u, rtol=1e-9)
    np.testing.assert_allclose(log_q, Normal(mean, deviation).log_prob(v).sum(2), rtol=1e-9)


@every_family
def test_a_start_around_one_code(name: str) -> None:
    q = made(name)
    q.start(torch.full((G, 1, M), 7.0))
    v, log_q = drawn(q, 4000)
    assert abs(v - 7).max() < 6 * 0.3
    assert 0.15 < v.std(1).min() < 0.35
    assert log_q.isfinite().all()


def test_the_components_of_a_mixture_start_at_one_code_each() -> None:
    q, near = made("mixture"), 10 * torch.randn(G, K, M, generator=random(3))
    q.start(near)
    v, _ = drawn(q, K)  # each component once, in no order
    nearest = torch.cdist(v, near).argmin(2)
    assert nearest.sort(1).values.tolist() == [list(range(K))] * G
    assert len({tuple(of) for of in nearest.tolist()}) == G
    assert abs(v - near.gather(1, nearest[..., None].expand(-1, -1, M))).max() < 5 * 0.2
    q.start(near[:, :2])  # fewer codes than components
    nearest = torch.cdist(drawn(q, K)[0], near).argmin(2)
    assert nearest.sort(1).values.tolist() == [[0, 0, 0, 1, 1]] * G


def times(q: Mixture, n: int, seed: int) -> np.ndarray:
    """How often the component at 10 k, for each k, is among n draws of each distribution, (G, K)."""
    k = (drawn(q, n, seed)[0][..., 0] / 10).round().long()
    return np.stack([np.bincount(of, minlength=K) for of in k])


@pytest.mark.parametrize("n", [1, 3, K, K + 2, 2 * K])
def test_components_are_drawn_as_often(n: int) -> None:
    """Up to one in n draws, and none is preferred: that one is of any."""
    q = made("mixture")
    assert isinstance(q, Mixture)
    with torch.no_grad():
        q.mean.copy_(10 * torch.arange(K)[:, None])
        q.log_scale.fill_(-3)
    found = np.array([times(q, n, seed) for seed in range(100)])
    assert (found.sum(2) == n).all()
    assert found.min() >= n // K
    assert found.max() <= -(-n // K)
    np.testing.assert_allclose(found.mean((0, 1)), n / K, atol=5 * 0.5 / 300**0.5)


@every_family
def test_a_seed_is_a_distribution(name: str) -> None:
    """What else is drawn in the process changes nothing, and making one does not change what is drawn after it."""
    torch.manual_seed(3)
    q = made(name)
    after = torch.randn(3)
    torch.manual_seed(3)
    assert torch.equal(after, torch.randn(3))
    again = made(name)
    assert all(torch.equal(a, b) for a, b in zip(q.parameters(), again.parameters(), strict=True))


def test_a_flow_needs_two_numbers() -> None:
    with pytest.raises(ValueError, match=r"^a flow couples the numbers of a code, .* have 1: choose another family$"):
        made("flow", m=1)
    assert drawn(made("gaussian", m=1), 2)[0].shape == (G, 2, 1)
    assert drawn(made("flow", m=2), 2)[0].shape == (G, 2, 2)


def test_a_flow_needs_zuko(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("zuko", "zuko.flows", "zuko.flows.coupling"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ValueError, match=r"^a flow is made of zuko's couplings, .* pip install 'mirage-range\[att"):
        made("flow")
    made("gaussian")
    made("mixture")
