"""The server process while it runs, and how it ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from oracle_server.inputs import largest_batch
from oracle_server.models.card import Card
from protos.inference.open_inference_pb2 import ServerLiveRequest
from protos.inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from tests.fixtures import Start
from tests.serving import Server, inputs

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
        "inference.GRPCInferenceService",
        "mirage.v1.Oracle",
    ]
    described = DescriptorPool(ProtoReflectionDescriptorDatabase(server.channel))
    for name in services:
        assert described.FindServiceByName(name).methods
    answer = described.FindMessageTypeByName("mirage.v1.PredictResponse")
    assert set(answer.fields_by_name) >= {"labels", "receipt"}
    assert "contents" in described.FindMessageTypeByName("inference.ModelInferRequest.InferInputTensor").fields_by_name


def test_the_open_inference_protocol_can_be_left_out(start: Start) -> None:
    server = start(options=("--no-open-inference", "--reflection"))
    services = ProtoReflectionDescriptorDatabase(server.channel).get_services()
    assert "mirage.v1.Oracle" in services
    assert "inference.GRPCInferenceService" not in services
    with pytest.raises(grpc.RpcError) as caught:
        GRPCInferenceServiceStub(server.channel).ServerLive(ServerLiveRequest(), timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


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
    left = {"audit.head", "audit.key", "ledger.db", "ledger.lock", "models", "server.log"}
    assert {path.name for path in server.root.iterdir()} == left
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
