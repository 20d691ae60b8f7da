"""Runs of every method that are killed at random moments, started again to their end, and compared with one that nobody
disturbed. The tests run short series of this, `benchmarks/attacker_kills.py` long ones.
"""

from __future__ import annotations

import hashlib
import math
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn

from oracle_server.models.importing import Draft, host
from oracle_server.models.repository import Repository
from oracle_server.models.tree import host_tree
from tests.attacker.attack import Attack
from tests.attacker.latent_cases import save_affine
from tests.hosted import host_models
from tests.serving import Forker, Server, inputs, new_root
from tests.tables import whole_tree
from tests.toy import softmax_regression

__all__ = ["CASES", "Case", "Outcome", "Range", "kill_series"]

_SHAPE, _LATENT = (1, 8, 6), 6
_SQUARE = (1, 8, 8)  # the smallest images that a GAN is trained on
_PEOPLE = 2000
_ATTEMPTS = 6  # processes for each kill that is wanted: some are over before their moment has come
_WRITING = 0.004  # seconds in which a result is written, or a checkpoint
_HEAD = 2000  # bytes of a journal in which nothing was asked
_OF_THE_RUN = {"journal.bin", "run.json", "training.json", "training.pt"}  # these hold nonces and times


@dataclass(frozen=True)
class Case:
    """A run that takes half a second or a few: the words of its command, the model, what its key gets, and the files of
    `Range` that it is handed, by the name of the option.
    """

    words: tuple[str, ...]
    model: str
    access: str
    files: dict[str, str]
    round_to: float | None


def _case(
    words: str, model: str = "linear", access: str = "scores", round_to: float | None = None, **files: str
) -> Case:
    return Case(tuple(words.split()), model, access, files, round_to)


CASES = {
    "mi_face": _case("--set max_steps=400 --set patience=401 --set confidence=1.1", access="weights"),
    "mi_face_code": _case(
        "--set max_steps=60 --set patience=61 --set confidence=1.1 --set process_every=8", "coded", "weights"
    ),
    "numeric": _case("--targets 0,3 --set max_steps=15 --set confidence=1.1"),
    "estimated_gradient": _case("--set rows=900 --set directions=20 --set confidence=1.1 --seed 2", public="images"),
    "deblur": _case("--set max_steps=300 --set sigma=1.0", access="weights", given="photos.npy"),
    "yoshimura": _case("--set rows=900 --set confidence=1.0 --seed 3", public="images", prior="prior"),
    "yoshimura_white": _case(
        "--set rows=250 --set confidence=1.0 --seed 3", access="weights", public="images", prior="prior"
    ),
    "brep_mi": _case("--set rows=700 --set radius=0.5 --seed 4", access="label", prior="prior"),
    "gmi": _case("--set steps=200 --seed 5", access="weights", prior="prior"),
    "ked_mi": _case(
        "--set latent=4 --set width=4 --set training_steps=75 --set batch_size=8 --set steps=60 --set samples=4",
        "square",
        "weights",
        public="squares",
    ),
    "vmi": _case("--set steps=40 --set batch=8 --set samples=10 --seed 6", access="weights", prior="prior"),
    "latent_gradient": _case("--set steps=200 --seed 7", access="weights", prior="prior"),
    "inversion_network": _case(
        "--set epochs=8 --set batch_size=16 --set width=4 --set hidden=16 --set held_out=0.2 --set rows=400 --seed 8",
        public="images",
        given="answers.npz",
    ),
    "equation_solving": _case("--set rounds=10 --seed 9", round_to=0.01),
    "random_draws": _case("--set draws=3000 --seed 10", access="label"),
    "adversarial": _case("--set steps=300 --seed 11", access="weights", public="images"),
    "map_inversion": _case("--set unknown=a", "tree", "label", given="people.csv"),
    "white_box_counts": _case("--set unknown=a", "tree", "weights", given="people.csv"),
    "random_guess": _case("--set unknown=a --seed 12", "tree", "label", given="people.csv"),
    "marginal_mode": _case("--set unknown=a", "tree", "label", given="people.csv"),
    "ideal_model": _case("", "tree", "label", given="known.csv"),
}


