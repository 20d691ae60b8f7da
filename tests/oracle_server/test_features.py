"""Feature models: what is hosted and what is refused, their card, their answers, their capacity, who gets a key."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from oracle_server.capacity import capacity_bits
from oracle_server.contracts import contract_message, contract_words
from oracle_server.errors import Refusal
from oracle_server.inputs import largest_batch
from oracle_server.ledger import SqliteLedger
from oracle_server.models.card import Card
from oracle_server.models.features import FeatureModel, host_features
from oracle_server.models.importing import Draft, ModelRefused, host
from oracle_server.models.repository import Repository
from oracle_server.operator import Operator
from oracle_server.threat_model import Access, Contract
from protos.mirage.v1 import admin_pb2, oracle_pb2
from protos.schema import Output

OUTPUTS = (Output("round", "shape"), Output("tilt", "pose"), Output("long", "shape"))
DRAFT = Draft("mine", "1", (1, 4, 3), deterministic=True)
CARD = Card("m", "1", (1, 4, 3), 0.0, 1.0, 0, 39, 10**6, "00" * 32, "2.14.1", kind="features", outputs=OUTPUTS)


def network(*more: nn.Module, outputs: int = 3) -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, outputs), *more).eval()


class Centred(nn.Module):
    """In [0, 1] but for pictures that are nearly black."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.flatten(1).mean(1, keepdim=True)
        return torch.cat([mean, mean, 0.5 - 100 * torch.relu(0.01 - mean)], 1)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


def test_a_feature_model_is_hosted_and_answers(repository: Repository) -> None:
    module = network(nn.Sigmoid())
    card = host_features(module, repository, DRAFT, OUTPUTS)
    assert (card.kind, card.classes, card.outputs, card.width) == ("features", 0, OUTPUTS, 3)
    assert card.groups == ("shape", "pose", "shape")
    assert repository.card("mine") == card
    model = FeatureModel(repository.archive(card), card, torch.device("cpu"), 4)
    model.warm_up()
    rows = np.random.default_rng(0).random((7, 1, 4, 3), dtype=np.float32)
    first, second = model.logits([rows[:5], rows[5:]])
    np.testing.assert_allclose(
        np.concatenate([first, second]), module(torch.from_numpy(rows)).detach().numpy(), atol=1e-6
    )


def test_one_output_is_enough(repository: Repository) -> None:
    assert host_features(network(nn.Sigmoid(), outputs=1), repository, DRAFT, OUTPUTS[:1]).width == 1


def test_shares_are_features_too(repository: Repository) -> None:
    """Rows that sum to one are refused as probabilities where logits are wanted, and here they are not."""
    assert host_features(network(nn.Softmax(1)), repository, DRAFT, OUTPUTS).kind == "features"
    with pytest.raises(ModelRefused, match="the outputs are probabilities"):
        host(network(nn.Softmax(1)), repository, replace(DRAFT, name="other"))


def test_an_answer_outside_the_interval_is_a_failure_of_its_row(repository: Repository) -> None:
    card = host_features(Centred(), repository, DRAFT, OUTPUTS)
    model = FeatureModel(repository.archive(card), card, torch.device("cpu"), 4)
    bright, black = np.full((1, 1, 4, 3), 0.5, np.float32), np.zeros((1, 1, 4, 3), np.float32)
    good, bad = model.logits([bright, black])
    np.testing.assert_allclose(good, [[0.5, 0.5, 0.5]])
    assert np.isnan(bad).all()


