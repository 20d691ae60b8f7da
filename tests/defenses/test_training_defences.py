"""What each training defence computes, against closed forms and implementations written another way."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence
from torch.nn import functional

from defenses.training import TRAINING, training_defence
from defenses.training.bido import Bido, dependence, gaussian_kernel, hsic
from defenses.training.dp_sgd import DpSgd, epsilon
from defenses.training.label_smoothing import LabelSmoothing, soft_cross_entropy
from defenses.training.mid import Bottleneck, Mid, rate
from defenses.training.structure import blocks, hidden_layers, last_linear
from defenses.training.transfer import Transfer


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


class Network(nn.Module):
    """Two blocks, a hidden linear layer and the logits of three classes."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Sequential(nn.Linear(4, 5), nn.ReLU()), nn.Sequential(nn.Linear(5, 6)))
        self.head = nn.Sequential(nn.Linear(6, 7), nn.Linear(7, 3))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.features(inputs))


def test_the_rules_of_structure() -> None:
    module = Network()
    assert blocks(module) == list(module.features)
    assert hidden_layers(module) == [*module.features, module.head[0]]
    assert last_linear(module, 3) == (module.head, "1", module.head[1])
    with pytest.raises(ValueError, match="does not end in a linear layer of 4 logits"):
        last_linear(module, 4)
    with pytest.raises(ValueError, match="Sequential has no hidden layers"):
        hidden_layers(nn.Sequential(nn.Linear(4, 3)))


