"""TLS files that change while the server runs: new connections get what is new and good, the others go on."""

from __future__ import annotations

import os
from collections.abc import Callable

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from oracle_server.certificates import client_pair, new_authority, server_pair
from tests.fixtures import Start
from tests.tls import HOSTS, Files, answered, connected, der, shown_by

KEPT = "new TLS files are not used, those of before stay: "


def test_new_files_are_for_new_connections(start: Start, files: Files) -> None:
    """Those that there are go on as they are: the stream stays open, the channel never leaves READY."""
    server = start(options=files.options)
    caller = server.new_key()
    old = connected(server, files)
    assert answered(old, caller)
    assert shown_by(server) == der(files.server)
    states: list[grpc.ChannelConnectivity] = []
    old.subscribe(states.append)
    watch = health_pb2_grpc.HealthStub(old).Watch(health_pb2.HealthCheckRequest(), timeout=60)
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    renewed = server_pair(files.authority, HOSTS, 1)
    files.put_server(renewed)
    assert shown_by(server) == der(renewed)
    assert answered(connected(server, files), caller)
    assert answered(old, caller)
    assert watch.is_active()
    assert set(states) <= {grpc.ChannelConnectivity.READY, grpc.ChannelConnectivity.IDLE}
    assert server.process.log.count("new connections get the TLS certificate") == 1
    watch.cancel()


def garbage(files: Files) -> None:
    files.put("server.pem", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")


def half(files: Files) -> None:
    """A certificate without its key, as in the middle of a renewal."""
    files.put("server.pem", server_pair(files.authority, HOSTS, 1).pem()[0])


def missing(files: Files) -> None:
    (files.folder / "server-key.pem").unlink()


def truncated(files: Files) -> None:
    path = files.folder / "server-key.pem"
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("spoil", [garbage, half, missing, truncated])
def test_a_broken_pair_changes_nothing(start: Start, files: Files, spoil: Callable[[Files], None]) -> None:
    """Connections go on with the pair of before, the log has one sentence, and the next good pair is taken."""
    server = start(options=files.options)
    caller = server.new_key()
    spoil(files)
    for _ in range(3):
        assert shown_by(server) == der(files.server)
    assert answered(connected(server, files), caller)
    (line,) = [line for line in server.process.log.splitlines() if KEPT in line]
    assert " WARNING " in line
    renewed = server_pair(files.authority, HOSTS, 1)
    files.put_server(renewed)
    assert shown_by(server) == der(renewed)


def test_an_authority_that_is_replaced_lets_nobody_new_in(start: Start, files: Files) -> None:
    server = start(options=files.mutual)
    caller = server.new_key()
    client = client_pair(files.authority, 1)
    assert answered(old := connected(server, files, client), caller)
    other = new_authority(1)
    files.put("client-ca.pem", other.pem()[0])
    assert not answered(connected(server, files, client), caller)
    assert answered(connected(server, files, client_pair(other, 1)), caller)
    assert answered(old, caller)
