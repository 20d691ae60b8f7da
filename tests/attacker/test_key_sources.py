"""Where the attacker takes its key from: the environment or a private file; and how a server is reached with it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from attacker.cli import main
from attacker.cli_common import private, read_keys
from attacker.transport import Tls, stays_here
from oracle_server.certificates import new_authority, server_pair
from tests.serving import Forker, Server

NO_KEY = "no API key: put it into the environment as MIRAGE_KEY"


def key_file(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "key"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_run_with_a_key_from_a_file(server: Server, forker: Forker, tmp_path: Path) -> None:
    """It counts, it wins over the environment, and the key is in nothing that the run leaves behind."""
    caller = server.new_key()
    file = key_file(tmp_path, f"{caller.key}\n")
    words = ["run", "random_draws", "--set", "draws=50", "--address", server.address, "--quiet"]
    log = tmp_path / "log"
    process = forker.start(
        "attacker",
        [*words, "--key-file", file, "--out", tmp_path / "out"],
        log=log,
        environment={"MIRAGE_KEY": "mirage_of_another"},
    )
    assert process.wait() == 0, process.log
    assert caller.usage().spent == 50
    secret = caller.key.rpartition("_")[2].encode()
    left = [path for path in (log, *(tmp_path / "out").rglob("*")) if path.is_file()]
    assert {"log", "journal.bin", "run.json"} <= {path.name for path in left}
    assert not [path for path in left if secret in path.read_bytes()]
    assert secret in file.read_bytes()  # the control: it would have been found


@pytest.mark.parametrize("text", ["a,b", "a,\nb\n", " a  b ", "a\r\nb\r\n"])
def test_several_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    assert read_keys(key_file(tmp_path, text)) == ["a", "b"]
    monkeypatch.setenv("MIRAGE_KEY", text)
    assert read_keys(None) == ["a", "b"]


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o602, 0o660])
def test_a_file_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    """A key, and the file of a batch, which is full of keys."""
    file = key_file(tmp_path, json.dumps({"key": "k", "name": "n", "method": "numeric"}), mode)
    (tmp_path / "photos.npy").touch()
    words = ("--out", str(tmp_path / "out"), "--address", "127.0.0.1:1")
    for command in (
        ["run", "numeric", "--key-file", str(file)],
        ["ask", str(tmp_path / "photos.npy"), "--key-file", str(file)],
        ["batch", str(file)],
    ):
        done = CliRunner().invoke(main, [*command, *words])
        assert done.exit_code == 1
        assert done.output.endswith(f"Error: {file} holds keys and others may use it: chmod 600 {file}\n")
    file.chmod(0o600)
    assert private(file) == file  # as the sentence says


@pytest.mark.parametrize("text", ["", "\n", " , ,"])
def test_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    file = key_file(tmp_path, text)
    with pytest.raises(click.ClickException, match=f"^no API key: {file} has none in it$"):
        read_keys(file)
    monkeypatch.setenv("MIRAGE_KEY", text)
    with pytest.raises(click.ClickException, match=f"^{NO_KEY}$"):
        read_keys(None)


@pytest.mark.parametrize("data", ["-----BEGIN PRIVATE KEY-----\nMIGH\n", "mirage_k\x01", "clé", "\xff\0"])
def test_what_is_no_key_is_sent_to_nobody(tmp_path: Path, data: str) -> None:
    """Such as the private key of TLS, given by mistake; the sentence does not repeat it."""
    file = key_file(tmp_path, "")
    file.write_bytes(data.encode("latin-1"))
    with pytest.raises(
        click.ClickException, match=f"^{file} has something in it that is no API key: letters, digits, _$"
    ):
        read_keys(file)


def test_a_pipe_is_private() -> None:
    """`--key-file <(command that knows the key)`, as shells write it."""
    reader, writer = os.pipe()
    os.write(writer, b"k")
    os.close(writer)
    assert read_keys(Path(f"/dev/fd/{reader}")) == ["k"]
    os.close(reader)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--client-certificate",), "--client-certificate and --client-key go together"),
        (("--certificate", "--client-key"), "--client-certificate and --client-key go together"),
        (
            ("--client-certificate", "--client-key"),
            "--client-certificate needs --certificate: what to trust of the server",
        ),
    ],
)
@pytest.mark.parametrize("command", ["run", "ask", "batch"])
def test_options_that_do_not_fit_together(
    tmp_path: Path, command: str, options: tuple[str, ...], sentence: str
) -> None:
    file = str(key_file(tmp_path, "x"))
    given = [word for option in options for word in (option, file)]
    first = ["numeric"] if command == "run" else [file]
    done = CliRunner().invoke(main, [command, *first, *given, "--out", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert done.output.splitlines()[-1] == f"Error: {sentence}"


def test_plain_text_beyond_loopback_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    words = ["run", "numeric", "--address", "192.0.2.7:50051", "--out", str(tmp_path / "out"), "--quiet"]
    done = CliRunner().invoke(main, words, env={"MIRAGE_KEY": "mirage_x_y"})
    assert done.exit_code == 1
    assert done.output.splitlines()[-1] == (
        "Error: 192.0.2.7:50051 is not on loopback and the key would travel in plain text: give --certificate"
        " (or --plain-text-beyond-loopback, behind something that encrypts)"
    )


@pytest.mark.parametrize("address", ["127.0.0.1:50051", "127.9.9.9:1", "localhost:1", "[::1]:1", "unix:/run/oracle"])
def test_what_stays_on_this_machine(address: str) -> None:
    assert stays_here(address)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0:1",
        "[::]:1",
        "::1:5001",  # another address, not ::1 and a port
        "10.0.0.1:1",
        "example.org:1",
        "localhost.example.org:1",
        "127.0.0.1.example.org:1",
        "dns:///localhost:1",  # whoever answers for that name
        "dns:127.0.0.1:1",
        "ipv4:192.0.2.7:1,127.0.0.1:1",
        "",
        ":1",
    ],
)
def test_what_might_leave_it(address: str) -> None:
    assert not stays_here(address)


def test_tls_files_that_are_none(tmp_path: Path) -> None:
    authority = new_authority(1)
    pair, other = (server_pair(authority, ("localhost",), 1).pem() for _ in range(2))
    paths = {}
    for name, data in {"ca": authority.pem()[0], "certificate": pair[0], "key": pair[1], "other": other[1]}.items():
        paths[name] = tmp_path / f"{name}.pem"
        paths[name].write_bytes(data)
    Tls(paths["ca"], paths["certificate"], paths["key"]).credentials()
    with pytest.raises(ValueError, match="holds no PEM certificate"):
        Tls(paths["key"]).credentials()
    with pytest.raises(ValueError, match="are no PEM certificate and its private key without a password"):
        Tls(paths["ca"], paths["certificate"], paths["other"]).credentials()
