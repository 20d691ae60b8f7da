"""Archives keep the model, and nothing else, whole."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from protos import archive


class Constant(nn.Module):
    """A constant tensor, a buffer, a non-persistent buffer, and a batch size that the graph computes with."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 3)
        self.register_buffer("scale", torch.arange(1.0, 4.0))
        self.register_buffer("shift", torch.ones(3), persistent=False)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        flat = pictures.reshape(pictures.shape[0], -1)
        values = self.linear(flat) * self.scale.to(flat.dtype) + self.shift.to(flat.dtype)
        steps = torch.arange(3, device=flat.device).to(flat.dtype)
        return torch.softmax(values + torch.tensor([0.5, 0.25, 0.125]).to(flat), dim=1) * steps


def linear() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 5))


def cnn() -> nn.Module:
    layers = (nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2))
    model = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(), nn.Linear(16, 5))
    model(torch.randn(8, 1, 4, 4))  # so that the running statistics are not the initial ones
    return model


MODELS: dict[str, Callable[[], nn.Module]] = {"linear": linear, "cnn": cnn, "constant": Constant}
SHAPE = (1, 4, 4)


def make(name: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(3)
    return MODELS[name]().eval().to(dtype)


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def check_same_function(original: nn.Module, loaded: nn.Module, dtype: torch.dtype) -> None:
    """The loaded model gives the same logits and the same input gradient, for every batch size."""
    for rows in (1, 2, 5, 33):
        x = torch.rand(rows, *SHAPE, dtype=dtype, requires_grad=True)
        expected, got = original(x), loaded(x)
        torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)
        (wanted,) = torch.autograd.grad(expected.square().sum(), x)
        (gradient,) = torch.autograd.grad(got.square().sum(), x)
        assert wanted.abs().sum() > 0
        torch.testing.assert_close(gradient, wanted, rtol=1e-6, atol=1e-6)
        with torch.no_grad():
            assert not loaded(x).requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", MODELS)
def test_round_trip(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    model = make(name, dtype)
    archive.save(model, tmp_path / "m.pt2", input_shape=SHAPE, dtype=dtype)
    loaded = archive.load(tmp_path / "m.pt2")
    check_same_function(model, loaded, dtype)
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    info = archive.check(tmp_path / "m.pt2")
    assert info.input_shape == (None, *SHAPE)
    assert info.output_shape == (None, 3 if name == "constant" else 5)
    assert info.dtype == str(dtype).removeprefix("torch.")
    assert info.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert info.bytes == (tmp_path / "m.pt2").stat().st_size
    assert torch.__version__.startswith(info.torch_version)


def test_save_leaves_the_module_as_it_was(tmp_path: Path) -> None:
    model = make("cnn").train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    archive.save(model, tmp_path / "m.pt2", input_shape=SHAPE)
    assert model.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_the_same_weights_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.pt2", "b.pt2"):
        archive.save(make("cnn"), tmp_path / name, input_shape=SHAPE)
    assert sha(tmp_path / "a.pt2") == sha(tmp_path / "b.pt2")
    frozen = make("cnn").requires_grad_(False)
    archive.save(frozen, tmp_path / "b.pt2", input_shape=SHAPE)
    assert sha(tmp_path / "a.pt2") == sha(tmp_path / "b.pt2")
    with torch.no_grad():
        next(frozen.parameters()).add_(1)
    archive.save(frozen, tmp_path / "b.pt2", input_shape=SHAPE)
    assert sha(tmp_path / "a.pt2") != sha(tmp_path / "b.pt2")


@pytest.mark.slow
def test_another_process_gives_the_same_bytes(tmp_path: Path) -> None:
    code = (
        "import sys, torch; from pathlib import Path; from torch import nn; from protos import archive\n"
        "torch.manual_seed(3)\n"
        "model = nn.Sequential(nn.Flatten(), nn.Linear(16, 5)).eval()\n"
        "archive.save(model, Path(sys.argv[1]), input_shape=(1, 4, 4))\n"
    )
    archive.save(make("linear"), tmp_path / "here.pt2", input_shape=SHAPE)
    environment = os.environ | {"PYTHONHASHSEED": "77"}
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "there.pt2")], check=True, env=environment)
    assert sha(tmp_path / "here.pt2") == sha(tmp_path / "there.pt2")


def test_nothing_but_the_model_is_inside(tmp_path: Path) -> None:
    private = torch.full((1000, 16), 7.25)
    model = make("constant")
    model.register_buffer("centre", private[3])  # a view: plain torch saves the whole storage under it
    model.linear.weight.data = model.linear.weight.data.t().contiguous().t()  # not in the order of its indices
    program = torch.export.export(model, (torch.full((2, *SHAPE), 0.8125),))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="No complete tensor found")
        torch.export.save(program, tmp_path / "plain.pt2")
    archive.strip(tmp_path / "plain.pt2", tmp_path / "m.pt2")
    traces = (b"stack_trace", b"test_archive", str(Path(__file__).parent).encode(), b"nn_module_stack", b"plain")
    rows = {"sample": torch.full((4,), 0.8125).numpy().tobytes(), "rest": private[:2].numpy().tobytes()}
    plain, stripped = ((tmp_path / name).read_bytes() for name in ("plain.pt2", "m.pt2"))
    for secret in (*traces, *rows.values()):
        assert secret in plain, "the control must hold it"
        assert secret not in stripped
    with zipfile.ZipFile(tmp_path / "m.pt2") as file:
        assert file.read("model/data/sample_inputs/model.pt") == b""
    x = torch.rand(2, *SHAPE)
    torch.testing.assert_close(archive.load(tmp_path / "m.pt2")(x), model(x))
    archive.save(model, tmp_path / "saved.pt2", input_shape=SHAPE)
    assert rows["rest"] not in (tmp_path / "saved.pt2").read_bytes()
    torch.testing.assert_close(archive.load(tmp_path / "saved.pt2")(x), model(x))


