"""A user's own model that runs elsewhere, or in a function of theirs, as `serve --upstream` names it:

    NAME[/VERSION]=grpc://HOST:PORT/MODEL[/VERSION]      a V2 (Open Inference Protocol) server; grpcs:// with TLS
    NAME[/VERSION]=python:package.module:function        or path/to/file.py:function: rows (N, *shape) float32 of its
                                                         own -> (N, C), called in this process by one thread

Facts follow as ?fact=value&fact=value, see `Upstream`. The address stays on the command line: it is not on the card,
so that no card that came from elsewhere makes this server run code or speak to anybody.
"""

from __future__ import annotations

import math
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Upstream"]


@dataclass(frozen=True)
class Upstream:
    """One --upstream, and its facts.

    shape    of one row; a V2 server's metadata say it where they are complete
    range    smallest and largest legal value [0,1]
    outputs  logits or probabilities; found out with a few rows where it is not said
    input, output  names of tensors of a V2 server, where its metadata name none, or several
    batch    rows in one pass; otherwise that of --batch
    timeout  seconds that a V2 server has, for a pass and at start [10]
    contents raw, or typed for a V2 server that takes no raw contents [raw]
    key_file whose first line goes to a V2 server as "authorization: Bearer ..."
    ca       PEM of authorities of a grpcs:// server; otherwise those that gRPC trusts
    """

    model: str
    address: str
    shape: tuple[int, ...] | None = None
    range: tuple[float, float] | None = None
    outputs: str | None = None
    input: str = ""
    output: str = ""
    batch: int | None = None
    timeout: float = 10.0
    contents: str = "raw"
    description: str = ""
    key_file: Path | None = None
    ca: Path | None = None
    plain_text_beyond_loopback: bool = False

    @classmethod
    def parse(cls, text: str) -> Upstream:
        """One --upstream; `ValueError` with one sentence for what is none."""
        model, equals, rest = text.partition("=")
        address, question, query = rest.partition("?")
        if not (model and equals and address.startswith(("grpc://", "grpcs://", "python:"))):
            raise ValueError(f"{text}: write NAME=grpc://HOST:PORT/MODEL, or NAME=python:package.module:function")
        facts: dict[str, Any] = {}
        try:
            pairs = urllib.parse.parse_qsl(query, strict_parsing=True) if question else []
        except ValueError:
            raise ValueError(f"{text}: write facts as ?fact=value&fact=value, in quotes for the shell") from None
        for fact, value in pairs:
            if fact not in _FACTS:
                raise ValueError(f"{text}: {fact} is no fact, there is {', '.join(_FACTS)}")
            try:
                facts[fact.replace("-", "_")] = _FACTS[fact](value)
            except ValueError as error:
                raise ValueError(f"{text}: {fact}={value}: {error}") from None
        if "@" in address and not address.startswith("python:"):
            raise ValueError("no secrets on a command line, where everybody reads them: use ?key-file=PATH")
        return cls(model if "/" in model else f"{model}/1", address, **facts)


def _shape(value: str) -> tuple[int, ...]:
    try:
        shape = tuple(int(n) for n in value.split(","))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1:
        raise ValueError("give the shape of one row, 1,112,92 for example")
    return shape


def _range(value: str) -> tuple[float, float]:
    try:
        low, high = (float(end) for end in value.split(","))
    except ValueError:
        low = high = math.nan
    if not (low < high and math.isfinite(low) and math.isfinite(high)):
        raise ValueError("give the smallest and the largest legal value, 0,1 for example")
    return low, high


def _one_of(*words: str) -> Callable[[str], str]:
    def chosen(value: str) -> str:
        if value not in words:
            raise ValueError(f"choose {' or '.join(words)}")
        return value

    return chosen


def _batch(value: str) -> int:
    if not (value.isdecimal() and int(value) > 0):
        raise ValueError("give a number of rows")
    return int(value)


def _timeout(value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 3600:
        raise ValueError("give a number of seconds up to 3600")
    return seconds


_FACTS: dict[str, Callable[[str], object]] = {
    "shape": _shape,
    "range": _range,
    "outputs": _one_of("logits", "probabilities"),
    "input": str,
    "output": str,
    "batch": _batch,
    "timeout": _timeout,
    "contents": _one_of("raw", "typed"),
    "description": str,
    "key-file": Path,
    "ca": Path,
    "plain-text-beyond-loopback": lambda value: _one_of("yes")(value) == "yes",
}
