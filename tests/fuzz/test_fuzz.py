"""Bytes that came from a stranger, by the hundred: the kept inputs, and what mutations make of them.

`python -m benchmarks --only fuzz` runs the same targets a million times, guided by what the code does.
"""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracle_server import inputs, open_inference
from protos import codec
from protos.archive import UnsafeArchive
from protos.inference import open_inference_pb2 as v2
from protos.mirage.v1.tensor_pb2 import Tensor
from tests.fuzz import targets
from tests.fuzz.mutators import MUTATORS
from tests.fuzz.targets import DOCUMENTED, TARGETS, corpus

MUTATED = st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 12))  # a seed, and how many changes


def hammer(name: str, examples: int) -> Counter[str]:
    """The kept inputs, then mutations of them and bytes at random; how often each word came."""
    kept, words = corpus(name), Counter[str]()
    assert kept

    def check(data: bytes) -> None:
        word = target(data)
        assert word in DOCUMENTED, word
        words[word] += 1

    @settings(max_examples=examples, database=None, derandomize=True)
    @given(st.one_of(MUTATED, MUTATED, MUTATED, st.binary(max_size=200)))
    def mutations(made: tuple[int, int] | bytes) -> None:
        if isinstance(made, bytes):
            return check(made)
        draw = random.Random(made[0])
        data = draw.choice(kept)
        for _ in range(made[1]):
            data = MUTATORS[name](data, draw)
        return check(data)

    with TARGETS[name]() as target:
        for data in kept:
            check(data)
        mutations()
    return words


@pytest.mark.parametrize("name", TARGETS)
def test_whatever_comes(name: str) -> None:
    words = hammer(name, 250)
    assert words["ANSWERED"] >= 3, words  # the inputs get as far as that
    assert words.total() >= 250


@pytest.mark.parametrize("name", TARGETS)
def test_the_kept_inputs_are_small_and_varied(name: str) -> None:
    kept = corpus(name)
    assert len(set(kept)) == len(kept) >= 8
    assert max(map(len, kept)) < 20_000
    with TARGETS[name]() as target:
        assert len({target(data) for data in kept}) >= 2


def _trusting(tensor: Tensor, data: memoryview) -> np.ndarray:
    """A codec that believes the header."""
    shape = tuple(tensor.shape)
    return np.frombuffer(data, dtype=np.float32, count=int(np.prod(shape))).reshape(shape)


def _trusting_both(tensor: v2.ModelInferRequest.InferInputTensor, data: memoryview | None) -> np.ndarray:
    return np.frombuffer(data or b"", dtype=np.float32, count=int(np.prod(tensor.shape))).reshape(tuple(tensor.shape))


def _unreadable(*_: object) -> object:
    raise KeyError("sizes")


PLANTED = {
    "codec": (inputs, "decode", _trusting),
    "predict": (inputs, "decode", _trusting),
    "infer": (open_inference, "decode", _trusting_both),
    "archive": (targets.archives, "_tensor_bytes", _unreadable),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_bug_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*PLANTED[name])
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - whatever the bug raises
        hammer(name, 250)
    assert not isinstance(caught.value, codec.CodecError | UnsafeArchive)
