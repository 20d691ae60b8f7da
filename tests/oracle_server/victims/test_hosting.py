"""`oracle-server train` with a network that inverts the model, by its options alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from attacker.decoder import Decoder
from oracle_server import cli_models
from oracle_server.models.card import Card
from oracle_server.victims.joint import WEIGHT
from tests.world import CARD


def said(root: Path, *words: str) -> tuple[int, str]:
    (train,) = (command for command in cli_models.MODEL_COMMANDS if command.name == "train")
    done = CliRunner().invoke(train, ["cnn", "--root", str(root), *words])
    return done.exit_code, done.output


def test_options_of_a_joint_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, dict[str, Any]]] = []

    def recorded(which: str) -> Callable[..., Card]:
        return lambda *_, **options: calls.append((which, options)) or CARD

    for which in ("train_and_host", "train_and_host_joint"):
        monkeypatch.setattr(cli_models, which, recorded(which))
    for words in (
        (),
        ("--joint", "attacker.decoder:Decoder"),
        ("--joint", "attacker.decoder:Decoder", "--joint-weight", "3"),
    ):
        assert said(tmp_path, *words)[0] == 0
    assert [name for name, _ in calls] == ["train_and_host", "train_and_host_joint", "train_and_host_joint"]
    alone, joint, weighted = (options for _, options in calls)
    assert not {"decoder", "weight"} & alone.keys()
    assert (joint["decoder"], joint["decoder_name"]) == (Decoder, "attacker.decoder:Decoder")
    assert (joint["weight"], weighted["weight"]) == (WEIGHT, 3.0)


def test_bad_options_get_a_sentence(tmp_path: Path) -> None:
    for words, sentence in (
        (("--joint-weight", "3"), "--joint-weight needs --joint"),
        (("--joint", "decoder"), "'decoder' names no decoder"),
    ):
        status, output = said(tmp_path, *words)
        assert status != 0
        assert sentence in output
    assert not list(tmp_path.iterdir())