@pytest.mark.parametrize(
    ("name", "parameters", "sentence"),
    [
        ("mit", {}, "there is no training defence 'mit'; there is none, mid, bido"),
        ("mid", {}, "defence mid needs beta: write mid:beta=NUMBER"),
        ("mid", {"gamma": 1}, "defence mid has no parameter 'gamma'; it has beta, width"),
        ("none", {"beta": 1}, "defence none has no parameter 'beta'; it has none"),
        ("mid", {"beta": "much"}, "defence mid: beta='much' must be a number"),
        ("mid", {"beta": -1}, "defence mid: beta=-1.0 must be a number from 0"),
        ("mid", {"beta": 1, "width": 0}, "defence mid: width=0 must be at least 1"),
        ("bido", {"lambda_x": math.nan, "lambda_y": 0}, "defence bido: lambda_x=nan must be a number from 0"),
        ("label_smoothing", {"alpha": 1}, "defence label_smoothing: alpha=1.0 must be a number below 1"),
        ("transfer", {"frozen": 1.5}, "defence transfer: frozen=1.5 must be a whole number"),
        ("transfer", {"frozen": math.inf}, "defence transfer: frozen=inf must be a whole number"),
        ("transfer", {"frozen": -1}, "defence transfer: frozen=-1 must be a number of blocks from 0"),
        ("dp_sgd", {"noise": -1}, "defence dp_sgd: noise=-1.0 must be a number from 0"),
        ("dp_sgd", {"noise": 1, "clip": 0}, "defence dp_sgd: clip=0.0 must be a number above 0"),
        ("dp_sgd", {"noise": 1, "delta": 1}, "defence dp_sgd: delta=1.0 must lie between 0 and 1"),
    ],
)
def test_a_sentence_for_each_that_cannot_be(name: str, parameters: dict[str, float], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        training_defence(name, parameters.items())


def test_no_strength_has_a_default() -> None:
    """A default that switches a defence off would pass for the defence in a table."""
    for name in TRAINING.keys() - {"none"}:
        with pytest.raises(ValueError, match=f"defence {name} needs"):
            training_defence(name)


# --- label smoothing


@pytest.mark.parametrize("alpha", [0.3, 0.0, -0.05, -2.0])
def test_soft_labels(alpha: float) -> None:
    logits, labels = torch.randn(6, 4, dtype=torch.double), torch.tensor([0, 1, 2, 3, 3, 0])
    soft = (1 - alpha) * functional.one_hot(labels, 4) + alpha / 4
    expected = -(soft * logits.log_softmax(1)).sum(1).mean()
    assert torch.allclose(soft_cross_entropy(logits, labels, alpha), expected)
    if alpha >= 0:
        assert torch.allclose(functional.cross_entropy(logits, labels, label_smoothing=alpha), expected)


def test_negative_smoothing_comes_late_and_positive_at_once() -> None:
    late, early = LabelSmoothing(-0.3), LabelSmoothing(0.3)
    assert [late.share(p) for p in (0, 0.5, 2 / 3)] == [0, 0, 0]
    assert late.share(5 / 6) == pytest.approx(-0.15)
    assert late.share(1) == pytest.approx(-0.3)
    assert {early.share(p) for p in (0, 0.5, 1)} == {0.3}
    module, inputs, labels = Network(), torch.rand(8, 4), torch.arange(8) % 3
    hard = functional.cross_entropy(module(inputs), labels)
    assert torch.allclose(late.loss(module, inputs, labels, 0.5)[0], hard)
    assert torch.allclose(late.loss(module, inputs, labels, 1.0)[0], soft_cross_entropy(module(inputs), labels, -0.3))
    assert not torch.allclose(late.loss(module, inputs, labels, 1.0)[0], hard)


# --- mid


def test_the_rate_is_the_divergence_in_nats() -> None:
    mu, s = torch.randn(5, 3), torch.rand(5, 3) + 0.1
    expected = kl_divergence(Normal(mu, s), Normal(torch.zeros(3), torch.ones(3))).sum(1)
    assert torch.allclose(rate(mu, s), expected, atol=1e-5)


def test_a_bottleneck_draws_while_it_learns_only() -> None:
    bottleneck = Bottleneck(6, 4, 3)
    features = torch.randn(2000, 6)
    assert not torch.equal(bottleneck(features), bottleneck(features))
    bottleneck.eval()
    answers = bottleneck(features)
    assert torch.equal(answers, bottleneck(features))
    assert torch.allclose(answers, bottleneck.logits(bottleneck.mean(features)))


def test_the_loss_of_a_bottleneck() -> None:
    module, inputs, labels = Network(), torch.rand(8, 4), torch.arange(8) % 3
    module = Mid(beta=0.5).wrap(module, 3)
    value, logits = Mid(beta=0.5).loss(module, inputs, labels, 0.0)
    (bottleneck,) = [part for part in module.modules() if isinstance(part, Bottleneck)]
    assert torch.allclose(value, functional.cross_entropy(logits, labels) + 0.5 * bottleneck.rate.mean())
    assert bottleneck.rate.shape == (8,)
    value.backward()
    assert bottleneck.spread.weight.grad is not None
    assert bottleneck.spread.weight.grad.abs().sum() > 0


# --- bido


def kernel_by_loops(view: np.ndarray) -> np.ndarray:
    m, d = view.shape
    sigma = 5 * math.sqrt(d)
    k_x = np.empty((m, m))
    for i in range(m):
        for j in range(m):
            k_x[i, j] = math.exp(-float(((view[i] - view[j]) ** 2).sum()) / (2 * sigma**2))
    return k_x


def hsic_by_matrices(k_x: np.ndarray, k_z: np.ndarray) -> float:
    m = len(k_x)
    centre = np.eye(m) - 1 / m
    return float(np.trace(k_x @ centre @ k_z @ centre)) / (m - 1) ** 2


def test_hsic_against_an_implementation_in_matrices() -> None:
    x, z = torch.randn(12, 5, dtype=torch.double), torch.randn(12, 2, 2, dtype=torch.double)
    k_x, k_z = kernel_by_loops(x.numpy()), kernel_by_loops(z.flatten(1).numpy())
    assert np.allclose(gaussian_kernel(x) + 1, k_x)
    expected = hsic_by_matrices(k_x, k_z)
    assert float(hsic(gaussian_kernel(x), gaussian_kernel(z))) == pytest.approx(expected, rel=1e-9)
    share = expected / math.sqrt(hsic_by_matrices(k_x, k_x) * hsic_by_matrices(k_z, k_z))
    assert float(dependence(gaussian_kernel(x), gaussian_kernel(z))) == pytest.approx(share, rel=1e-9)


def test_hsic_of_two_rows_in_closed_form() -> None:
    """Two rows at distance D: the kernel has 1 and k = exp(-D^2 / (50 d)), and with itself HSIC is (1 - k)^2."""
    view = torch.tensor([[0.0, 0.0], [3.0, 4.0]], dtype=torch.double)
    k = math.exp(-25 / (2 * 25 * 2))
    assert float(hsic(gaussian_kernel(view), gaussian_kernel(view))) == pytest.approx((1 - k) ** 2)


def test_independent_views_depend_little_and_dependent_ones_much() -> None:
    x = torch.randn(600, 1)
    far = dependence(gaussian_kernel(x), gaussian_kernel(torch.randn(600, 1)))
    near = dependence(gaussian_kernel(x), gaussian_kernel(2 * x + 0.1 * torch.randn(600, 1)))
    assert float(far) < 0.02
    assert float(near) > 0.9
    assert float(dependence(gaussian_kernel(x), gaussian_kernel(x))) == pytest.approx(1, abs=1e-4)
    assert float(dependence(gaussian_kernel(x), gaussian_kernel(torch.ones(600, 1)))) == 0


def test_the_loss_of_bilateral_dependency_sums_over_hidden_layers() -> None:
    module, inputs, labels = Network(), torch.rand(9, 4), torch.arange(9) % 3
    value, logits = Bido(0.7, 0.2).loss(module, inputs, labels, 0.0)
    first = module.features[0](inputs)
    layers = [first, module.features[1](first), module.head[0](module.features(inputs))]
    k_x, k_y = gaussian_kernel(inputs), gaussian_kernel(functional.one_hot(labels).float())
    terms = [0.7 * dependence(k_x, k_z) - 0.2 * dependence(k_y, k_z) for k_z in map(gaussian_kernel, layers)]
    assert torch.allclose(value, functional.cross_entropy(logits, labels) + sum(terms), atol=1e-5)
    assert not any(layer._forward_hooks for layer in module.modules())
    value.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in module.parameters())
    alone, logits = Bido(0.7, 0.2).loss(module, inputs[:1], labels[:1], 0.0)
    assert torch.equal(alone, functional.cross_entropy(logits, labels[:1]))


