"""Models that run elsewhere join those that are hosted: each upstream is asked what it is, and gets a card."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

import numpy as np

from oracle_server.models.card import Card
from oracle_server.models.proxied import Away, ProxiedModel, distributions
from oracle_server.models.repository import Repository
from oracle_server.sources import named
from oracle_server.upstream import Upstream
from oracle_server.upstream_v2 import V2Model

__all__ = ["connect"]

_PROBE = 5  # rows, of which the number of classes is learnt, and whether the answers are probabilities


def connect(upstream: Upstream, repository: Repository, batch: int, message_bytes: int) -> ProxiedModel:
    """The model of an --upstream, which has its card in the repository from its first time on.

    Raises `Away` when it does not answer, and `ValueError` with one sentence when it is not what its card says, or
    nothing that a contract fits; `FileExistsError` for the name of a model that is hosted here.
    """
    known = _known(upstream, repository)
    ask: Callable[[np.ndarray], np.ndarray]
    if upstream.address.startswith("python:"):
        ask, fixed = _function(upstream.address.removeprefix("python:")), None
        shape = upstream.shape or (known.input_shape if known else None)
        if shape is None:
            raise ValueError(f"{upstream.address} is a function: say what a row is, ?shape=1,112,92 for example")
    else:
        ask = server = V2Model(upstream, message_bytes)
        shape, fixed = server.shape, server.batch
    low, high = upstream.range or ((known.low, known.high) if known else (0.0, 1.0))
    rows = min(_PROBE, fixed or upstream.batch or batch)
    answers = _probe(upstream, ask, np.random.default_rng(0).uniform(low, high, (rows, *shape)).astype(np.float32))
    outputs = upstream.outputs or ("probabilities" if distributions(answers).all() else "logits")
    name, _, version = upstream.model.partition("/")
    card = Card(
        name=name,
        version=version,
        input_shape=shape,
        low=low,
        high=high,
        classes=answers.shape[1],
        parameters=0,
        archive_bytes=0,
        archive_sha256="",
        torch_version="",
        description=upstream.description or "a model that runs elsewhere, behind this server",
        upstream=outputs,
    )
    if known is None:
        repository.add(None, card)
    else:
        card = _same(card, known)
    return ProxiedModel(card, ask, fixed or upstream.batch or batch)


def _known(upstream: Upstream, repository: Repository) -> Card | None:
    try:
        known = repository.card(upstream.model)
    except LookupError:
        return None
    if not known.upstream:
        raise FileExistsError(f"{known.id} is hosted here already: choose another name for {upstream.address}")
    return known


def _same(card: Card, known: Card) -> Card:
    """The card that keys were made for, if it still holds."""
    card = replace(card, description=known.description, range_marker=known.range_marker)
    if differ := [field.name for field in fields(Card) if getattr(card, field.name) != getattr(known, field.name)]:
        said = ", ".join(f"{name} {getattr(known, name)} and has {getattr(card, name)} now" for name in differ)
        raise ValueError(f"the card of {known.id} says {said}: serve what has changed as a new version")
    return known


def _function(source: str) -> Callable[[np.ndarray], np.ndarray]:
    try:
        found = named(source)
    except (Exception, SystemExit) as error:  # whatever a user's own module does
        raise ValueError(f"cannot find python:{source} ({type(error).__name__}: {error})") from error
    if not callable(found):
        raise ValueError(f"python:{source} is no function of rows (N, *shape) that returns scores (N, C)")
    return lambda rows: np.asarray(found(rows))


def _probe(upstream: Upstream, ask: Callable[[np.ndarray], np.ndarray], rows: np.ndarray) -> np.ndarray:
    """Answers (N, C) to a few rows, finite numbers of at least two classes."""
    try:
        answers = np.asarray(ask(rows), dtype=np.float32)
    except Away:
        raise
    except (Exception, SystemExit) as error:  # whatever a user's own code does
        raise ValueError(f"{upstream.address} failed on {len(rows)} rows ({type(error).__name__}: {error})") from error
    if answers.ndim != 2 or len(answers) != len(rows) or answers.shape[1] < 2:
        shape = list(answers.shape)
        raise ValueError(f"{upstream.address} answered {len(rows)} rows with {shape}: scores (N, C) are needed, C >= 2")
    if not np.isfinite(answers).all():
        raise ValueError(f"{upstream.address} answers what is no number to rows inside the range: say ?range=LOW,HIGH")
    return answers