class Range:
    """A running server of the models of `CASES`, and a folder with the files that the runs are handed."""

    def __init__(self, forker: Forker, folder: Path) -> None:
        self.forker, self.folder = forker, folder
        folder.mkdir(parents=True, exist_ok=True)
        root = new_root(folder)  # a short path
        repository = Repository(root)
        host_models(root, "linear")
        squares = softmax_regression(np.random.default_rng(7).normal(size=(5, math.prod(_SQUARE))))
        host(squares.eval(), repository, Draft("square", "1", _SQUARE, deterministic=True))
        host_tree(whole_tree(), repository, "tree")
        self._host_coded(repository)
        self._write_files()
        self.server = Server(forker, root, "--max-rows", "64", "--batch", "16")

    def _host_coded(self, repository: Repository) -> None:
        """An autoencoder of 12 numbers and a classifier of its code, each an archive of its own."""
        torch.manual_seed(3)
        encoder = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(_SHAPE), 12), nn.Sigmoid()).eval()
        decoder = nn.Sequential(nn.Linear(12, math.prod(_SHAPE)), nn.Sigmoid(), nn.Unflatten(1, _SHAPE)).eval()
        classifier = nn.Linear(12, 5).eval()
        parts = {"encoder": (encoder, _SHAPE), "decoder": (decoder, (12,)), "classifier": (classifier, (12,))}
        draft = Draft("coded", "1", _SHAPE, deterministic=True)
        host(nn.Sequential(encoder, classifier).eval(), repository, draft, parts)

    def _write_files(self) -> None:
        rng = np.random.default_rng(1)
        for name, shape, count in (("images", _SHAPE, 1000), ("squares", _SQUARE, 64)):
            (self.folder / name).mkdir()
            np.save(self.folder / name / "images.npy", inputs(count, shape=shape))
        np.save(self.folder / "photos.npy", inputs(3, seed=2))
        np.savez(self.folder / "answers.npz", answers=rng.dirichlet(np.ones(5), 20))
        axes, slope = 0.2 * rng.normal(size=(_LATENT, math.prod(_SHAPE))), rng.normal(size=(1, math.prod(_SHAPE)))
        critic = softmax_regression(slope)
        save_affine(self.folder / "prior", axes, 0.5, shape=_SHAPE, low=0.0, high=1.0, critic=critic)
        a, b, y = rng.integers(0, 2, (3, _PEOPLE))
        for file, names, codes in (("people.csv", "b,y", (b, y)), ("known.csv", "a,b", (a, b))):
            rows = (",".join(("no", "yes")[code] for code in person) for person in zip(*codes, strict=True))
            (self.folder / file).write_text("\n".join((names, *rows)) + "\n")

    def attack(self, method: str, name: str) -> Attack:
        """The run of `CASES`, under a key and in a folder of its own."""
        case = CASES[method]
        caller = self.server.new_key(case.access, case.model, round_to=case.round_to)
        handed = [word for option, file in case.files.items() for word in (f"--{option}", str(self.folder / file))]
        return Attack(self.forker, caller, (method, *case.words, *handed), self.folder / method / name)

    def close(self) -> None:
        self.server.close()


@dataclass
class Outcome:
    """How often a method was killed, and what differed afterwards: nothing, if all is well."""

    method: str
    kills: int = 0
    runs: int = 0
    attempts: int = 0
    at: Counter[str] = field(default_factory=Counter)  # kind of moment
    unequal: list[str] = field(default_factory=list)
    seconds: float = 0.0  # of the undisturbed run


def kill_series(
    place: Range, method: str, kills: int, seed: int = 0, *, each: int = 6, before: str = "", at: str = ""
) -> Outcome:
    """Kill runs of `method` until `kills` processes have died of it, up to `each` times the same run, and compare each
    run at its end with an undisturbed one. `before` is run in every process of the disturbed ones: a planted fault.
    `at` names the one kind of moment that is chosen wherever there is a choice.
    """
    rng, outcome = random.Random(f"{method} {seed}"), Outcome(method)
    whole = place.attack(method, f"undisturbed-{seed}")
    started = time.monotonic()
    status, said = whole.finish()
    outcome.seconds = time.monotonic() - started
    assert status == 0, said
    assert whole.rows == whole.caller.usage().spent
    while outcome.kills < kills:
        run = place.attack(method, f"killed-{seed}-{outcome.runs}")
        outcome.runs += 1
        for _ in range(min(each, kills - outcome.kills)):
            outcome.attempts += 1
            kind = _kill(run, whole, outcome.seconds, rng, before, at)
            if kind is None:
                break
            outcome.kills += 1
            outcome.at[kind] += 1
        status, said = run.finish(before=before)
        outcome.unequal += [f"{run.out.name}: {one}" for one in ([said] if status else _differences(run, whole))]
        shutil.rmtree(run.out, ignore_errors=True)
        assert outcome.attempts <= _ATTEMPTS * kills, f"{method} is over before it is killed: make its run longer"
    return outcome


def _kill(run: Attack, whole: Attack, seconds: float, rng: random.Random, before: str, at: str) -> str | None:
    """Start the run and kill it; the kind of the moment, or None where it was over before that had come."""
    kinds: dict[str, Callable[[float], bool]] = {}
    share, begun = rng.random(), time.monotonic()
    kinds["time"] = lambda now: now - begun > share * seconds
    if (left := whole.journaled - run.journaled) > _HEAD:
        size = run.journaled + share * left
        kinds["journal"] = lambda now: run.journaled > size
    if (epochs := whole.epochs - run.epochs) > 0:
        epoch = run.epochs + math.ceil(share * epochs)
        kinds["checkpoint"] = lambda now: run.epochs >= epoch
    if not run.writes:
        kinds["result"] = lambda now: run.writes
    kind = at if at in kinds else rng.choice(list(kinds))
    process = run.start(before=before)
    while process.poll() is None and not kinds[kind](time.monotonic()):
        time.sleep(0.0002)
    if kind in ("checkpoint", "result"):
        time.sleep(rng.random() * _WRITING)
    return kind if process.kill() == -signal.SIGKILL else None


def _differences(run: Attack, whole: Attack) -> list[str]:
    """What of the two runs is not the same."""
    found = []
    if (files := _files(run)) != (wanted := _files(whole)):
        names = sorted(name for name in files | wanted if files.get(name) != wanted.get(name))
        found.append(f"{', '.join(names)} differ")
    if run.said != whole.said:
        found.append(f"run.json says {run.said}, not {whole.said}")
    if not run.rows == run.caller.usage().spent == whole.rows:
        charged = run.caller.usage().spent
        found.append(f"{run.rows} rows were counted and {charged} charged, undisturbed {whole.rows}")
    return found


def _files(run: Attack) -> dict[str, str]:
    """Every file that the run has left and what is in it, but for those with times and nonces."""
    kept = (path for path in run.out.iterdir() if path.name not in _OF_THE_RUN)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in kept}
