"""Contracts between their forms: `threat_model.Contract`, the wire's message, and words."""

from __future__ import annotations

from defenses.response import make_response
from oracle_server.detections import check_detections
from oracle_server.threat_model import Access, Contract
from protos.contracts import contract_values
from protos.mirage.v1 import oracle_pb2 as pb

__all__ = ["contract_from_message", "contract_message", "contract_words"]

_ACCESS = {
    Access.WEIGHTS: pb.Contract.ACCESS_WEIGHTS,
    Access.SCORES: pb.Contract.ACCESS_SCORES,
    Access.LABEL: pb.Contract.ACCESS_LABEL,
}


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
