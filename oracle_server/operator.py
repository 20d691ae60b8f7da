"""What the operator does: make, revoke and reinstate keys, list them, read the log.

The commands work while the server runs and while it does not: `open_operator` gives the same calls either
through the server's Unix socket or on the ledger itself.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np

from oracle_server.contracts import contract_from_message, contract_message
from oracle_server.errors import Reason, Refusal
from oracle_server.guard import new_token
from oracle_server.ledger import Entry, Flag, Key, Ledger, LedgerLocked, SqliteLedger
from oracle_server.models.card import Card
from oracle_server.models.repository import Repository
from oracle_server.service import usage_message
from oracle_server.threat_model import Access, Contract, release_values
from protos.mirage.v1 import admin_pb2 as pb
from protos.mirage.v1.admin_pb2_grpc import AdminStub

__all__ = ["Operator", "OperatorError", "RemoteOperator", "admin_socket", "ledger_path", "open_operator"]

_LONGEST_OVERLAP = 365 * 24 * 3600
_SOCKET_BYTES = 100  # a Unix socket's path has at most 107


class OperatorError(RuntimeError):
    """An operator's call that was refused; the sentence says why."""


def ledger_path(root: Path) -> Path:
    return root / "ledger.db"


def admin_socket(root: Path) -> Path:
    """Where the operator's socket is; `OperatorError` when its path is longer than Unix allows."""
    path = root.resolve() / "admin.sock"
    if len(str(path).encode()) > _SOCKET_BYTES:
        raise OperatorError(f"the path {path} is too long for a Unix socket: choose a shorter --root")
    return path


class Operator:
    """The operator's calls on the ledger itself."""

    def __init__(self, ledger: Ledger, repository: Repository) -> None:
        self._ledger = ledger
        self._repository = repository

    def create_key(self, request: pb.CreateKeyRequest) -> pb.CreateKeyResponse:
        try:
            contract = contract_from_message(request.contract)
            card = self._repository.card(request.model)
            _fits(contract, card)
        except (ValueError, TypeError) as error:
            raise Refusal(Reason.BAD_CONTRACT, str(error)) from error
        except LookupError as error:
            raise Refusal(Reason.NO_MODEL, str(error.args[0])) from error
        token, key_id, secret_sha256 = new_token()
        self._ledger.add_key(Key(key_id, request.label, card.id, contract, secret_sha256, time.time()))
        return pb.CreateKeyResponse(key=token, key_id=key_id)

    def set_budget(self, request: pb.SetBudgetRequest) -> pb.SetBudgetResponse:
        budget = request.budget if request.HasField("budget") else None
        try:
            found = self._ledger.set_budget(request.key_id, budget)
        except ValueError as error:
            raise Refusal(Reason.BAD_CONTRACT, str(error)) from error
        if not found:
            raise _no_such_key(request.key_id)
        return pb.SetBudgetResponse()

    def revoke_key(self, request: pb.RevokeKeyRequest) -> pb.RevokeKeyResponse:
        if not self._ledger.revoke(request.key_id, time.time()):
            raise _no_such_key(request.key_id)
        return pb.RevokeKeyResponse()

    def rotate_key(self, request: pb.RotateKeyRequest) -> pb.RotateKeyResponse:
        now = time.time()
        key = self._ledger.key(request.key_id)
        if key is None:
            raise _no_such_key(request.key_id)
        if key.revoked is not None:
            raise Refusal(
                Reason.KEY_REVOKED, f"the key {key.key_id} was revoked: make another, oracle-server keys create"
            )
        if not 0 <= request.overlap <= _LONGEST_OVERLAP:
            raise Refusal(Reason.BAD_INPUT, f"overlap={request.overlap} must lie in [0, {_LONGEST_OVERLAP}] seconds")
        token, _, secret_sha256 = new_token(key.key_id)
        # Without an overlap the old secret is never accepted again, whatever becomes of the clock.
        self._ledger.rotate(key.key_id, secret_sha256, now + request.overlap if request.overlap else 0.0)
        return pb.RotateKeyResponse(key=token, dropped=key.former_until is not None and now < key.former_until)

    def reinstate_key(self, request: pb.ReinstateKeyRequest) -> pb.ReinstateKeyResponse:
        if not self._ledger.reinstate(request.key_id, time.time()):
            raise _no_such_key(request.key_id)
        return pb.ReinstateKeyResponse()

    def list_keys(self, request: pb.ListKeysRequest) -> pb.ListKeysResponse:
        keys = self._ledger.all_keys()
        if wanted := set(request.key_ids):
            keys = [key for key in keys if key.key_id in wanted]
        return pb.ListKeysResponse(keys=[self._info(key) for key in keys])

    def audit(self, request: pb.AuditRequest) -> Iterator[pb.AuditBatch]:
        after = request.after_sequence
        while batch := [_entry(entry) for entry in self._ledger.entries(after)]:
            yield pb.AuditBatch(entries=batch)
            after = batch[-1].sequence

    def _info(self, key: Key) -> pb.KeyInfo:
        info = pb.KeyInfo(key_id=key.key_id, label=key.label, model=key.model, contract=contract_message(key.contract))
        info.created.FromNanoseconds(int(key.created * 1e9))
        info.flags.extend(_flag(flag) for flag in self._ledger.flags(key.key_id))
        if key.revoked is not None:
            info.revoked.FromNanoseconds(int(key.revoked * 1e9))
        if key.former_until is not None and time.time() < key.former_until:
            info.former_until.FromNanoseconds(int(key.former_until * 1e9))
        with contextlib.suppress(LookupError, ValueError):  # taken away, or damaged: no card, so no capacity
            info.usage.CopyFrom(usage_message(self._ledger, key, self._repository.card(key.model)))
        return info


