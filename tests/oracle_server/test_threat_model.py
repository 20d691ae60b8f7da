"""Law 1: nothing leaves but what `release` returns, and every call has a rule."""

from __future__ import annotations

import ast
import itertools
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from defenses.response import defend as make_defend
from oracle_server import threat_model
from oracle_server.threat_model import POLICY, Access, Caller, Contract, Defend, Released, check_policy, release
from protos.inference import open_inference_pb2
from protos.mirage.v1 import admin_pb2, oracle_pb2

Release = Callable[[np.ndarray, Contract, Defend | None], Released]

FLATTEN = ("temperature", (("temperature", 3.0),))
NOISE = ("gaussian_noise", (("sigma", 0.2),))
DEFENCES = [(), (FLATTEN,), (NOISE,), (NOISE, FLATTEN, NOISE)]
GRID = [
    *(
        Contract(Access.SCORES, top_k=k, round_to=r, defences=d)
        for k, r, d in itertools.product((None, 1, 2, 9), (None, 1.0, 0.5, 1 / 3, 0.1, 0.01, 0.001), DEFENCES)
    ),
    *(Contract(Access.LABEL, defences=d) for d in DEFENCES),
    Contract(Access.WEIGHTS),
]
SAMPLES = [
    np.zeros((3, 5), dtype=np.float32),
    np.float32([[0, 0.3, 0.2, 0.1], [3, 0, 3, 3], [-1, -1, -2, -1]]),  # equals, and what rounding makes equal
    np.float32([[80, -80], [1e4, -1e4], [0.3, 0.1]]),
    np.random.default_rng(0).normal(0, 3, (4, 6)).astype(np.float32),
]


def reference_softmax(logits: np.ndarray) -> np.ndarray:
    """One number at a time, summed exactly."""
    rows = []
    for row in logits.astype(np.float64).tolist():
        powers = [math.exp(z - max(row)) for z in row]
        rows.append([power / math.fsum(powers) for power in powers])
    return np.array(rows)


def check_release(release: Release, logits: np.ndarray, contract: Contract) -> None:
    """`release` lets out what the contract says and nothing else."""
    given_logits = logits.copy()
    defend = make_defend(contract.defences, (b"secret", b"key", b"id"))
    seen: list[tuple[np.ndarray, np.ndarray]] = []

    def watched(scores: np.ndarray) -> np.ndarray:
        seen.append((scores.copy(), defend(scores)))
        return seen[-1][1].copy()

    released = release(logits, contract, watched)
    assert np.array_equal(logits, given_logits)
    scores = reference_softmax(logits)
    assert len(seen) == bool(contract.defences), "applied once, when the contract says so"
    if contract.defences:
        before, after = seen[0]
        assert before.dtype == np.float64
        np.testing.assert_allclose(before, scores, rtol=1e-12, atol=1e-300)  # so nothing was rounded before
        scores = after
    kinds = {name for name, value in vars(released).items() if value is not None}
    if contract.access is Access.LABEL:
        assert kinds == {"labels"}
        check_labels(released.labels, scores, scores if contract.defences else logits)
        return
    rows, classes = logits.shape
    if contract.top_k is None or contract.top_k >= classes:
        assert kinds == {"scores"}
        check_numbers(released.scores, scores, contract.round_to)
        return
    assert kinds == {"indices", "values"}
    assert released.indices.shape == released.values.shape == (rows, contract.top_k)
    assert released.indices.dtype == np.int64
    everything = release(logits, replace(contract, top_k=None), defend).scores
    check_numbers(everything, scores, contract.round_to)
    for row, indices, values in zip(everything, released.indices, released.values, strict=True):
        wanted = sorted(range(classes), key=lambda i: (-row[i], i))[: contract.top_k]
        assert indices.tolist() == wanted, "by falling value, equals by class"
        assert values.tolist() == row[wanted].tolist()


def check_labels(labels: np.ndarray, scores: np.ndarray, by: np.ndarray) -> None:
    """The class of the largest score; of equals in `by`, the first."""
    assert labels.dtype == np.int64
    assert labels.shape == scores.shape[:1]
    for label, row, values in zip(labels, scores, by, strict=True):
        assert row[label] >= row.max() * (1 - 4e-16)
        assert not (values[:label] >= values[label]).any()


def check_numbers(values: np.ndarray, scores: np.ndarray, r: float | None) -> None:
    """The scores, or the multiples of r that are nearest to them."""
    assert values.dtype == np.float64
    assert values.shape == scores.shape
    if r is None:
        np.testing.assert_allclose(values, scores, rtol=1e-12, atol=1e-300)
    else:
        assert np.array_equal(np.rint(values / r) * r, values)
        assert (abs(values - scores) <= r / 2 + 1e-12).all()


def test_release_keeps_every_contract() -> None:
    for contract, logits in itertools.product(GRID, SAMPLES):
        check_release(release, logits, contract)


LOGITS = st.tuples(st.integers(1, 4), st.integers(2, 6)).flatmap(
    lambda shape: hnp.arrays(
        np.float32,
        shape,
        elements=st.floats(-1e4, 1e4, width=32) | st.integers(-3, 3).map(float) | st.floats(-1, 1, width=16),
    )
)


@settings(max_examples=300)
@given(LOGITS, st.sampled_from(GRID))
def test_release_keeps_its_contract_on_any_logits(logits: np.ndarray, contract: Contract) -> None:
    check_release(release, logits, contract)


def _label_beside(logits: np.ndarray, contract: Contract, defend: Defend | None) -> Released:
    released = release(logits, contract, defend)
    return replace(released, labels=logits.argmax(axis=1))


