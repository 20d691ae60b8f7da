"""`oracle-server certs` makes a set for tests, once."""

from __future__ import annotations

import shutil
import ssl
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from oracle_server.cli_certs import certs


def run(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(certs, [str(word) for word in words])
    return done.exit_code, done.output


def test_certs_makes_a_set_once(tmp_path: Path) -> None:
    out = tmp_path / "tls"
    status, said = run("--out", out, "--host", "192.0.2.7", "--host", "oracle.example.org", "--days", "3")
    assert status == 0
    assert "for tests, 3 days" in said
    modes = {path.name: path.stat().st_mode & 0o777 for path in out.iterdir()}
    names = ("ca", "client", "server")
    assert modes == {f"{name}.pem": 0o644 for name in names} | {f"{name}-key.pem": 0o600 for name in names}
    decoded = ssl._ssl._test_decode_cert(str(out / "server.pem"))  # type: ignore[attr-defined]
    assert decoded["subjectAltName"] == (("IP Address", "192.0.2.7"), ("DNS", "oracle.example.org"))
    days = (ssl.cert_time_to_seconds(decoded["notAfter"]) - ssl.cert_time_to_seconds(decoded["notBefore"])) / 86400
    assert 3 <= days < 3.1
    before = {path: path.read_bytes() for path in out.iterdir()}
    sentence = f"Error: {out}/ca.pem exists and is not overwritten: choose another folder, or remove it\n"
    assert run("--out", out) == (1, sentence)
    shutil.copy(out / "client-key.pem", out / "kept")
    for path in before:
        path.unlink()
    (out / "kept").rename(out / "client-key.pem")  # one file of six is enough
    assert run("--out", out)[0] == 1
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {
        "client-key.pem": before[out / "client-key.pem"]
    }


@pytest.mark.parametrize("host", ["", "a b", "böse.example.org", "http://x"])
def test_certs_for_what_is_no_host(tmp_path: Path, host: str) -> None:
    sentence = f"Error: --host {host!r} is neither an address nor a name of a host\n"
    assert run("--out", tmp_path / "tls", "--host", host) == (1, sentence)
    assert not (tmp_path / "tls").exists()


def test_certs_without_its_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delitem(sys.modules, "oracle_server.certificates", raising=False)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    assert run("--out", tmp_path) == (1, "Error: certs needs the extra: pip install 'mirage-range[tls]'\n")
