"""The models that are being served, and which of them a key may ask."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from oracle_server.errors import Reason, Refusal
from oracle_server.ledger import Key
from oracle_server.models.card import Card
from oracle_server.scheduler import Scheduler

__all__ = ["DAMAGED", "Hosted", "Models"]

DAMAGED = "the files of the model {} are damaged on the server: tell the operator"
_NOT_SERVED = "the model {} cannot be served at present: tell the operator"  # damaged, or its upstream did not answer


@dataclass(frozen=True)
class Hosted:
    """A model that is being served.

    max_rows  how many rows one request may carry
    form      in which a neural network's forward passes run, see `models/forms.py`; empty for other models
    """

    card: Card
    archive: Path
    scheduler: Scheduler
    max_rows: int
    form: str = ""


class Models:
    """Models by `name/version`; `broken` are those that lie here and cannot be served."""

    def __init__(self, hosted: Mapping[str, Hosted], broken: Collection[str] = ()) -> None:
        self._hosted = hosted
        self._broken = broken

    def of(self, key: Key, asked: str) -> Hosted:
        """The model of a key that asks for `asked`: its `name/version`, its name, or nothing. A `Refusal` for any other
        model, and for one that is not served.
        """
        if asked not in ("", key.model, key.model.rpartition("/")[0]):
            raise Refusal(Reason.OTHER_MODEL, f"this key is for the model {key.model} and no other")
        hosted = self._hosted.get(key.model)
        if key.model in self._broken:
            raise Refusal(Reason.MODEL_UNAVAILABLE, _NOT_SERVED.format(key.model))
        if hosted is None:
            raise Refusal(Reason.NO_MODEL, f"the model {key.model} of this key is not served here: tell the operator")
        return hosted

    async def close(self) -> None:
        """Let the pass under way end, and start no other."""
        for hosted in self._hosted.values():
            await hosted.scheduler.close()
