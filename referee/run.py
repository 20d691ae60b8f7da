"""Run a campaign: the cells that have no result yet, each through a server and an attacker of its own processes.

OUT/victim/           the server's root: models, ledger, log       (the attacker may not open it)
OUT/referee/          finished cells, keys of unfinished ones, what benign users asked (the attacker may not open it)
OUT/public/SPLIT/     what the victim published
OUT/attacker/CELL/    the attacker's own folder: journal, reconstructions, log, what was given
OUT/*/attributes/     experiments on tables: see `referee.attributes`
OUT/report.html, results.parquet, summary.json, timings.json
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from threading import Event

import torch

from referee.attribute_runs import not_run, run_missing
from referee.campaign import Plan, PlannedCell
from referee.cell import Cell
from referee.cell_run import finish_cell
from referee.figures import FIGURES, figures_of, trainings_of
from referee.figures.attributes import PAPER
from referee.hosted import host_victim
from referee.priors import learn_priors
from referee.processes import OracleProcess
from referee.report import Campaign, Section, write_report
from referee.report.attributes import attribute_sections
from referee.results import Results
from referee.training import Training, train_ahead

__all__ = ["report_campaign", "run_campaign", "run_cells", "versions"]

Say = Callable[[str], None]
_START_SECONDS, _SECONDS_A_MODEL = 120.0, 3.0  # that a server may take to load what it hosts


def run_campaign(
    plan: Plan,
    out: Path,
    *,
    command: str,
    device: str = "auto",
    private_images: bool = True,
    say: Say = lambda line: None,
    quiet: bool = True,
    jobs: int = 1,
) -> tuple[list[Cell], Campaign]:
    """Run what is missing, then work out the figures and write the report. Stops what it started, however it ends.

    `say` is told, in a line, what begins. `jobs` cells run at once, each attacker in a process of its own; the times
    that are reported grow with them. Run again after an interruption, it goes on where it was.
    """
    if jobs < 1:
        raise ValueError(f"jobs = {jobs} must be at least 1")
    out.mkdir(parents=True, exist_ok=True)
    results = Results(plan, out.resolve(), device)
    run_missing(plan.attributes, results.out, results.device, say, quiet)
    if trainings := _trainings(results):
        say("training the models")
        train_ahead(trainings, say)
    for victim in results.plan.victims:
        if not (results.repository.folder / victim.name).exists():
            say(f"hosting {victim.name}")
            host_victim(victim, results.repository, device)
    missing = [planned for planned in results.plan.cells if results.finished(planned) is None]
    if missing:
        learn_priors(results, say, quiet=quiet)
        say("starting the oracle server")
        seconds = _START_SECONDS + _SECONDS_A_MODEL * len(results.plan.victims)
        with OracleProcess(results.root, "--device", device, start_seconds=seconds) as oracle:
            run_cells(results, missing, oracle.address, jobs, say, quiet)
    say("working out the figures")
    return _report(results, command, private_images)


def run_cells(results: Results, missing: list[PlannedCell], address: str, jobs: int, say: Say, quiet: bool) -> None:
    """Each cell in a thread, `jobs` at once. One that raises does not stop the others: its error comes at the end.

    Ctrl-C, which this thread hears, ends every attacker; cells that are finished stay.
    """
    stop, errors = Event(), []

    def work(number: int, planned: PlannedCell) -> None:
        if not stop.is_set():
            say(f"cell {number} of {len(missing)}: {planned.name} on {planned.victim.name}")
            finish_cell(results, planned, address, quiet=quiet, stop=stop)

    threads = (torch.get_num_threads(),)  # a new thread would take all cores
    with ThreadPoolExecutor(jobs, "cell", initializer=torch.set_num_threads, initargs=threads) as pool:
        try:
            for done in as_completed(pool.submit(work, *numbered) for numbered in enumerate(missing, 1)):
                if (error := done.exception()) is not None:
                    errors.append(error)
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    if errors:
        raise errors[0]


def _trainings(results: Results) -> list[Training]:
    """Evaluation networks first, since they take longest; then targets; then what only the figures need.

    What is trained in a way of its own (jointly, on features) is trained when it is hosted.
    """
    plan, device = results.plan, results.device
    judged = [Training(victim.split, device=device) for victim in plan.victims]
    plain = [victim for victim in plan.victims if victim.kind == "classifier" and victim.joint is None]
    hosted = [Training(one.split, one.architecture, one.seed, device, one.max_steps, one.defence) for one in plain]
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


def _campaign(results: Results, finished: list[Cell], command: str) -> Campaign:
    module = FIGURES.get(results.plan.figures)
    apart = getattr(module, "apart", lambda planned: False)
    # The victims that the tables of cells are about; where nothing stands apart, all of them.
    about = {planned.victim.name for planned in results.plan.cells if not apart(planned)}
    victims = [victim for victim in results.plan.victims if victim.name in about or module is None]
    splits = list(dict.fromkeys(victim.split for victim in results.plan.victims))
    shared = Counter(victim.split for victim in victims)
    references = [
        replace(reference, name=f"{reference.name}, {victim.name}") if shared[victim.split] > 1 else reference
        for victim in victims
        for reference in results.judge(victim.split).references(
            results.true_model(victim), results.public(victim.split)
        )
    ]
    attributes, figures = results.attributes(), figures_of(results, finished)
    show: Callable[..., list[Section]] = getattr(module, "sections", lambda *_: [])
    tell: Callable[..., dict[str, str]] = getattr(module, "said", lambda _: {})
    return Campaign(
        title=results.plan.title,
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        command=command,
        splits=[results.judge(split).view() for split in splits],
        references=references,
        figures=figures,
        notes=[*_left_out(results), *not_run(results.plan.attributes, results.out)],
        sections=[*show(results, finished, figures), *attribute_sections(attributes, PAPER)],
        said=tell(figures),
        apart=frozenset(planned.name for planned in results.plan.cells if apart(planned)),
        matrix={(planned.name, planned.seed): planned.matrix.place for planned in results.plan.cells if planned.matrix},
        credits=list(dict.fromkeys(result.credit for result in attributes)),
        versions=versions(),
    )


def versions() -> dict[str, str]:
    """What a report was made with."""
    return {
        "mirage-range": version("mirage-range"),
        "torch": version("torch"),
        "python": platform.python_version(),
    }


def _left_out(results: Results) -> list[str]:
    """A note for the victims whose images are not here, for each reason."""
    reasons: dict[str, list[str]] = {}
    for name, reason in results.absent.items():
        reasons.setdefault(reason, []).append(name)
    return [f"Not run: {', '.join(names)} ({reason})." for reason, names in reasons.items()]
