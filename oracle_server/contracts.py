"""Contracts between their forms: `threat_model.Contract`, the wire's message, and words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from defenses.response import RESPONSES, make_response
from oracle_server.detections import check_detections
from oracle_server.threat_model import Access, Contract
from protos.contracts import contract_values
from protos.mirage.v1 import oracle_pb2 as pb

__all__ = [
    "RESTRICTIONS",
    "Restriction",
    "contract_from_message",
    "contract_message",
    "contract_words",
    "defended",
    "keeps_argmax",
]

_ACCESS = {
    Access.WEIGHTS: pb.Contract.ACCESS_WEIGHTS,
    Access.SCORES: pb.Contract.ACCESS_SCORES,
    Access.LABEL: pb.Contract.ACCESS_LABEL,
}


@dataclass(frozen=True)
class Restriction:
    """A field of the contract that does a defence's work in `release`, where its value is the strength."""

    field: str
    keeps_argmax: bool  # of what is released, ties broken by class index


RESTRICTIONS: Mapping[str, Restriction] = {
    "rounding": Restriction("round_to", keeps_argmax=False),  # two scores may become one
    "top_k": Restriction("top_k", keeps_argmax=True),
    "label": Restriction("access", keeps_argmax=True),
}


def defended(contract: Contract, name: str, strength: float | None = None) -> Contract:
    """`contract` with one more defence: a row of `RESPONSES`, by its parameter of strength and the others' defaults, or
    of `RESTRICTIONS`. `ValueError` for a name that neither has, or a strength that it cannot have; `label` has none.

    >>> contract_words(defended(Contract(Access.SCORES), "keyed_noise", 0.05))
    'scores, keyed_noise(sigma=0.05)'
    >>> contract_words(defended(Contract(Access.SCORES), "rounding", 0.1))
    'scores, rounded to 0.1'
    """
    if name not in RESPONSES and name not in RESTRICTIONS:
        raise ValueError(f"no defence {name!r}; there is {', '.join([*RESPONSES, *RESTRICTIONS])}")
    if (strength is None) != (name == "label"):
        raise ValueError("label has no strength: leave it out" if name == "label" else f"{name} needs a strength")
    if strength is None:
        return replace(contract, access=Access.LABEL, top_k=None, round_to=None)
    if name in RESPONSES:
        parameters = {RESPONSES[name].strength: strength}
        make_response(name, parameters)
        return replace(contract, defences=(*contract.defences, (name, tuple(parameters.items()))))
    value = int(strength) if name == "top_k" and strength % 1 == 0 else strength
    return Contract.from_dict(contract.as_dict() | {RESTRICTIONS[name].field: value})


def keeps_argmax(contract: Contract) -> bool:
    """Whether what is released is promised to have the model's own arg max, ties broken by class index."""
    responses = [make_response(name, dict(values)) for name, values in contract.defences]
    return contract.round_to is None and all(response.keeps_argmax for response in responses)


def contract_message(contract: Contract) -> pb.Contract:
    message = pb.Contract(
        access=_ACCESS[contract.access],
        top_k=contract.top_k,
        round_to=contract.round_to,
        features=contract.features,
        defences=[pb.Defence(name=name, parameters=dict(values)) for name, values in contract.defences],
        detections=[pb.Detection(name=n, verdict=v, parameters=dict(values)) for n, v, values in contract.detections],
        budget=contract.budget,
        rate=contract.rate,
    )
    if contract.expires is not None:
        message.expires.FromNanoseconds(int(contract.expires * 1e9))
    return message


def contract_from_message(message: pb.Contract) -> Contract:
    """The contract in a message; `ValueError` with one sentence for one that cannot be kept."""
    if message.access not in _ACCESS.values():
        raise ValueError("access must be one of weights, scores, label")
    for defence in message.defences:
        make_response(defence.name, defence.parameters)
    contract = Contract.from_dict(contract_values(message))
    check_detections(contract)
    return contract


def contract_words(contract: Contract) -> str:
    """A contract in a few words: "scores, top 1, rounded to 0.01, budget 5000"."""
    words = [contract.access.value]
    words += [f"top {contract.top_k}"] if contract.top_k else []
    words += [f"rounded to {contract.round_to:g}"] if contract.round_to else []
    words += [f"only {' and '.join(contract.features)}"] if contract.features else []
    words += [f"{name}({', '.join(f'{k}={v:g}' for k, v in values)})" for name, values in contract.defences]
    words += [f"budget {contract.budget}"] if contract.budget is not None else []
    words += [f"{contract.rate:g} rows/s"] if contract.rate else []
    for name, verdict, values in contract.detections:
        words += [f"{name} -> {verdict}" + (f" ({', '.join(f'{k}={v:g}' for k, v in values)})" if values else "")]
    return ", ".join(words)
