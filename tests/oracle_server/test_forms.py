"""The forms of a forward pass: each answers as eager does or is not taken, and of those that do the fastest is."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

from oracle_server.models import forms
from oracle_server.models.folding import fold, plain
from oracle_server.models.forms import AUTO, TOLERANCE, Choice, Form, choose, ladder, make
from oracle_server.models.importing import Draft, ModelRefused, host
from oracle_server.models.neural import NeuralModel
from oracle_server.models.repository import Repository
from protos import archive
from tests.fixtures import Start
from tests.serving import inputs

SHAPE = (2, 8, 6)
CPU = torch.device("cpu")
aten = torch.ops.aten


class Residual(nn.Module):
    """A convolution whose answer two operations read, so that nothing may be folded into it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return (y + self.norm(y)).relu_().flatten(1)


class Viewed(nn.Module):
    """`view` refuses channels-last memory."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(2, 5, 3, bias=False), nn.BatchNorm2d(5), nn.Linear(120, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.conv(x)).view(-1, 120))


class Strided(nn.Module):
    """`as_strided` reads wrong numbers in another layout, and says nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_strided(self.norm(self.conv(x)), (x.shape[0], 7), (192, 3))


class WritesToItsInput(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sub_(0.5).flatten(1)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "softmax": lambda: nn.Sequential(nn.Flatten(), nn.Linear(96, 5)),
    "plain": lambda: nn.Sequential(
        nn.Conv2d(2, 6, 3, bias=False), nn.BatchNorm2d(6), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(),
        nn.Linear(36, 40), nn.Dropout(0.5), nn.Linear(40, 5),
    ),
    "grouped": lambda: nn.Sequential(
        nn.Conv2d(2, 4, 3, groups=2, stride=2, padding="valid"), nn.BatchNorm2d(4, affine=False), nn.Flatten(),
        nn.Linear(24, 9, bias=False), nn.Linear(9, 3, bias=False),
    ),
    "residual": Residual,
    "viewed": Viewed,
}  # fmt: skip


def network(make_one: Callable[[], nn.Module]) -> nn.Module:
    """With running statistics that are not those of a new norm."""
    torch.manual_seed(1)
    module = make_one()
    with torch.no_grad():
        for _ in range(3):
            module.train()(torch.rand(32, *SHAPE) * 2 - 0.5)
        for norm in (part for part in module.modules() if isinstance(part, nn.BatchNorm2d) and part.affine):
            norm.weight.uniform_(-2, 2)
            norm.bias.uniform_(-1, 1)
    return module.eval()


def loaded(folder: Path, make_one: Callable[[], nn.Module]) -> fx.GraphModule:
    archive.save(network(make_one), folder / "m.pt2", input_shape=SHAPE)
    module = archive.load(folder / "m.pt2")
    assert isinstance(module, fx.GraphModule)
    return module


def hosted(folder: Path, make_one: Callable[[], nn.Module], batch: int, forward: str, **more: Any) -> NeuralModel:
    card = host(network(make_one), Repository(folder), Draft("m", "1", SHAPE, **more))
    return NeuralModel(Repository(folder).archive(card), card, CPU, batch, forward)


def rows(count: int, seed: int = 0) -> np.ndarray:
    return inputs(count, seed, SHAPE)


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


