"""TLS, mutual TLS, and plain text: who gets a connection and who does not."""

from __future__ import annotations

import datetime
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import grpc
import pytest

from attacker.oracle import Oracle, OracleError
from attacker.transport import Tls
from oracle_server.certificates import Pair, client_pair, new_authority, server_pair, write_test_set
from tests.fixtures import Command, Start
from tests.serving import Caller, Forker, Server, new_root
from tests.tls import HOSTS, LAST_WEEK, Files, answered, connected


def attack(forker: Forker, server: Server, caller: Caller, out: Path, *options: object) -> tuple[int, str]:
    """A short run of the attacker's command with these options."""
    words = ["run", "random_draws", "--set", "draws=50", "--address", server.address, "--quiet", "--patience", "0"]
    process = forker.start(
        "attacker",
        [*words, "--out", out, *options],
        log=out.with_suffix(".log"),
        environment={"MIRAGE_KEY": caller.key, "COLUMNS": "300"},
    )
    return process.wait(), process.log


# TLS


def test_a_client_trusts_the_certificate_that_it_is_given(
    forker: Forker, start: Start, files: Files, tmp_path: Path
) -> None:
    """The attacker trusts one authority; without it, or in plain text, there is no connection."""
    server = start(options=files.options)
    caller = server.new_key()
    status, said = attack(forker, server, caller, tmp_path / "trusted", "--certificate", files.folder / "ca.pem")
    assert status == 0, said
    assert server.books().rows == {caller.key_id: 50}
    stranger = tmp_path / "stranger.pem"
    stranger.write_bytes(new_authority(1).pem()[0])
    for name, options in {"plain": (), "stranger": ("--certificate", stranger)}.items():
        status, said = attack(forker, server, caller, tmp_path / name, *options)
        assert status == 1
        assert f"is oracle-server running at {server.address}?" in said
    assert server.books().rows == {caller.key_id: 50}


def test_a_certificate_for_another_host_is_refused_by_the_client(start: Start, files: Files) -> None:
    files.put_server(server_pair(files.authority, ("192.0.2.7", "oracle.example.org"), 1))
    server = start(options=files.options)
    caller = server.new_key()
    with pytest.raises(OracleError):
        Oracle(server.address, caller.key, tls=Tls(files.folder / "ca.pem"), patience=0)
    assert not answered(connected(server, files), caller)
    assert answered(connected(server, files, host="oracle.example.org"), caller)  # nothing else is wrong with it


def test_an_expired_certificate_is_refused_by_the_client(start: Start, files: Files) -> None:
    files.put_server(server_pair(files.authority, HOSTS, 1, LAST_WEEK))
    server = start(options=files.options)
    caller = server.new_key()
    assert not answered(connected(server, files), caller)
    files.put_server(files.server)
    assert answered(connected(server, files), caller)


def test_tls_is_what_lets_a_server_listen_beyond_loopback(start: Start, files: Files) -> None:
    server = start(options=("--host", "0.0.0.0", *files.options))
    assert server.address == f"0.0.0.0:{server.port}"


# Mutual TLS

CLIENTS: dict[str, Callable[[Files], Pair | None]] = {
    "none": lambda files: None,
    "another authority's": lambda files: client_pair(new_authority(1), 1),
    "expired": lambda files: client_pair(files.authority, 1, LAST_WEEK),
    "not valid yet": lambda files: client_pair(files.authority, 1, LAST_WEEK + datetime.timedelta(days=14)),
    "a server's": lambda files: files.server,
}


@pytest.fixture(scope="module")
def mutual(
    forker: Forker, models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, Files, Caller]]:
    """A server that asks for certificates, for tests that leave it as it is."""
    files = Files(tmp_path_factory.mktemp("mutual"))
    with closing(Server(forker, new_root(models, "linear"), *files.mutual)) as server:
        yield server, files, server.new_key()