# --- transfer


def test_frozen_blocks_do_not_move_and_others_do() -> None:
    public, module = Network(), Network()
    module.features[0].append(nn.BatchNorm1d(5))
    public.features[0].append(nn.BatchNorm1d(5))
    defence = Transfer(1)
    defence.start(module, public)
    optimiser = torch.optim.AdamW(module.parameters(), 0.1, weight_decay=0.1)
    module.train()
    with defence.running(module, optimiser, 8, 8, 0) as (taught, steps):
        for _ in range(3):
            value, _ = defence.loss(taught, torch.rand(8, 4), torch.arange(8) % 3, 0.0)
            steps.zero_grad()
            value.backward()
            steps.step()
    ours, theirs = module.state_dict(), public.state_dict()
    same = {name for name in ours if torch.equal(ours[name], theirs[name])}
    assert same == {name for name in ours if name.startswith("features.0.")}


# --- dp_sgd


def test_epsilon_of_the_first_paper() -> None:
    """Abadi et al. (CCS 2016), section 3.2: q = 0.01, sigma = 4, delta = 1e-5, 10,000 steps: epsilon 1.26."""
    known = {"rows": 10_000, "batch_size": 100, "steps": 10_000, "delta": 1e-5}
    assert 0.9 < epsilon(4.0, **known) <= 1.26
    assert epsilon(1.0, **known) > 5 * 1.26
    assert epsilon(0.0, **known) == math.inf


