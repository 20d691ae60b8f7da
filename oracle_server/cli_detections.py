"""Detections of attacks on the command line: how a key is given one, and how its flags are shown."""

from __future__ import annotations

import click

from protos.mirage.v1 import admin_pb2

__all__ = ["named_detection", "state_words"]


def named_detection(text: str) -> tuple[str, str, tuple[tuple[str, float], ...]]:
    """`name:verdict=log|throttle|suspend,parameter=value,...` as (name, verdict, ((parameter, value), ...)).

    >>> named_detection("fingerprints:verdict=suspend,threshold=25")
    ('fingerprints', 'suspend', (('threshold', 25.0),))
    >>> named_detection("distances")
    ('distances', 'log', ())
    """
    name, _, rest = text.partition(":")
    words = {word.partition("=")[0]: word.partition("=")[2] for word in rest.split(",") if word}
    verdict = words.pop("verdict", "log")
    try:
        return name, verdict, tuple(sorted((parameter, float(value)) for parameter, value in words.items()))
    except ValueError:
        raise click.UsageError(f"--detect {text}: write name:verdict=suspend,parameter=value") from None


def state_words(info: admin_pb2.KeyInfo, expired: bool) -> str:
    """Whether a key is served, a line for each flag, and one while an old secret is accepted beside the new one."""
    suspended = any(flag.verdict == "suspend" and not flag.HasField("lifted") for flag in info.flags)
    state = "revoked" if info.HasField("revoked") else "expired" if expired else "suspended" if suspended else "valid"
    lines = [
        f"flagged by {flag.detector} at row {flag.row} ({flag.verdict}{', lifted' if flag.HasField('lifted') else ''})"
        for flag in info.flags
    ]
    if info.HasField("former_until"):
        lines.append(f"old secret accepted until {info.former_until.ToDatetime():%Y-%m-%d %H:%M:%S} UTC")
    return "\n".join([state, *lines])
