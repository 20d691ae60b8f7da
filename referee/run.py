"""Run a campaign: the cells that have no result yet, each through a server and an attacker of its own processes.

OUT/victim/           the server's root: models, ledger, log       (the attacker may not open it)
OUT/referee/          finished cells, keys of unfinished ones      (the attacker may not open it)
OUT/public/SPLIT/     what the victim published
OUT/attacker/CELL/    the attacker's own folder: journal, reconstructions, log
OUT/*/attributes/     experiments on tables: see `referee.attributes`
OUT/report.html, results.parquet, summary.json, timings.json
"""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from attacker.cli import REFUSED
from oracle_server.capacity import capacity_bits
from oracle_server.contracts import contract_message
from oracle_server.operator import open_operator
from oracle_server.victims.hosting import train_and_host
from protos.mirage.v1 import admin_pb2
from referee import cell as cells
from referee.attribute_runs import not_run, run_missing
from referee.campaign import Plan, PlannedCell
from referee.cell import Cell
from referee.figures import FIGURES, figures_of, trainings_of
from referee.figures.attributes import PAPER
from referee.given import write_images
from referee.processes import OracleProcess, run_attacker
from referee.report import Campaign, Figure, Section, write_report
from referee.report.attributes import attribute_sections
from referee.results import Results
from referee.training import Training, train_ahead

__all__ = ["report_campaign", "run_campaign"]

Say = Callable[[str], None]


def run_campaign(
    plan: Plan,
    out: Path,
    *,
    command: str,
    device: str = "auto",
    private_images: bool = True,
    say: Say = lambda line: None,
    quiet: bool = True,
) -> tuple[list[Cell], Campaign]:
    """Run what is missing, then work out the figures and write the report. Stops what it started, however it ends.

    `say` is told, in a line, what begins. Run again after an interruption, it goes on where it was.
    """
    out.mkdir(parents=True, exist_ok=True)
    results = Results(plan, out.resolve(), device)
    run_missing(plan.attributes, results.out, results.device, say, quiet)
    if trainings := _trainings(results):
        say("training the models")
        train_ahead(trainings, say)
    for victim in plan.victims:
        if not (results.repository.folder / victim.name).exists():
            say(f"hosting {victim.name}")
            train_and_host(
                victim.architecture,
                victim.split,
                results.repository,
                name=victim.name,
                seed=victim.seed,
                device=device,
                deterministic=True,
            )
    missing = [planned for planned in plan.cells if results.finished(planned) is None]
    if missing:
        say("starting the oracle server")
        with OracleProcess(results.root, "--device", device) as oracle:
            for number, planned in enumerate(missing, 1):
                say(f"cell {number} of {len(missing)}: {planned.name} on {planned.victim.name}")
                cells.save(_run_cell(results, planned, oracle.address, quiet), results.cell_folder(planned))
                _retire_key(results, planned)
    say("working out the figures")
    return _report(results, command, private_images)


def _trainings(results: Results) -> list[Training]:
    """Evaluation networks first, since they take longest; then targets; then what only the figures need."""
    plan, device = results.plan, results.device
    judged = [Training(victim.split, device=device) for victim in plan.victims]
    hosted = [Training(victim.split, victim.architecture, victim.seed, device) for victim in plan.victims]
    return [*judged, *hosted, *trainings_of(plan.figures)]


def report_campaign(
    plan: Plan, out: Path, *, command: str, device: str = "auto", private_images: bool = True
) -> tuple[list[Cell], Campaign]:
    """Write the report again from the cells that are finished; `LookupError` when a victim is not even trained."""
    return _report(Results(plan, out.resolve(), device), command, private_images)


def _report(results: Results, command: str, private_images: bool) -> tuple[list[Cell], Campaign]:
    done = [results.finished(planned) for planned in results.plan.cells]
    finished = [cell for cell in done if cell is not None]
    campaign = _campaign(results, finished, command)
    write_report(finished, campaign, results.out, private_images=private_images)
    return finished, campaign


