"""The same answers on CUDA as on the CPU, from the hosted model to an attack through the real server."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from attacker.attacks.mi_face import MIFace, WhiteBox
from attacker.on_device import OnDevice
from oracle_server.models.importing import Draft, host
from oracle_server.models.neural import NeuralModel, choose_device
from oracle_server.models.repository import Repository
from oracle_server.victims.cnn import Cnn
from oracle_server.victims.softmax_regression import SoftmaxRegression
from protos import archive

pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

SHAPE = (1, 32, 24)


@pytest.fixture(params=[SoftmaxRegression, Cnn])
def hosted(request, tmp_path):
    torch.manual_seed(0)
    module = request.param(7, SHAPE).eval()
    torch.nn.init.normal_(next(module.parameters()))
    card = host(module, Repository(tmp_path), Draft("m", "1", SHAPE, deterministic=True))
    return Repository(tmp_path).archive(card), card


def test_auto_is_cuda_where_there_is_one():
    assert choose_device("auto").type == "cuda"


def test_logits_are_those_of_the_cpu_and_the_same_in_any_company(hosted):
    path, card = hosted
    rows = np.random.default_rng(0).random((50, *SHAPE), dtype=np.float32)
    cuda = NeuralModel(path, card, choose_device("cuda"), 16)
    together = cuda.logits([rows])[0]
    (cpu,) = NeuralModel(path, card, choose_device("cpu"), 16).logits([rows])
    np.testing.assert_allclose(together, cpu, atol=2e-3, rtol=2e-3)
    alone = np.concatenate([cuda.logits([row[None]])[0] for row in rows])
    np.testing.assert_array_equal(alone, together)


@pytest.mark.parametrize("forward", ["auto", "eager", "channels_last", "frozen"])
def test_passes_that_are_copied_while_others_compute_answer_as_eager_does(tmp_path, forward):
    """More passes than there are buffers, of requests that begin and end within them."""
    torch.manual_seed(0)
    card = host(Cnn(7, SHAPE).eval(), Repository(tmp_path), Draft("m", "1", SHAPE))
    path = Repository(tmp_path).archive(card)
    rows = np.random.default_rng(0).random((500, *SHAPE), dtype=np.float32)
    (eager,) = NeuralModel(path, card, choose_device("cuda"), 500, "eager").logits([rows])
    model = NeuralModel(path, card, choose_device("cuda"), 16, forward)
    model.warm_up()
    assert forward in ("auto", model.form)
    for _ in range(5):
        answers = model.logits(np.split(rows, [3, 200, 201, 433]))
        np.testing.assert_allclose(np.concatenate(answers), eager, rtol=0, atol=1e-5)


@pytest.mark.parametrize("autocast", ["float16", "bfloat16"])
def test_autocast_is_near_float32_and_the_same_in_any_company(tmp_path, autocast):
    torch.manual_seed(0)
    draft = Draft("m", "1", SHAPE, deterministic=True, autocast=autocast)
    card = host(Cnn(7, SHAPE).eval(), Repository(tmp_path), draft)
    path = Repository(tmp_path).archive(card)
    rows = np.random.default_rng(0).random((50, *SHAPE), dtype=np.float32)
    (exact,) = NeuralModel(path, card, choose_device("cpu"), 16).logits([rows])
    model = NeuralModel(path, card, choose_device("cuda"), 16)
    model.warm_up()
    (together,) = model.logits([rows])
    np.testing.assert_allclose(together, exact, atol=5e-2, rtol=5e-2)
    assert np.abs(together - exact).max() > 1e-5  # fewer bits there were
    alone = np.concatenate([model.logits([row[None]])[0] for row in rows])
    np.testing.assert_array_equal(alone, together)


def test_an_attack_needs_no_device_calls(hosted):
    path, _ = hosted
    images = []
    for device in ("cuda", "cpu"):
        model = OnDevice(archive.load(path, device), device)
        method = MIFace(max_steps=20, step=0.5)
        *_, last = method.descend(WhiteBox(model, [0, 1, 2]), np.full(SHAPE, 0.5, np.float32), 3, 0.0, 1.0)
        images.append(last.images)
    np.testing.assert_allclose(images[0], images[1], atol=1e-2)
