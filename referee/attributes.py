"""Run an attribute experiment: grow its models, host them, attack them all in one fenced process, score the guesses.

OUT/victim/attributes/FOLDER/     a server's root of its own: models s000, s001, ... (and i000, ... of the ideal
                                  adversary), rows.json (who each was grown on), ledger
OUT/attacker/FOLDER/              people.csv, ideal.csv, one folder for each run
OUT/referee/attributes/FOLDER.*   the result: see `referee.attribute_results`

FOLDER is the experiment's name and a hash of its definition, so that another definition never meets these files. Of a
finished experiment the hosted models are removed, and so are the attacker's runs but those of the first sample: a
hundred trees take a gigabyte, and they grow again from the same rows and seed. Ledger, rows and guesses stay.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from attacker.cli import REFUSED
from oracle_server.contracts import contract_message
from oracle_server.ledger import SqliteLedger
from oracle_server.models.card import Card
from oracle_server.models.repository import Repository
from oracle_server.operator import Operator, ledger_path
from oracle_server.victims.tables import Table
from protos.mirage.v1 import admin_pb2
from referee import attribute_results as results
from referee.atomic import write_atomically
from referee.attribute_models import Grown, grow_sample, load_table, people_files, private_files, samples_of
from referee.attribute_plan import Adversary, Experiment
from referee.attribute_results import Counted, Result
from referee.metrics.attributes import positive_level
from referee.processes import OracleProcess, Trespass, denied_in, run_attacker

__all__ = ["find_result", "run_experiment"]

Say = Callable[[str], None]
_START_SECONDS, _START_SECONDS_MODEL = 120.0, 10.0


class _Cards(Repository):
    """A repository that reads its cards once: hundreds of keys are made for its models, and each is looked up."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._by_name = {card.name: card for card in super().cards()}

    def card(self, model: str) -> Card:
        return self._by_name[model.partition("/")[0]]


def find_result(experiment: Experiment, out: Path) -> Result | None:
    """The experiment's result, if there is one that still counts: a failure is tried again."""
    found = results.find(out / "referee" / "attributes", experiment.folder)
    return found if found is not None and found.status != "failed" else None


def run_experiment(
    experiment: Experiment, out: Path, device: str = "cpu", *, say: Say = lambda line: None, quiet: bool = True
) -> Result:
    """The result of an experiment, run now unless it is finished; resumes what was killed, and ends what it started.

    Args:
        experiment: from a campaign file.
        out: the campaign's folder.
        device: for the server and the attacker; trees and regressions need none.
        say: is told, in a line, what begins.
        quiet: False shows the attacker's progress.

    Raises:
        ValueError: the table has no such feature, or the experiment doesn't fit it.
        LookupError: the table is not on this machine.
        ProcessError: the server did not start.
    """
    out = out.resolve()
    root, folder = out / "victim" / "attributes" / experiment.folder, out / "attacker" / experiment.folder
    keys_file = out / "referee" / "keys" / f"{experiment.folder}.json"
    if (found := find_result(experiment, out)) is not None:
        if keys_file.exists():  # killed after the result was written
            _clean(experiment, root, folder, keys_file)
        return found
    started = time.perf_counter()
    table = load_table(experiment)
    inside = samples_of(experiment, table)
    _write_rows(experiment, table, inside, root)
    grown = _host(experiment, table, inside, root, say)
    grew = time.perf_counter()
    people_files(experiment, table, folder)
    keys = _keys(experiment, root, keys_file, folder)
    _write_batch(experiment, keys, folder)
    say(f"{experiment.name}: attacking {experiment.samples} models")
    starts = _START_SECONDS + _START_SECONDS_MODEL * 2 * experiment.samples
    with OracleProcess(root, "--device", device, start_seconds=starts) as oracle:
        attack = time.perf_counter()
        trespass = None
        try:
            status, words = run_attacker(
                oracle.address,
                None,
                [str(folder / "runs.jsonl"), "--out", str(folder / "runs"), "--device", device],
                folder=folder,
                denied=[*denied_in(out), *private_files(experiment)],
                quiet=quiet,
                command="batch",
            )
        except Trespass as error:
            trespass = error
        ended = time.perf_counter()
    known: dict[str, Any] = {
        "seconds": {"grow": grew - started, "start": attack - grew, "attack": ended - attack},
        **_facts(experiment, table, inside, grown),
    }
    if trespass is not None:
        result = Result(status="void", sentence=str(trespass), counted={}, guesses={}, **known)
    elif status != 0:
        said = words.strip().splitlines()[-1] if words.strip() else f"the attacker ended with status {status}"
        result = Result(
            status="refused" if status == REFUSED else "failed",
            sentence=said.removeprefix("Refused: ").removeprefix("Error: "),
            counted={},
            guesses={},
            **known,
        )
    else:
        counted = _counted(experiment, root, keys, folder)
        differ = [label for label, one in counted.items() if not one.equal]
        result = Result(
            status="void" if differ else "done",
            sentence=f"The ledger and the attacker counted other rows for {', '.join(differ)}." if differ else "",
            counted=counted,
            guesses={one.label: _guesses(experiment, one, table, folder) for one in experiment.adversaries},
            **known,
        )
    results.save(result, out / "referee" / "attributes", experiment.folder)
    if result.status != "failed":
        _clean(experiment, root, folder, keys_file)
    return result