@pytest.mark.parametrize("name", CLIENTS)
def test_who_cannot_show_a_certificate_has_no_connection(mutual: tuple[Server, Files, Caller], name: str) -> None:
    """A good key does not help, and with the right certificate the same call is answered."""
    server, files, caller = mutual
    before = server.books()
    assert not answered(connected(server, files, CLIENTS[name](files)), caller)
    assert server.books() == before
    assert answered(connected(server, files, client_pair(files.authority, 1)), caller)


def test_a_certificate_is_no_key(mutual: tuple[Server, Files, Caller]) -> None:
    server, files, _ = mutual
    server.channel = connected(server, files, client_pair(files.authority, 1))
    with pytest.raises(grpc.RpcError) as caught:
        Caller(server, "mirage_x_y", "x").describe()
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_what_certs_makes_is_what_serve_and_attacker_take(forker: Forker, start: Start, tmp_path: Path) -> None:
    tls = tmp_path / "tls"
    write_test_set(tls, HOSTS, 1)
    options = ("--tls-certificate", f"{tls}/server.pem", "--tls-key", f"{tls}/server-key.pem")
    server = start(options=(*options, "--tls-client-ca", f"{tls}/ca.pem"))
    caller = server.new_key()
    shows = ("--client-certificate", tls / "client.pem", "--client-key", tls / "client-key.pem")
    status, said = attack(forker, server, caller, tmp_path / "shows", "--certificate", tls / "ca.pem", *shows)
    assert status == 0, said
    status, said = attack(forker, server, caller, tmp_path / "hides", "--certificate", tls / "ca.pem")
    assert status == 1, said
    assert server.books().rows == {caller.key_id: 50}


# Plain text


def test_plain_text_beyond_loopback_when_asked_for(start: Start) -> None:
    """The server warns; the attacker needs to be told, too."""
    server = start(options=("--host", "0.0.0.0", "--plain-text-beyond-loopback"))
    (line,) = [line for line in server.process.log.splitlines() if " WARNING " in line]
    assert line.endswith(
        "0.0.0.0:0 is served in plain text: whoever is on the way can read keys, questions and answers"
    )
    caller = server.new_key()
    with pytest.raises(ValueError, match="is not on loopback and the key would travel in plain text: give --cert"):
        Oracle(server.address, caller.key)
    with closing(Oracle(server.address, caller.key, plain_text_beyond_loopback=True, patience=0)) as oracle:
        assert oracle.model_id == "linear/1"


@pytest.mark.parametrize("host", ["::1", "[::1]", "localhost", "127.0.0.1"])
def test_plain_text_on_loopback(start: Start, host: str) -> None:
    server = start(options=("--host", host))
    assert server.address == f"{'[::1]' if '::1' in host else host}:{server.port}"
    assert " WARNING " not in server.process.log
    with closing(Oracle(server.address, server.new_key().key, patience=0)) as oracle:
        assert oracle.model_id == "linear/1"


def test_plain_text_on_loopback_passes_no_proxy(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    caller = server.new_key()
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        proxy.settimeout(30)
        for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("grpc_proxy", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        with closing(Oracle(server.address, caller.key, patience=0)) as oracle:
            assert oracle.model_id == "linear/1"
        with grpc.insecure_channel(server.address) as channel:  # the control: gRPC alone would have used it
            call = channel.unary_unary("/mirage.v1.Oracle/Describe").future(b"", timeout=30)
            connection, _ = proxy.accept()
            with connection:
                assert connection.recv(100).startswith(b"CONNECT")
            call.cancel()


# Options that do not fit together


def test_authorities_without_a_pair(command: Command, files: Files) -> None:
    status, said = command("serve", "--tls-client-ca", files.folder / "ca.pem")
    assert (status, said.splitlines()[-1]) == (2, "Error: --tls-client-ca needs --tls-certificate and --tls-key")


def test_authorities_that_are_none(command: Command, files: Files, root: Path) -> None:
    nothing = files.put("nothing.pem", b"x")
    status, said = command("serve", "--root", root, "--port", 0, *files.options, "--tls-client-ca", nothing)
    assert status == 1
    assert said.splitlines()[-1].startswith(f"Error: {nothing} holds no PEM certificate: ")
