"""Which contract is safe for a model of one's own? One attack under each of three contracts, beside floors and ceiling.

OUT/victim/        a server's root of its own, with a copy of the model: the owner's server and ledger stay as they are
OUT/public/        the public images, all that the attacker gets; OUT/attacker/ has what it learned from them
OUT/referee/       finished cells, keys of unfinished ones, and what the advice is about
OUT/report.html, results.parquet, summary.json, timings.json
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from attacker.run import make_method
from oracle_server.models.card import Card
from oracle_server.models.neural import choose_device
from oracle_server.models.repository import Repository
from protos import archive
from referee.advise_data import HandedOver, read_handed_over
from referee.advise_offers import OFFERS
from referee.advise_words import Finding, advise_in_words, find_leak, sentences
from referee.atomic import write_atomically
from referee.campaign import Plan, PlannedCell, Victim
from referee.cell import Cell
from referee.judge import Judge
from referee.metrics import recognise
from referee.priors import PlannedPrior, learn_priors
from referee.processes import OracleProcess
from referee.report import Campaign, Figure, Reference, write_report
from referee.report.advice import CAUTION, advice_sections, leak_figures
from referee.results import Results
from referee.run import run_cells, versions

__all__ = ["LEAST_ACCURACY", "advise"]

LEAST_ACCURACY = 0.6
"""Held-out accuracy of the evaluation network below which no advice is given."""

_PRIOR = "pca"
_MOST_LATENT, _ROWS_A_COMPONENT = 60, 16  # fewer components where there are fewer rows to search them with
_CHANCE = "mean of the private classes"  # a floor of the tables that nobody outside could send

Say = Callable[[str], None]


def advise(
    model: str,
    *,
    private: Path,
    public: Path,
    root: Path,
    out: Path,
    command: str,
    rows: int = 1000,
    mirror: bool = True,
    device: str = "auto",
    private_images: bool = True,
    say: Say = lambda line: None,
    quiet: bool = True,
    jobs: int = 1,
) -> tuple[list[Cell], Campaign]:
    """Attack a copy of `model`, which is hosted in the server's folder `root`, and write the advice into `out`.

    Args:
        model: its name there, or name/version.
        private, public: folders of images, see `referee.advise_data`.
        command: as it is printed in the report.
        rows: queries for each class, the largest budget that is tried.
        mirror: an image means the same with left and right exchanged: false for digits.
        say, quiet, jobs: as for `referee.run.run_campaign`.

    Run again after an interruption, it goes on where it was. Before it has checked everything that is handed over and
    the networks that judge, nothing is written into `out`.

    Raises:
        LookupError: no such model.
        ValueError: what is handed over does not fit, or the evaluation network is too weak to judge.
        ProcessError: a process failed; its log is named.
    """
    if rows < _ROWS_A_COMPONENT:
        raise ValueError(f"rows={rows} must be at least {_ROWS_A_COMPONENT} for each class")
    _check_folders(out, private, root)
    repository = Repository(root)
    card = repository.card(model)
    say("reading the photos")
    handed = read_handed_over(card, private, public)
    device = str(choose_device(device))
    say("training the evaluation network")
    judge = Judge(
        handed.split,
        device,
        faces=handed.images,
        architecture="cnn" if mirror else "cnn_digits",
        seen="half of the private photos of each class (the target may have seen these, and the others)",
        noun="classes",
    )
    accuracy = _check_judges(card, repository, judge, handed)
    say(
        f"the evaluation network recognises {judge.test_accuracy:.1%} of held-out photos among {card.classes} classes;"
        f" chance is {1 / card.classes:.3f}"
    )
    _claim(out, {"model": card.id, "archive": card.archive_sha256, "photos": handed.split.name, "mirror": mirror})
    results = Results(
        _plan(card, handed, rows, mirror),
        out.resolve(),
        device,
        judges={handed.split.name: judge},
        denied=[root.resolve(), private.resolve()],
    )
    _host(card, repository, results.repository)
    missing = [planned for planned in results.plan.cells if results.finished(planned) is None]
    if missing:
        learn_priors(results, say, quiet=quiet)
        say("starting the oracle server")
        with OracleProcess(results.root, "--device", device) as oracle:
            run_cells(results, missing, oracle.address, jobs, say, quiet)
    say("working out the advice")
    cells = [cell for planned in results.plan.cells if (cell := results.finished(planned)) is not None]
    campaign = _campaign(results, cells, handed, rows, accuracy, command)
    write_report(cells, campaign, out, private_images=private_images)
    return cells, campaign


def _check_folders(out: Path, private: Path, root: Path) -> None:
    for folder in (private, root):
        if out.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"--out {out} lies in {folder}, which no attacker may open: choose another --out")


def _check_judges(card: Card, repository: Repository, judge: Judge, handed: HandedOver) -> float:
    """The target's own accuracy on the private photos; `ValueError` where it or the evaluation network is too weak."""
    if judge.test_accuracy < LEAST_ACCURACY:
        raise ValueError(
            f"no advice: the evaluation network recognises only {judge.test_accuracy:.0%} of held-out photos (chance is"
            f" {1 / card.classes:.0%}), and below {LEAST_ACCURACY:.0%} its word on a reconstruction means nothing; give"
            " more photos of each class, cut to the same place and size"
        )
    target = archive.load(repository.archive(card), judge.device)
    photos, labels = handed.images.images[: handed.private], handed.images.labels[: handed.private]
    accuracy = float(recognise(target, photos, labels, device=judge.device).top1.mean())
    if accuracy < judge.test_accuracy / 2:
        raise ValueError(
            f"no advice: {card.id} itself recognises only {accuracy:.0%} of the private photos, the evaluation network"
            f" {judge.test_accuracy:.0%} of those held out: check that class i is the model's output i, and that the"
            " photos are cut as the model takes them"
        )
    return accuracy


