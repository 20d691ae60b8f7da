"""The style-based prior: its convolution against the long form, one code for each layer, and what mixing does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from attacker.priors.layered import Layered
from attacker.priors.prior import Prior, load_prior
from attacker.priors.rounds import Draws
from attacker.priors.style import Mapping, Modulated, Style, Synthesis
from attacker.priors.train import train_prior
from tests.attacker.prior_cases import bars

LAYERS = 5  # of images of 16 pixels


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> Prior:
    folder = tmp_path_factory.mktemp("style")
    np.save(folder / "images.npy", bars())
    return train_prior("style", ["steps=20", "width=8", "latent=3", "style=4"], folder, 0, folder / "prior")


def codes(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(7))


def long_form(layer: Modulated, x: torch.Tensor, style: torch.Tensor, *, demodulated: bool = True) -> torch.Tensor:
    """Karras et al., CVPR 2020, equations 1 and 3, with weights of its own for each image."""
    made = []
    for image, s in zip(x, layer.affine(style), strict=True):
        weights = layer.weight * s[None, :, None, None]
        if demodulated:
            weights = weights / (weights.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        made.append(functional.conv2d(image[None], weights, layer.bias, padding=1))
    return torch.cat(made)


def test_modulation_is_the_long_form_of_the_paper() -> None:
    torch.manual_seed(0)
    layer = Modulated(6, 5, 7)
    torch.nn.init.normal_(layer.bias)
    x, style = codes(4, 5, 9, 8), codes(4, 6)
    torch.testing.assert_close(layer(x, style), long_form(layer, x, style))
    far = (layer(x, style) - long_form(layer, x, style, demodulated=False)).abs().max()
    assert far > 0.1


def test_demodulated_noise_keeps_variance_one() -> None:
    """Inputs of variance 1 leave with variance 1, whatever the style: what demodulation is for."""
    torch.manual_seed(0)
    layer = Modulated(6, 32, 16)
    x = codes(8, 32, 40, 40)
    for scale in (0.1, 1.0, 10.0):
        inner = layer(x, scale * codes(8, 6))[:, :, 1:-1, 1:-1]
        assert (inner.var((0, 2, 3)) - 1).abs().max() < 0.1
    bare = long_form(layer, x, 10.0 * codes(8, 6), demodulated=False)
    assert (bare.var((0, 2, 3)) - 1).abs().max() > 1


def test_equal_codes_in_all_layers_are_the_plain_code(prior: Prior) -> None:
    z = codes(6, 3)
    assert prior.layers == LAYERS
    everywhere = z[:, None].expand(-1, LAYERS, -1)
    np.testing.assert_allclose(prior.images(everywhere), prior.images(z), atol=1e-6)


@pytest.mark.parametrize("layer", range(LAYERS))
def test_every_layer_takes_its_own_code(layer: int, prior: Prior) -> None:
    z = codes(6, 3)[:, None].repeat(1, LAYERS, 1)
    changed = z.clone()
    changed[:, layer] = codes(9, 3)[3:]
    apart = np.abs(prior.images(changed) - prior.images(z)).max((1, 2, 3))
    assert apart.min() > 1e-5
    again = z.clone().requires_grad_(True)
    prior.decode(again).square().sum().backward()
    assert again.grad is not None
    assert (again.grad[:, layer].abs().amax(1) > 0).all()


def test_an_image_is_a_function_of_its_code_alone(prior: Prior) -> None:
    """No noise inputs, no batch statistics; codes of one direction are nearly one code."""
    z = codes(6, 3)
    np.testing.assert_allclose(prior.images(z)[2:3], prior.images(z[2:3]), atol=1e-6)
    long = 10 * z / z.norm(dim=1, keepdim=True)
    np.testing.assert_allclose(prior.images(2 * long), prior.images(long), atol=1e-3)
    assert np.abs(prior.images(-long) - prior.images(long)).max() > 1e-3


def test_on_disk_and_back(prior: Prior, tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", bars())
    words = ["steps=20", "width=8", "latent=3", "style=4"]
    again = train_prior("style", words, tmp_path, 0, tmp_path / "prior")
    loaded = load_prior(tmp_path / "prior")
    z = codes(5, LAYERS, 3)
    np.testing.assert_array_equal(loaded.images(z), prior.images(z))
    assert (loaded.card, loaded.card.layers) == (again.card, LAYERS)
    assert loaded.critic is not None
    assert loaded.critic(torch.from_numpy(bars(4))).shape == (4, 1)


def test_codes_are_mixed_at_a_layer_that_is_drawn() -> None:
    n, layers = 4000, 5
    one, other = torch.zeros(n, 2), torch.ones(n, 2)
    mixed = Style(mixing=0.6)._mix(one, other, layers, Draws(0, 0, "cpu"))
    assert mixed.shape == (n, layers, 2)
    assert (mixed[..., 0] == mixed[..., 1]).all()
    firsts = (mixed[..., 0] == 0).sum(1)  # layers of the first code
    assert (mixed[..., 0].diff(dim=1) >= 0).all()  # it comes first
    shares = torch.bincount(firsts, minlength=layers + 1) / n
    expected = torch.tensor([0.0, 0.15, 0.15, 0.15, 0.15, 0.4])
    assert (shares - expected).abs().max() < 0.03
    assert (Style(mixing=0.0)._mix(one, other, layers, Draws(0, 0, "cpu")) == 0).all()


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 33, 20)])
def test_any_shape(shape: tuple[int, ...]) -> None:
    synthesis = Synthesis(4, shape, 4, low=-1.0, high=1.0)
    images = Layered(Mapping(3, 4), synthesis, synthesis.layers)(codes(2, 3))
    assert images.shape == (2, *shape)
    assert images.min() >= -1
    assert images.max() <= 1
