"""A user's own model becomes a hosted one, or is refused with a sentence for the check that it fails."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from oracle_server.models.card import Card
from oracle_server.models.importing import Draft, ModelRefused, find_model, host
from oracle_server.models.repository import Repository
from protos import archive

DRAFT = Draft("mine", "1", (1, 4, 3), description="Twelve pixels")


class With(nn.Module):
    """A linear layer and any function of it and of the input."""

    def __init__(self, function: Callable[[nn.Linear, Tensor], object], features: int = 12) -> None:
        super().__init__()
        self.function = function
        self.linear = nn.Linear(features, 3)

    def forward(self, x: Tensor) -> object:
        return self.function(self.linear, x)


def linear(*more: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 3), *more).eval()


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def export(module: nn.Module, path: Path, **options: object) -> Path:
    """What a user writes with torch alone."""
    torch.export.save(torch.export.export(module, (torch.zeros(2, 1, 4, 3),), **options), path)
    return path


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    (tmp_path / "root").mkdir()
    return Repository(tmp_path / "root")


def test_a_good_model_is_hosted_whole(repository: Repository, tmp_path: Path) -> None:
    model = linear()
    card = host(model, repository, DRAFT)
    data = repository.archive(card).read_bytes()
    assert card == Card(
        name="mine",
        version="1",
        input_shape=(1, 4, 3),
        low=0.0,
        high=1.0,
        classes=3,
        parameters=39,
        archive_bytes=len(data),
        archive_sha256=hashlib.sha256(data).hexdigest(),
        torch_version=torch.__version__.partition("+")[0],
        description="Twelve pixels",
        accepted_dtypes=("uint8", "float16"),
    )
    x = torch.rand(3, 1, 4, 3)
    torch.testing.assert_close(archive.load(repository.archive(card))(x), model(x))
    assert files(tmp_path / "root") == [
        "models",
        "models/mine",
        "models/mine/1",
        "models/mine/1/card.json",
        "models/mine/1/model.pt2",
    ]
    assert repository.cards() == [card]


def test_a_file_of_torch_alone_is_stripped_and_hosted(repository: Repository, tmp_path: Path) -> None:
    dynamic = ({0: torch.export.Dim("batch", min=1)},)
    path = export(linear(), tmp_path / "own.pt2", dynamic_shapes=dynamic)
    found = find_model(str(path))
    assert found == path
    card = host(found, repository, DRAFT)
    archive.check(repository.archive(card))
    assert card.archive_bytes < path.stat().st_size


NO_BATCH = "the model cannot be exported with a free batch size"
GRADIENT = "the output has no gradient with respect to the input: keep detach and no_grad out of it"
PROBABILITIES = "the outputs are probabilities: return logits, the server applies the softmax itself"
REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "dropout": (
        lambda: linear(nn.Dropout()).train(),
        "the same input gave two answers: call .eval() before exporting, dropout is still on",
    ),
    "batch norm": (
        lambda: linear(nn.BatchNorm1d(3)).train(),
        "a row's answer depends on the batch: call .eval() before exporting, batch norm trains",
    ),
    "rows that look at each other": (
        lambda: With(lambda f, x: f((x - x.mean(0)).flatten(1))),
        "a row's answer depends on the batch",
    ),
    "fixed batch": (lambda: With(lambda f, x: f(x.view(2, 12))), NO_BATCH),
    "another shape of input": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(13, 3)), NO_BATCH),
    "detached": (lambda: With(lambda f, x: f(x.flatten(1)).detach()), GRADIENT),
    "detached input": (lambda: With(lambda f, x: f(x.flatten(1).detach())), GRADIENT),
    "softmax": (lambda: linear(nn.Softmax(dim=1)), PROBABILITIES),
    "not finite": (
        lambda: With(lambda f, x: torch.log(x.flatten(1)[:, :3] - 2)),
        "the model's logits are not finite on inputs inside the range: check --range",
    ),
    "one number": (
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(12, 1)),
        "five rows gave an output of shape [5, 1]: return logits of shape (N, C)",
    ),
    "three dimensions": (
        lambda: With(lambda f, x: f(x.flatten(1)).reshape(-1, 3, 1)),
        "five rows gave an output of shape [5, 3, 1]: return logits of shape (N, C)",
    ),
    "summed rows": (
        lambda: With(lambda f, x: f(x.flatten(1)).sum(0)),
        "five rows gave an output of shape [3]: return logits of shape (N, C)",
    ),
    "two outputs": (
        lambda: With(lambda f, x: (f(x.flatten(1)), x)),
        "a model must take exactly one positional tensor and return exactly one",
    ),
    "double precision": (
        lambda: linear().double(),
        "check --input-shape, and export with a dynamic batch dimension",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_fails_a_check_is_refused_and_nothing_is_written(
    name: str, repository: Repository, tmp_path: Path
) -> None:
    make, sentence = REFUSED[name]
    with pytest.raises(ModelRefused, match=re.escape(sentence)) as caught:
        host(make(), repository, DRAFT)
    assert files(tmp_path / "root") == []
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["batch norm", "rows that look at each other"])
def test_batches_of_one_shape_hide_no_row_that_looks_at_its_company(name: str, repository: Repository) -> None:
    make, _ = REFUSED[name]
    with pytest.raises(ModelRefused, match="a row's answer depends on the batch"):
        host(make(), repository, replace(DRAFT, deterministic=True))


def test_an_answer_that_changes_with_the_size_of_its_batch_is_for_batches_of_one_shape(repository: Repository) -> None:
    """As the last bits of large logits do: other kernels, other rounding."""

    def make() -> nn.Module:
        return With(lambda f, x: f(x.flatten(1)) + 1e-3 * torch.ones_like(x[:, 0, 0, :1]).sum(0))

    with pytest.raises(ModelRefused, match="a row's answer depends on the batch"):
        host(make(), repository, DRAFT)
    assert host(make(), repository, replace(DRAFT, deterministic=True)).deterministic


def test_files_are_refused_as_models_are(repository: Repository, tmp_path: Path) -> None:
    fixed = export(linear(), tmp_path / "fixed.pt2")
    no_zip = tmp_path / "no.pt2"
    no_zip.write_bytes(b"PK no archive")
    for path, sentence in [
        (fixed, "batch"),
        (no_zip, "no.pt2"),
        (tmp_path / "none.pt2", f"there is no file {tmp_path / 'none.pt2'}"),
    ]:
        with pytest.raises(ModelRefused, match=re.escape(sentence)):
            host(find_model(str(path)), repository, DRAFT)
    assert files(tmp_path / "root") == []


def test_a_version_is_never_overwritten(repository: Repository, tmp_path: Path) -> None:
    host(linear(), repository, DRAFT)
    before = {name: (tmp_path / "root" / name).stat().st_mtime_ns for name in files(tmp_path / "root")}
    with pytest.raises(FileExistsError, match="model mine/1 is there already: choose another --version"):
        host(linear(), repository, DRAFT)
    assert {name: (tmp_path / "root" / name).stat().st_mtime_ns for name in files(tmp_path / "root")} == before


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-a", "a b", "x" * 65])
def test_a_name_is_no_path(name: str, repository: Repository, tmp_path: Path) -> None:
    for draft in (Draft(name, "1", (1, 4, 3)), Draft("mine", name, (1, 4, 3))):
        with pytest.raises(ValueError, match="is no model name or version: use letters, digits"):
            host(linear(), repository, draft)
    assert files(tmp_path / "root") == []


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"low": 1.0, "high": 1.0}, "the range [1, 1] is empty: give --range LOW HIGH, LOW < HIGH"),
        ({"low": 2.0}, "the range [2, 1] is empty"),
        ({"low": float("nan")}, "the range [nan, 1] is empty"),
        ({"input_shape": ()}, "[] is no shape of a row: give --input-shape 1,112,92 for example"),
        ({"input_shape": (1, 0, 3)}, "[1, 0, 3] is no shape of a row"),
        ({"input_shape": (1, -4, 3)}, "[1, -4, 3] is no shape of a row"),
    ],
)
def test_a_draft_that_describes_nothing_is_refused(fields: dict[str, object], sentence: str) -> None:
    with pytest.raises(ModelRefused, match=re.escape(sentence)):
        Draft(**({"name": "mine", "version": "1", "input_shape": (1, 4, 3)} | fields))


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("mine", "'mine' names no model: give package:factory, or the path of a .pt2 file"),
        ("mine:", "'mine:' names no model"),
        (":make", "':make' names no model"),
        ("no_such_package:make", "cannot make a model with no_such_package:make: No module named 'no_such_package'"),
        ("json:make", "cannot make a model with json:make: module 'json' has no attribute 'make'"),
        ("json:dumps", "cannot make a model with json:dumps: dumps() missing 1 required positional argument"),
        (".json:dumps", "cannot make a model with .json:dumps: "),
        ("builtins:dict", "builtins:dict returned dict: it must return a torch.nn.Module"),
    ],
)
def test_a_source_that_names_no_model_is_refused(source: str, sentence: str) -> None:
    with pytest.raises(ModelRefused, match=re.escape(sentence)):
        find_model(source)


def test_a_factory_is_found_where_the_command_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "users_own_model.py").write_text("from torch import nn\ndef make(): return nn.Linear(2, 3)\n")
    monkeypatch.chdir(tmp_path)
    assert isinstance(find_model("users_own_model:make"), nn.Linear)


def test_a_card_that_cannot_be_read_says_so(repository: Repository) -> None:
    card = host(linear(), repository, DRAFT)
    path = repository.archive(card).with_name("card.json")
    for damage in ("{", "[]", json.dumps(json.loads(path.read_text()) | {"new_field": 1})):
        path.write_text(damage)
        with pytest.raises(ValueError, match=r"card.json is no model card \(.*\): import the model again"):
            repository.cards()
