"""Trees and regressions through the real server: what is described, released, refused and downloaded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
import torch
from torch import nn

from attacker.oracle import Oracle, OracleError
from oracle_server.models.importing import Draft, host
from oracle_server.models.regression import LinearRegression, host_regression
from oracle_server.models.repository import Repository
from oracle_server.models.tree import host_tree
from protos.codec import decode
from protos.inference.open_inference_pb2 import ModelMetadataRequest
from protos.schema import Feature
from tests.fixtures import Command
from tests.open_inference import arrays, assert_same, infer, named, request, stub
from tests.serving import Forker, Server, assert_refused, new_root
from tests.tables import N, whole_tree

ROWS = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=np.float32)
SHARES = (N / N.sum(2, keepdims=True)).reshape(4, 2)
FEATURES = (Feature("a", ("no", "yes"), 0, 1, (0.5, 0.5)), Feature("b", (), -2, 10, (1.0,), (-2, 10)))
LINE = LinearRegression(FEATURES, Feature("y", (), -3, 12, (1.0,), (-3, 12)), 1.0, ((0.0, 2.5), (0.5,)), 0.75, 20)


@pytest.fixture(scope="module")
def tables(forker: Forker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = new_root(tmp_path_factory.mktemp("none"))
    repository = Repository(root)
    host_tree(whole_tree(), repository, "tree")
    host_tree(whole_tree(), repository, "held-out", confusion=[[3, 1], [2, 4]])
    host_regression(LINE, repository, "line")
    encoder, classifier = nn.Sequential(nn.Flatten(), nn.Linear(6, 3), nn.Sigmoid()), nn.Linear(3, 2)
    parts = {"encoder": (encoder.eval(), (1, 2, 3)), "classifier": (classifier.eval(), (3,))}
    host(nn.Sequential(encoder, classifier).eval(), repository, Draft("parts", "1", (1, 2, 3)), parts)
    server = Server(forker, root)
    yield server
    server.close()


@pytest.fixture
def connect(tables: Server, tmp_path: Path) -> Iterator[object]:
    opened: list[Oracle] = []

    def connect(access: str, model: str, **contract: object) -> Oracle:
        caller = tables.new_key(access, model, **contract)
        opened.append(Oracle(caller.server.address, caller.key, patience=10.0))
        opened[-1].begin(tmp_path / f"{model}-{len(opened)}", {})
        return opened[-1]

    yield connect
    for oracle in opened:
        oracle.close()


def test_a_tree_describes_what_the_paper_calls_side_information(connect) -> None:
    oracle = connect("label", "tree")
    assert (oracle.kind, oracle.classes, oracle.input_shape) == ("tree", 2, (2,))
    assert oracle.features == whole_tree().features
    assert oracle.response == whole_tree().response
    np.testing.assert_array_equal(oracle.confusion, whole_tree().confusion())
    assert oracle.error_std is None
    np.testing.assert_array_equal(connect("label", "held-out").confusion, [[3, 1], [2, 4]])


def test_a_tree_releases_labels_and_shares(connect) -> None:
    assert connect("label", "tree").query(ROWS).labels.tolist() == whole_tree().label(ROWS).tolist()
    np.testing.assert_allclose(connect("scores", "tree").query(ROWS).scores, SHARES, atol=1e-6)
    rounded = connect("scores", "tree", round_to=0.25).query(ROWS).scores
    np.testing.assert_allclose(rounded, np.rint(SHARES / 0.25) * 0.25, atol=1e-9)


def test_a_tree_is_downloaded_with_its_counts_under_weights_alone(connect) -> None:
    np.testing.assert_array_equal(connect("weights", "tree").tree().counts, whole_tree().counts)
    with pytest.raises(OracleError, match="Download needs access weights"):
        connect("scores", "tree").tree()


def test_a_regression_releases_numbers(connect) -> None:
    oracle = connect("scores", "line")
    assert (oracle.kind, oracle.error_std, oracle.confusion) == ("regression", 0.75, None)
    assert oracle.features == FEATURES
    rows = np.array([[0, 4], [1, -2]], dtype=np.float32)
    assert oracle.query(rows).numbers.tolist() == [3.0, 2.5]
    assert connect("scores", "line", round_to=1.0).query(rows).numbers.tolist() == [3.0, 2.0]
    wide = connect("scores", "line", round_to=0.5).query(np.repeat(rows, 700, axis=0))
    assert wide.numbers.shape == (1400,)


@pytest.mark.parametrize(
    "contract", [{"access": "label"}, {"top_k": 1}, {"defences": (("temperature", (("temperature", 2.0),)),)}]
)
def test_a_number_has_no_label_rank_or_temperature(tables: Server, contract: dict[str, object]) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        tables.new_key(model="line", **contract)
    assert caught.value.details().startswith("a regression releases numbers")
    assert tables.new_key("weights", "line").usage().spent == 0


@pytest.mark.parametrize(
    ("model", "row", "feature"),
    [
        ("tree", [2, 0], "a"),
        ("tree", [0.5, 0], "a"),
        ("line", [0, -3], "b"),
        ("line", [0, 11], "b"),
        ("line", [2, 0], "a"),
    ],
)
def test_a_row_outside_the_schema_costs_nothing(tables: Server, model: str, row: list[float], feature: str) -> None:
    caller = tables.new_key(model=model)
    rows = np.array([[0, 0], row], dtype=np.float32)
    with pytest.raises(grpc.RpcError) as caught:
        caller.predict(rows)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (
        f"feature {feature} has values outside" in caught.value.details() or "values outside" in caught.value.details()
    )
    assert caller.usage().spent == 0
    assert caller.predict(rows[:1]).receipt.rows_charged == 1


@pytest.mark.parametrize(
    ("model", "access", "output", "shape"),
    [("tree", "label", "label", [-1]), ("tree", "scores", "scores", [-1, 2]), ("line", "scores", "values", [-1])],
)
def test_the_open_inference_protocol_releases_the_same(
    tables: Server, model: str, access: str, output: str, shape: list[int]
) -> None:
    caller = tables.new_key(access, model)
    said = stub(caller).ModelMetadata(ModelMetadataRequest(name=model), metadata=caller.metadata, timeout=10)
    assert [(tensor.name, list(tensor.shape)) for tensor in said.outputs] == [(output, shape)]
    assert said.platform == {"tree": "mirage_tree", "line": "mirage_regression"}[model]
    assert_same(named(infer(caller, request(ROWS, model_name=model))), arrays(caller.predict(ROWS)))
    with pytest.raises(grpc.RpcError, match="see the schema"):
        infer(caller, request(np.full_like(ROWS, 0.5), model_name=model))


def test_the_capacity_of_numbers_counts_multiples(tables: Server) -> None:
    """[-3, 12] in steps of 1 has 16 of them, and rounding can reach one more."""
    plain, rounded = tables.new_key(model="line"), tables.new_key(model="line", round_to=1.0)
    row = np.zeros((1, 2), dtype=np.float32)
    used = []
    for caller in (plain, rounded):
        before = caller.usage().capacity_bits
        caller.predict(row)
        used.append(caller.usage().capacity_bits - before)
    assert used == [64.0, pytest.approx(np.log2(17))]


def test_parts_are_archives_of_their_own(connect, tables: Server) -> None:
    oracle = connect("weights", "parts")
    images = np.random.default_rng(0).random((3, 1, 2, 3), dtype=np.float32)
    with torch.no_grad():
        whole = oracle.model()(torch.from_numpy(images))
        code = oracle.model("encoder")(torch.from_numpy(images))
        torch.testing.assert_close(oracle.model("classifier")(code), whole)
    with pytest.raises(ValueError, match="no part 'decoder'; there is encoder, classifier"):
        oracle.model("decoder")
    caller = tables.new_key("weights", "parts")
    request = type(next(iter(caller.download())))  # a chunk, so the whole is there
    assert request.__name__ == "DownloadChunk"
    card = caller.describe().card
    assert [part.name for part in card.archives] == ["encoder", "classifier"]


def test_a_part_that_is_not_there(tables: Server) -> None:
    caller = tables.new_key("weights", "parts")
    from protos.mirage.v1 import oracle_pb2 as pb

    request = pb.DownloadRequest(archive="../card")
    assert_refused(
        tables,
        lambda: list(caller.stub.Download(request, metadata=caller.metadata, timeout=30)),
        "NOT_FOUND",
        "NO_MODEL",
        "this model has no such archive: see the card's list of archives",
    )


def test_the_confusion_matrix_crosses_the_wire_as_it_is(tables: Server) -> None:
    card = tables.new_key("label", "held-out").describe().card
    assert decode(card.confusion).tolist() == [[3, 1], [2, 4]]
    assert card.confusion_rows == "held-out"
    assert tables.new_key("label", "tree").describe().card.confusion_rows == "training"


def test_a_tree_file_is_imported_and_a_wrong_one_is_not(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_bytes(whole_tree().to_json())
    status, said = command("import", file, "--root", tmp_path / "root", "--name", "mine")
    assert status == 0, said
    assert "mine/1: 8 parameters, 2 classes" in said
    values = json.loads(file.read_bytes())
    values["leaves"][0]["counts"][0] += 1
    file.write_text(json.dumps(values))
    status, said = command("import", file, "--root", tmp_path / "root", "--name", "wrong")
    assert status == 1
    assert "add up to 101, and it has 100 rows" in said
    assert not (tmp_path / "root" / "models" / "wrong").exists()
