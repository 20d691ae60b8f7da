"""A user's own model becomes a hosted one: from `package:factory` or a `.pt2` file, with a sentence for each check it
fails.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from oracle_server.models.card import Card, Part
from oracle_server.models.repository import Repository
from protos import archive
from protos.schema import Output

__all__ = ["Draft", "ModelRefused", "find_model", "host"]

_TOLERANCE = 1e-5


class ModelRefused(ValueError):
    """A model that cannot be hosted; the sentence says what to change."""


@dataclass(frozen=True)
class Draft:
    """What the owner of a model says about it; the rest of its card is found out.

    input_shape  of one row, without the batch; low and high bound every value in it
    joint        trained together with a network that inverts it, which the card has to say
    accepted_dtypes  what inputs may have beside float32, as in the card
    autocast     what CUDA computes the answers in, as in the card; wants a deterministic model
    """

    name: str
    version: str
    input_shape: tuple[int, ...]
    low: float = 0.0
    high: float = 1.0
    deterministic: bool = False
    description: str = ""
    joint: bool = False
    accepted_dtypes: tuple[str, ...] = ("uint8", "float16")
    autocast: str = ""

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ModelRefused(f"the range [{self.low:g}, {self.high:g}] is empty: give --range LOW HIGH, LOW < HIGH")
        if not self.input_shape or min(self.input_shape) < 1:
            raise ModelRefused(
                f"{list(self.input_shape)} is no shape of a row: give --input-shape 1,112,92 for example"
            )
        if self.autocast and not self.deterministic:
            raise ModelRefused("in so few bits a row's answer depends on its company: --autocast wants --deterministic")
        if unknown := set(self.accepted_dtypes) - {"uint8", "float16"}:
            raise ModelRefused(f"inputs are never {', '.join(sorted(unknown))}: give --payload uint8,float16, or none")


def find_model(source: str) -> nn.Module | Path:
    """The model that `source` names: a `.pt2` file, or what `package:factory`, called without arguments, returns."""
    if source.endswith(".pt2"):
        return Path(source)
    package, _, factory = source.partition(":")
    if not (package and factory):
        raise ModelRefused(f"{source!r} names no model: give package:factory, or the path of a .pt2 file")
    sys.path.insert(0, "")  # the user's own package lies where the command runs
    try:
        made = getattr(importlib.import_module(package), factory)()
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ModelRefused(f"cannot make a model with {source}: {error}") from error
    finally:
        sys.path.remove("")
    if not isinstance(made, nn.Module):
        raise ModelRefused(f"{source} returned {type(made).__name__}: it must return a torch.nn.Module")
    return made


def host(
    model: nn.Module | Path,
    repository: Repository,
    draft: Draft,
    parts: Mapping[str, tuple[nn.Module, tuple[int, ...]]] | None = None,
    outputs: Sequence[Output] = (),
) -> Card:
    """Check a model and put it into the repository; `parts` are published with it, by name, each with the shape of one
    of its rows; with `outputs` it is a feature model, see `features.host_features`. Before anything is written:
    `ModelRefused` with one sentence, `FileExistsError` for a version that is there already, `ValueError` for a name
    that is none.
    """
    with tempfile.TemporaryDirectory(prefix="mirage-import-") as folder:
        path = Path(folder) / "model.pt2"
        try:
            if isinstance(model, Path):
                archive.strip(model, path)
            else:
                archive.save(model, path, input_shape=draft.input_shape)
            info = archive.check(path)
            loaded = archive.load(path)
        except archive.UnsafeArchive as error:
            raise ModelRefused(str(error)) from error
        except FileNotFoundError as error:
            raise ModelRefused(f"there is no file {model}") from error
        except ValueError as error:
            raise ModelRefused(f"{error}; check --input-shape, and take batches of any size") from error
        width = _check(loaded, draft, len(outputs))
        data = path.read_bytes()
        card = Card(
            **asdict(draft),
            classes=0 if outputs else width,
            kind="features" if outputs else "neural",
            outputs=tuple(outputs),
            parameters=info.parameters,
            archive_bytes=len(data),
            archive_sha256=hashlib.sha256(data).hexdigest(),
            torch_version=info.torch_version,
            parts=tuple(_save_part(Path(folder), name, *part) for name, part in (parts or {}).items()),
        )
        repository.add(path, card, {part.name: Path(folder) / f"{part.name}.pt2" for part in card.parts})
    return card


def _save_part(folder: Path, name: str, module: nn.Module, input_shape: tuple[int, ...]) -> Part:
    path = folder / f"{name}.pt2"
    archive.save(module, path, input_shape=input_shape)
    archive.check(path)
    data = path.read_bytes()
    return Part(name, len(data), hashlib.sha256(data).hexdigest())


def _check(module: nn.Module, draft: Draft, outputs: int = 0) -> int:
    """The number of columns of a model that behaves as a hosted model must: logits, or the `outputs` of a feature
    model; `ModelRefused` otherwise.
    """
    what = "outputs" if outputs else "logits"
    generator = torch.Generator().manual_seed(0)
    x = draft.low + (draft.high - draft.low) * torch.rand((5, *draft.input_shape), generator=generator)
    answers = {n: _logits(module, x[:n]) for n in (5, 1, 2)}
    shape = list(answers[5].shape)
    if outputs and shape != [5, outputs]:
        raise ModelRefused(f"five rows gave an output of shape {shape}: return a column for each of {outputs} outputs")
    if len(shape) != 2 or shape[0] != 5 or (shape[1] < 2 and not outputs):
        raise ModelRefused(f"five rows gave an output of shape {shape}: return logits of shape (N, C)")
    if not torch.isfinite(answers[5]).all():
        raise ModelRefused(f"the model's {what} are not finite on inputs inside the range: check --range")
    if not torch.equal(answers[5], _logits(module, x)):
        raise ModelRefused("the same input gave two answers: call .eval() before exporting, dropout is still on")
    for n in (1, 2):
        few = answers[n]
        if draft.deterministic:  # its batches have one shape, so that what counts is the company, not the size
            few = _logits(module, torch.cat((x[:n], torch.full_like(x[n:], draft.low))))[:n]
        if not torch.allclose(few, answers[5][:n], atol=_TOLERANCE, rtol=_TOLERANCE):
            raise ModelRefused("a row's answer depends on the batch: call .eval() before exporting, batch norm trains")
    if outputs and not bool(((answers[5] >= 0) & (answers[5] <= 1)).all()):
        raise ModelRefused("an output lies outside [0, 1]: scale the outputs, for example with a sigmoid at the end")
    if not outputs and bool((answers[5] >= 0).all()) and torch.allclose(answers[5].sum(1), torch.ones(5), atol=1e-4):
        raise ModelRefused("the outputs are probabilities: return logits, the server applies the softmax itself")
    probe = x.clone().requires_grad_()
    answer = module(probe)
    gradient = torch.autograd.grad(answer.sum(), probe, allow_unused=True)[0] if answer.requires_grad else None
    if gradient is None:
        raise ModelRefused("the output has no gradient with respect to the input: keep detach and no_grad out of it")
    return int(shape[1])


def _logits(module: nn.Module, x: Tensor) -> Tensor:
    try:
        with torch.no_grad():
            out = module(x)
    except Exception as error:
        raise ModelRefused(
            f"a batch of {len(x)} rows of shape {list(x.shape[1:])} failed ({str(error).splitlines()[0][:200]}):"
            " check --input-shape, and export with a dynamic batch dimension"
        ) from error
    if not isinstance(out, Tensor):
        raise ModelRefused(f"the model returned {type(out).__name__}: return one tensor of logits (N, C)")
    return out.float()
