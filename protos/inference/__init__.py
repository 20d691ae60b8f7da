"""The Open Inference Protocol (KServe V2), as far as it is spoken here.

`python -m protos.inference`, a part of `make proto`, gives its messages a descriptor pool of their own. Every package
that speaks this protocol registers the same names, `inference.ModelInferRequest` for one, in protobuf's default pool,
which takes each name once: whoever is imported second fails. So that a process may hold another's stubs beside ours,
`tritonclient` for one, ours stay out of it.
"""

from __future__ import annotations

__all__ = ["apart"]


def apart(stub: str) -> str:
    """The text of a generated stub whose messages lie in a pool of their own; `ValueError` for one that is no stub."""
    pools = "_descriptor_pool.Default()", "_descriptor_pool.DescriptorPool()"
    if stub.count(pools[0]) != 1:
        raise ValueError("the stub names the default pool not once: has the generator changed?")
    return stub.replace(*pools)