@pytest.mark.parametrize("decompose", [False, True])
def test_strip_accepts_what_a_user_exports(decompose: bool, tmp_path: Path) -> None:
    model = make("cnn")
    program = torch.export.export(model, (torch.rand(2, *SHAPE),), dynamic_shapes=({0: torch.export.Dim("n", min=1)},))
    torch.export.save(program.run_decompositions() if decompose else program, tmp_path / "user.pt2")
    with pytest.raises(archive.UnsafeArchive, match="more than a model is in"):
        archive.load(tmp_path / "user.pt2")
    archive.strip(tmp_path / "user.pt2", tmp_path / "m.pt2")
    check_same_function(model, archive.load(tmp_path / "m.pt2"), torch.float32)
    archive.strip(tmp_path / "m.pt2", tmp_path / "again.pt2")
    assert sha(tmp_path / "m.pt2") == sha(tmp_path / "again.pt2")


def test_shared_weights_are_stored_once(tmp_path: Path) -> None:
    first, second = nn.Linear(64, 64, bias=False), nn.Linear(64, 64, bias=False)
    second.weight = first.weight
    archive.save(nn.Sequential(first, second).eval(), tmp_path / "m.pt2", input_shape=(64,))
    assert archive.check(tmp_path / "m.pt2").bytes < 2 * 64 * 64 * 4
    x = torch.rand(3, 64)
    torch.testing.assert_close(archive.load(tmp_path / "m.pt2")(x), second(first(x)))


def check_device(device: str, tmp_path: Path) -> nn.Module:
    """Everything that the model is made of lies on the device, and so does its answer."""
    archive.save(make("constant"), tmp_path / "m.pt2", input_shape=SHAPE)
    loaded = archive.load(tmp_path / "m.pt2", device)
    tensors = [*loaded.parameters(), *loaded.buffers()]
    assert {tensor.device.type for tensor in tensors} == {device}
    answer = loaded(torch.rand(5, *SHAPE, device=device))
    assert (answer.device.type, answer.shape) == (device, (5, 3))
    return loaded


def test_loads_on_another_device(tmp_path: Path) -> None:
    check_device("meta", tmp_path)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_loads_on_cuda_and_saves_from_it(tmp_path: Path) -> None:
    loaded = check_device("cuda", tmp_path)
    x = torch.rand(33, *SHAPE, requires_grad=True)
    torch.testing.assert_close(loaded(x.cuda()).cpu(), make("constant")(x), rtol=1e-4, atol=1e-5)
    (gradient,) = torch.autograd.grad(loaded(x.cuda()).sum(), x)
    assert gradient.abs().sum() > 0
    archive.save(make("cnn").cuda(), tmp_path / "c.pt2", input_shape=SHAPE)
    check_same_function(make("cnn"), archive.load(tmp_path / "c.pt2"), torch.float32)


def test_a_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    class Pair(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x, x + 1

    class OneSize(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.reshape(2, 16)

    archive.save(make("linear"), tmp_path / "m.pt2", input_shape=SHAPE)
    before = sha(tmp_path / "m.pt2")
    with pytest.raises(archive.UnsafeArchive, match="exactly one positional tensor"):
        archive.save(Pair(), tmp_path / "m.pt2", input_shape=SHAPE)
    with pytest.raises(ValueError, match="cannot be exported with a free batch size"):
        archive.save(OneSize(), tmp_path / "m.pt2", input_shape=SHAPE)
    assert sha(tmp_path / "m.pt2") == before
    assert [path.name for path in tmp_path.iterdir()] == ["m.pt2"]


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("valid") / "m.pt2"
    archive.save(make("linear"), path, input_shape=SHAPE)
    return path.read_bytes()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(flips=st.lists(st.tuples(st.integers(0, 2**20), st.integers(1, 255)), min_size=1, max_size=4))
def test_damaged_bytes_load_the_same_or_are_refused(flips: list[tuple[int, int]], valid: bytes, tmp_path: Path) -> None:
    data = bytearray(valid)
    for position, change in flips:
        data[position % len(data)] ^= change
    (tmp_path / "m.pt2").write_bytes(data)
    try:
        loaded = archive.load(tmp_path / "m.pt2")
    except archive.UnsafeArchive:
        return
    x = torch.rand(2, *SHAPE)
    torch.testing.assert_close(loaded(x), make("linear")(x))


def test_a_missing_file_is_no_unsafe_archive(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        archive.load(tmp_path / "none.pt2")


def test_any_file_name_will_do(valid: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model.bin").write_bytes(valid)
    assert archive.load(Path("model.bin"))(torch.zeros(1, *SHAPE)).shape == (1, 5)
