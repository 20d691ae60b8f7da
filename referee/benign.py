"""A benign user of the oracle asks about photos under keys of their own; what is released to them falls into the
attacker's hands.

OUT/referee/benign/VICTIM+CONTRACT-HASH/   journal.bin, the key while it is needed, and answers.npy (R, K) float64 once
                                           all is answered

What is finished is never asked again, and its key is revoked; what was interrupted goes on from its journal, so that no
row is charged twice. Cells that ask for the same photos under the same contract share one folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from attacker.oracle import Oracle
from attacker.released import as_table
from oracle_server.threat_model import Contract
from referee.given import GivenAnswers, given_answers, rows_asked, write_images
from referee.keys import hold_key, retire_key

if TYPE_CHECKING:
    from referee.campaign import PlannedCell
    from referee.results import Results

__all__ = ["answers_of", "ask_benign"]


def ask_benign(results: Results, planned: PlannedCell, address: str) -> None:
    """Ask what the cell's given answers need and is not answered yet, through the server at `address`."""
    rows = _rows(results, planned)
    images = results.judge(planned.victim.split).faces.images
    with results.asking:
        for name, contract in planned.asked.items():
            folder = _folder(results, planned, name, contract, rows)
            if not (folder / "answers.npy").exists():
                asked = images[[row for part in rows.values() for row in part]]
                write_images(_ask(results, planned, name, contract, asked, folder, address), folder / "answers.npy")
            if (folder / "key.json").exists():
                retire_key(results.root, folder / "key.json")


def answers_of(results: Results, planned: PlannedCell) -> GivenAnswers:
    """The answers that are given in the cell; `LookupError` where they were not asked yet."""
    judge, rows = results.judge(planned.victim.split), _rows(results, planned)
    found = {}
    for name, contract in planned.asked.items():
        path = _folder(results, planned, name, contract, rows) / "answers.npy"
        if not path.exists():
            raise LookupError(f"the answers under {name} for {planned.name} are missing: run the campaign again")
        found[name] = np.load(path, allow_pickle=False)
    return given_answers(judge.split, judge.faces, rows, found)


def _ask(
    results: Results,
    planned: PlannedCell,
    name: str,
    contract: Contract,
    photos: np.ndarray,
    folder: Path,
    address: str,
) -> np.ndarray:
    exact = replace(contract, budget=len(photos))
    model = planned.victim.name
    key, _ = hold_key(results.root, folder / "key.json", label=f"benign {name}", model=model, contract=exact)
    oracle = Oracle(address, key)
    try:
        oracle.begin(folder, {"benign": folder.name})
        return as_table(oracle.query(photos), oracle.classes)
    finally:
        oracle.close()


def _rows(results: Results, planned: PlannedCell) -> dict[str, list[int]]:
    judge = results.judge(planned.victim.split)
    return rows_asked(judge.split, judge.faces, planned.victim.kind, planned.given["photos"])


def _folder(
    results: Results, planned: PlannedCell, name: str, contract: Contract, rows: Mapping[str, Sequence[int]]
) -> Path:
    """Its name has a hash of all that the answers depend on."""
    model = results.repository.card(planned.victim.name).archive_sha256
    what = json.dumps([model, contract.digest, rows], sort_keys=True)
    folder = f"{planned.victim.name}+{name}".replace("/", "+")
    return results.out / "referee" / "benign" / f"{folder}-{hashlib.sha256(what.encode()).hexdigest()[:6]}"