REFUSED = {
    "beyond one": (network(), OUTPUTS, r"an output lies outside \[0, 1\]"),
    "too few columns": (network(nn.Sigmoid(), outputs=2), OUTPUTS, r"shape \[5, 2\]: return a column for each of 3"),
    "no outputs": (network(nn.Sigmoid()), (), "a feature model needs outputs"),
    "one name twice": (network(nn.Sigmoid()), (*OUTPUTS[:2], OUTPUTS[0]), "no two of them may have the same name"),
    "still training": (network(nn.Dropout(0.5), nn.Sigmoid()).train(), OUTPUTS, r"call \.eval\(\)"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_hosted_says_why(case: str, repository: Repository) -> None:
    module, outputs, sentence = REFUSED[case]
    with pytest.raises(ModelRefused, match=sentence):
        host_features(module, repository, DRAFT, outputs)
    assert not repository.folder.exists()


def test_names_must_not_be_empty() -> None:
    for name, group in (("", "shape"), ("round", "")):
        with pytest.raises(ValueError, match="an output needs a name and a group"):
            Output(name, group)


def test_the_card_goes_to_disk_and_over_the_wire(tmp_path: Path) -> None:
    card = replace(CARD, joint=True)
    card.write(tmp_path / "card.json")
    assert Card.read(tmp_path / "card.json") == card
    sent = oracle_pb2.ModelCard.FromString(card.message().SerializeToString())
    assert (sent.kind, sent.classes, sent.joint) == ("features", 0, True)
    assert tuple(Output.from_message(output) for output in sent.outputs) == OUTPUTS


def test_joint_is_said_by_the_draft_and_false_by_default(repository: Repository) -> None:
    plain = host(network(), repository, DRAFT)
    joint = host(network(), repository, replace(DRAFT, name="joint", joint=True))
    assert (plain.joint, joint.joint, repository.card("joint").message().joint) == (False, True, True)


def test_a_card_of_an_older_version_is_read(tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    replace(CARD, kind="neural", classes=3, outputs=()).write(path)
    values = json.loads(path.read_text())
    del values["outputs"], values["joint"]
    path.write_text(json.dumps(values))
    assert (Card.read(path).outputs, Card.read(path).joint) == ((), False)


@pytest.mark.parametrize("wrong", [{"outputs": ()}, {"kind": "neural"}, {"classes": 3}])
def test_a_card_that_contradicts_itself_is_refused(wrong: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="outputs belong to feature models"):
        replace(CARD, **wrong)
    CARD.write(tmp_path / "card.json")
    values = json.loads((tmp_path / "card.json").read_text()) | {name: value or [] for name, value in wrong.items()}
    (tmp_path / "card.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match="is no model card"):
        Card.read(tmp_path / "card.json")


@pytest.mark.parametrize(
    ("contract", "bits"),
    [
        (Contract(Access.SCORES), 3 * 32),
        (Contract(Access.WEIGHTS), 3 * 32),
        (Contract(Access.SCORES, features=("shape",)), 2 * 32),
        (Contract(Access.SCORES, features=("pose",), round_to=0.1), math.log2(12)),
        (Contract(Access.SCORES, round_to=0.5), 3 * 2),
        (Contract(Access.SCORES, round_to=1e-12), 3 * 32),
    ],
)
def test_capacity_counts_what_is_released(contract: Contract, bits: float) -> None:
    card = 8 * CARD.message().ByteSize()
    assert capacity_bits(contract, CARD, 10) - card == pytest.approx(10 * bits)
    assert capacity_bits(contract, CARD, 10**9) - card == 8 * CARD.archive_bytes, "never more than the model"


@pytest.mark.parametrize("step", [1.0, 0.7, 0.5, 0.3, 0.1, 0.05])
def test_rounding_reaches_no_more_numbers_than_are_counted(step: float) -> None:
    reached = len(np.unique(np.rint(np.linspace(0, 1, 5001) / step)))
    bits = capacity_bits(Contract(Access.SCORES, features=("pose",), round_to=step), CARD, 1)
    assert math.log2(reached) <= bits - 8 * CARD.message().ByteSize() + 1e-9


def test_answers_larger_than_their_questions_bound_the_batch() -> None:
    wide = replace(CARD, outputs=tuple(Output(str(i), "all") for i in range(1000)))
    assert largest_batch(wide, 4096 + 16_000 * 7, 1024) == 7


@pytest.mark.parametrize(
    ("contract", "sentence"),
    [
        (Contract(Access.SCORES, features=("nope",)), "no group nope; there is shape, pose"),
        (Contract(Access.SCORES, top_k=1), "a feature model releases numbers"),
        (Contract(Access.LABEL), "a feature model releases numbers"),
    ],
)
def test_a_key_for_what_is_not_there_is_refused(
    contract: Contract, sentence: str, ledger: SqliteLedger, repository: Repository
) -> None:
    host_features(network(nn.Sigmoid()), repository, DRAFT, OUTPUTS)
    operator = Operator(ledger, repository)
    with pytest.raises(Refusal, match=sentence):
        operator.create_key(admin_pb2.CreateKeyRequest(model="mine", contract=contract_message(contract)))
    assert ledger.all_keys() == []
    good = contract_message(Contract(Access.SCORES, features=("pose",)))
    assert operator.create_key(admin_pb2.CreateKeyRequest(model="mine", contract=good)).key


def test_a_contract_in_words_names_its_groups() -> None:
    contract = Contract(Access.SCORES, features=("shape", "pose"), round_to=0.1)
    assert contract_words(contract) == "scores, rounded to 0.1, only shape and pose"
