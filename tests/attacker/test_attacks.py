"""All methods on images in one table: what holds of every attack, whatever it does."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from attacker.attacks import (
    GMI,
    KEDMI,
    METHODS,
    VMI,
    Adversarial,
    BrepMI,
    Deblur,
    EquationSolving,
    EstimatedGradient,
    InversionNetwork,
    LatentGradient,
    MIFace,
    MIFaceCode,
    Numeric,
    RandomDraws,
    Yoshimura,
    YoshimuraWhite,
)
from attacker.needs import Needs, refuse
from tests.attacker.latent_cases import save_affine
from tests.toy import (
    FULL,
    LABEL,
    SHAPE,
    WEIGHTS,
    C,
    Contract,
    D,
    ToyOracle,
    block_corner,
    blocks,
    confidences,
    finish,
    random_model,
    softmax_regression,
)


@dataclass(frozen=True)
class Case:
    """A method, the least contract that satisfies it, and what is true of it."""

    method: Any
    contract: Contract
    one_at_a_time: bool = True  # the answer for a target does not depend on its companions
    uses_seed: bool = False
    beats: float = 0.9  # the confidence that every target of `blocks` reaches
    uses_range: bool = True  # brighter than 1 where that is legal

    def __repr__(self) -> str:
        return f"{self.method}-{self.contract.access}-k={self.contract.top_k}-r={self.contract.round_to}"


# Images stay where the prior makes them.
IN_A_PRIOR: dict[str, Any] = {"uses_seed": True, "uses_range": False}
BRIEF: dict[str, Any] = {"loss": "margin", "steps": 20, "batch": 4, "samples": 3, "step": 0.1}
CASES = [
    Case(MIFace(), WEIGHTS, beats=0.99),
    Case(MIFace(step=1.0), WEIGHTS, beats=0.99),
    Case(Numeric(), FULL, beats=0.99),
    Case(Numeric(probe=0.01), FULL, beats=0.99),
    Case(Numeric(step=10.0), Contract(round_to=0.01)),
    Case(EquationSolving(), FULL, beats=0.98),
    Case(EquationSolving(together=1), FULL, beats=0.98),
    Case(EquationSolving(density=0.25), Contract(round_to=0.001), uses_seed=True),
    Case(RandomDraws(draws=2000), FULL, uses_seed=True, uses_range=False),
    Case(RandomDraws(draws=2000), Contract(top_k=1, round_to=0.1), uses_seed=True, uses_range=False),
    Case(RandomDraws(draws=2000), LABEL, uses_seed=True, uses_range=False, beats=0.25),
    Case(MIFace(step=0.1, cost="log", momentum=0.5), WEIGHTS, beats=0.99),
    Case(Numeric(step=1.0, cost="log", max_steps=20), FULL),
    Case(MIFaceCode(process=False), WEIGHTS, beats=0.99),
    Case(MIFaceCode(process_every=20, denoise=0.01, max_steps=200), WEIGHTS),
    Case(EstimatedGradient("basis", 12, 2000, step=0.1, start="zeros", momentum=0.0), FULL, beats=0.98),
    Case(EstimatedGradient("blocks", 12, 2000, step=0.1, start="zeros"), FULL, uses_seed=True),
    Case(EstimatedGradient("random", 12, 2000, step=0.1, start="zeros"), FULL, uses_seed=True, beats=0.98),
    Case(EstimatedGradient("random", 12, 400, 0.5, 0.1, start="zeros"), Contract(round_to=0.01), uses_seed=True),
    Case(Deblur(sigma=1.0, step=2.0, weight=1.0), WEIGHTS, uses_range=False),
    Case(InversionNetwork(epochs=2, batch_size=9, width=2), FULL, uses_seed=True, uses_range=False, beats=0.2),
    Case(InversionNetwork(epochs=2, batch_size=9, width=2), LABEL, uses_seed=True, uses_range=False, beats=0.2),
    Case(YoshimuraWhite(rows=40), WEIGHTS, **IN_A_PRIOR),
    Case(Yoshimura(estimator="central", rows=360), FULL, **IN_A_PRIOR),
    Case(Yoshimura(perturbations=8, choose_every=5, rows=600), Contract(top_k=1, round_to=0.01), False, **IN_A_PRIOR),
    Case(BrepMI(rows=400, radius=0.5), LABEL, one_at_a_time=False, **IN_A_PRIOR),
    Case(BrepMI(rows=400, compatible=True), Contract(top_k=1, round_to=0.1), False, beats=0.8, **IN_A_PRIOR),
    Case(LatentGradient(steps=30), WEIGHTS, **IN_A_PRIOR),
    Case(LatentGradient(loss="margin", optimiser="adam", step=0.1, steps=20, starts=2), WEIGHTS, **IN_A_PRIOR),
    Case(GMI(steps=30), WEIGHTS, one_at_a_time=False, **IN_A_PRIOR),
    Case(GMI(loss="margin", weight=10.0, steps=20, starts=2), WEIGHTS, one_at_a_time=False, **IN_A_PRIOR),
    Case(VMI("gaussian", **BRIEF), WEIGHTS, one_at_a_time=False, **IN_A_PRIOR),
    Case(VMI("mixture", components=3, explore=40, **BRIEF), WEIGHTS, one_at_a_time=False, **IN_A_PRIOR),
    Case(VMI("flow", **BRIEF), WEIGHTS, one_at_a_time=False, **IN_A_PRIOR),
    Case(VMI("gaussian", extended=True, **BRIEF), WEIGHTS, one_at_a_time=False, **IN_A_PRIOR),
    Case(Adversarial(size=0.5, steps=20, starts=5), WEIGHTS, one_at_a_time=False, uses_seed=True),
]
every_case = pytest.mark.parametrize("case", CASES, ids=repr)


class Oracle(ToyOracle):
    """Its model publishes parts too: the code of an image is its pixels, moved to [0, 1]."""

    def model(self, part: str = "") -> nn.Module:
        whole, flat, wide = super().model(), nn.Flatten(), nn.Unflatten(1, self.input_shape)
        width = self.high - self.low
        into, out = _Line(1 / width, -self.low / width), _Line(width, self.low)
        parts = {"encoder": (flat, into), "decoder": (out, wide), "classifier": (out, wide, whole)}
        return nn.Sequential(*parts[part]) if part else whole


class _Line(nn.Module):
    def __init__(self, slope: float, level: float) -> None:
        super().__init__()
        self.slope, self.level = slope, level

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.slope * x + self.level


@pytest.fixture(scope="module")
def priors(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Principal components of images that are as bright as they like in each block of `blocks`, with their encoder and
    a critic that likes darker ones better; the same in two layers.
    """
    axes, critic = 0.25 * np.stack([block_corner(c) for c in range(C)]), softmax_regression(-np.ones((1, D)))
    within: dict[str, Any] = {"shape": SHAPE, "low": 0.0, "high": 1.0}
    plain = save_affine(tmp_path_factory.mktemp("prior"), axes, 0.5, critic=critic, **within)
    return plain, save_affine(tmp_path_factory.mktemp("layered"), axes, 0.5, layers=2, **within)


