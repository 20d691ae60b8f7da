"""Countermeasures on the answer: scores (N, C) -> scores (N, C), applied before rounding and truncation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, fields
from typing import ClassVar, Protocol

import numpy as np

from defenses.response.draws import Draws
from defenses.response.gaussian_noise import GaussianNoise
from defenses.response.keyed_noise import KeyedNoise
from defenses.response.reverse_sigmoid import ReverseSigmoid
from defenses.response.temperature import Temperature

__all__ = [
    "RESPONSES",
    "Draws",
    "GaussianNoise",
    "KeyedNoise",
    "Response",
    "ReverseSigmoid",
    "Temperature",
    "defend",
    "make_response",
]


class Response(Protocol):
    """A response defence with its parameters; `strength` names the one that says how much it does."""

    strength: ClassVar[str]

    @property
    def keeps_argmax(self) -> bool:
        """Whether every row's arg max, ties broken by class index, is promised to stay."""

    def __call__(self, scores: np.ndarray, draws: Draws) -> np.ndarray:
        """scores (N, C) -> scores (N, C), rows on the simplex both; a row's answer depends on no other row's."""


RESPONSES: dict[str, type[GaussianNoise] | type[ReverseSigmoid] | type[Temperature]] = {
    "gaussian_noise": GaussianNoise,
    "keyed_noise": KeyedNoise,
    "reverse_sigmoid": ReverseSigmoid,
    "temperature": Temperature,
}


def make_response(name: str, parameters: Mapping[str, float]) -> Response:
    """The named defence; `ValueError` with one sentence for a name, a parameter or a value that it does not have.

    >>> make_response("keyed_noise", {"sigma": 0.05, "keep": 1})
    KeyedNoise(sigma=0.05, keep=1.0)
    """
    if name not in RESPONSES:
        raise ValueError(f"no response defence {name!r}; there is {', '.join(RESPONSES)}")
    known = {field.name: field.default is MISSING for field in fields(RESPONSES[name])}
    for parameter in parameters:
        if parameter not in known:
            raise ValueError(f"{name} has no parameter {parameter!r}; it takes {', '.join(known)}")
    if missing := [parameter for parameter, needed in known.items() if needed and parameter not in parameters]:
        raise ValueError(f"{name} needs {', '.join(missing)}: write {name}:{missing[0]}=VALUE")
    return RESPONSES[name](**{parameter: float(value) for parameter, value in parameters.items()})


def defend(
    defences: Iterable[tuple[str, tuple[tuple[str, float], ...]]],
    seed: tuple[bytes, ...],
    keyed_seed: tuple[bytes, ...] = (),
    inputs: np.ndarray | None = None,
) -> Callable[[np.ndarray], np.ndarray]:
    """The named defences one after another, on the scores (N, C) of one request. `ValueError` as from `make_response`.

    Fresh noise is a function of `seed` and the row's place alone. A server passes (its secret, key id, request id):
    asking again under the same id gives the same draw, and a new draw needs a new id and so a new charge.

    Keyed noise is a function of `keyed_seed`, the defences up to its own, and the row of `inputs` (N, *shape). A server
    passes (its secret, model): the same input has the same noise, whoever asks and however often.
    """
    steps = [make_response(name, dict(parameters)) for name, parameters in defences]

    def apply(scores: np.ndarray) -> np.ndarray:
        for place, step in enumerate(steps):  # a generator each: no step's draws depend on how many another took
            keyed = keyed_seed and (*keyed_seed, repr(steps[: place + 1]).encode())
            scores = step(scores, Draws((*seed, place.to_bytes(8, "little")), keyed, inputs))
        return scores

    return apply
