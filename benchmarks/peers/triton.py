"""Triton Inference Server from the package `nvidia-pytriton`, at its gRPC interface: twice, with one instance each.

`PEER` is what the package is for: a Python function bound to a model, in a process of its own behind Triton.
`BACKEND` is the server out of the same package with the model in its Python backend, as the container of its makers
runs it: one process less on the way, and faster; it has no bound.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

from benchmarks.peers.open_inference import scores
from benchmarks.peers.peer import ROOT, Job, Peer

__all__ = ["BACKEND", "PEER"]

# The backend's Python does not look at PYTHONPATH.
_MODEL = f"""import sys
sys.path.append({str(ROOT)!r})
from benchmarks.peers.inside.triton_model import TritonPythonModel
"""
_CONFIG = """backend: "python"
max_batch_size: 64
input [{{ name: "rows", data_type: TYPE_FP32, dims: [{shape}] }}]
output [{{ name: "scores", data_type: TYPE_FP32, dims: [{classes}] }}]
instance_group [{{ kind: KIND_CPU, count: 1 }}]
dynamic_batching {{ }}
parameters [{{ key: "path", value: {{ string_value: "{file}" }} }}]
"""


def _backend(job: Job) -> list[str]:
    repository = job.folder / "models"
    (repository / job.model / "1").mkdir(parents=True)
    (repository / job.model / "1" / "model.py").write_text(_MODEL)
    shape = ", ".join(map(str, job.shape))
    config = _CONFIG.format(shape=shape, classes=job.classes, file=job.file)
    (repository / job.model / "config.pbtxt").write_text(config)
    # As the package's own launcher does, the program that runs Python is laid beside the backend's library.
    packages = _packages(job)
    server, backend = packages / "pytriton" / "tritonserver", job.folder / "backends" / "python"
    backend.mkdir(parents=True)
    version = packages.parent.name.removeprefix("python")
    for file in (*(server / "backends" / "python").glob("*.*"), *(server / "python_backend_stubs" / version).iterdir()):
        (backend / file.name).symlink_to(file)
    return [
        *_libraries(job), str(server / "bin" / "tritonserver"), f"--model-repository={repository}",
        f"--backend-directory={backend.parent}", f"--grpc-port={job.ports[0]}",
        f"--http-port={job.ports[1]}", "--http-address=127.0.0.1", "--grpc-address=127.0.0.1", "--allow-metrics=false",
    ]  # fmt: skip


def _bound(job: Job) -> list[str]:
    arguments = (job.file, job.model, json.dumps(job.shape), job.classes, *job.ports[:2], job.folder / "workspace")
    return [*_libraries(job), str(job.python), "-m", "benchmarks.peers.inside.pytriton_app", *map(str, arguments)]


def _packages(job: Job) -> Path:
    return next(job.python.parent.parent.glob("lib/python*/site-packages"))


def _libraries(job: Job) -> list[str]:
    """What makes the server find the libraries of its package and of this Python, not those of another one."""
    folders = (_packages(job) / "nvidia_pytriton.libs", job.python.resolve().parents[1] / "lib")
    return ["env", f"LD_LIBRARY_PATH={os.pathsep.join(map(str, folders))}"]


PEER = Peer(
    name="triton",
    environment="triton",
    requirements=("nvidia-pytriton==0.7.0",),
    module="pytriton",
    distribution="nvidia-pytriton",
    settings="gRPC, raw contents; a bound function with @batch, eager, dynamic batching up to 64 without delay",
    protocol="open_inference",
    command=_bound,
    scores=scores,
)
BACKEND = replace(
    PEER,
    name="triton_backend",
    settings="gRPC, raw contents; Python backend, 1 instance, eager, dynamic batching up to 64 without delay",
    command=_backend,
)
