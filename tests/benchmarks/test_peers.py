"""Peers are started, checked, measured and ended; one that is not installed is left out with a line. None is real."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.common import Rig, Served, served
from benchmarks.peers import measure as peers
from benchmarks.peers.open_inference import scores
from benchmarks.peers.peer import Job, Peer
from protos.inference.open_inference_pb2 import InferTensorContents, ModelInferResponse

SECONDS = 0.01  # that the fake takes over a request
BOUNDS = {
    "softmax": {"torchserve": ">= 1.2", "mlserver": ">= 4", "rayserve": ">= 9", "triton": ">= 1.3"},
    "cnn": dict.fromkeys(("torchserve", "mlserver", "rayserve", "triton"), ">= 1.8"),
}


def fake(protocol: str = "http", extra: float = 0.0, **fields: object) -> Peer:
    """A peer like the real ones, which adds `extra` to its scores."""

    def command(job: Job) -> list[str]:
        arguments = (protocol, job.file, job.ports[0], SECONDS, extra)
        return [str(job.python), "-m", "tests.benchmarks.fake_peer", *map(str, arguments)]

    if protocol == "http":
        read, path = (lambda answer: np.frombuffer(answer, "<f4")), "/predictions/{model}"
    else:
        read, path = scores, "{model}"
    peer = Peer("fake", "fake", (), "numpy", "numpy", "one at a time", protocol, command, read, path)
    return replace(peer, **fields)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Rig:
    rig = Rig(tmp_path_factory.mktemp("peers"), rounds=1, seconds=0.3, quick=True)
    rig.models("softmax")
    return rig


@pytest.fixture
def server(rig: Rig) -> Iterator[Served]:
    with served(rig.folder) as server:
        yield server


@pytest.fixture
def own(rig: Rig, tmp_path: Path) -> Rig:
    """The same models, and a folder of the test's own to start peers in."""
    (tmp_path / "models").symlink_to(rig.folder / "models")
    return replace(rig, folder=tmp_path)


def ended(pid: int) -> bool:
    """Whether a process is gone, or is but waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_a_peer_is_measured_beside_this_server_and_ended(
    server: Served, own: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "_BOUNDS", {"softmax": {"fake": 0.001}})
    (figure,) = peers.measure(server, own, [fake()], warm=0)
    assert (figure.name, figure.bound, figure.passed) == ("bench/softmax/32_callers_over_fake", ">= 0.001", True)
    assert figure.value == pytest.approx(figure.extra["first"] / figure.extra["second"])
    assert 0 < figure.extra["second"] <= 1.01 / SECONDS, "rows of the peer, which can't do more"
    assert figure.extra["peer"].startswith(f"numpy {np.__version__} torch ")
    assert (figure.extra["settings"], figure.extra["threads"]) == ("one at a time", 1)
    beside = int((own.folder / "fake" / "softmax" / "beside").read_text())
    for _ in range(100):
        if ended(beside):
            break
        time.sleep(0.05)
    assert ended(beside), "what a peer starts ends with it"


def test_a_peer_of_other_scores_is_refused(own: Rig) -> None:
    with peers.started(fake("open_inference"), Path(sys.executable), "softmax", own) as load:
        assert load.protocol == "open_inference", "the negative control: the model's own scores"
    with (
        pytest.raises(RuntimeError, match="other answers with other scores than softmax gives"),
        peers.started(fake("open_inference", 0.01, name="other"), Path(sys.executable), "softmax", own),
    ):
        pass


def test_a_peer_that_does_not_start_says_why(own: Rig) -> None:
    broken = fake(command=lambda job: [str(job.python), "-c", "raise SystemExit('no such model')"])
    with (
        pytest.raises(RuntimeError, match="fake did not start: no such model"),
        peers.started(broken, Path(sys.executable), "softmax", own),
    ):
        pass


def test_a_peer_that_is_not_installed_is_left_out_with_one_line(
    rig: Rig, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "_BOUNDS", {"softmax": {}})
    nowhere = Served(rig.folder, "127.0.0.1:1")
    assert not list(peers.measure(nowhere, rig, [fake(module="a_server_that_nobody_has")]))
    assert capsys.readouterr().err == (
        "peers: fake is left out: it is not installed. `python -m benchmarks.peers fake` installs it in .peers/fake.\n"
    )
    assert not list(peers.measure(nowhere, rig, [fake(programs=("a-program-that-nobody-has",))]))
    assert "it needs a-program-that-nobody-has" in capsys.readouterr().err
    assert peers.installed(fake()), "the negative control: it is"


def test_the_interpreter_of_a_peers_own_environment_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks.peers import peer

    monkeypatch.setattr(peer, "ENVIRONMENTS", tmp_path)
    assert peer.interpreter(fake()) == Path(sys.executable)
    own = tmp_path / "fake" / "bin" / "python"
    own.parent.mkdir(parents=True)
    own.symlink_to(sys.executable)
    assert peer.interpreter(fake()) == own


def test_every_peer_has_the_bound_that_was_promised() -> None:
    names = [peer.name for peer in peers.PEERS]
    found = {
        model: {name: f">= {peers._BOUNDS[model][name]:g}" for name in names if name in peers._BOUNDS[model]}
        for model in peers._BOUNDS
    }
    assert found == BOUNDS


def test_scores_are_read_from_raw_contents_or_one_by_one() -> None:
    expected = np.array([0.5, -2], np.float32)
    tensor = ModelInferResponse.InferOutputTensor(datatype="FP32", shape=[1, 2])
    raw = ModelInferResponse(outputs=[tensor], raw_output_contents=[expected.tobytes()])
    tensor.contents.CopyFrom(InferTensorContents(fp32_contents=expected))
    for response in (raw, ModelInferResponse(outputs=[tensor])):
        np.testing.assert_array_equal(scores(response.SerializeToString()), expected)
