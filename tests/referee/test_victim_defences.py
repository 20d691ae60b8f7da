"""Training defences in a campaign file: read, passed on, and one sentence for each that cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from oracle_server.models.repository import Repository
from referee import hosted, training
from referee.campaign import CampaignError, Victim, read_plan
from referee.training import Training

TEXT = """
title = "t"
[victims.v]
architecture = "cnn"
split = "att20"
defence = { name = "mid", width = 32, beta = 1 }
[contracts.full]
access = "scores"
[[cells]]
victim = "v"
method = "numeric"
contracts = ["full"]
"""
DEFENCE = ("mid", (("beta", 1.0), ("width", 32.0)))


def read(tmp_path: Path, text: str) -> Victim:
    path = tmp_path / "c.toml"
    path.write_text(text)
    return read_plan(path).victims[0]


def test_a_victim_has_the_defence_that_it_names_or_none(tmp_path: Path) -> None:
    assert read(tmp_path, TEXT).defence == DEFENCE
    lines = [line for line in TEXT.splitlines() if not line.startswith("defence")]
    assert read(tmp_path, "\n".join(lines)).defence is None


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ('"mid"', "victim v: defence = 'mid' must be a table"),
        ("{ beta = 1 }", "must be a table, for example"),
        ('{ name = "mit" }', "victim v: there is no training defence 'mit'; there is none, mid"),
        ('{ name = "mid" }', "victim v: defence mid needs beta"),
        ('{ name = "mid", gamma = 1 }', "victim v: defence mid has no parameter 'gamma'; it has beta, width"),
        ('{ name = "mid", beta = "1" }', "victim v: defence mid: beta='1' must be a number"),
        ('{ name = "mid", beta = true }', "victim v: defence mid: beta=True must be a number"),
        ('{ name = "mid", beta = 1 }\nkind = "features"', "victim v: a features victim has no architecture"),
        ('{ name = "mid", beta = 1 }\njoint = { weight = 1 }', "victim v: only an ordinary classifier has a defence"),
    ],
)
def test_a_sentence_for_each_that_cannot_be(tmp_path: Path, said: str, sentence: str) -> None:
    text = TEXT.replace('{ name = "mid", width = 32, beta = 1 }', said)
    with pytest.raises(CampaignError, match=sentence):
        read(tmp_path, text)


def test_the_defence_reaches_the_training_and_the_hosting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(training, "train_target", lambda *_, **options: calls.append(options))
    monkeypatch.setattr(hosted, "train_and_host", lambda *_, **options: calls.append(options))
    assert Training("att20", "cnn", defence=DEFENCE)() == "cnn on att20 with mid"
    hosted.host_victim(Victim("v", "cnn", "att20", defence=DEFENCE), Repository(tmp_path), "cpu")
    hosted.host_victim(Victim("v", "cnn", "att20"), Repository(tmp_path), "cpu")
    assert [options["defence"] for options in calls] == [DEFENCE, DEFENCE, None]
