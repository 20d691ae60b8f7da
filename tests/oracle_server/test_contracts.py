"""A contract is checked when it is made, and is the same in every form."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracle_server.contracts import contract_from_message, contract_message, contract_words
from oracle_server.threat_model import Access, Contract
from protos.mirage.v1 import oracle_pb2 as pb

SIGMA = (("gaussian_noise", (("sigma", 0.1),)),)
BAD = [
    ({"access": "scores"}, "access='scores' must be one of ['weights', 'scores', 'label']"),
    ({"access": None}, "access=None must be one of ['weights', 'scores', 'label']"),
    ({"access": Access.LABEL, "top_k": 1}, "top_k has no meaning with access=label: leave it out or use scores"),
    ({"access": Access.LABEL, "round_to": 0.1}, "round_to has no meaning with access=label"),
    ({"access": Access.LABEL, "features": ("a",)}, "features has no meaning with access=label"),
    ({"access": Access.WEIGHTS, "top_k": 1}, "top_k has no meaning with access=weights"),
    ({"access": Access.WEIGHTS, "round_to": 0.1}, "round_to has no meaning with access=weights"),
    ({"access": Access.WEIGHTS, "defences": SIGMA}, "defences has no meaning with access=weights"),
    ({"top_k": 0}, "top_k=0 must be at least 1"),
    ({"access": Access.LABEL, "top_k": 0}, "top_k=0 must be at least 1"),
    ({"top_k": -1}, "top_k=-1 must be at least 1"),
    ({"top_k": 1.5}, "top_k=1.5 must be a whole number below 2**63"),
    ({"round_to": 0.0}, "round_to=0.0 must lie in [1e-15, 1]"),
    ({"round_to": -0.1}, "round_to=-0.1 must lie in [1e-15, 1]"),
    ({"round_to": 1.01}, "round_to=1.01 must lie in [1e-15, 1]"),
    ({"round_to": 1e-310}, "round_to=1e-310 must lie in [1e-15, 1]"),
    ({"round_to": float("nan")}, "round_to=nan must lie in [1e-15, 1]"),
    ({"budget": -1}, "budget=-1 must not be negative"),
    ({"budget": float("nan")}, "budget=nan must be a whole number below 2**63"),
    ({"budget": 2**63}, "budget=9223372036854775808 must be a whole number below 2**63"),
    ({"rate": 0.0}, "rate=0.0 must be positive and finite"),
    ({"rate": -1.0}, "rate=-1.0 must be positive and finite"),
    ({"rate": float("inf")}, "rate=inf must be positive and finite"),
    ({"rate": float("nan")}, "rate=nan must be positive and finite"),
    ({"expires": float("inf")}, "expires=inf must be a finite Unix time"),
    ({"expires": float("nan")}, "expires=nan must be a finite Unix time"),
]


@pytest.mark.parametrize(("fields", "sentence"), BAD)
def test_a_bad_value_is_refused_in_one_sentence(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        Contract(**({"access": Access.SCORES} | fields))


def test_a_field_that_might_restrict_is_never_ignored() -> None:
    with pytest.raises(ValueError, match="a contract has no field per_day"):
        Contract.from_dict({"access": "scores", "per_day": 10})


POSITIVE = st.floats(1e-3, 1e6)
LIMITS = {
    "budget": st.none() | st.integers(0, 2**63 - 1),
    "rate": st.none() | POSITIVE,
    "expires": st.none() | st.integers(0, 2**32).map(float),
}
DEFENCES = st.lists(
    st.tuples(st.just("gaussian_noise"), st.tuples(st.tuples(st.just("sigma"), st.floats(0, 1))))
    | st.tuples(st.just("temperature"), st.tuples(st.tuples(st.just("temperature"), POSITIVE))),
    max_size=3,
).map(tuple)
CONTRACTS = (
    st.builds(
        Contract,
        st.just(Access.SCORES),
        top_k=st.none() | st.integers(1, 2**32 - 1),
        round_to=st.none() | st.floats(1e-6, 1),
        features=st.lists(st.text("abc", min_size=1), max_size=2).map(tuple),
        defences=DEFENCES,
        **LIMITS,
    )
    | st.builds(Contract, st.just(Access.LABEL), defences=DEFENCES, **LIMITS)
    | st.builds(Contract, st.just(Access.WEIGHTS), **LIMITS)
)


@given(CONTRACTS)
def test_json_and_the_wire_keep_every_field(contract: Contract) -> None:
    assert Contract.from_dict(json.loads(json.dumps(contract.as_dict()))) == contract
    assert contract_from_message(pb.Contract.FromString(contract_message(contract).SerializeToString())) == contract


@given(CONTRACTS, CONTRACTS)
def test_contracts_share_a_digest_only_when_equal(one: Contract, other: Contract) -> None:
    assert (one.digest == other.digest) == (one == other)
    assert one.digest == Contract.from_dict(json.loads(json.dumps(one.as_dict()))).digest


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (pb.Contract(), "access must be one of weights, scores, label"),
        (pb.Contract(access=9), "access must be one of weights, scores, label"),
        (
            pb.Contract(access=pb.Contract.ACCESS_SCORES, defences=[pb.Defence(name="prayer")]),
            "no response defence 'prayer'; there is gaussian_noise, keyed_noise, reverse_sigmoid, temperature",
        ),
        (
            pb.Contract(
                access=pb.Contract.ACCESS_SCORES,
                defences=[pb.Defence(name="gaussian_noise", parameters={"sigma": 2})],
            ),
            "sigma=2.0 must lie in [0, 1]",
        ),
        (pb.Contract(access=pb.Contract.ACCESS_LABEL, top_k=3), "top_k has no meaning with access=label"),
    ],
)
def test_a_message_that_cannot_be_kept_is_refused(message: pb.Contract, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        contract_from_message(message)


def test_words() -> None:
    contract = Contract(Access.SCORES, top_k=1, round_to=0.01, defences=SIGMA, budget=5000, rate=2.0)
    words = "scores, top 1, rounded to 0.01, gaussian_noise(sigma=0.1), budget 5000, 2 rows/s"
    assert contract_words(contract) == words
    assert contract_words(Contract(Access.LABEL)) == "label"
