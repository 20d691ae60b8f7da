"""A user of the public client `tritonclient`, who has never heard of this project: prints what came, as JSON.

The address and the key are in the environment: ORACLE, KEY.
"""

from __future__ import annotations

import asyncio
import json
import os
import queue
import sys
from typing import Any

import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException

MODEL, ID = "linear", "9f1c24a6-5c1e-4d6b-8a34-2f1f5b1f7c01"
HEADERS = {"authorization": f"Bearer {os.environ['KEY']}"}
ROWS = np.random.default_rng(0).random((4, 1, 8, 6), dtype=np.float32)


def tensors(rows: np.ndarray = ROWS, name: str = "input") -> list[triton.InferInput]:
    tensor = triton.InferInput(name, rows.shape, "FP32")
    tensor.set_data_from_numpy(rows)
    return [tensor]


def found(result: triton.InferResult) -> dict[str, Any]:
    """Labels, id and receipt of an answer."""
    response = result.get_response()
    charged = {name: getattr(p, p.WhichOneof("parameter_choice")) for name, p in response.parameters.items()}
    return {
        "outputs": [output.name for output in response.outputs],
        "label": result.as_numpy("label").tolist(),
        "id": response.id,
        "receipt": charged,
    }


def at_once(client: triton.InferenceServerClient, request_id: str) -> dict[str, Any]:
    """The same by the client's own thread."""
    done: queue.Queue[Any] = queue.Queue()
    client.async_infer(
        MODEL, tensors(), lambda result, error: done.put(error or found(result)), request_id=request_id, headers=HEADERS
    )
    return done.get(timeout=30)


async def by_a_coroutine(request_id: str) -> dict[str, Any]:
    async with triton_aio.InferenceServerClient(os.environ["ORACLE"]) as client:
        return found(await client.infer(MODEL, tensors(), request_id=request_id, headers=HEADERS))


def refused(client: triton.InferenceServerClient, **changed: Any) -> list[str | None]:
    call = {"model_name": MODEL, "inputs": tensors(), "headers": HEADERS, **changed}
    try:
        client.infer(**call)
    except InferenceServerException as error:
        return [error.status(), error.message()]
    return ["answered", None]


def main() -> None:
    client = triton.InferenceServerClient(os.environ["ORACLE"])
    said = {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "server": client.get_server_metadata(as_json=True),
        "model ready": client.is_model_ready(MODEL, headers=HEADERS),
        "model": client.get_model_metadata(MODEL, "1", headers=HEADERS, as_json=True),
        "answers": [
            found(client.infer(MODEL, tensors(), request_id=ID, headers=HEADERS)),
            at_once(client, ID),
            asyncio.run(by_a_coroutine(ID)),
            found(client.infer(MODEL, tensors(), request_id="1", headers=HEADERS)),
            found(client.infer(MODEL, tensors(), request_id="1", headers=HEADERS)),
            found(client.infer(MODEL, tensors(), headers=HEADERS, outputs=[triton.InferRequestedOutput("label")])),
        ],
        "refused": {
            "without a key": refused(client, headers={}),
            "scores": refused(client, outputs=[triton.InferRequestedOutput("scores")]),
            "classification": refused(client, outputs=[triton.InferRequestedOutput("label", class_count=2)]),
            "another model": refused(client, model_name="other"),
            "another version": refused(client, model_version="2"),
            "a sequence": refused(client, sequence_id=7, sequence_start=True),
            "out of range": refused(client, inputs=tensors(ROWS + 1)),
            "another input": refused(client, inputs=tensors(name="x")),
        },
        "ours": sorted({name.partition(".")[0] for name in sys.modules} & {"protos", "oracle_server", "attacker"}),
    }
    print(json.dumps(said))


if __name__ == "__main__":
    main()
