"""A model that runs elsewhere: its answers, probabilities or logits, become the logits that `release` takes.

Probabilities p become log p, of which the softmax makes p again: zeros stay zeros, and what is smaller stays smaller.
The upstream's numbers count as float32, so that an answer has no more bits than one of a model that is hosted here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import numpy as np

from oracle_server.models.card import Card

__all__ = ["Away", "ProxiedModel", "distributions"]

_LOG = logging.getLogger(__name__)
_SUM = 1e-3  # by which the probabilities of a row may miss one: half precision does by that much
_NONE = -1000.0  # the logit of a probability of zero: exp of it is 0 in float64, and it is a finite number


class Away(ConnectionError):
    """The upstream does not answer, whatever it is asked: it is not there, too slow, or does not let this server in."""


class ProxiedModel:
    """An upstream as a model. `ask` takes rows (N, *input_shape) of its own, float32, and gives its answers (N, C) to
    them; it raises `Away`, or whatever it likes, and is called by one thread.
    """

    def __init__(self, card: Card, ask: Callable[[np.ndarray], np.ndarray], batch: int) -> None:
        self.card = card
        self.batch = batch
        self._ask = ask
        self._away = False

    def logits(self, requests: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Logits (N, C) float64 of each request; no numbers for rows to which the upstream has no answer, which fails
        their requests alone. That it is away fails all of them at once: to try each alone would take as long again.
        """
        rows = np.concatenate(requests)
        try:
            answers = self._ask(rows)
        except Away as error:
            if not self._away:
                _LOG.error("%s: %s; its callers get MODEL_FAILED until it answers", self.card.id, error)
            self._away = True
            return [np.full((len(request), self.card.classes), np.nan) for request in requests]
        if self._away:
            _LOG.info("%s: the upstream answers again", self.card.id)
        self._away = False
        logits = self._logits(answers, len(rows))
        return np.split(logits, np.cumsum([len(request) for request in requests])[:-1])

    def warm_up(self) -> None:
        """A row and a full pass of legal inputs: the upstream takes them both, or `ValueError` says what to change."""
        middle = np.full((self.batch, *self.card.input_shape), (self.card.low + self.card.high) / 2, dtype=np.float32)
        for rows in (1, self.batch):
            try:
                logits = self._logits(self._ask(middle[:rows].copy()), rows)
            except Away:
                raise
            except (Exception, SystemExit) as error:  # whatever a user's own code does
                raise ValueError(f"the upstream of {self.card.id} failed on a batch of {rows} rows: {error}") from error
            if not np.isfinite(logits).all():
                raise ValueError(f"the upstream of {self.card.id} gives no {self.card.upstream} inside the range")

    def _logits(self, answers: np.ndarray, rows: int) -> np.ndarray:
        wanted = (rows, self.card.classes)
        if answers.shape != wanted:
            raise ValueError(f"an answer has shape {list(answers.shape)} instead of {list(wanted)}")
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):  # what is no number fails its request
            numbers = answers.astype(np.float32).astype(np.float64)
            if self.card.upstream == "logits":
                return numbers
            logits = np.where(numbers > 0, np.log(numbers), _NONE)
            logits[~distributions(numbers)] = np.nan
            return logits


def distributions(rows: np.ndarray) -> np.ndarray:
    """Which rows (N, C) are probabilities (N,): none below zero, and together one, within a thousandth.

    >>> distributions(np.array([[0.25, 0.75], [1, 0], [0.5, 0.4], [1.5, -0.5], [np.nan, 1]])).tolist()
    [True, True, False, False, False]
    """
    return np.asarray((rows >= 0).all(axis=1) & (np.abs(rows.sum(axis=1) - 1) <= _SUM))
