"""`python -m tests.benchmarks.fake_peer PROTOCOL FILE PORT SECONDS EXTRA`: a peer that answers one request at a time.

It takes SECONDS over each and adds EXTRA to its scores. Beside it runs a process that does not end by itself, whose id
it writes to `beside` in its folder.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from benchmarks.peers.inside.eager import forward
from protos.inference import open_inference_pb2_grpc
from protos.inference.open_inference_pb2 import ModelInferRequest, ModelInferResponse

__all__ = ["main"]


def main(protocol: str, file: str, port: int, seconds: float, extra: float) -> None:
    beside = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path("beside").write_text(str(beside.pid))
    model, one = forward(file), threading.Lock()

    def scores(body: bytes) -> bytes:
        with one:
            time.sleep(seconds)
            return (model(np.frombuffer(bytearray(body), np.float32)) + np.float32(extra)).tobytes()

    {"http": _http, "open_inference": _open_inference}[protocol](port, scores)


def _http(port: int, scores: Any) -> None:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            answer = scores(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200 if self.path == "/predictions/softmax" else 404)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


def _open_inference(port: int, scores: Any) -> None:
    def infer(request: ModelInferRequest, context: grpc.ServicerContext) -> ModelInferResponse:
        rows = request.inputs[0]
        if (request.model_name, rows.datatype, list(rows.shape)[:1]) != ("softmax", "FP32", [1]):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "another question")
        answer = scores(request.raw_input_contents[0])
        tensor = ModelInferResponse.InferOutputTensor(name="scores", datatype="FP32", shape=[1, len(answer) // 4])
        return ModelInferResponse(outputs=[tensor], raw_output_contents=[answer])

    server = grpc.server(ThreadPoolExecutor(40))
    service = open_inference_pb2_grpc.GRPCInferenceServiceServicer()
    service.ModelInfer = infer
    open_inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(service, server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), float(sys.argv[5]))
