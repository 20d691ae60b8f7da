"""`attacker run` as its user meets it: what a result says, and a sentence for whatever cannot be run."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

from attacker.attacks import METHODS
from tests.attacker.attack import Attack
from tests.attacker.conftest import Make
from tests.serving import inputs


def test_what_a_result_says(attack: Make) -> None:
    run = attack("numeric", budget=100_000, round_to=0.01)
    assert run.finish()[0] == 0
    told = json.loads((run.out / "run.json").read_text())
    assert told["rows"] == told["rows_shared"] + sum(told["rows_on_target"].values())
    assert (told["method"], told["model"], told["seed"], told["ended"]) == ("numeric", "linear/1", 0, "done")
    assert (told["contract"]["access"], told["contract"]["round_to"], told["self_reported"]) == ("scores", 0.01, False)
    with np.load(run.out / "reconstructions.npz") as kept:
        assert kept["targets"].tolist() == told["targets"] == [0, 3]
        assert kept["images"].shape == (len(kept["marks"]), 2, 1, 8, 6)
        assert kept["images"].min() >= 0
        assert kept["images"].max() <= 1


def test_a_white_box_run_costs_a_download(attack: Make) -> None:
    run = attack("mi_face", "--set", "max_steps=50", access="weights")
    status, said = run.finish()
    assert status == 0, said
    told = json.loads((run.out / "run.json").read_text())
    usage = run.caller.usage()
    assert (told["self_reported"], told["rows"], usage.spent, usage.downloads) == (True, 0, 0, 1)


def test_a_budget_ends_a_run_with_what_it_has(attack: Make) -> None:
    run = attack("random_draws", budget=1000)
    status, said = run.finish()
    assert status == 0, said
    told = json.loads((run.out / "run.json").read_text())
    assert told["ended"].startswith("budget: 64 rows asked and ")
    assert told["rows"] == run.caller.usage().spent
    assert 1000 - 64 < told["rows"] <= 1000


# Refused


def assert_error(attack: Attack, sentence: str, *more: object, status: int = 1, **environment: str) -> None:
    """One sentence, this status, nothing charged, no result."""
    before = attack.caller.server.books()
    got, said = attack.finish(*more, **environment)
    assert got == status, said
    assert said.splitlines()[-1] == sentence
    assert "Traceback" not in said
    assert attack.caller.server.books() == before
    assert not (attack.out / "run.json").exists()


USE = {"weights": "'weights'", "all": "'scores' and no top_k", "scores": "'scores'"}
REFUSALS = [
    ("mi_face", {}, "the weights", "scores", USE["weights"]),
    ("mi_face", {"top_k": 1}, "the weights", "the largest score", USE["weights"]),
    ("mi_face", {"access": "label"}, "the weights", "labels", USE["weights"]),
    ("equation_solving", {"top_k": 3}, "the scores of all classes", "the 3 largest scores", USE["all"]),
    ("equation_solving", {"access": "label"}, "the scores of all classes", "labels", USE["all"]),
    ("numeric", {"access": "label"}, "scores", "labels", USE["scores"]),
]


@pytest.mark.parametrize(("method", "contract", "needs", "releases", "key"), REFUSALS)
def test_refused_before_the_first_query(
    attack: Make, method: str, contract: dict[str, object], needs: str, releases: str, key: str
) -> None:
    run = Attack(**vars(attack("x", **contract)) | {"words": (method,)})
    sentence = (
        f"Refused: {method} needs {needs}, but this key's contract releases {releases} only;"
        f" use a key with access {key}, or a method that needs less (attacker list)"
    )
    assert_error(run, sentence, status=3)
    assert not run.out.exists()


WRONG = {
    "an unknown method": (
        ("telepathy",),
        f"Error: no method 'telepathy'; there is {', '.join(METHODS)} (attacker list)",
    ),
    "an unknown parameter": (
        ("random_draws", "--set", "steps=3"),
        "Error: --set steps=3: random_draws has the parameters draws; write parameter=value",
    ),
    "a parameter without a value": (
        ("random_draws", "--set", "draws"),
        "Error: --set draws: random_draws has the parameters draws; write parameter=value",
    ),
    "a parameter of another type": (
        ("random_draws", "--set", "draws=many"),
        "Error: --set draws=many: draws is a int, for example 10000",
    ),
    "targets that are none": (
        ("random_draws", "--targets", "some"),
        "Error: --targets some: write all, 0-9, or 3,5,8",
    ),
    "a target that is not there": (
        ("random_draws", "--targets", "3,5"),
        "Error: targets must be different classes from 0 to 4; got [3, 5]",
    ),
    "a target twice": (
        ("random_draws", "--targets", "3,3"),
        "Error: targets must be different classes from 0 to 4; got [3, 3]",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_words(attack: Make, name: str) -> None:
    words, sentence = WRONG[name]
    assert_error(Attack(**vars(attack("x")) | {"words": words}), sentence)


def test_wrong_keys_and_addresses(attack: Make) -> None:
    run = attack("random_draws")
    assert_error(run, "Error: no API key: put it into the environment as MIRAGE_KEY", MIRAGE_KEY="")
    unknown = "Error: the API key is not known here: check it, or ask the operator for one"
    assert_error(run, unknown, MIRAGE_KEY="mirage_x_y")
    began = time.monotonic()
    status, said = run.finish("--address", "127.0.0.1:1", "--patience", "0.3")
    assert status == 1
    assert said.endswith(" (is oracle-server running at 127.0.0.1:1?)\n")
    assert time.monotonic() - began < 20


def test_another_runs_folder(attack: Make) -> None:
    run = attack("random_draws", rate=1500.0)
    run.kill_at(20_000)
    spent = run.caller.usage().spent
    differ = f"{run.out}/journal.bin belongs to another run (seed, targets differ)"
    assert_error(run, f"Error: {differ}: choose another --out, or delete it", "--seed", "5", "--targets", "0,1")
    assert run.finish()[0] == 0  # the first one is unharmed
    assert run.rows == run.caller.usage().spent == 3000 > spent


def test_bad_input_leaves_the_folder_to_the_corrected_command(attack: Make) -> None:
    wrong = attack("numeric", "--set", "probe=-1.0", name="same")
    status, said = wrong.finish()
    assert (status, said) == (1, "Error: probe=-1.0 must be positive\n")
    assert not (wrong.out / "journal.bin").exists()
    right = attack("numeric", "--set", "max_steps=1", name="same")
    assert right.finish()[0] == 0
    assert wrong.caller.usage().spent == 0


def test_a_folder_in_use(attack: Make) -> None:
    run = attack("random_draws", rate=1500.0)
    first = run.start()
    run.wait_for(10_000, first)
    second = Attack(**vars(run))
    log = run.out.with_name("second.log")
    words = ["run", *second.words, "--address", second.caller.server.address, "--out", run.out, "--quiet"]
    process = run.forker.start("attacker", words, log=log, environment={"MIRAGE_KEY": run.caller.key})
    assert process.wait() == 1
    sentence = f"Error: {run.out}/journal.bin is in use by another process: wait for it, or choose another --out\n"
    assert process.log == sentence
    assert first.wait() == 0
    assert run.rows == run.caller.usage().spent == 3000


@pytest.mark.parametrize("damage", ["corrupt", "changed inputs"])
def test_a_journal_that_does_not_fit(attack: Make, tmp_path: Path, damage: str) -> None:
    public = tmp_path / "public"
    public.mkdir()
    np.save(public / "images.npy", inputs(40))
    run = attack("random_draws", "--public", str(public), rate=1500.0)
    run.kill_at(20_000)
    journal = run.out / "journal.bin"
    if damage == "corrupt":
        data = bytearray(journal.read_bytes())
        data[1000] ^= 1
        journal.write_bytes(data)
        status, said = run.finish()
        assert status == 1
        assert said.startswith(f"Error: {journal} is corrupt at byte ")
        assert said.endswith("(what was answered since will be charged again)\n")
    else:
        np.save(public / "images.npy", inputs(40, seed=1))
        sentence = f"Error: {journal} belongs to another run (public_sha256 differ): choose another --out, or delete it"
        assert_error(run, sentence)
