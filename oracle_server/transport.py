"""How callers reach the server: TLS from files that may change while it runs, plain text on loopback."""

from __future__ import annotations

import logging
import os
import threading
from dataclasses import dataclass
from pathlib import Path

import grpc

from protos.transport import is_loopback, read_authorities, read_pair

__all__ = ["ServerError", "TlsFiles", "listen"]

_LOG = logging.getLogger(__name__)


class ServerError(RuntimeError):
    """The server cannot start; the sentence says what to do."""


@dataclass(frozen=True)
class TlsFiles:
    """PEM files of a server: its certificate with the chain, the private key, and, for mutual TLS, the certificates of
    the authorities of which every caller must show a certificate.
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None


def listen(
    server: grpc.aio.Server, host: str, port: int, tls: TlsFiles | None, plain_text_beyond_loopback: bool = False
) -> str:
    """Open the port; `host:port`, with the port that was chosen when 0 was asked for. `ServerError` when it cannot be,
    `ValueError` when the files of `tls` are none.
    """
    host = f"[{host}]" if ":" in host and not host.startswith("[") else host
    wanted = f"{host}:{port}"
    if tls is None and not is_loopback(host):
        if not plain_text_beyond_loopback:
            raise ServerError(
                f"{host} is not a loopback address: keys do not travel in plain text, give --tls-certificate and"
                " --tls-key (or --plain-text-beyond-loopback, behind something that encrypts)"
            )
        _LOG.warning("%s is served in plain text: whoever is on the way can read keys, questions and answers", wanted)
    credentials = None if tls is None else _Certificates(tls).credentials()
    try:
        chosen = (
            server.add_insecure_port(wanted) if credentials is None else server.add_secure_port(wanted, credentials)
        )
    except RuntimeError as error:
        raise ServerError(f"cannot listen on {wanted}: is the port in use? choose another --port") from error
    return f"{host}:{chosen}"


class _Certificates:
    """The files of a server, read again when they have changed. gRPC asks as each connection begins, from threads of
    its own, and goes on with what it had when the answer is None; connections that there are keep what they began with.
    """

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._lock = threading.Lock()
        self._looks = self._look()

    def credentials(self) -> grpc.ServerCredentials:
        mutual = self._files.client_ca is not None
        return grpc.dynamic_ssl_server_credentials(self._read(), self._changed, mutual)  # type: ignore[arg-type]

    def _changed(self) -> grpc.ServerCertificateConfiguration | None:
        """What new connections get from now on; None for the same as before: the files are the same, or are no good."""
        with self._lock:
            looks = self._look()
            if looks == self._looks:
                return None
            self._looks = looks
            try:
                good = self._read()
            except ValueError as error:
                _LOG.warning("new TLS files are not used, those of before stay: %s", error)
                return None
            if self._look() != looks:  # replaced while they were read: the next connection reads them again
                return None
            _LOG.info("new connections get the TLS certificate that %s has now", self._files.certificate)
            return good

    def _read(self) -> grpc.ServerCertificateConfiguration:
        certificate, key = read_pair(self._files.certificate, self._files.key)
        authorities = None if self._files.client_ca is None else read_authorities(self._files.client_ca)
        return grpc.ssl_server_certificate_configuration([(key, certificate)], authorities)

    def _look(self) -> tuple[tuple[int, int, int] | None, ...]:
        """What tells whether a file is another one: inode, size, time of the last change; None for none."""
        files = (self._files.certificate, self._files.key, self._files.client_ca)
        return tuple(_look(path) for path in files if path is not None)


def _look(path: Path) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