def _run_cell(results: Results, planned: PlannedCell, address: str, quiet: bool) -> Cell:
    split = planned.victim.split
    judge = results.judge(split)
    token, key_id = _key(results, planned)
    public = results.public(split)
    folder = results.attacker_folder(planned)
    arguments = [planned.method, "--targets", planned.targets, "--seed", str(planned.seed), "--out", str(folder)]
    arguments += [word for setting in planned.settings() for word in ("--set", setting)]
    arguments += ["--public", str(public)] if planned.public else []
    given = results.given(planned) if planned.given else None
    arguments += ["--given", str(write_images(given.images, folder / "given.npy"))] if given else []
    arguments += ["--device", results.device]
    status, words = run_attacker(
        address, token, arguments, folder=folder, denied=[results.root, results.out / "referee"], quiet=quiet
    )
    with open_operator(results.root) as operator:
        info = {key.key_id: key for key in operator.list_keys(admin_pb2.ListKeysRequest()).keys}[key_id]
    rows, downloads = info.usage.spent, info.usage.downloads
    card = results.repository.card(planned.victim.name)
    known: dict[str, Any] = {
        "name": planned.name,
        "split": split,
        "victim": planned.victim.name,
        "method": planned.method,
        "parameters": planned.described,
        "seed": planned.seed,
        "contract": planned.contract.as_dict(),
        "rows_ledger": rows,
        "capacity_bits": capacity_bits(planned.contract, card, rows, downloads),
    }
    if status != 0:
        sentence = words.strip().splitlines()[-1] if words.strip() else f"the attacker ended with status {status}"
        return cells.unscored(
            status="refused" if status == REFUSED else "failed",
            sentence=sentence.removeprefix("Refused: ").removeprefix("Error: "),
            image_shape=card.input_shape,
            targets=np.arange(len(judge.split.private)),
            **known,
        )
    run = json.loads((folder / "run.json").read_text())
    with np.load(folder / "reconstructions.npz", allow_pickle=False) as arrays:
        images, marks, targets = arrays["images"], arrays["marks"], arrays["targets"]
    targets = given.people[targets] if given else targets
    flat = images.reshape(-1, *images.shape[2:])
    scores = judge.score(flat, np.tile(targets, len(marks)), results.target_model(planned.victim.name))
    shaped = {name: values.reshape(len(marks), len(targets)) for name, values in vars(scores).items()}
    return Cell(
        status="done",
        sentence="" if run["ended"] == "done" else run["ended"],
        targets=targets,
        marks=marks,
        images=images,
        rows_attacker=run["rows"],
        self_reported=run["self_reported"],
        seconds=run["seconds"],
        **known,
        **shaped,
    )


def _key_file(results: Results, planned: PlannedCell) -> Path:
    return results.out / "referee" / "keys" / f"{planned.attempt}.json"


def _key(results: Results, planned: PlannedCell) -> tuple[str, str]:
    """The cell's key: a new one, or that of the run which is to be resumed."""
    path = _key_file(results, planned)
    if path.exists():
        kept = json.loads(path.read_text())
        return kept["key"], kept["key_id"]
    request = admin_pb2.CreateKeyRequest(
        label=planned.name, model=planned.victim.name, contract=contract_message(planned.contract)
    )
    with open_operator(results.root) as operator:
        made = operator.create_key(request)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(json.dumps({"key": made.key, "key_id": made.key_id}))
    return made.key, made.key_id


def _retire_key(results: Results, planned: PlannedCell) -> None:
    path = _key_file(results, planned)
    with open_operator(results.root) as operator:
        operator.revoke_key(admin_pb2.RevokeKeyRequest(key_id=json.loads(path.read_text())["key_id"]))
    path.unlink()


def _campaign(results: Results, finished: list[Cell], command: str) -> Campaign:
    splits = list(dict.fromkeys(victim.split for victim in results.plan.victims))
    shared = Counter(victim.split for victim in results.plan.victims)
    references = [
        replace(reference, name=f"{reference.name}, {victim.name}") if shared[victim.split] > 1 else reference
        for victim in results.plan.victims
        for reference in results.judge(victim.split).references(
            results.target_model(victim.name), results.public(victim.split)
        )
    ]
    attributes, figures = results.attributes(), figures_of(results, finished)
    return Campaign(
        title=results.plan.title,
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        command=command,
        splits=[results.judge(split).view() for split in splits],
        references=references,
        figures=figures,
        notes=not_run(results.plan.attributes, results.out),
        sections=[*_sections(results, finished, figures), *attribute_sections(attributes, PAPER)],
        credits=list(dict.fromkeys(result.credit for result in attributes)),
        versions={
            "mirage-range": version("mirage-range"),
            "torch": version("torch"),
            "python": platform.python_version(),
        },
    )


def _sections(results: Results, finished: list[Cell], figures: list[Figure]) -> list[Section]:
    """What the figures of the campaign show beside their values, if they do: `sections` of their file."""
    show = getattr(FIGURES.get(results.plan.figures), "sections", None)
    return [] if show is None else list(show(results, finished, figures))
