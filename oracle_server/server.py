"""The server process: models, ledger, the two listeners (Oracle on TCP, Admin on a Unix socket), health, an orderly
end.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import resource
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import grpc
import torch
from google.protobuf.descriptor import FileDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from oracle_server.answering import Answering
from oracle_server.guard import Guard, RequestType
from oracle_server.hosting import Hosting, NothingToServe, host_all
from oracle_server.ledger import Ledger
from oracle_server.metrics import UNCOUNTED, Metrics
from oracle_server.models.forms import AUTO
from oracle_server.models.neural import choose_device
from oracle_server.models.repository import Repository
from oracle_server.open_inference import OpenInference
from oracle_server.operator import Operator, admin_socket
from oracle_server.service import OracleService
from oracle_server.threat_model import check_policy
from oracle_server.transport import ServerError, TlsFiles, listen
from oracle_server.upstream import Upstream
from protos.inference import open_inference_pb2
from protos.inference.codec import InferRequest
from protos.mirage.v1 import admin_pb2, oracle_pb2
from protos.request import ReceivedRequest

__all__ = ["ServeOptions", "serve", "write_address"]

_LOG = logging.getLogger(__name__)
_CONNECTIONS = [  # how bytes come, and what a connection may cost that asks for nothing, or takes no answer
    ("grpc.http2.max_frame_size", (1 << 24) - 1),  # a body of megabytes comes in few frames, and is on its way before
    ("grpc.http2.lookahead_bytes", 8 << 20),  # the call asks for it: half again as many such calls a second
    ("grpc.http2.bdp_probe", 0),  # what is on its way is fixed now, and nobody need measure it
    ("grpc.max_concurrent_streams", 1_000),  # calls under way on one; a client keeps more to itself
    ("grpc.server.max_pending_requests", 20_000),  # that came faster than they are taken up: beyond a thousand gRPC
    ("grpc.server.max_pending_requests_hard_limit", 40_000),  # would cancel calls at random, whoever's they are
    ("grpc.server_handshake_timeout_ms", 10_000),  # until it speaks HTTP/2
    ("grpc.max_connection_idle_ms", 300_000),  # without a call; a client that is still there connects again by itself
    ("grpc.max_connection_age_ms", 3_600_000),  # then no new calls, and those under way, half-open ones too, have
    ("grpc.max_connection_age_grace_ms", 600_000),  # so much longer
    ("grpc.keepalive_time_ms", 60_000),  # silent for so long: is it still there, and does it read at all?
    ("grpc.keepalive_timeout_ms", 20_000),  # no: it is closed
]


@dataclass(frozen=True)
class ServeOptions:
    """How a server runs. Nothing here changes what a key may get."""

    root: Path
    host: str = "127.0.0.1"
    port: int = 0
    device: str = "auto"
    threads: int = 1
    batch: int = 64
    forward: str = AUTO
    max_rows: int = 1024
    max_waiting: int = 16_384
    message_bytes: int = 64 << 20
    tls: TlsFiles | None = None
    plain_text_beyond_loopback: bool = False
    reflection: bool = False
    open_inference: bool = True
    grace: float = 10.0
    log_requests: bool = False
    upstreams: tuple[Upstream, ...] = ()


async def serve(
    options: ServeOptions,
    ledger: Ledger,
    started: Callable[[str], None] = lambda address: None,
    metrics: Metrics = UNCOUNTED,
) -> None:
    """Serve until SIGTERM or SIGINT. `started` gets the address once health says SERVING. The caller closes the
    ledger, which tells `metrics` of what it writes if it was given them, too.
    """
    _as_many_connections_as_allowed()
    torch.set_num_threads(options.threads)
    stop = _set_by_signals()
    repository = Repository(options.root)
    hosting = Hosting(
        choose_device(options.device),
        options.batch,
        options.max_rows,
        options.max_waiting,
        options.message_bytes,
        metrics,
        options.forward,
    )
    try:
        models = host_all(repository, hosting, options.upstreams)
    except NothingToServe as error:
        raise ServerError(str(error)) from error
    answering = Answering(ledger, metrics)
    guard = Guard(ledger, metrics=metrics, log_requests=options.log_requests)
    oracle, admin = _server(options), _server(options)
    health_service = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_service, oracle)
    descriptor = oracle_pb2.DESCRIPTOR.services_by_name["Oracle"]
    served = [descriptor, health_pb2.DESCRIPTOR.services_by_name["Health"]]
    _register(oracle, descriptor, OracleService(ledger, models, answering), guard, {"Predict": ReceivedRequest})
    open_inference = OpenInference(models, answering)
    if options.open_inference:
        descriptor = open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
        served.append(descriptor)
        _register(oracle, descriptor, open_inference, guard, {"ModelInfer": InferRequest})
    if options.reflection:
        served.append(_reflect(oracle, served))
    descriptor = admin_pb2.DESCRIPTOR.services_by_name["Admin"]
    served.append(descriptor)
    operators = _AdminService(Operator(ledger, repository), answering.settle)
    guard = Guard(ledger, operator=True, metrics=metrics, log_requests=options.log_requests)
    _register(admin, descriptor, operators, guard)
    check_policy(f"/{service.full_name}/{method.name}" for service in served for method in service.methods)
    address = listen(oracle, options.host, options.port, options.tls, options.plain_text_beyond_loopback)
    socket = admin_socket(options.root)
    socket.unlink(missing_ok=True)  # what a killed server left behind; the ledger's lock says that nobody serves here
    previous = os.umask(0o177)
    try:
        admin.add_insecure_port(f"unix:{socket}")
    finally:
        os.umask(previous)
    await metrics.start()
    await admin.start()
    await oracle.start()
    await health_service.set("", health_pb2.HealthCheckResponse.SERVING)
    try:
        started(address)
        await _stopped(stop, oracle, admin)
        _LOG.info("stopping: calls in flight have %g s", options.grace)
    finally:
        open_inference.ready = False
        await health_service.enter_graceful_shutdown()
        await asyncio.gather(oracle.stop(options.grace), admin.stop(options.grace))
        await answering.drain()
        await models.close()
        await metrics.stop()
        socket.unlink(missing_ok=True)


def _set_by_signals() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set. They do so until the process ends: asyncio's own handlers go with its loop,
    and a second signal that came just then would kill the process.
    """
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def told(*_: object) -> None:
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(stop.set)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, told)
    return stop