class Clock:
    """Time that passes as forward passes say: seconds of a form for so many rows."""

    def __init__(self, seconds: Callable[[Form, int], float]) -> None:
        self.now = 0.0
        self._seconds = seconds

    def __call__(self) -> float:
        return self.now

    def form(self, form: Form, run: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def timed(images: Tensor) -> Tensor:
            self.now += self._seconds(form, len(images))
            return run(images)

        return timed


def double(images: Tensor) -> Tensor:
    return 2 * images.flatten(1)


def chosen(
    seconds: Callable[[Form, int], float],
    *,
    wanted: str = AUTO,
    batch: int = 40,
    **others: Callable[[Tensor], Tensor],
) -> Choice:
    """The choice among forms that take so long and answer as eager does, but for `others`."""
    clock = Clock(seconds)

    def build(form: Form, _: object) -> Callable[[Tensor], Tensor]:
        return clock.form(form, others.get(form, double))

    images = torch.from_numpy(rows(batch))
    return choose(clock.form(Form.EAGER, double), images, wanted, build, clock)


def seconds_a_row(**of: float) -> Callable[[Form, int], float]:
    return lambda form, count: of.get(form, 1.0) * count


def test_the_fastest_is_taken_and_eager_where_there_is_nothing_to_gain() -> None:
    assert chosen(seconds_a_row(frozen=0.5)).form is Form.FROZEN
    assert chosen(seconds_a_row(frozen=1.2)).form is Form.EAGER
    assert chosen(seconds_a_row(frozen=0.99)).form is Form.EAGER  # as much may be noise


def test_compiling_is_tried_only_when_it_is_asked_for() -> None:
    assert chosen(seconds_a_row(compiled=0.1)).form is Form.EAGER
    assert chosen(seconds_a_row(compiled=0.1), wanted="compiled").form is Form.COMPILED


def test_a_form_that_was_asked_for_is_taken_however_slow() -> None:
    assert chosen(seconds_a_row(frozen=9.0), wanted="frozen").form is Form.FROZEN
    assert chosen(seconds_a_row(frozen=0.1), wanted="eager").form is Form.EAGER


def off_by(amount: float, sizes: range = range(1000)) -> Callable[[Tensor], Tensor]:
    return lambda images: double(images) + amount * (len(images) in sizes)


def failing(images: Tensor) -> Tensor:
    raise RuntimeError(f"no kernel for {len(images)} rows")


WRONG = {
    "far": off_by(2 * TOLERANCE),
    "on one shape": off_by(2 * TOLERANCE, range(9, 10)),
    "on the largest": off_by(2 * TOLERANCE, range(40, 41)),
    "no number": off_by(float("nan")),
    "another shape": lambda images: double(images)[:, :3],
    "raises": failing,
}


@pytest.mark.parametrize("wanted", [AUTO, "frozen"])
@pytest.mark.parametrize("wrong", WRONG)
def test_a_form_that_does_not_answer_as_eager_does_is_not_taken(wrong: str, wanted: str) -> None:
    fast = seconds_a_row(frozen=0.1)
    assert chosen(fast, wanted=wanted).form is Form.FROZEN
    assert chosen(fast, wanted=wanted, frozen=off_by(TOLERANCE / 4)).form is Form.FROZEN
    assert chosen(fast, wanted=wanted, frozen=WRONG[wrong]).form is Form.EAGER


def test_the_next_form_is_tried_when_one_does_not_hold() -> None:
    assert chosen(seconds_a_row(frozen=0.1, channels_last=0.5), frozen=failing).form is Form.CHANNELS_LAST
    assert chosen(seconds_a_row(frozen=0.1, channels_last=1.5), frozen=failing).form is Form.EAGER


def test_without_a_compiler_eager_is_served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch, "compile", lambda run, dynamic: failing)
    assert choose(loaded(tmp_path, NETWORKS["plain"]), torch.from_numpy(rows(3)), "compiled").form is Form.EAGER


def test_a_pass_has_the_rows_at_which_a_row_costs_least() -> None:
    def beyond(best: int) -> Callable[[Form, int], float]:
        """A fixed cost and one for each row, which rises beyond a number of rows, as when memory runs short."""
        return lambda form, count: 1.0 + 0.1 * count + 0.2 * max(0, count - best)

    assert [chosen(beyond(best), batch=100).batch for best in (16, 32, 64, 100)] == [16, 32, 64, 100]
    assert chosen(beyond(32), batch=100, wanted="frozen").sizes[-1] == 32
    assert chosen(beyond(8), batch=12).batch == 12  # too few to look for another


@pytest.mark.parametrize(("fixed", "grain"), [(0.01, 8), (1.0, 16), (4.0, 32), (10.0, 64)])
def test_the_grain_is_where_a_row_costs_hardly_more_than_in_the_best_batch(fixed: float, grain: int) -> None:
    choice = chosen(lambda form, count: fixed + count, batch=64)
    assert (choice.batch, choice.grain) == (64, grain)
    assert chosen(lambda form, count: fixed + count, batch=5).grain == 5


def test_the_ladder_reaches_the_batch_and_fills_up_by_less_than_an_eighth() -> None:
    for batch in range(1, 300):
        sizes = ladder(batch)
        assert sizes[-1] == batch
        assert all(a < b for a, b in itertools.pairwise(sizes))
        choice = Choice(Form.FROZEN, double, batch, batch, sizes)
        for count in range(1, batch + 1):
            padded = choice.padded(count)
            assert count <= padded < count * 9 / 8 or padded == count
            assert padded in sizes


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
