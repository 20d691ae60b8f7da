"""Certificates of tests, the files that a server has of them, and clients that connect with them."""

from __future__ import annotations

import datetime
import socket
import ssl
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from oracle_server.certificates import Pair, new_authority, server_pair
from tests.serving import Caller, Server, inputs

__all__ = ["HOSTS", "LAST_WEEK", "Files", "answered", "connected", "der", "shown_by"]

HOSTS = ("127.0.0.1", "localhost")
LAST_WEEK = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=7)


@dataclass
class Files:
    """An authority and the PEM files of a server that it vouches for."""

    folder: Path
    authority: Pair = field(default_factory=lambda: new_authority(1))

    def __post_init__(self) -> None:
        self.server = server_pair(self.authority, HOSTS, 1)
        self.put("ca.pem", self.authority.pem()[0])
        self.put_server(self.server)

    def put(self, name: str, data: bytes) -> Path:
        """Replace a file at once, as whoever renews certificates should."""
        new = self.folder / f"{name}.new"
        new.write_bytes(data)
        return new.replace(self.folder / name)

    def put_server(self, pair: Pair) -> None:
        for name, data in zip(("server.pem", "server-key.pem"), pair.pem(), strict=True):
            self.put(name, data)

    @property
    def options(self) -> tuple[str, ...]:
        return "--tls-certificate", f"{self.folder}/server.pem", "--tls-key", f"{self.folder}/server-key.pem"

    @property
    def mutual(self) -> tuple[str, ...]:
        return *self.options, "--tls-client-ca", str(self.put("client-ca.pem", self.authority.pem()[0]))


def connected(server: Server, files: Files, shown: Pair | None = None, host: str = "") -> grpc.Channel:
    """A channel of its own that trusts the authority of `files`."""
    certificate, key = (None, None) if shown is None else shown.pem()
    credentials = grpc.ssl_channel_credentials(files.authority.pem()[0], key, certificate)
    own: list[tuple[str, object]] = [("grpc.use_local_subchannel_pool", 1)]
    named = [("grpc.ssl_target_name_override", host)] if host else []
    return grpc.secure_channel(server.address, credentials, options=[*own, *named])


def answered(channel: grpc.Channel, caller: Caller) -> bool:
    """Whether a call with a good key is answered; without a connection there is no status of ours."""
    caller.server.channel = channel
    try:
        return caller.predict(inputs(1)).receipt.rows_charged == 1
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.UNAVAILABLE:
            raise
        return False


def shown_by(server: Server) -> bytes:
    """The certificate, DER, that a new connection sees."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    with socket.create_connection(("127.0.0.1", server.port), 10) as plain, context.wrap_socket(plain) as wrapped:
        return wrapped.getpeercert(binary_form=True) or b""


def der(pair: Pair) -> bytes:
    return ssl.PEM_cert_to_DER_cert(pair.pem()[0].decode())