async def _stopped(stop: asyncio.Event, *listeners: grpc.aio.Server) -> None:
    """Wait for the signal to stop; `ServerError` when gRPC has given up a listener, which nobody would notice from
    outside: the process would go on, and answer no one.
    """
    signalled = asyncio.create_task(stop.wait())
    ends = [asyncio.create_task(listener.wait_for_termination()) for listener in listeners]
    done, _ = await asyncio.wait([signalled, *ends], return_when=asyncio.FIRST_COMPLETED)
    if signalled not in done:
        signalled.cancel()
        raise ServerError(f"gRPC has given up a listener: {done.pop().exception()}; start the server again")


def _as_many_connections_as_allowed() -> None:
    """Each connection is a file descriptor. At the limit the others are served on, and new ones wait until some end."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(ValueError, OSError):  # where the system has a lower one yet
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _server(options: ServeOptions) -> grpc.aio.Server:
    return grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", options.message_bytes),
            ("grpc.max_send_message_length", options.message_bytes),
            ("grpc.so_reuseport", 0),  # a port in use is an error, not a second listener
            *_CONNECTIONS,
        ]
    )


def _register(
    server: grpc.aio.Server,
    descriptor: ServiceDescriptor,
    handlers: Any,
    guard: Guard,
    request_types: Mapping[str, RequestType] = MappingProxyType({}),
) -> None:
    """Every method of the service, guarded, parsed by nobody before the guard; `request_types` are those of methods
    whose requests protobuf does not read alone.
    """
    methods = {}
    for method in descriptor.methods:
        rpc = f"/{descriptor.full_name}/{method.name}"
        request_type = request_types.get(method.name) or GetMessageClass(method.input_type)
        handler = getattr(handlers, re.sub(r"(?<!^)(?=[A-Z])", "_", method.name).lower())
        wrap = guard.stream if method.server_streaming else guard.unary
        methods[method.name] = wrap(rpc, request_type, handler)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(descriptor.full_name, methods),))


def _reflect(server: grpc.aio.Server, served: Iterable[ServiceDescriptor]) -> ServiceDescriptor:
    try:
        from grpc_reflection.v1alpha import reflection, reflection_pb2
    except ImportError:
        raise ServerError("--reflection needs the extra: pip install 'mirage-range[reflection]'") from None
    service: ServiceDescriptor = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]
    services, pool = [*served, service], DescriptorPool()  # since not all lie in the common one
    for one in services:
        _add(one.file, pool)
    reflection.enable_server_reflection([one.full_name for one in services], server, pool)
    return service


def _add(file: FileDescriptor, pool: DescriptorPool) -> None:
    for dependency in file.dependencies:
        _add(dependency, pool)
    pool.AddSerializedFile(file.serialized_pb)


class _AdminService:
    """Handlers of `mirage.v1.Admin`: the operator's calls, off the event loop. The list of keys waits for `settle`, so
    that it has the flags of everything that was answered before.
    """

    def __init__(self, operator: Operator, settle: Callable[[], Awaitable[None]]) -> None:
        self._operator, self._settle = operator, settle

    async def create_key(self, request: admin_pb2.CreateKeyRequest, _: None) -> admin_pb2.CreateKeyResponse:
        return await asyncio.to_thread(self._operator.create_key, request)

    async def set_budget(self, request: admin_pb2.SetBudgetRequest, _: None) -> admin_pb2.SetBudgetResponse:
        return await asyncio.to_thread(self._operator.set_budget, request)

    async def revoke_key(self, request: admin_pb2.RevokeKeyRequest, _: None) -> admin_pb2.RevokeKeyResponse:
        return await asyncio.to_thread(self._operator.revoke_key, request)

    async def rotate_key(self, request: admin_pb2.RotateKeyRequest, _: None) -> admin_pb2.RotateKeyResponse:
        return await asyncio.to_thread(self._operator.rotate_key, request)

    async def reinstate_key(self, request: admin_pb2.ReinstateKeyRequest, _: None) -> admin_pb2.ReinstateKeyResponse:
        return await asyncio.to_thread(self._operator.reinstate_key, request)

    async def list_keys(self, request: admin_pb2.ListKeysRequest, _: None) -> admin_pb2.ListKeysResponse:
        await self._settle()
        return await asyncio.to_thread(self._operator.list_keys, request)

    async def audit(self, request: admin_pb2.AuditRequest, _: None) -> AsyncIterator[admin_pb2.AuditBatch]:
        batches = self._operator.audit(request)
        while (batch := await asyncio.to_thread(next, batches, None)) is not None:
            yield batch


def write_address(root: Path, address: str, metrics: str | None = None) -> Callable[[], None]:
    """Leave `server.json` for those who wait for the server, with the address of its metrics if it has any; returns
    what removes it.
    """
    told = {"address": address, "pid": os.getpid()} | ({"metrics": metrics} if metrics else {})
    path = root / "server.json"
    new = path.with_suffix(".new")
    new.write_text(json.dumps(told) + "\n")
    new.replace(path)
    return lambda: path.unlink(missing_ok=True)
