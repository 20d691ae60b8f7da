"""Keys that a campaign makes: kept in a file until what they are for is finished, then revoked."""

from __future__ import annotations

import json
from pathlib import Path

from oracle_server.contracts import contract_message
from oracle_server.operator import open_operator
from oracle_server.threat_model import Contract
from protos.mirage.v1 import admin_pb2

__all__ = ["hold_key", "retire_key"]


def hold_key(root: Path, path: Path, *, label: str, model: str, contract: Contract) -> tuple[str, str]:
    """The key kept at `path` and its id: that of a run which is to be resumed, or a new one of the server at `root`."""
    if path.exists() and (text := path.read_text()):  # empty: killed before there was a key
        kept = json.loads(text)
        return kept["key"], kept["key_id"]
    request = admin_pb2.CreateKeyRequest(label=label, model=model, contract=contract_message(contract))
    with open_operator(root) as operator:
        made = operator.create_key(request)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(json.dumps({"key": made.key, "key_id": made.key_id}))
    return made.key, made.key_id


def retire_key(root: Path, path: Path) -> None:
    """Revoke the key kept at `path` and forget it."""
    with open_operator(root) as operator:
        operator.revoke_key(admin_pb2.RevokeKeyRequest(key_id=json.loads(path.read_text())["key_id"]))
    path.unlink()