def _ranked_before_rounding(logits: np.ndarray, contract: Contract, defend: Defend | None) -> Released:
    ranked = release(logits, replace(contract, round_to=None), defend)
    if ranked.values is None:
        return release(logits, contract, defend)
    return replace(ranked, values=np.rint(ranked.values / contract.round_to) * contract.round_to)


def _last_of_equals(logits: np.ndarray, contract: Contract, defend: Defend | None) -> Released:
    return Released(labels=logits.shape[1] - 1 - logits[:, ::-1].argmax(axis=1))


def _single_precision(logits: np.ndarray, contract: Contract, defend: Defend | None) -> Released:
    scores = release(logits, contract, defend).scores
    return Released(scores=scores.astype(np.float32).astype(np.float64))


def _rounded_down(logits: np.ndarray, contract: Contract, defend: Defend | None) -> Released:
    scores = release(logits, replace(contract, round_to=None), defend).scores
    return Released(scores=np.floor(scores / contract.round_to) * contract.round_to)


def _rounded_first(logits: np.ndarray, contract: Contract, defend: Defend | None) -> Released:
    return release(logits, contract, lambda scores: defend(np.rint(scores / 0.01) * 0.01))


BROKEN = [
    (_label_beside, Contract(Access.SCORES)),
    (_label_beside, Contract(Access.SCORES, top_k=2)),
    (_ranked_before_rounding, Contract(Access.SCORES, top_k=2, round_to=0.5)),
    (_last_of_equals, Contract(Access.LABEL)),
    (_single_precision, Contract(Access.SCORES)),
    (_rounded_down, Contract(Access.SCORES, round_to=0.1)),
    (_rounded_first, Contract(Access.SCORES, round_to=0.01, defences=(NOISE,))),
    (lambda z, c, d: release(z, replace(c, top_k=3), d), Contract(Access.SCORES, top_k=2)),
    (lambda z, c, d: release(z, replace(c, round_to=None), d), Contract(Access.SCORES, round_to=0.01)),
    (lambda z, c, d: release(z, replace(c, round_to=0.02), d), Contract(Access.SCORES, round_to=0.01)),
    (lambda z, c, d: release(z, replace(c, defences=()), d), Contract(Access.SCORES, defences=(FLATTEN,))),
    (lambda z, c, d: release(z, replace(c, defences=()), d), Contract(Access.LABEL, defences=(NOISE,))),
    (lambda z, c, d: Released(scores=release(z, Contract(Access.SCORES)).scores), Contract(Access.LABEL)),
    (lambda z, c, d: Released(), Contract(Access.SCORES)),
]


@pytest.mark.parametrize(("broken", "contract"), BROKEN)
def test_a_broken_release_is_caught(broken: Release, contract: Contract) -> None:
    def check_all() -> None:
        for logits in SAMPLES:
            check_release(broken, logits, contract)

    with pytest.raises(AssertionError):
        check_all()


def test_a_forgotten_defence_fails_closed() -> None:
    with pytest.raises(ValueError, match="the contract names defences and none was given"):
        release(SAMPLES[0], Contract(Access.LABEL, defences=(FLATTEN,)))
    with pytest.raises(ValueError, match="groups of features"):
        release(SAMPLES[0], Contract(Access.SCORES, features=("latent",)))


SERVICES = [
    oracle_pb2.DESCRIPTOR.services_by_name["Oracle"],
    admin_pb2.DESCRIPTOR.services_by_name["Admin"],
    health_pb2.DESCRIPTOR.services_by_name["Health"],
    open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"],
    reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"],
]
RPCS = [f"/{service.full_name}/{method.name}" for service in SERVICES for method in service.methods]


def test_every_call_has_a_rule_and_every_rule_a_call() -> None:
    check_policy(RPCS)
    assert set(POLICY) - set(RPCS) <= {"/grpc.health.v1.Health/List"}  # not in every version of that package
    for rpc, rule in POLICY.items():
        _, service, call = rpc.split("/")
        wanted = {"mirage.v1.Oracle": Caller.KEY, "mirage.v1.Admin": Caller.OPERATOR}.get(service, Caller.ANYBODY)
        if service == "inference.GRPCInferenceService" and call.startswith("Model"):
            wanted = Caller.KEY
        assert rule.caller is wanted, rpc
    assert POLICY["/mirage.v1.Oracle/Download"].access == {Access.WEIGHTS}


@pytest.mark.parametrize("missing", RPCS)
def test_a_call_without_a_rule_is_refused(missing: str) -> None:
    policy = {rpc: rule for rpc, rule in POLICY.items() if rpc != missing}
    with pytest.raises(LookupError, match=f"no row in the policy table for {missing}: add one"):
        check_policy(RPCS, policy)


def foreign_imports(source: str) -> set[str]:
    """Top-level packages that a file imports, anywhere in it, beyond numpy and the standard library."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add("." if node.level else str(node.module).partition(".")[0])
        elif isinstance(node, ast.Name) and node.id == "__import__":
            found.add(node.id)
    return found - sys.stdlib_module_names - {"numpy"} | found & {"importlib", "runpy"}


def test_the_audited_file_is_short_and_stands_alone() -> None:
    source = Path(threat_model.__file__).read_text()
    assert foreign_imports(source) == set()
    assert len(source.splitlines()) <= 200
    for planted, name in [
        ("def f():\n    import torch.nn", "torch"),
        ("from protos import codec", "protos"),
        ("from . import guard", "."),
        ("import importlib", "importlib"),
        ("__import__('torch')", "__import__"),
    ]:
        assert foreign_imports(source + "\n" + planted) == {name}