class RemoteOperator:
    """The same calls through the Unix socket of a running server."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = AdminStub(channel)

    def create_key(self, request: pb.CreateKeyRequest) -> pb.CreateKeyResponse:
        response: pb.CreateKeyResponse = self._stub.CreateKey(request)
        return response

    def set_budget(self, request: pb.SetBudgetRequest) -> pb.SetBudgetResponse:
        response: pb.SetBudgetResponse = self._stub.SetBudget(request)
        return response

    def revoke_key(self, request: pb.RevokeKeyRequest) -> pb.RevokeKeyResponse:
        response: pb.RevokeKeyResponse = self._stub.RevokeKey(request)
        return response

    def rotate_key(self, request: pb.RotateKeyRequest) -> pb.RotateKeyResponse:
        response: pb.RotateKeyResponse = self._stub.RotateKey(request)
        return response

    def reinstate_key(self, request: pb.ReinstateKeyRequest) -> pb.ReinstateKeyResponse:
        response: pb.ReinstateKeyResponse = self._stub.ReinstateKey(request)
        return response

    def list_keys(self, request: pb.ListKeysRequest) -> pb.ListKeysResponse:
        response: pb.ListKeysResponse = self._stub.ListKeys(request)
        return response

    def audit(self, request: pb.AuditRequest) -> Iterator[pb.AuditBatch]:
        return iter(self._stub.Audit(request))


@contextlib.contextmanager
def open_operator(root: Path) -> Iterator[Operator | RemoteOperator]:
    """The operator's calls for the server at `root`, running or not. Refusals come out as `OperatorError`."""
    try:
        try:
            ledger = SqliteLedger(ledger_path(root))
        except LedgerLocked:
            with grpc.insecure_channel(f"unix:{admin_socket(root)}") as channel:
                yield RemoteOperator(channel)
        else:
            with contextlib.closing(ledger):
                yield Operator(ledger, Repository(root))
    except Refusal as refusal:
        raise OperatorError(refusal.sentence) from refusal
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            raise OperatorError(
                f"the server at {root} does not answer on its socket: it is starting or stopping, try again"
            ) from error
        raise OperatorError(error.details() or "the server failed: see its log") from error


def _fits(contract: Contract, card: Card) -> None:
    if card.upstream and contract.access is Access.WEIGHTS:
        raise ValueError(f"{card.id} runs elsewhere and has no archive to download: use access scores or label")
    if contract.detections and card.kind in ("tree", "regression"):
        raise ValueError("detections look at images, and this model takes rows of a table: leave them out")
    if card.kind in ("regression", "features"):
        release_values(np.zeros((1, card.width)), contract, card.groups)
    elif contract.features:
        raise ValueError("features belong to feature models, and this model is a classifier: leave them out")
    elif contract.access is Access.SCORES and contract.top_k is not None and contract.top_k > card.classes:
        raise ValueError(f"top_k={contract.top_k} is more than the model's {card.classes} classes")


def _no_such_key(key_id: str) -> Refusal:
    return Refusal(Reason.NO_SUCH_KEY, f"there is no key {key_id!r}: see oracle-server keys list")


def _flag(flag: Flag) -> pb.Flag:
    message = pb.Flag(detector=flag.detector, verdict=flag.verdict, row=flag.row)
    message.time.FromNanoseconds(int(flag.time * 1e9))
    if flag.lifted is not None:
        message.lifted.FromNanoseconds(int(flag.lifted * 1e9))
    return message


def _entry(entry: Entry) -> pb.AuditEntry:
    message = pb.AuditEntry(
        sequence=entry.sequence,
        key_id=entry.key_id,
        rpc=entry.rpc,
        model=entry.model,
        request_id=entry.request_id,
        digest=entry.digest,
        rows=entry.rows,
        link=entry.link,
    )
    message.time.FromNanoseconds(int(entry.time * 1e9))
    return message