def _write_rows(experiment: Experiment, table: Table, inside: np.ndarray, root: Path) -> None:
    """Who each model is grown on, before any is; a table that changed since belongs to another run."""
    path = root / "rows.json"
    rows = {f"s{number:03d}": np.flatnonzero(sample).tolist() for number, sample in enumerate(inside)}
    hashes = {name: hashlib.sha256(json.dumps(row).encode()).hexdigest() for name, row in rows.items()}
    values = {"table": table.name, "table_sha256": _table_sha256(table), "sha256": hashes, "rows": rows}
    if path.exists() and json.loads(path.read_text())["table_sha256"] != values["table_sha256"]:
        raise ValueError(f"the table {table.name} changed while {experiment.name} was unfinished: delete {root}")
    write_atomically(path, (json.dumps(values) + "\n").encode())


def _host(experiment: Experiment, table: Table, inside: np.ndarray, root: Path, say: Say) -> list[Grown]:
    """All models of the experiment, grown and hosted where they are not yet."""
    repository, grown = Repository(root), []
    for number, sample in enumerate(inside):
        if number % 10 == 0:
            say(f"{experiment.name}: growing model {number + 1} of {len(inside)}")
        one = grow_sample(experiment, table, sample, number)
        for name, host in one.host.items():
            if not (repository.folder / name).exists():
                host(repository, name)
        grown.append(one)
    return grown


@contextlib.contextmanager
def _operator(root: Path) -> Iterator[Operator]:
    """The operator's calls while no server runs, for as many keys as there are."""
    with contextlib.closing(SqliteLedger(ledger_path(root))) as ledger:
        yield Operator(ledger, _Cards(root))


def _run_names(experiment: Experiment) -> dict[str, tuple[Adversary, int]]:
    """Every run by the name of its folder."""
    samples = range(experiment.samples)
    return {f"{one.label}+s{number:03d}": (one, number) for number in samples for one in experiment.adversaries}


def _keys(experiment: Experiment, root: Path, path: Path, folder: Path) -> dict[str, tuple[str, str]]:
    """A key (token, id) for each run: new ones, or those of the experiment that is to be resumed."""
    if path.exists():
        return {name: (kept[0], kept[1]) for name, kept in json.loads(path.read_text()).items()}
    shutil.rmtree(folder / "runs", ignore_errors=True)  # of keys that are no more: nobody could count their rows
    keys = {}
    with _operator(root) as operator:
        _revoke_all(operator)  # keys of a process that was killed before it wrote them down
        for name, (one, number) in _run_names(experiment).items():
            model = f"{'i' if one.ideal else 's'}{number:03d}"
            request = admin_pb2.CreateKeyRequest(label=name, model=model, contract=contract_message(one.contract))
            made = operator.create_key(request)
            keys[name] = (made.key, made.key_id)
    _write_secret(path, json.dumps(keys))
    return keys


def _revoke_all(operator: Operator) -> None:
    for key in operator.list_keys(admin_pb2.ListKeysRequest()).keys:
        if not key.HasField("revoked"):
            operator.revoke_key(admin_pb2.RevokeKeyRequest(key_id=key.key_id))


