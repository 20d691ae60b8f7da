"""A key's contract in plain values, as both sides read it off the wire."""

from __future__ import annotations

from typing import Any

from protos.mirage.v1 import oracle_pb2 as pb

__all__ = ["contract_values"]


def contract_values(message: pb.Contract) -> dict[str, Any]:
    """Every field of a contract by name: None where it is absent, `access` in lower case, `expires` in Unix seconds."""
    return {
        "access": pb.Contract.Access.Name(message.access).removeprefix("ACCESS_").lower(),
        "top_k": message.top_k if message.HasField("top_k") else None,
        "round_to": message.round_to if message.HasField("round_to") else None,
        "features": tuple(message.features),
        "defences": tuple((d.name, tuple(sorted(d.parameters.items()))) for d in message.defences),
        "budget": message.budget if message.HasField("budget") else None,
        "rate": message.rate if message.HasField("rate") else None,
        "detections": tuple((d.name, d.verdict, tuple(sorted(d.parameters.items()))) for d in message.detections),
        "expires": message.expires.ToNanoseconds() / 1e9 if message.HasField("expires") else None,
    }
