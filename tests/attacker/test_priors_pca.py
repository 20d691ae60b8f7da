"""Eigenfaces: exact within the span of the images, a projection outside; and the archive of a prior."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from attacker.priors.learning import Learning
from attacker.priors.pca import PCA
from attacker.priors.prior import load_prior, sha256_of_prior
from attacker.priors.train import train_prior

SHAPE = (1, 6, 5)


def flat_images(n: int = 40, rank: int = 4) -> np.ndarray:
    """Images (n, 1, 6, 5) that lie in an affine space of `rank` dimensions, well inside [0, 1]."""
    draw = np.random.default_rng(0)
    directions = np.linalg.qr(draw.normal(size=(30, rank)))[0].T
    x = 0.5 + draw.uniform(-0.2, 0.2, (n, rank)) @ directions
    return np.asarray(x.reshape(n, *SHAPE), np.float32)


@pytest.fixture
def public(tmp_path: Path) -> Path:
    np.save(tmp_path / "images.npy", flat_images())
    return tmp_path


def test_images_in_the_span_come_back_and_others_are_projected(public: Path, tmp_path: Path) -> None:
    prior = train_prior("pca", ["mirrored=False"], public, 0, tmp_path / "prior")
    x = flat_images()
    assert prior.card.latent == 4
    np.testing.assert_allclose(prior.images(prior.encode(x)), x, atol=1e-5)
    other = x[:3] + np.random.default_rng(1).normal(0, 0.05, (3, *SHAPE)).astype(np.float32)
    found = prior.images(prior.encode(other))
    assert np.abs(found - other).max() > 0.01
    within = (x - x.mean(0)).reshape(len(x), -1)
    assert np.abs(within @ (found - other).reshape(3, -1).T).max() < 1e-4  # what is left stands upright on the span
    np.testing.assert_allclose(prior.images(prior.encode(found)), found, atol=1e-5)


def test_codes_of_the_images_have_variance_one(public: Path, tmp_path: Path) -> None:
    prior = train_prior("pca", ["mirrored=False"], public, 0, tmp_path / "prior")
    z = prior.encode(flat_images())
    torch.testing.assert_close(z.T.cov(), torch.eye(4), rtol=1e-3, atol=1e-3)


def test_mirrored_images_count_too(tmp_path: Path) -> None:
    learned = PCA().learn(flat_images(), 0, Learning(tmp_path))
    x = torch.from_numpy(flat_images()).flip(-1)
    assert learned.encoder is not None
    torch.testing.assert_close(learned.generator(learned.encoder(x)), x, rtol=0, atol=1e-5)
    plain = PCA(mirrored=False).learn(flat_images(), 0, Learning(tmp_path))
    assert plain.encoder is not None
    assert (plain.generator(plain.encoder(x)) - x).abs().max() > 0.01


@pytest.mark.parametrize(
    ("images", "settings", "sentence"),
    [
        (flat_images(1), {}, "one image"),
        (np.full((3, *SHAPE), 0.5, np.float32), {}, "all the same"),
        (flat_images(), {"latent": 0}, "latent=0 must be at least 1"),
    ],
)
def test_what_has_no_components_is_said(
    images: np.ndarray, settings: dict[str, int], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=sentence):
        PCA(**settings, mirrored=False).learn(images, 0, Learning(tmp_path))


def test_a_prior_comes_back_bit_for_bit(public: Path, tmp_path: Path) -> None:
    learned = PCA().learn(flat_images(), 0, Learning(tmp_path))
    prior = train_prior("pca", [], public, 0, tmp_path / "prior")
    z = prior.codes.draw(20, torch.Generator().manual_seed(0))
    np.testing.assert_array_equal(prior.images(z), learned.generator(z).clamp(0, 1).numpy())
    assert prior.encoder is not None
    assert learned.encoder is not None
    x = torch.from_numpy(flat_images())
    assert torch.equal(prior.encoder(x), learned.encoder(x))
    assert (tmp_path / "prior" / "samples.png").exists()


def test_the_hash_follows_the_content(public: Path, tmp_path: Path) -> None:
    for name, words in {"a": [], "b": [], "other": ["latent=3"]}.items():
        train_prior("pca", words, public, 0, tmp_path / name)
    first, same, other = (sha256_of_prior(tmp_path / name) for name in ("a", "b", "other"))
    assert first == same != other
    for name in ("codes.npz", "encoder.pt2", "generator.pt2"):
        (tmp_path / "b" / name).write_bytes((tmp_path / "other" / name).read_bytes())
        changed = sha256_of_prior(tmp_path / "b")
        assert changed != same
        same = changed
    (tmp_path / "a" / "samples.png").unlink()  # nothing computes with it
    assert sha256_of_prior(tmp_path / "a") == first


def test_another_training_is_refused(public: Path, tmp_path: Path) -> None:
    train_prior("pca", [], public, 0, tmp_path / "prior")
    before = (tmp_path / "prior" / "card.json").stat().st_mtime_ns
    train_prior("pca", [], public, 0, tmp_path / "prior")
    assert (tmp_path / "prior" / "card.json").stat().st_mtime_ns == before
    for words, seed in ((["latent=2"], 0), ([], 1)):
        with pytest.raises(ValueError, match="holds another prior"):
            train_prior("pca", words, public, seed, tmp_path / "prior")


def test_foreign_and_crafted_folders_are_refused(public: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no image prior"):
        load_prior(public)
    folder = tmp_path / "prior"
    train_prior("pca", [], public, 0, folder)
    card, generator = (folder / "card.json").read_text(), (folder / "generator.pt2").read_bytes()
    for crafted in (
        "[]",
        "{}",
        json.dumps(json.loads(card) | {"more": 1}),
        json.dumps(json.loads(card) | {"format": "x"}),
    ):
        (folder / "card.json").write_text(crafted)
        with pytest.raises(ValueError, match="holds no image prior"):
            load_prior(folder)
    (folder / "card.json").write_text(json.dumps(json.loads(card) | {"latent": 3}))
    with pytest.raises(ValueError, match=r"holds codes of \d numbers and a generator that takes 3"):
        load_prior(folder)
    (folder / "card.json").write_text(card)
    torch.save({"weights": torch.zeros(3)}, folder / "generator.pt2")  # a pickle, which could run code
    with pytest.raises(ValueError, match=r"generator\.pt2"):
        load_prior(folder)
    (folder / "generator.pt2").write_bytes(generator)
    load_prior(folder)


def test_a_prior_without_an_encoder_says_so(public: Path, tmp_path: Path) -> None:
    train_prior("pca", [], public, 0, tmp_path / "prior")
    (tmp_path / "prior" / "encoder.pt2").unlink()
    with pytest.raises(ValueError, match="has no encoder"):
        load_prior(tmp_path / "prior").encode(flat_images())


@pytest.mark.parametrize("images", [np.zeros((3, 4)), np.zeros((0, *SHAPE)), np.full((3, *SHAPE), np.nan)])
def test_public_data_that_is_none_is_refused(images: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", images)
    with pytest.raises(ValueError, match="a prior learns from finite"):
        train_prior("pca", [], tmp_path, 0, tmp_path / "prior")
