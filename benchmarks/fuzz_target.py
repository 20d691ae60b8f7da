"""`python -m benchmarks.fuzz_target TARGET INPUTS FOLDER`: a target of `tests.fuzz` under atheris, guided by coverage.

Writes FOLDER/counts.json as it goes: how many inputs, which words came of them and how often, and how many raised what
no target may; the first inputs of each kind that did, and of each word that nobody has promised, are kept in FOLDER.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import random
import sys
from collections import Counter
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["protos", "oracle_server"], enable_loader_override=False):
    from tests.fuzz.mutators import MUTATORS
    from tests.fuzz.targets import CORPUS, DOCUMENTED, TARGETS, Target

__all__: list[str] = []

_EVERY = 5000  # inputs from one count on disk to the next
_KEPT = 20  # inputs kept of what should not be
_LARGEST = {"archive": 16_384}  # bytes of an input; 4096 for the other targets


class _Count:
    """Runs the target on each input and keeps the count; ends the process after the last."""

    def __init__(self, target: Target, inputs: int, folder: Path) -> None:
        self._target, self._inputs, self._folder = target, inputs, folder
        self._done, self._words, self._raised = 0, Counter[str](), Counter[str]()

    def __call__(self, data: bytes) -> None:
        try:
            word = self._target(data)
        except Exception as error:
            self._raised[type(error).__name__] += 1
            self._keep(data, f"{type(error).__name__}: {error}")
        else:
            self._words[word] += 1
            if word not in DOCUMENTED:
                self._keep(data, word)
        self._done += 1
        if self._done % _EVERY == 0 or self._done == self._inputs:
            counts = {"inputs": self._done, "words": self._words, "raised": self._raised}
            (self._folder / "counts.json").write_text(json.dumps(counts))
        if self._done == self._inputs:
            sys.stdout.flush()
            os._exit(0)  # libFuzzer would end it in a way of its own

    def _keep(self, data: bytes, said: str) -> None:
        if len(list(self._folder.glob("kept-*"))) < _KEPT:
            (self._folder / f"kept-{hashlib.sha256(data).hexdigest()[:16]}").write_bytes(data)
            print(said[:300], flush=True)


def main() -> None:
    name, inputs, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    logging.disable()  # the guard's, of what is counted here as an answer without a reason
    found = folder / "found"
    found.mkdir(parents=True)

    def mutate(data: bytes, largest: int, seed: int) -> bytes:
        draw = random.Random(seed)
        changed: bytes = (
            MUTATORS[name](bytes(data), draw) if draw.randrange(2) else atheris.Mutate(data, len(data) or 1)
        )
        return changed[:largest]

    options = [
        f"-max_len={_LARGEST.get(name, 4096)}",
        "-seed=1",
        "-timeout=20",
        "-rss_limit_mb=4096",
        "-print_final_stats=1",
    ]
    with TARGETS[name]() as target:
        words = [sys.argv[0], *options, f"-artifact_prefix={folder}/died-", str(found), str(CORPUS / name)]
        atheris.Setup(words, _Count(target, inputs, folder), custom_mutator=mutate)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
