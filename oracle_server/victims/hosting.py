"""Train a model on the private part of a split and put it among the hosted ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

from torch import nn

from defenses.training import Named
from oracle_server.models.card import Card
from oracle_server.models.importing import Draft, host
from oracle_server.models.neural import choose_device
from oracle_server.models.repository import Repository
from oracle_server.victims.defended import about_defence, defence_words, write_defence
from oracle_server.victims.images import ImageSet
from oracle_server.victims.split_models import target_error, train_target
from oracle_server.victims.splits import Split, load, split_named
from oracle_server.victims.trained import Epoch

__all__ = ["host_with_rows", "train_and_host"]


@runtime_checkable
class Parted(Protocol):
    """A module whose parts are of use on their own: each is published as an archive beside the whole."""

    def parts(self) -> Mapping[str, tuple[nn.Module, tuple[int, ...]]]:
        """Modules by name, each with the shape of one of its rows."""


def train_and_host(
    architecture: str,
    split_name: str,
    repository: Repository,
    *,
    name: str,
    version: str = "1",
    seed: int = 0,
    device: str = "auto",
    deterministic: bool = False,
    max_steps: int | None = None,
    defence: Named | None = None,
    progress: Callable[[Epoch], None] | None = None,
) -> Card:
    """Train (or find in the cache) and host, with its parts. `split.json`, beside the archive, lists the rows that the
    model has seen. `max_steps` and `defence` are those of `train_target`; what a defence
    was and spent, and the public rows that it started from, is in `defence.json`.

    Raises `ValueError` for an unknown architecture, split or defence, `FileExistsError` for a version that is
    there already.
    """
    split = split_named(split_name)
    faces = load(split)
    trained = train_target(
        split,
        architecture,
        faces=faces,
        max_steps=max_steps,
        defence=defence,
        seed=seed,
        device=str(choose_device(device)),
        progress=progress,
    )
    error = target_error(trained, split, faces)
    about = None if defence is None else about_defence(defence, trained)
    how = "" if about is None else f", trained with defence {defence_words(about)}"
    draft = Draft(
        name=name,
        version=version,
        input_shape=faces.images.shape[1:],
        deterministic=deterministic,
        description=f"{architecture} on {split.name}{how}: test error {error:.4f}; {faces.credit}",
    )
    card = host_with_rows(trained.module.cpu(), repository, draft, split, faces)
    if about is not None:
        write_defence(repository, card.id, about)
    return card


def host_with_rows(module: nn.Module, repository: Repository, draft: Draft, split: Split, faces: ImageSet) -> Card:
    """Host a module that was trained on the split's target rows, with its parts and `split.json`. Raises as `host`."""
    parts = module.parts() if isinstance(module, Parted) else None
    card = host(module, repository, draft, parts=parts)
    seen = {"split": split.name, "sha256": split.sha256(), "data_sha256": faces.sha256(), **split.index_lists()}
    (repository.archive(card).parent / "split.json").write_text(json.dumps(seen) + "\n")
    return card
