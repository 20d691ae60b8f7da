"""Capacity of an interface in bits: an upper bound on what the answers could have told. Not a measured leak.

For each row it is log2 of the number of answers that the contract allows, summed over rows, capped by the size of the
model (whoever has read that many bits could have had the weights) where it is known, plus the card, once.

    label            log2 C
    full scores      float64 scores, but never more than the C float32 logits that they are computed from: 32 C
    rounded          points of the lattice r Z^C within rounding of the simplex
    top-k            which k of C, and 64 bits for each score (at most 32 C in all)
    top-k, rounded   which k of C, and the points of the lattice in k dimensions whose sum may fall short of one
    weights          the archive
    a number         of a regression: its float64, or the multiples of r between its smallest and largest prediction
    features         each released one: the float32 that it is computed as, or the multiples of r around [0, 1]

Whatever follows from a longer answer cannot tell more than that one: a rounded answer no more than the logits, the k
largest rounded scores no more than all of them.
"""

from __future__ import annotations

import functools
import math

from oracle_server.models.card import Card
from oracle_server.threat_model import Access, Contract

__all__ = ["bits_per_row", "capacity_bits", "lattice_points"]


def capacity_bits(contract: Contract, card: Card, rows: int, downloads: int = 0) -> float:
    """Bits that `rows` answers under `contract` (and `downloads` of the weights) could have carried at most."""
    model = math.inf if card.upstream else 8.0 * card.archive_bytes
    if card.response is not None and card.kind == "regression":
        answers = rows * _bits_of_a_number(contract.round_to, card.response.high - card.response.low)
    elif card.kind == "features":
        released = sum(not contract.features or group in contract.features for group in card.groups)
        answers = rows * released * min(32.0, _bits_of_a_number(contract.round_to, 1.0))
    else:
        answers = rows * bits_per_row(contract.access, contract.top_k, contract.round_to, card.classes)
    return 8.0 * card.message().ByteSize() + (model if downloads else min(answers, model))


@functools.lru_cache(maxsize=256)
def bits_per_row(access: Access, top_k: int | None, round_to: float | None, classes: int) -> float:
    """log2 of the number of answers to one row."""
    if access is Access.LABEL:
        return math.log2(classes)
    k = classes if top_k is None else min(top_k, classes)
    which = _log2(math.comb(classes, k))
    logits = 32.0 * classes
    if round_to is None:
        return min(which + 64.0 * k, logits)
    everything = _log2(lattice_points(classes, round_to))
    return min(which + _log2(lattice_points(k, round_to, partial=k < classes)), everything, logits)


def _bits_of_a_number(round_to: float | None, span: float) -> float:
    return 64.0 if round_to is None else min(64.0, math.log2(math.floor(span / round_to) + 2))


def lattice_points(k: int, r: float, *, partial: bool = False) -> int:
    """How many vectors of k multiples of r come from rounding a point of the simplex (of its sub-simplex when
    `partial`).

    n = (n_1 .. n_k) is reached from some p >= 0 with sum 1 when the cells of its entries, [max(0, n_i - 1/2), n_i +
    1/2] r, can sum to 1: with m entries above zero and S their sum, S - m/2 <= 1/r <= S + k/2. A truncated answer
    need not sum to one, which drops the right-hand bound.
    """
    total = 1.0 / r
    slack = 1e-9 * total  # 1/r is rarely exact in binary
    count = 0
    for m in range(k + 1):
        largest = math.floor(total + m / 2 + slack)
        smallest = max(m, 0 if partial else math.ceil(total - k / 2 - slack))
        if smallest <= largest:
            # sum over S of comb(S - 1, m - 1) telescopes: compositions of S into m positive parts
            compositions = math.comb(largest, m) - (math.comb(smallest - 1, m) if smallest > m else 0)
            count += math.comb(k, m) * (compositions if m else smallest == 0)
    return count


def _log2(n: int) -> float:
    shift = max(0, n.bit_length() - 64)  # beyond what a float can hold
    return math.log2(n >> shift) + shift
