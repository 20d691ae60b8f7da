"""Response defences over the wire: keyed noise belongs to the input whoever asks, and the command makes such keys."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from protos.codec import decode
from tests.fixtures import Command, Start
from tests.serving import Caller, Server, inputs

KEYED = (("keyed_noise", (("sigma", 0.05),)),)
FRESH = (("gaussian_noise", (("sigma", 0.05),)),)
BENT = (("reverse_sigmoid", (("beta", 0.7),)),)


def scores(caller: Caller, rows: np.ndarray) -> np.ndarray:
    """Released scores (N, C) under a new request id."""
    return decode(caller.predict(rows).scores)


def noise(server: Server, rows: np.ndarray, model: str = "linear") -> np.ndarray:
    """What keyed noise does to the scores, seen by a key for each."""
    return scores(server.new_key(model=model, defences=KEYED), rows) - scores(server.new_key(model=model), rows)


def test_asking_again_tells_nothing_new_under_any_id_and_key(server: Server) -> None:
    one, other = (server.new_key(defences=KEYED) for _ in range(2))
    rows = inputs(20)
    first = one.predict(rows)
    again, elsewhere = one.predict(rows), other.predict(rows[::-1])
    assert again.receipt.spent == 40, "charged all the same"
    assert again.scores == first.scores
    assert np.array_equal(decode(elsewhere.scores)[::-1], decode(first.scores))
    assert np.array_equal(scores(other, rows[7:8])[0], decode(first.scores)[7])
    fresh = server.new_key(defences=FRESH)
    assert not np.array_equal(scores(fresh, rows), scores(fresh, rows)), "the negative control"


def test_another_pixel_is_another_draw(server: Server) -> None:
    rows = inputs(20)
    near = rows.copy()
    near[:, 0, 3, 3] = np.nextafter(near[:, 0, 3, 3], np.float32(0))
    quiet = server.new_key()
    np.testing.assert_allclose(scores(quiet, near), scores(quiet, rows), atol=1e-6)
    assert (abs(noise(server, near) - noise(server, rows)).max(axis=1) > 1e-3).all()
    zero, below = np.zeros_like(rows[:1]), -np.zeros_like(rows[:1])
    assert np.array_equal(noise(server, zero), noise(server, below)), "0 and -0 are one input"


def test_another_model_is_another_draw(server: Server) -> None:
    """Also one with the same weights: whoever knows one model would know the noise on the other."""
    rows = inputs(20)
    np.testing.assert_allclose(scores(server.new_key(model="fails"), rows), scores(server.new_key(), rows), atol=1e-6)
    assert (abs(noise(server, rows, "fails") - noise(server, rows)).max(axis=1) > 1e-3).all()


def test_another_server_has_another_secret_and_a_restart_has_not(server: Server, start: Start) -> None:
    other, rows = start(), inputs(20)
    assert np.array_equal(scores(other.new_key(), rows), scores(server.new_key(), rows))
    theirs = noise(other, rows)
    assert (abs(theirs - noise(server, rows)).max(axis=1) > 1e-3).all()
    other.kill()
    other.start()
    assert np.array_equal(noise(other, rows), theirs)


def test_many_rows_are_released_beside_the_loop_and_are_the_same(server: Server) -> None:
    """Requests of more than 256 KiB take another way to the same answer."""
    rows = inputs(64, shape=(1, 64, 64))
    both = server.new_key(model="other", defences=KEYED + BENT)
    answer = scores(both, rows)
    for part in (slice(0, 1), slice(20, 23)):
        np.testing.assert_allclose(scores(both, rows[part]), answer[part], rtol=0, atol=1e-5)
    assert np.array_equal(scores(both, rows), answer)


@pytest.mark.parametrize("name", ["keyed_noise", "reverse_sigmoid", "temperature"])
def test_who_claims_it_keeps_the_labels(server: Server, name: str) -> None:
    rows, parameters = inputs(64), {"keyed_noise": {"sigma": 0.5, "keep": 1.0}, "reverse_sigmoid": {"beta": 1.0}}
    chosen = parameters.get(name, {"temperature": 100.0})
    labels = decode(server.new_key("label").predict(rows).labels)
    kept = server.new_key("label", defences=((name, tuple(chosen.items())),))
    assert np.array_equal(decode(kept.predict(rows).labels), labels)
    if name == "keyed_noise":
        free = server.new_key("label", defences=((name, (("sigma", 0.5),)),))
        assert not np.array_equal(decode(free.predict(rows).labels), labels), "the negative control"


CREATE = ("keys", "create", "--model", "linear", "--access", "scores", "--defence")


def test_the_command_makes_a_key_with_keyed_noise(server: Server, command: Command) -> None:
    status, said = command(*CREATE, "keyed_noise:sigma=0.05,keep=1", "--root", server.root)
    assert status == 0, said
    key = said.split()[-1]
    (defence,) = Caller(server, key, "").describe().contract.defences
    assert (defence.name, dict(defence.parameters)) == ("keyed_noise", {"sigma": 0.05, "keep": 1.0})


REFUSED = {
    "prayer": "no response defence 'prayer'; there is gaussian_noise, keyed_noise, reverse_sigmoid, temperature",
    "keyed_noise:variance=1": "keyed_noise has no parameter 'variance'; it takes sigma, keep",
    "keyed_noise": "keyed_noise needs sigma: write keyed_noise:sigma=VALUE",
    "keyed_noise:sigma=0.1,keep=2": "keep=2 must be 0 or 1",
    "reverse_sigmoid:beta=3": "beta=3.0 must lie in [0, 1]",
}


@pytest.mark.parametrize("text", REFUSED)
@pytest.mark.parametrize("running", [True, False])
def test_a_defence_that_cannot_be_is_refused_in_one_sentence(
    server: Server, root: Path, command: Command, text: str, running: bool
) -> None:
    told = command(*CREATE, text, "--root", server.root if running else root)
    assert told == (1, f"Error: {REFUSED[text]}\n")
