"""Law 2: the answer to a row does not depend on its company: within 1e-5, and bit for bit when deterministic."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from oracle_server.models.card import Card
from oracle_server.models.neural import NeuralModel, choose_device
from oracle_server.victims.cnn import Cnn
from oracle_server.victims.softmax_regression import SoftmaxRegression
from protos import archive

Logits = Callable[[Sequence[np.ndarray]], list[np.ndarray]]

POOL = 24  # different rows
SHAPES = {"softmax": (1, 112, 92), "cnn": (1, 48, 40)}
CASES = [("softmax", 16), ("softmax", 64), ("cnn", 8)]  # model, rows in one forward pass


def softmax_regression() -> nn.Module:
    model = SoftmaxRegression(40)
    nn.init.normal_(model.linear.weight, std=0.01)
    nn.init.normal_(model.linear.bias)
    return model.eval()


def cnn() -> nn.Module:
    model = Cnn(40, SHAPES["cnn"], width=8).train()
    for _ in range(3):  # so that the running statistics are not the initial ones
        model(torch.rand(8, *SHAPES["cnn"]))
    return model.eval()


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("archives")
    for name, make in {"softmax": softmax_regression, "cnn": cnn}.items():
        torch.manual_seed(1)
        archive.save(make(), folder / f"{name}.pt2", input_shape=SHAPES[name])
    return {name: folder / f"{name}.pt2" for name in SHAPES}


@pytest.fixture(scope="module")
def host(archives: dict[str, Path]) -> Callable[[str, int, bool], NeuralModel]:
    known: dict[tuple[str, int, bool], NeuralModel] = {}

    def make(name: str, batch: int, deterministic: bool) -> NeuralModel:
        case = name, batch, deterministic
        if case not in known:
            card = Card("m", "1", SHAPES[name], 0, 1, 40, 0, 0, "", "", deterministic=deterministic)
            known[case] = NeuralModel(archives[name], card, torch.device("cpu"), batch)
            known[case].warm_up()
        return known[case]

    return make


def pool(name: str) -> np.ndarray:
    """Rows (POOL, *shape) of very different size, one of them empty."""
    generator = np.random.default_rng(0)
    rows = generator.random((POOL, *SHAPES[name]), dtype=np.float32)
    rows[:4] *= np.float32([0, 1e-6, 1e-3, 0.1])[:, None, None, None]
    return rows


def alone(model: NeuralModel, rows: np.ndarray) -> np.ndarray:
    return np.concatenate([model.logits([row[None]])[0] for row in rows])


def check_rows(
    logits: Logits, rows: np.ndarray, expected: np.ndarray, requests: list[list[int]], within: float
) -> None:
    """Every row of every request is answered as it is alone: who shares its pass, and where it stands, is the same."""
    answers = logits([rows[request] for request in requests])
    assert [answer.shape for answer in answers] == [(len(request), 40) for request in requests]
    for request, answer in zip(requests, answers, strict=True):
        if within:
            assert abs(answer - expected[request]).max() <= within
        else:
            assert np.array_equal(answer.view(np.uint32), expected[request].view(np.uint32)), "other bits"


REQUESTS = st.lists(st.lists(st.integers(0, POOL - 1), min_size=1, max_size=20), min_size=1, max_size=5)
WHOLE = [list(range(POOL)), list(reversed(range(POOL))), [n for n in range(POOL) for _ in range(6)]]


@pytest.mark.parametrize(("deterministic", "within"), [(True, 0.0), (False, 1e-5)])
@pytest.mark.parametrize(("name", "batch"), CASES)
def test_a_row_is_answered_alike_in_any_company(
    name: str, batch: int, deterministic: bool, within: float, host: Callable[[str, int, bool], NeuralModel]
) -> None:
    model, rows = host(name, batch, deterministic), pool(name)
    expected = alone(model, rows)
    assert expected.std(axis=0).min() > 1e-3, "rows differ"
    check_rows(model.logits, rows, expected, WHOLE, within)
    for request in WHOLE:
        check_rows(model.logits, rows, expected, [[n] for n in request], within)

    @settings(max_examples=15)
    @given(REQUESTS)
    def check(requests: list[list[int]]) -> None:
        check_rows(model.logits, rows, expected, requests, within)

    check()


def test_both_ways_of_serving_agree_with_the_module(
    archives: dict[str, Path], host: Callable[[str, int, bool], NeuralModel]
) -> None:
    for name, batch in CASES:
        rows = pool(name)
        wanted = archive.load(archives[name])(torch.from_numpy(rows)).numpy()
        for deterministic in (True, False):
            check_rows(host(name, batch, deterministic).logits, rows, wanted, WHOLE, 1e-5)


@pytest.mark.parametrize(("deterministic", "within"), [(True, 0.0), (False, 1e-5)])
def test_callers_of_one_pass_may_send_what_they_like(
    deterministic: bool, within: float, host: Callable[[str, int, bool], NeuralModel]
) -> None:
    """uint8, float16 and float32 rows of the same values, side by side in one forward pass."""
    model = host("softmax", 16, deterministic)
    levels = (pool("softmax") * 4).astype(np.uint8) * np.uint8(85)  # multiples of 1/3, and 0 and 1 are float16, too
    levels[12:] = np.where(levels[12:] > 100, 255, 0)
    rows = levels / np.float32(255)
    expected = alone(model, rows)

    def mixed(requests: Sequence[np.ndarray]) -> list[np.ndarray]:
        small = [(request * 255).round().astype(np.uint8) for request in requests[::2]]
        return model.logits([small.pop(0) if n % 2 == 0 else request for n, request in enumerate(requests)])

    check_rows(mixed, rows, expected, [[0, 1, 2], [3], [4, 5], [7, 6], [8, 1], list(range(9, POOL))], within)
    halves = [rows[12:14].astype(np.float16), rows[:2], levels[14:17], rows[17:].astype(np.float16)]
    found = np.concatenate(model.logits(halves))
    check_rows(lambda _: [found], rows, expected, [[12, 13, 0, 1, *range(14, POOL)]], within)


def test_broken_models_are_caught(host: Callable[[str, int, bool], NeuralModel]) -> None:
    model, rows = host("softmax", 16, True), pool("softmax")
    expected = alone(model, rows)

    def leaks_the_mean(requests: Sequence[np.ndarray]) -> list[np.ndarray]:
        mean = np.concatenate(requests).mean()
        return [answer + np.float32(1e-3) * mean for answer in model.logits(requests)]

    def counts_its_company(requests: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [answer * np.float32(1 + 2e-7 * len(requests)) for answer in model.logits(requests)]

    def mixes_callers_up(requests: Sequence[np.ndarray]) -> list[np.ndarray]:
        return model.logits(requests)[::-1]

    check_rows(counts_its_company, rows, expected, WHOLE, 1e-5)
    for broken, within in [(leaks_the_mean, 1e-5), (counts_its_company, 0.0), (mixes_callers_up, 1e-5)]:
        with pytest.raises(AssertionError):
            check_rows(broken, rows, expected, WHOLE, within)


def test_a_deterministic_model_needs_one_thread(
    host: Callable[[str, int, bool], NeuralModel], archives: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two threads and seven rows: the bits of a row do depend on its place."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    cpu = torch.device("cpu")
    with pytest.raises(
        ValueError, match="m/1 is deterministic, which several threads are not: serve it with --threads 1"
    ):
        NeuralModel(archives["cnn"], host("cnn", 8, True).card, cpu, 7)
    NeuralModel(archives["cnn"], host("cnn", 8, False).card, cpu, 7)


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match="--device cuda:1 was asked for and torch finds no CUDA device"):
        choose_device("cuda:1")


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", SHAPES)
def test_a_row_is_answered_alike_on_a_gpu(name: str, archives: dict[str, Path]) -> None:
    card = Card("m", "1", SHAPES[name], 0, 1, 40, 0, 0, "", "")
    rows = pool(name)
    for deterministic, within in ((True, 0.0), (False, 1e-5)):
        fixed = replace(card, deterministic=deterministic)
        model = NeuralModel(archives[name], fixed, torch.device("cuda"), 16)
        model.warm_up()
        expected = alone(model, rows)
        for requests in (WHOLE, [[n] for n in WHOLE[0]], [[3, 1], [2] * 40, [5]]):
            check_rows(model.logits, rows, expected, requests, within)
