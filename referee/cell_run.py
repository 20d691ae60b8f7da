"""One cell of a campaign: its key, what is handed to its attacker, the attacker's process, and the scores."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np

from attacker.cli import REFUSED
from attacker.released import write_answers
from oracle_server.capacity import capacity_bits
from oracle_server.operator import open_operator
from protos.mirage.v1 import admin_pb2
from referee import cell as cells
from referee.atomic import write_atomically
from referee.benign import ask_benign
from referee.campaign import PlannedCell
from referee.cell import Cell
from referee.given import BlurredPhotos, GivenAnswers, write_images
from referee.keys import hold_key, retire_key
from referee.metrics.images import mse, psnr, ssim
from referee.processes import Trespass, run_attacker
from referee.results import Results

__all__ = ["developer_data", "finish_cell"]


def finish_cell(results: Results, planned: PlannedCell, address: str, *, quiet: bool, stop: Event) -> None:
    """Run the cell through the server at `address`, score it, save it, and revoke its keys.

    When `stop` is set, its attacker is ended and `KeyboardInterrupt` raised; the cell can be resumed.
    """
    folder, numbers = results.out / "referee" / "keys", range(planned.keys)
    keys = [folder / f"{planned.attempt}{f'.{number}' if number else ''}.json" for number in numbers]
    cells.save(_run(results, planned, keys, address, quiet, stop), results.cell_folder(planned))
    for key in keys:
        retire_key(results.root, key)


def _run(results: Results, planned: PlannedCell, keys: list[Path], address: str, quiet: bool, stop: Event) -> Cell:
    split = planned.victim.split
    judge = results.judge(split)
    folder = results.attacker_folder(planned)
    given = None
    if planned.given:
        if planned.asked:
            ask_benign(results, planned, address)
        given = results.given(planned)
    held = [
        hold_key(results.root, key, label=planned.name, model=planned.victim.name, contract=planned.contract)
        for key in keys
    ]
    trespass = None
    try:
        status, words = run_attacker(
            address,
            ",".join(token for token, _ in held),
            _arguments(results, planned, folder, given),
            folder=folder,
            denied=results.denied,
            quiet=quiet,
            stop=stop,
        )
    except Trespass as error:
        trespass = error
    with open_operator(results.root) as operator:
        mine = operator.list_keys(admin_pb2.ListKeysRequest(key_ids=[key_id for _, key_id in held])).keys
    used = [info.usage for info in mine]
    card = results.repository.card(planned.victim.name)
    known: dict[str, Any] = {
        "name": planned.name,
        "split": split,
        "victim": planned.victim.name,
        "method": planned.method,
        "parameters": planned.described,
        "seed": planned.seed,
        "contract": planned.contract.as_dict(),
        "rows_ledger": sum(usage.spent for usage in used),
        "capacity_bits": sum(capacity_bits(planned.contract, card, usage.spent, usage.downloads) for usage in used),
        "flags": _flags(mine),
    }
    nothing: dict[str, Any] = {"image_shape": card.input_shape, "targets": np.arange(len(judge.split.private))}
    if trespass is not None:
        return cells.unscored(status="void", sentence=str(trespass), **nothing, **known)
    if status != 0:
        sentence = words.strip().splitlines()[-1] if words.strip() else f"the attacker ended with status {status}"
        return cells.unscored(
            status="refused" if status == REFUSED else "failed",
            sentence=sentence.removeprefix("Refused: ").removeprefix("Error: "),
            **nothing,
            **known,
        )
    run = json.loads((folder / "run.json").read_text())
    with np.load(folder / "reconstructions.npz", allow_pickle=False) as arrays:
        images, marks, targets = arrays["images"], arrays["marks"], arrays["targets"]
    return Cell(
        status="done",
        sentence="" if run["ended"] == "done" else run["ended"],
        targets=given.people[targets] if given else targets,
        marks=marks,
        images=images,
        rows_attacker=run["rows"],
        self_reported=run["self_reported"],
        seconds=run["seconds"],
        **known,
        **_recognised(results, planned, images, given.people[targets] if given else targets),
        **_compared(images, given.photos[targets] if given else None),
    )


def _flags(keys: Sequence[admin_pb2.KeyInfo]) -> dict[str, int]:
    """By detector the rows, of all keys together, after which it flagged the first key: they take turns."""
    found: dict[str, int] = {}
    for info in keys:
        for flag in info.flags:
            rows = int(flag.row) * len(keys)
            found[flag.detector] = min(found.get(flag.detector, rows), rows)
    return found


def _arguments(
    results: Results, planned: PlannedCell, folder: Path, given: BlurredPhotos | GivenAnswers | None
) -> list[str]:
    """The attacker's words; what is handed over is written into its folder."""
    arguments = [planned.method, "--targets", planned.targets, "--seed", str(planned.seed), "--out", str(folder)]
    arguments += ["--repeats", str(planned.repeats)] if planned.repeats > 1 else []
    arguments += [word for setting in planned.settings() for word in ("--set", setting)]
    public = results.public(planned.victim.split)
    if isinstance(planned.public, str):
        arguments += ["--public", str(developer_data(results, planned, public, folder / "developer"))]
    elif planned.public:
        arguments += ["--public", str(public)]
    if (prior := results.prior(planned)) is not None:
        arguments += ["--prior", str(prior)]
    if isinstance(given, GivenAnswers):
        arguments += ["--given", str(write_answers(given.answers, folder / "answers.npz"))]
    elif given:
        arguments += ["--given", str(write_images(given.images, folder / "given.npy"))]
    return [*arguments, "--device", results.device]


def developer_data(results: Results, planned: PlannedCell, public: Path, folder: Path) -> Path:
    """What the malicious developer of the target has: its training photos, and the published ones where the cell says.

    This is private, and handed over with intent: the attacker of such a cell is who trained the model. Labels are not.
    """
    judge = results.judge(planned.victim.split)
    parts = [judge.faces.images[np.asarray(judge.split.target)]]
    if planned.public == "developer+published" and (public / "images.npy").exists():
        parts.append(np.load(public / "images.npy", allow_pickle=False))
    images = np.concatenate(parts).astype(np.float32, copy=False)
    card = {"kind": "developer's own data", "split": judge.split.name, "images": len(images)}
    write_images(images, folder / "images.npy")
    write_atomically(folder / "card.json", (json.dumps(card) + "\n").encode())
    return folder


def _recognised(results: Results, planned: PlannedCell, images: np.ndarray, targets: np.ndarray) -> dict[str, Any]:
    """What the judge says of images (M, T, C, H, W), each (M, T)."""
    marks = len(images)
    model = results.true_model(planned.victim)
    with results.lock:
        flat = images.reshape(-1, *images.shape[2:])
        scores = results.judge(planned.victim.split).score(flat, np.tile(targets, marks), model)
    return {name: values.reshape(marks, len(targets)) for name, values in vars(scores).items()}


def _compared(images: np.ndarray, truth: np.ndarray | None) -> dict[str, Any]:
    """Each image (M, T, C, H, W) beside the one that was to be recovered (T, C, H, W); NaN where there is none."""
    measures = {"mse": mse, "psnr": psnr, "ssim": ssim}
    if truth is None:
        return {name: np.full(images.shape[:2], np.nan) for name in measures}
    return {name: np.stack([measure(made, truth) for made in images]) for name, measure in measures.items()}
