"""The inversion network's layers, and the file that it is kept in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from attacker.decoder import Decoder, load_decoder, save_decoder


@pytest.mark.parametrize(
    ("shape", "blocks"), [((1, 32, 32), 4), ((1, 64, 64), 5), ((3, 64, 64), 5), ((1, 112, 92), 6), ((1, 4, 6), 2)]
)
def test_blocks_cover_the_image(shape: tuple[int, ...], blocks: int) -> None:
    network = Decoder(10, shape, width=2)
    assert len(network.blocks) == blocks  # four for digits and five for faces, as in the paper
    images = network.invert(np.full((3, 10), 0.1))
    assert images.shape == (3, *shape)
    assert images.min() >= 0
    assert images.max() <= 1


def test_dense_layers_come_first_or_not_at_all() -> None:
    assert [len(Decoder(10, (1, 8, 8), width=2, hidden=hidden).dense) for hidden in (0, 5)] == [0, 2]
    for wrong in ({"hidden": -1}, {"width": 0}, {"least": 0.0}):
        with pytest.raises(ValueError, match="must be at least 1, hidden 0 or more"):
            Decoder(10, (1, 8, 8), **wrong)  # type: ignore[arg-type]


def test_a_withheld_score_is_not_a_score_of_zero() -> None:
    network = Decoder(3, (1, 8, 8), width=2).eval()
    withheld, zero = np.array([[0.9, np.nan, 0.1]]), np.array([[0.9, 0.0, 0.1]])
    assert np.isfinite(network.invert(zero)).all()
    assert np.abs(network.invert(withheld) - network.invert(zero)).max() > 1e-3


def test_equation_nine_gives_the_logits_back() -> None:
    """log softmax(z) differs from z by a constant: two logits that differ by a shift are one to the network."""
    network = Decoder(4, (1, 8, 8), width=2)
    z = torch.tensor([[3.0, -20.0, 0.0, 1.0]], dtype=torch.float64)
    first, shifted = (network.invert((z + by).softmax(1).numpy()) for by in (0.0, 7.0))
    np.testing.assert_allclose(first, shifted, atol=1e-6)
    other = network.invert((z + torch.tensor([0.0, 9.0, 0.0, 0.0])).softmax(1).numpy())  # 2e-9 against 2e-5
    assert np.abs(first - other).max() > 1e-3


def test_standardised_where_released() -> None:
    network = Decoder(2, (1, 8, 8), width=2, rescale=False)
    network.standardise(torch.tensor([[0.2, float("nan")], [0.4, float("nan")], [0.6, 0.5]]))
    np.testing.assert_allclose(network.centre.numpy(), [0.4, 0.5])
    np.testing.assert_allclose(network.spread.numpy(), [np.sqrt(0.08 / 3), 1.0], rtol=1e-6)


def test_gradients_pass_through_truncated_scores() -> None:
    z = torch.randn(5, 4, requires_grad=True)
    p = z.softmax(1)
    kept = torch.where(p >= p.topk(2).values[:, -1:], p, float("nan"))
    Decoder(4, (1, 8, 8), width=2)(kept).sum().backward()
    assert z.grad is not None
    assert torch.isfinite(z.grad).all()
    assert z.grad.abs().max() > 0


def test_a_file_gives_the_same_network(tmp_path: Path) -> None:
    network = Decoder(3, (1, 8, 8), width=2, hidden=7, rescale=False, least=0.05)
    network.standardise(torch.rand(9, 3))
    save_decoder(network, tmp_path / "network.pt")
    f = np.random.default_rng(0).random((4, 3))
    np.testing.assert_array_equal(load_decoder(tmp_path / "network.pt").invert(f), network.invert(f))
    (tmp_path / "other.pt").write_bytes(b"no network")
    with pytest.raises(ValueError, match="is no inversion network"):
        load_decoder(tmp_path / "other.pt")
    with pytest.raises(ValueError, match="there is no file"):
        load_decoder(tmp_path / "none.pt")


def test_impossible_networks_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must be \(C, H, W\)"):
        Decoder(3, (24,))
    with pytest.raises(ValueError, match="must be at least 1"):
        Decoder(0, (1, 8, 8))