def _write_batch(experiment: Experiment, keys: dict[str, tuple[str, str]], folder: Path) -> None:
    """All runs in one file, which holds their keys and is the attacker's own."""
    lines = [
        {
            "key": keys[name][0],
            "name": name,
            "method": one.method,
            "set": one.settings(experiment.unknown),
            "given": str(folder / ("ideal.csv" if one.ideal else "people.csv")),
            "seed": experiment.seed + number,
        }
        for name, (one, number) in _run_names(experiment).items()
    ]
    _write_secret(folder / "runs.jsonl", "".join(json.dumps(line) + "\n" for line in lines))


def _write_secret(path: Path, text: str) -> None:
    """Whole or not at all, and never readable by others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    part.replace(path)


def _counted(experiment: Experiment, root: Path, keys: dict[str, tuple[str, str]], folder: Path) -> dict[str, Counted]:
    """For each adversary, over its samples, the ledger's rows beside those of its run.json."""
    with _operator(root) as operator:
        usage = {key.key_id: key.usage for key in operator.list_keys(admin_pb2.ListKeysRequest()).keys}
    pairs: dict[str, list[tuple[int, int, int]]] = {one.label: [] for one in experiment.adversaries}
    for name, (one, _) in _run_names(experiment).items():
        mine = usage[keys[name][1]]
        own = json.loads((folder / "runs" / name / "run.json").read_text())["rows"]
        pairs[one.label].append((mine.spent, own, mine.downloads))
    return {
        label: Counted(
            rows_ledger=sum(ledger for ledger, _, _ in runs),
            rows_attacker=sum(own for _, own, _ in runs),
            downloads=sum(downloads for _, _, downloads in runs),
            equal=all(ledger == own for ledger, own, _ in runs),
        )
        for label, runs in pairs.items()
    }


def _guesses(experiment: Experiment, one: Adversary, table: Table, folder: Path) -> np.ndarray:
    """The guessed codes (S, N) of the sensitive feature; -1 where a run ended without one."""
    place = [feature.name for feature in table.features].index(experiment.unknown[0])
    guesses = []
    for number in range(experiment.samples):
        with np.load(folder / "runs" / f"{one.label}+s{number:03d}" / "reconstructions.npz") as arrays:
            guess = arrays["extra_guess"] if one.ideal else arrays["images"][-1][:, place]
            guesses.append(np.where(np.isfinite(guess), guess, -1).astype(np.int16))
    return np.stack(guesses)


def _facts(experiment: Experiment, table: Table, inside: np.ndarray, grown: list[Grown]) -> dict[str, Any]:
    """What the result says beside the guesses."""
    place = [feature.name for feature in table.features].index(experiment.unknown[0])
    feature, truth = table.features[place], table.X[:, place].astype(np.int16)
    shares = np.bincount(truth, minlength=len(feature.levels)) / len(truth)
    return {
        "definition": experiment.definition(),
        "table_sha256": _table_sha256(table),
        "feature": feature.name,
        "levels": feature.levels,
        "positive": positive_level(feature.levels, shares.tolist()),
        "sensitive": tuple(table.sensitive),
        "response": table.response.name,
        "credit": f"{table.credit} {table.terms}".strip(),
        "inside": inside,
        "truth": truth,
        "fit_inside": np.array([one.fit[0] for one in grown]),
        "fit_outside": np.array([one.fit[1] for one in grown]),
        "splits": np.array([one.splits for one in grown], dtype=np.int64),
        "leaves": np.array([one.leaves for one in grown], dtype=np.int64),
    }


def _table_sha256(table: Table) -> str:
    """Of the values and the names: the same people, the same features."""
    names = json.dumps([feature.as_dict() for feature in (*table.features, table.response)], sort_keys=True)
    arrays = np.ascontiguousarray(table.X).tobytes() + np.ascontiguousarray(table.y).tobytes()
    return hashlib.sha256(names.encode() + arrays).hexdigest()


def _clean(experiment: Experiment, root: Path, folder: Path, keys_file: Path) -> None:
    """No key stays valid or in a file; of the models and runs only what says something that nothing else says."""
    with _operator(root) as operator:
        _revoke_all(operator)
    (folder / "runs.jsonl").unlink(missing_ok=True)
    for name, (_, number) in _run_names(experiment).items():
        if number:
            shutil.rmtree(folder / "runs" / name, ignore_errors=True)
    shutil.rmtree(Repository(root).folder, ignore_errors=True)
    keys_file.unlink(missing_ok=True)