def _claim(out: Path, about: dict[str, Any]) -> None:
    """Note what the folder is about; `ValueError` where it is about something else."""
    path = out / "referee" / "advise.json"
    if path.exists():
        found = json.loads(path.read_text())
        if different := [name for name, value in about.items() if found.get(name) != value]:
            raise ValueError(f"{out} holds advice on another {different[0]}: choose another --out, or delete it")
    elif out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} holds other files: choose a new --out")
    write_atomically(path, (json.dumps(about) + "\n").encode())


def _plan(card: Card, handed: HandedOver, rows: int, mirror: bool) -> Plan:
    """For each contract its attack, and the best of as many draws of the prior."""
    victim = Victim(card.name, "", handed.split.name)
    prior = PlannedPrior(_PRIOR, _PRIOR, parameters={"latent": _latent(rows), "mirrored": mirror})
    cells = []
    for offer in OFFERS:
        draws = {"draws": rows * card.classes}
        for method, parameters in ((offer.method, offer.parameters(rows)), ("random_draws", draws)):
            cell = PlannedCell(
                name=f"{method}/{offer.name}",
                victim=victim,
                method=method,
                contract_name=offer.name,
                contract=replace(offer.contract, budget=rows * card.classes),
                seed=0,
                public=method == "yoshimura",  # where its searches start
                parameters=parameters,
                prior=prior,
            )
            make_method(method, cell.settings(), Path(), prior=Path())
            cells.append(cell)
    return Plan(f"Which contract is safe for {card.id}?", "", (victim,), tuple(cells))


def _host(card: Card, source: Repository, target: Repository) -> None:
    if not (target.folder / card.name / card.version).exists():
        target.folder.mkdir(parents=True, exist_ok=True)
        target.add(source.archive(card), card, {part.name: source.archive(card, part.name) for part in card.parts})


def _latent(rows: int) -> int:
    return max(1, min(_MOST_LATENT, rows // _ROWS_A_COMPONENT))


def _campaign(
    results: Results, cells: list[Cell], handed: HandedOver, rows: int, accuracy: float, command: str
) -> Campaign:
    split, victim = handed.split.name, results.plan.victims[0]
    judge = results.judge(split)
    references = judge.references(results.true_model(victim), results.public(split))
    classes = len(handed.split.private)
    free = [_share(one) for one in references if one.kind == "floor" and one.name != _CHANCE]
    asks_nothing, ceiling = max(1 / classes, *free), _share(next(one for one in references if one.kind == "ceiling"))
    by_name = {cell.name: cell for cell in cells}
    findings: list[Finding] = [
        find_leak(
            by_name.get(f"{offer.method}/{offer.name}"),
            by_name.get(f"random_draws/{offer.name}"),
            offer.words,
            asks_nothing=asks_nothing,
            rows=rows,
        )
        for offer in OFFERS
    ]
    advice, names = advise_in_words(findings), [offer.name for offer in OFFERS]
    figures = {
        "evaluation_accuracy": judge.test_accuracy,
        "target_accuracy": accuracy,
        "chance": 1 / classes,
        "asks_nothing": asks_nothing,
        "ceiling": ceiling,
    }
    view = replace(
        judge.view(),
        description=f"{classes} classes, {handed.private} private photos, {handed.public} public images; the photos of"
        " each class that the evaluation network learned stand for it, the others are held out",
    )
    return Campaign(
        title=results.plan.title,
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        command=command,
        splits=[view],
        references=references,
        figures=[*(Figure(f"advise/{name}", value) for name, value in figures.items()), *leak_figures(findings, names)],
        first=advice_sections(advice, findings, asks_nothing=asks_nothing, ceiling=ceiling),
        said={"take": advice.sentence, **dict(zip(names, sentences(findings), strict=True)), "caution": CAUTION},
        notes=[
            f"The evaluation network recognises {judge.test_accuracy:.1%} of held-out photos, the target"
            f" {accuracy:.1%} of all private photos; chance is {1 / classes:.3f}.",
            "The target may have learned from the held-out photos too: the ceiling says how well the evaluation network"
            " knows the classes, not how well the target does.",
            "The model was attacked as a copy, behind a server of its own: the ledger in --root is as it was.",
        ],
        versions=versions(),
        floor_methods=frozenset(),  # the best random images take answers to choose, and are within anybody's reach
    )


def _share(reference: Reference) -> float:
    return float(np.mean(reference.top1))
