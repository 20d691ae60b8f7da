"""The server process while it runs, how it ends, and TLS."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from oracle_server.inputs import largest_batch
from oracle_server.models.card import Card
from tests.fixtures import Start
from tests.serving import Forker, Server, inputs

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


def test_health_needs_no_key_and_reflection_is_off(server: Server) -> None:
    check = health_pb2_grpc.HealthStub(server.channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
    assert check.status == SERVING
    with pytest.raises(grpc.RpcError) as caught:
        ProtoReflectionDescriptorDatabase(server.channel).get_services()
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_reflection_when_asked_for(start: Start) -> None:
    server = start(options=("--reflection",))
    services = ProtoReflectionDescriptorDatabase(server.channel).get_services()
    assert sorted(services) == [
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
        "mirage.v1.Oracle",
    ]


def test_largest_batch_leaves_room_for_the_answers() -> None:
    known: dict[str, Any] = {"archive_sha256": "", "torch_version": "", "parameters": 1, "archive_bytes": 1}
    wide = Card("wide", "1", (1, 112, 92), 0, 1, 40, **known)
    tall = Card("tall", "1", (2,), 0, 1, 1_000_000, **known)
    assert largest_batch(wide, 64 << 20, 1024) == 1024
    assert largest_batch(wide, 1 << 20, 1024) == ((1 << 20) - 4096) // (4 * 112 * 92)
    assert largest_batch(tall, 64 << 20, 1024) == ((64 << 20) - 4096) // 16_000_000
    assert largest_batch(tall, 1 << 20, 1024) == 1


# It ends


def test_sigterm_ends_in_order(start: Start) -> None:
    """Health says so at once, what was charged is answered, nothing stays behind, and the status is 0."""
    server = start("slow", options=("--batch", "1"))
    caller = server.new_key(model="slow")
    watch = health_pb2_grpc.HealthStub(server.channel).Watch(health_pb2.HealthCheckRequest(), timeout=30)
    assert next(watch).status == SERVING
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(caller.predict, inputs(6))
        while server.books().logged < 6:
            time.sleep(0.002)
        server.process.send(signal.SIGTERM)
        assert next(watch).status == NOT_SERVING
        watch.cancel()
        assert future.result().receipt.rows_charged == 6
    assert server.process.wait() == 0
    assert sorted(path.name for path in server.root.iterdir()) == ["ledger.db", "ledger.lock", "models", "server.log"]
    server.start()
    assert caller.usage().spent == 6


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_real_command(root: Path, number: signal.Signals) -> None:
    """`python -m oracle_server serve`, started and ended as a user would."""
    command = [sys.executable, "-W", "error", "-m", "oracle_server", "serve", "--root", str(root), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        address = json.loads((root / "server.json").read_text())
        assert said == f"serving on {address['address']}\n"
        assert address["pid"] == process.pid
        process.send_signal(number)
        process.communicate(timeout=30)
    assert process.returncode == 0
    assert not (root / "server.json").exists()
    assert not (root / "admin.sock").exists()


def test_restart_after_a_kill_cleans_up(start: Start) -> None:
    server = start()
    server.kill(signal.SIGKILL)
    assert (root := server.root / "admin.sock").exists()
    server.start()
    assert root.exists()
    assert server.new_key().predict(inputs(1)).receipt.spent == 1


# TLS


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl on this machine")
    return make_certificate(tmp_path)


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1 and its key, made by openssl."""
    chain, key = folder / "chain.pem", folder / "key.pem"
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "2"]
    names = ["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost", "-keyout", str(key), "-out", str(chain)]
    subprocess.run([*words, *names], check=True, capture_output=True)
    return chain, key


def test_tls(forker: Forker, root: Path, certificate: tuple[Path, Path], tmp_path: Path) -> None:
    """The attacker trusts the certificate that it is given; without it, or in plain text, there is no connection."""
    chain, key = certificate
    with closing(Server(forker, root, "--tls-certificate", str(chain), "--tls-key", str(key))) as server:
        caller = server.new_key()
        words = ["run", "random_draws", "--set", "draws=50", "--address", server.address, "--quiet", "--patience", "0"]

        def attack(out: str, *options: object) -> tuple[int, str]:
            environment = {"MIRAGE_KEY": caller.key}
            process = forker.start(
                "attacker",
                [*words, "--out", tmp_path / out, *options],
                log=tmp_path / f"{out}.log",
                environment=environment,
            )
            return process.wait(), process.log

        status, said = attack("trusted", "--certificate", chain)
        assert status == 0, said
        assert server.books().rows == {caller.key_id: 50}
        other = tmp_path / "other"
        other.mkdir()
        stranger, _ = make_certificate(other)
        for name, options in {"plain": (), "stranger": ("--certificate", stranger)}.items():
            status, said = attack(name, *options)
            assert status == 1
            assert f"is oracle-server running at {server.address}?" in said
        assert server.books().rows == {caller.key_id: 50}


def test_tls_is_what_lets_a_server_listen_beyond_loopback(
    forker: Forker, root: Path, certificate: tuple[Path, Path]
) -> None:
    chain, key = certificate
    options = ("--host", "0.0.0.0", "--tls-certificate", str(chain), "--tls-key", str(key))
    with closing(Server(forker, root, *options)) as server:
        assert server.address == f"0.0.0.0:{server.port}"
