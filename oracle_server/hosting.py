"""What a server hosts: each model below its root whose files are those of its card, loaded and warm, and those that
run elsewhere and answer.

A model that cannot be served (an archive that is damaged, a card that nobody can read, a first pass that fails) takes
none of the others with it: it is named in the log, and its keys are told that it is not available.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from oracle_server.hosted import Hosted, Models
from oracle_server.inputs import largest_batch
from oracle_server.metrics import UNCOUNTED, Metrics
from oracle_server.models.card import Card
from oracle_server.models.features import FeatureModel
from oracle_server.models.forms import AUTO
from oracle_server.models.neural import NeuralModel
from oracle_server.models.proxied import ProxiedModel
from oracle_server.models.regression import RegressionModel
from oracle_server.models.repository import Repository
from oracle_server.models.tree import TreeModel
from oracle_server.scheduler import Model, Scheduler
from oracle_server.upstream import Upstream
from oracle_server.upstream_models import connect

__all__ = ["Hosting", "NothingToServe", "host_all"]

_LOG = logging.getLogger(__name__)


class NothingToServe(RuntimeError):
    """No model can be served; the sentence says why not."""


@dataclass(frozen=True)
class Hosting:
    """How models are run; see `ServeOptions`."""

    device: torch.device
    batch: int
    max_rows: int
    max_waiting: int
    message_bytes: int
    metrics: Metrics = UNCOUNTED
    forward: str = AUTO


def host_all(repository: Repository, hosting: Hosting, upstreams: Sequence[Upstream] = ()) -> Models:
    """Every model, those that can be served and those that cannot. `NothingToServe` when there is none of the first,
    `FileExistsError` when an upstream has the name of a model that is hosted here.
    """
    hosted: dict[str, Hosted] = {}
    broken: dict[str, str] = {}
    elsewhere: dict[str, ProxiedModel] = {}
    for upstream in upstreams:
        try:
            elsewhere[upstream.model] = connect(upstream, repository, hosting.batch, hosting.message_bytes)
        except FileExistsError:  # a model of its own has this name, and goes on having it
            raise
        except (ValueError, OSError) as error:
            broken[upstream.model] = str(error)
    folders = [path.parent for path in sorted(repository.folder.glob("*/*/card.json"))]
    for folder in folders:
        model = f"{folder.parent.name}/{folder.name}"
        if model in broken:
            continue
        try:
            hosted[model] = _host(folder, repository, hosting, elsewhere)
            _LOG.info("serving %s on %s", model, "its upstream" if model in elsewhere else hosting.device)
        except (ValueError, OSError) as error:
            broken[model] = str(error)
        except Exception as error:  # whatever torch makes of the model: its neighbours are served all the same
            broken[model] = f"{model} cannot be loaded and run ({type(error).__name__}: {error}): import it again"
    if not folders and not upstreams:
        raise NothingToServe(f"no model below {repository.folder}: make one with oracle-server train or import")
    if not hosted:
        raise NothingToServe(next(iter(broken.values())))
    for model, sentence in broken.items():
        _LOG.error("not serving %s: %s", model, sentence)
    return Models(hosted, broken)


def _host(folder: Path, repository: Repository, hosting: Hosting, elsewhere: Mapping[str, ProxiedModel]) -> Hosted:
    card = Card.read(folder / "card.json")
    archive = repository.archive(card)
    if archive.parent != folder:
        raise ValueError(f"{folder / 'card.json'} is the card of {card.id}: give the folder back its name")
    model: Model
    if not card.upstream:
        _check_files(archive, card, repository)
        model = _model(archive, card, hosting)
    elif card.id in elsewhere:
        model = elsewhere[card.id]
    else:
        raise ValueError(f"{card.id} is a model that runs elsewhere: say where, --upstream {card.id}=ADDRESS")
    model.warm_up()
    rows = largest_batch(card, hosting.message_bytes, hosting.max_rows)
    form, grain = (model.form, model.grain) if isinstance(model, NeuralModel) else ("", None)
    return Hosted(card, archive, Scheduler(model, hosting.max_waiting, hosting.metrics, grain), rows, form)


def _check_files(archive: Path, card: Card, repository: Repository) -> None:
    files = {archive: card.archive_sha256} | {repository.archive(card, p.name): p.sha256 for p in card.parts}
    for path, sha256 in files.items():
        if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            raise ValueError(f"{path} is not the archive of its card (SHA-256 differs): import the model again")


def _model(archive: Path, card: Card, hosting: Hosting) -> Model:
    if card.kind == "tree":
        return TreeModel(archive, card, hosting.batch)
    if card.kind == "regression":
        return RegressionModel(archive, card, hosting.batch)
    if card.kind == "features":
        return FeatureModel(archive, card, hosting.device, hosting.batch, hosting.forward)
    return NeuralModel(archive, card, hosting.device, hosting.batch, hosting.forward)
