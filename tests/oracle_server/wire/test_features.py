"""Feature models through the real server: what is described, released, counted and refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
import torch
from torch import nn

from attacker.attacks import METHODS
from attacker.oracle import BudgetSpent, Oracle
from attacker.run import run
from oracle_server.models.features import host_features
from oracle_server.models.importing import Draft, host
from oracle_server.models.repository import Repository
from protos.inference.open_inference_pb2 import ModelMetadataRequest
from protos.mirage.v1 import oracle_pb2
from protos.schema import Output
from tests.fixtures import Command
from tests.open_inference import arrays, assert_same, infer, named, request, stub
from tests.serving import Caller, Forker, Server, inputs, new_root

OUTPUTS = (Output("round", "shape"), Output("tilt", "pose"), Output("long", "shape"), Output("tip", "landmarks"))
SHAPE = (1, 8, 6)
ROWS = inputs(9)
Connect = Callable[..., Oracle]


def network() -> nn.Module:
    torch.manual_seed(5)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 4), nn.Sigmoid()).eval()


EXACT = network()(torch.from_numpy(ROWS)).detach().numpy().astype(np.float64)


@pytest.fixture(scope="module")
def service(forker: Forker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = new_root(tmp_path_factory.mktemp("none"))
    repository = Repository(root)
    host_features(network(), repository, Draft("features", "1", SHAPE, deterministic=True), OUTPUTS)
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(48, 4)).eval()
    host(classifier, repository, Draft("joint", "1", SHAPE, joint=True))
    server = Server(forker, root)
    yield server
    server.close()


@pytest.fixture
def connect(service: Server, tmp_path: Path) -> Iterator[Connect]:
    opened: list[Oracle] = []

    def connect(access: str = "scores", model: str = "features", **contract: object) -> Oracle:
        caller = service.new_key(access, model, **contract)
        opened.append(Oracle(service.address, caller.key, patience=10.0))
        opened[-1].begin(tmp_path / f"run-{len(opened)}", {})
        return opened[-1]

    yield connect
    for oracle in opened:
        oracle.close()


def test_the_outputs_are_described(connect: Connect) -> None:
    oracle = connect()
    assert (oracle.kind, oracle.classes, oracle.joint) == ("features", 0, False)
    assert oracle.outputs == OUTPUTS
    assert oracle.released == ("round", "tilt", "long", "tip")
    assert oracle.features == ()


def test_a_classifier_has_no_outputs_and_says_how_it_was_trained(connect: Connect) -> None:
    oracle = connect(model="joint")
    assert (oracle.joint, oracle.outputs, oracle.released, oracle.classes) == (True, (), (), 4)


@pytest.mark.parametrize(
    ("contract", "columns"),
    [({}, [0, 1, 2, 3]), ({"features": ("shape",)}, [0, 2]), ({"features": ("landmarks", "pose")}, [1, 3])],
)
@pytest.mark.parametrize("step", [None, 0.1])
def test_a_key_gets_its_groups_and_no_more(
    connect: Connect, contract: dict[str, object], columns: list[int], step: float | None
) -> None:
    oracle = connect(round_to=step, **contract)
    assert oracle.released == tuple(OUTPUTS[i].name for i in columns)
    answer = oracle.query(ROWS)
    assert answer.scores is None
    assert answer.labels is None
    assert answer.numbers.shape == (9, len(columns))
    wanted = EXACT[:, columns] if step is None else np.rint(EXACT[:, columns] / step) * step
    np.testing.assert_allclose(answer.numbers, wanted, atol=1e-6)
    assert (oracle.spent, oracle.usage().spent) == (9, 9)


@pytest.mark.parametrize(("groups", "columns"), [((), 4), (("shape",), 2), (("pose", "landmarks"), 2)])
def test_the_open_inference_protocol_releases_the_same(service: Server, groups: tuple[str, ...], columns: int) -> None:
    caller = service.new_key("scores", "features", features=groups)
    asked = ModelMetadataRequest(name="features")
    said = stub(caller).ModelMetadata(asked, metadata=caller.metadata, timeout=10)
    assert [(tensor.name, tensor.datatype, *tensor.shape) for tensor in said.outputs] == [
        ("values", "FP64", -1, columns)
    ]
    answer = infer(caller, request(ROWS, model_name="features"))
    assert_same(named(answer), arrays(caller.predict(ROWS)))
    assert named(answer)["values"].shape == (9, columns)


def test_answers_to_many_batches_are_joined(connect: Connect) -> None:
    many = np.repeat(ROWS, 200, axis=0)
    numbers = connect(features=("shape",)).query(many).numbers
    np.testing.assert_allclose(numbers, np.repeat(EXACT[:, [0, 2]], 200, axis=0), atol=1e-6)


def test_the_budget_counts_rows_and_the_capacity_what_is_released(connect: Connect) -> None:
    oracle = connect(features=("shape",), round_to=0.1, budget=10)
    before = oracle.usage().capacity_bits
    oracle.query(ROWS)
    usage = oracle.usage()
    assert (usage.spent, usage.budget_left) == (9, 1)
    assert usage.capacity_bits - before == pytest.approx(9 * 2 * np.log2(12))
    with pytest.raises(BudgetSpent):
        oracle.query(ROWS[:2])


def test_the_weights_are_the_whole_model(connect: Connect) -> None:
    oracle = connect("weights")
    with torch.no_grad():
        np.testing.assert_allclose(oracle.model()(torch.from_numpy(ROWS)).numpy(), EXACT, atol=1e-6)
    assert oracle.released == tuple(output.name for output in OUTPUTS)


@pytest.mark.parametrize(
    ("model", "contract", "sentence"),
    [
        (
            "features",
            {"features": ("nope",)},
            "a feature model releases no group nope; there is shape, pose, landmarks",
        ),
        ("features", {"top_k": 1}, "a feature model releases numbers"),
        ("joint", {"features": ("shape",)}, "features belong to feature models"),
    ],
)
def test_a_key_that_cannot_be_kept_is_refused(
    service: Server, model: str, contract: dict[str, object], sentence: str
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        service.new_key("scores", model, **contract)
    assert sentence in caught.value.details()


def test_bad_rows_cost_nothing(service: Server) -> None:
    caller = service.new_key(model="features")
    with pytest.raises(grpc.RpcError, match="values outside"):
        caller.predict(ROWS + 1)
    assert caller.usage().spent == 0


def test_methods_for_classifiers_refuse_before_they_ask(connect: Connect, tmp_path: Path) -> None:
    oracle = connect()
    with pytest.raises(ValueError, match="random_draws attacks a neural model; features/1 is a features model"):
        run(oracle, "random_draws", METHODS["random_draws"](), [0], 0, tmp_path / "out")
    assert oracle.usage().spent == 0


def test_the_command_makes_keys_for_groups(service: Server, command: Command) -> None:
    words = ("keys", "create", "--root", service.root, "--model", "features", "--access", "scores", "--features")
    status, said = command(*words, "landmarks, pose")
    assert status == 0, said
    (key,) = re.findall(r"mirage_\w+", said)
    described = Caller(service, key, key.split("_")[1]).describe()
    assert list(described.contract.features) == ["landmarks", "pose"]
    assert described.contract.access == oracle_pb2.Contract.ACCESS_SCORES
    status, said = command(*words, "nose")
    assert status == 1
    assert "no group nose; there is shape, pose, landmarks" in said


def test_training_needs_a_split_that_there_is(command: Command, tmp_path: Path) -> None:
    status, said = command("train-features", "nowhere", "--root", tmp_path / "root", "--device", "cpu")
    assert status == 1
    assert "nowhere" in said
    assert "Traceback" not in said