@pytest.fixture
def method(case: Case, priors: tuple[Path, Path], tmp_path: Path) -> Any:
    """The case's method with the files that it takes: public images, a photo of each class of `blocks`, and a prior."""
    noise = np.random.default_rng(0).random((40, *SHAPE), np.float32)
    np.save(tmp_path / "images.npy", noise)
    photos = np.stack([block_corner(c).reshape(SHAPE) for c in range(C)]).astype(np.float32)
    np.save(tmp_path / "photos.npy", 0.2 + 0.5 * photos)
    names = {field.name for field in fields(case.method)}
    files = {"public": tmp_path, "prior": priors[getattr(case.method, "extended", False)]} | (
        {} if hasattr(case.method, "given_optional") else {"given": tmp_path / "photos.npy"}
    )
    if isinstance(case.method, RandomDraws):
        return case.method
    return replace(case.method, **{name: path for name, path in files.items() if name in names})


def test_the_table_has_every_method() -> None:
    """But for the one whose networks take no images as small as these: test_ked_mi.py has the same laws for it."""
    on_images = {method for method in METHODS.values() if "neural" in getattr(method, "models", ("neural",))}
    assert {type(case.method) for case in CASES} == on_images - {KEDMI}


@every_case
def test_contract_of_an_attack(case: Case, method: Any) -> None:
    """Images in range, marks that rise and end at what was spent, more than nothing found, the need stated."""
    oracle = Oracle(blocks(), SHAPE, case.contract)
    snapshots = list(method.run(oracle, list(range(C)), 0))
    for snapshot in snapshots:
        assert snapshot.images.shape == (C, *SHAPE)
        assert snapshot.images.dtype == np.float32
        assert snapshot.images.min() >= 0
        assert snapshot.images.max() <= 1
    marks = [snapshot.mark for snapshot in snapshots]
    assert marks == sorted(set(marks))
    if method.needs is Needs.WEIGHTS:
        assert oracle.spent == 0
        if "steps" in snapshots[-1].extras:
            assert marks[-1] == snapshots[-1].extras["steps"].max()
    else:
        assert marks[-1] == oracle.spent / C
    assert confidences(blocks(), snapshots[-1].images).min() > case.beats
    assert refuse(method.needs, case.contract, C) is None
    for name in ("kind", "paper"):
        assert getattr(method, name)


@every_case
def test_snapshots_are_copies(case: Case, method: Any) -> None:
    kept = []
    for snapshot in method.run(Oracle(random_model(), SHAPE, case.contract), list(range(C)), 0):
        kept.append((snapshot, snapshot.images.copy()))
    assert all((snapshot.images == then).all() for snapshot, then in kept)


@every_case
def test_same_seed_same_result(case: Case, method: Any) -> None:
    first, again, other = (
        finish(method, Oracle(random_model(), SHAPE, case.contract), seed=seed) for seed in (1, 1, 2)
    )
    assert (first.images == again.images).all()
    assert first.mark == again.mark
    assert (first.images == other.images).all() != case.uses_seed


@every_case
def test_batch_of_targets_equals_one_at_a_time(case: Case, method: Any) -> None:
    if not case.one_at_a_time:
        pytest.skip("draws and directions come from one stream for all targets")
    model = random_model()
    together = finish(method, Oracle(model, SHAPE, case.contract))
    for target in range(C):
        alone = finish(method, Oracle(model, SHAPE, case.contract), [target])
        np.testing.assert_allclose(alone.images[0], together.images[target], atol=1e-4)
    order = [2, 0, 3, 1]
    turned = finish(method, Oracle(model, SHAPE, case.contract), order)
    np.testing.assert_allclose(turned.images, together.images[order], atol=1e-4)


@every_case
def test_bounds_of_another_range(case: Case, method: Any) -> None:
    """The toy oracle refuses what is out of range; the first image is then the legal one nearest to zero."""
    oracle = Oracle(random_model(spread=0.3), SHAPE, case.contract, low=-0.5, high=2.5)
    last = finish(method, oracle)
    assert last.images.min() >= -0.5
    assert last.images.max() <= 2.5
    assert last.images.max() > 1 or not case.uses_range
