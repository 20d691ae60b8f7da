"""Triton Inference Server as `nvidia-pytriton` ships it, at its gRPC interface: its Python backend, one instance."""

from __future__ import annotations

import os

from benchmarks.peers.open_inference import scores
from benchmarks.peers.peer import ROOT, Job, Peer

__all__ = ["PEER"]

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


def _command(job: Job) -> list[str]:
    repository = job.folder / "models"
    (repository / job.model / "1").mkdir(parents=True)
    (repository / job.model / "1" / "model.py").write_text(_MODEL)
    shape = ", ".join(map(str, job.shape))
    config = _CONFIG.format(shape=shape, classes=job.classes, file=job.file)
    (repository / job.model / "config.pbtxt").write_text(config)
    # Not by the package's own launcher, which would run the model in one more process, behind a proxy. As that one
    # does, the program that runs Python is laid beside the backend's library.
    packages = next(job.python.parent.parent.glob("lib/python*/site-packages"))
    server, backend = packages / "pytriton" / "tritonserver", job.folder / "backends" / "python"
    backend.mkdir(parents=True)
    version = packages.parent.name.removeprefix("python")
    for file in (*(server / "backends" / "python").glob("*.*"), *(server / "python_backend_stubs" / version).iterdir()):
        (backend / file.name).symlink_to(file)
    libraries = (packages / "nvidia_pytriton.libs", job.python.resolve().parents[1] / "lib")
    return [
        "env", f"LD_LIBRARY_PATH={os.pathsep.join(map(str, libraries))}",
        str(server / "bin" / "tritonserver"), f"--model-repository={repository}",
        f"--backend-directory={backend.parent}", f"--grpc-port={job.ports[0]}",
        f"--http-port={job.ports[1]}", "--http-address=127.0.0.1", "--grpc-address=127.0.0.1", "--allow-metrics=false",
    ]  # fmt: skip


PEER = Peer(
    name="triton",
    requirements=("nvidia-pytriton==0.7.0",),
    module="pytriton",
    distribution="nvidia-pytriton",
    settings="gRPC, raw contents; Python backend, 1 instance, eager, dynamic batching up to 64 without delay",
    protocol="open_inference",
    command=_command,
    scores=scores,
)
