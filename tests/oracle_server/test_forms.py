"""The forms of a forward pass: each answers as eager does or is not taken, and of those that do the fastest is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

from oracle_server.models import forms
from oracle_server.models.folding import fold, plain
from oracle_server.models.forms import AUTO, TOLERANCE, Choice, Form, choose, make
from oracle_server.models.importing import Draft, ModelRefused
from oracle_server.models.repository import Repository
from protos import archive
from tests.fixtures import Start
from tests.networks import NETWORKS, SHAPE, Residual, Strided, WritesToItsInput, aten, hosted, loaded, network, rows
from tests.serving import inputs


def operations(graph: fx.GraphModule) -> list[object]:
    return [node.target for node in graph.graph.nodes if node.op == "call_function"]


@pytest.mark.parametrize("form", [Form.CHANNELS_LAST, Form.FROZEN])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_form_answers_as_eager_does_however_rows_are_split(tmp_path: Path, name: str, form: Form) -> None:
    model = hosted(tmp_path, NETWORKS[name], 21, form)
    images = rows(60)
    (eager,) = model.logits([images])
    model.warm_up()
    assert (model.form, model.batch) == (form, 21) or model.batch == 16
    generator = np.random.default_rng(0)
    for _ in range(8):
        pieces = np.split(images, np.sort(generator.integers(0, 61, 4)))
        answers = model.logits(pieces)
        assert [len(answer) for answer in answers] == [len(piece) for piece in pieces]
        np.testing.assert_allclose(np.concatenate(answers), eager, rtol=0, atol=TOLERANCE)
    for size in range(1, 22):
        np.testing.assert_allclose(model.logits([images[:size]])[0], eager[:size], rtol=0, atol=TOLERANCE)


def test_what_does_not_depend_on_the_input_is_folded(tmp_path: Path) -> None:
    eager = loaded(tmp_path, NETWORKS["plain"])
    before = {name: value.clone() for name, value in eager.state_dict().items()}
    ours = operations(fold(plain(eager)))
    assert not {aten.batch_norm.default, aten.dropout.default} & {*ours}
    assert ours.count(aten.linear.default) == 1  # 5 x 36 numbers, where the two had 40 x 41
    assert operations(eager).count(aten.linear.default) == 2
    after = eager.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())  # they are shared with the module


def test_what_others_read_and_what_would_grow_is_not_folded(tmp_path: Path) -> None:
    assert aten.batch_norm.default in operations(fold(plain(loaded(tmp_path, Residual))))
    narrow = lambda: nn.Sequential(nn.Flatten(), nn.Linear(96, 2), nn.Linear(2, 90))  # noqa: E731
    assert operations(fold(plain(loaded(tmp_path, narrow)))).count(aten.linear.default) == 2


def test_a_network_that_draws_while_it_answers_keeps_its_dropout(tmp_path: Path) -> None:
    archive.save(nn.Sequential(nn.Flatten(), nn.Dropout(0.5)).train(), tmp_path / "m.pt2", input_shape=SHAPE)
    graph = fold(plain(archive.load(tmp_path / "m.pt2")))
    assert aten.dropout.default in operations(graph)


def test_no_layout_is_changed_under_an_operation_that_reads_strides(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    eager, images = loaded(tmp_path, Strided), torch.from_numpy(rows(4))
    caplog.set_level("INFO")
    assert choose(eager, images, "channels_last").form is Form.EAGER
    assert "the channels_last form does not exist for this model" in caplog.text
    frozen = make(Form.FROZEN, eager)
    torch.testing.assert_close(frozen(images), eager(images), rtol=0, atol=TOLERANCE)
    assert aten.batch_norm.default not in operations(frozen)  # type: ignore[arg-type]


def test_only_sizes_that_were_checked_are_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[int] = []

    def build(form: Form, module: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def run(images: Tensor) -> Tensor:
            ran.append(len(images))
            return module(images)

        return run

    monkeypatch.setattr(forms, "make", build)
    model = hosted(tmp_path, NETWORKS["softmax"], 40, "frozen")
    model.warm_up()
    checked = {*ran}
    ran.clear()
    for count in range(1, 41):
        model.logits([rows(count)])
        model.logits([rows(count - 1), rows(1)])
    assert {*ran} == {*model._choice.sizes} <= checked
    assert len({*ran}) < 40


def test_a_deterministic_model_runs_eager_and_always_all_rows(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    model = hosted(tmp_path, NETWORKS["plain"], 24, "frozen", deterministic=True)
    model.warm_up()
    assert (model.form, model.batch, model.grain) == (Form.EAGER, 24, 24)
    assert "m/1 is deterministic and served eager: --forward frozen is for others" in caplog.text
    images = rows(30)
    (together,) = model.logits([images])
    for size in (1, 7, 24):
        np.testing.assert_array_equal(model.logits([images[:size]])[0], together[:size])


def test_a_network_that_writes_to_its_input_gets_a_copy(tmp_path: Path) -> None:
    module = WritesToItsInput()
    images = torch.from_numpy(rows(5))
    choice = choose(module, images.clone(), "frozen")
    assert (choice.form, choice.reads_only) == (Form.EAGER, False)
    model = hosted(tmp_path, NETWORKS["softmax"], 8, "eager")
    model._choice = Choice(Form.EAGER, module, 8, 8)
    request = rows(5)
    request.flags.writeable = False
    (answer,) = model.logits([request])
    np.testing.assert_array_equal(request, rows(5))
    np.testing.assert_array_equal(answer, (rows(5) - 0.5).reshape(5, -1))


@pytest.mark.parametrize("forward", ["eager", "frozen"])
def test_a_network_that_hands_back_its_input(tmp_path: Path, forward: str) -> None:
    model = hosted(tmp_path, nn.Flatten, 4, forward)
    model.warm_up()
    images = rows(11)
    np.testing.assert_array_equal(np.concatenate(model.logits([images[:7], images[7:]])), images.reshape(11, -1))
    request = rows(3)
    (answer,) = model.logits([request])
    request[:] = 0
    np.testing.assert_array_equal(answer, rows(3).reshape(3, -1))


def test_rows_in_other_memory_orders_and_dtypes_are_read_right(tmp_path: Path) -> None:
    model = hosted(tmp_path, NETWORKS["plain"], 8, "frozen")
    model.warm_up()
    images = rows(6)
    (expected,) = model.logits([images[:3], images[3:]])[:1]
    shifted = np.frombuffer(b"." + images.tobytes(), np.uint8)[1:].view(np.float32).reshape(images.shape)
    for other in (np.asfortranarray(images), images[::-1][::-1], shifted):
        np.testing.assert_allclose(model.logits([other[:3]])[0], expected, rtol=0, atol=1e-6)


def test_the_log_says_which_form_is_served_and_an_unfit_one_stops_nobody(start: Start) -> None:
    server = start("other", options=("--forward", "frozen"))
    assert server.new_key(model="other").predict(inputs(3, shape=(1, 64, 64))).receipt.spent == 3
    assert "other/1 runs frozen, at most 64 rows in a pass" in server.process.log
    server = start("other", options=("--forward", "compiled"), before="import torch\ndel torch.compile")
    assert server.new_key(model="other").predict(inputs(3, shape=(1, 64, 64))).receipt.spent == 3
    assert "the compiled form does not exist for this model (AttributeError" in server.process.log
    assert "other/1 runs eager, at most " in server.process.log


def test_autocast_is_stated_by_the_card_and_left_out_on_the_cpu(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    model = hosted(tmp_path, NETWORKS["softmax"], 4, AUTO, deterministic=True, autocast="bfloat16")
    model.warm_up()
    assert "m/1 runs in float32: autocast, which its card states, is for CUDA" in caplog.text
    assert model.card.message().autocast == "bfloat16"
    assert Repository(tmp_path).card("m") == model.card
    images = rows(9)
    expected = network(NETWORKS["softmax"])(torch.from_numpy(images)).detach()
    np.testing.assert_allclose(model.logits([images])[0], expected, rtol=0, atol=TOLERANCE)


def test_autocast_is_for_deterministic_models(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match="--autocast wants --deterministic"):
        Draft("m", "1", SHAPE, autocast="bfloat16")
    card = hosted(tmp_path, NETWORKS["softmax"], 4, AUTO).card
    with pytest.raises(ValueError, match="of a deterministic model"):
        replace(card, autocast="bfloat16")
    with pytest.raises(ValueError, match="to float16 or bfloat16"):
        replace(card, autocast="float8", deterministic=True)
