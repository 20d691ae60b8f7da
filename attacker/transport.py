"""How the attacker reaches a server: TLS with the certificates that it is told to trust, plain text on loopback."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import grpc

from protos.transport import is_loopback, read_authorities, read_pair

__all__ = ["Tls", "plain_text_options", "stays_here"]


@dataclass(frozen=True)
class Tls:
    """PEM files of a client: certificates that it trusts and, for mutual TLS, its own certificate and private key."""

    trusted: Path
    certificate: Path | None = None
    key: Path | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """`ValueError` when the files are not what they are said to be."""
        if self.certificate is None or self.key is None:
            return grpc.ssl_channel_credentials(read_authorities(self.trusted))
        certificate, key = read_pair(self.certificate, self.key)
        return grpc.ssl_channel_credentials(read_authorities(self.trusted), key, certificate)


def plain_text_options(address: str, beyond_loopback: bool) -> list[tuple[str, int]]:
    """Options of a channel without TLS: none but, on loopback, to pass no proxy. `ValueError` where the key would leave
    this machine, unless `beyond_loopback` says that it may.
    """
    if stays_here(address):
        return [("grpc.enable_http_proxy", 0)]
    if beyond_loopback:
        return []
    raise ValueError(
        f"{address} is not on loopback and the key would travel in plain text: give --certificate"
        " (or --plain-text-beyond-loopback, behind something that encrypts)"
    )


def stays_here(address: str) -> bool:
    """Whether what is sent to an address, as gRPC writes it, never leaves this machine.

    >>> [stays_here(address) for address in ("127.0.0.1:50051", "localhost:1", "[::1]:1", "[::1]", "unix:/run/o.sock")]
    [True, True, True, True, True]
    >>> [stays_here(address) for address in ("192.0.2.7:50051", "example.org:1", "::1:5001", "dns:///localhost:1", "")]
    [False, False, False, False, False]
    """
    bare = address.endswith("]") or (address.count(":") != 1 and not address.startswith("["))  # without a port
    host = address if bare else address.rpartition(":")[0]
    return is_loopback(host) or address.startswith("unix:")
