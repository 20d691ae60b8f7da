"""What both ends of the wire hold to: plain text on loopback alone, and PEM files that are what they are said to be."""

from __future__ import annotations

import ipaddress
import ssl
from pathlib import Path

__all__ = ["is_loopback", "read_authorities", "read_pair"]


def is_loopback(host: str) -> bool:
    """Whether what is sent to a host stays on this machine: an address of 127.0.0.0/8, ::1, or `localhost`.

    Other names are not looked up: what they stand for may change between the look and the connection.

    >>> [is_loopback(host) for host in ("127.0.0.9", "[::1]", "::1", "localhost")]
    [True, True, True, True]
    >>> [is_loopback(host) for host in ("0.0.0.0", "[::]", "", "10.0.0.1", "localhost.example.org")]
    [False, False, False, False, False]
    """
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def read_pair(certificate: Path, key: Path) -> tuple[bytes, bytes]:
    """A certificate with its chain and its private key, in PEM; `ValueError` when they do not belong together."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
        return certificate.read_bytes(), key.read_bytes()
    except OSError as error:  # ssl.SSLError is one
        raise ValueError(
            f"{certificate} and {key} are no PEM certificate and its private key without a password: {error}"
        ) from error


def read_authorities(certificates: Path) -> bytes:
    """Certificates that are trusted, in PEM; `ValueError` when there is none in the file."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(certificates)
        return certificates.read_bytes()
    except OSError as error:
        raise ValueError(f"{certificates} holds no PEM certificate: {error}") from error