def test_epsilon_of_one_step_on_all_rows() -> None:
    """The Gaussian mechanism: a Renyi divergence of a / (2 sigma^2) at each order a bounds it from above, and its
    mean loss 1 / (2 sigma^2) from below.
    """
    classic = 1 / (2 * 4) + math.sqrt(2 * math.log(1e5)) / 2
    assert 1 / (2 * 4) < epsilon(2.0, 10, 10, 1, 1e-5) < classic


def test_one_step_is_the_noisy_mean_of_clipped_gradients() -> None:
    inputs, labels = 5 * torch.randn(6, 4), torch.arange(6) % 3

    def moved(noise: float, clip: float, rows: int) -> Tensor:
        torch.manual_seed(1)
        layer = nn.Linear(4, 3, bias=False)
        before = layer.weight.detach().clone()
        defence = DpSgd(noise, clip)
        with defence.running(layer, torch.optim.SGD(layer.parameters(), 1.0), 6, 6, 0) as (taught, steps):
            steps.zero_grad()
            defence.loss(taught, inputs[:rows].clone(), labels[:rows], 0.0)[0].backward()
            steps.step()
        assert not layer._forward_hooks
        assert not vars(layer.weight)
        return before - layer.weight.detach()

    torch.manual_seed(1)
    layer = nn.Linear(4, 3, bias=False)
    grads = [
        torch.autograd.grad(functional.cross_entropy(layer(x[None]), y[None]), layer.weight)[0]
        for x, y in zip(inputs, labels, strict=True)
    ]
    clipped = sum(grad * min(1.0, 0.5 / float(grad.norm())) for grad in grads) / 6
    assert torch.allclose(moved(1e-9, 0.5, 6), clipped, atol=1e-5)
    assert torch.allclose(moved(1e-9, 1e3, 6), sum(grads) / 6, atol=1e-4)
    assert not torch.allclose(clipped, sum(grads) / 6, atol=1e-2)  # so that the clip was of consequence
    nobody = moved(2.0, 0.5, 0)  # an empty step is noise alone, of deviation noise * clip / batch
    assert 0.5 < float(nobody.std()) / (2.0 * 0.5 / 6) < 1.6
    assert torch.allclose(moved(2.0, 0.5, 6) - clipped, nobody, atol=1e-5)


def test_rows_are_sampled_each_on_its_own() -> None:
    draws = torch.Generator().manual_seed(0)
    batches = [batch for _ in range(300) for batch in DpSgd(1.0).batches(40, 10, draws)]
    sizes = torch.tensor([float(len(batch)) for batch in batches])
    assert len(batches) == 300 * 4
    assert float(sizes.mean()) == pytest.approx(10, rel=0.03)
    assert float(sizes.var()) == pytest.approx(40 * 0.25 * 0.75, rel=0.15)  # binomial; fixed batches have none
    shares = torch.bincount(torch.cat(batches), minlength=40) / len(batches)
    assert torch.allclose(shares, torch.full((40,), 0.25), atol=0.06)


def test_delta_must_bound_something() -> None:
    with pytest.raises(ValueError, match=r"delta=0\.05 must be below 1/N = 0\.025, N = 40 training rows"):
        DpSgd(1.0, delta=0.05).noted(40, 10, 2)
    noted = DpSgd(1.0, delta=0.02).noted(40, 10, 2)
    assert noted == {"epsilon": epsilon(1.0, 40, 10, 8, 0.02), "delta": 0.02, "rows": 40, "batch_size": 10, "steps": 8}


def test_without_opacus_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opacus", None)
    with pytest.raises(ValueError, match=r"pip install 'mirage-range\[dp\]'"):
        DpSgd(1.0).noted(40, 10, 2)
