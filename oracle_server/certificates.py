"""Certificates for tests: an authority, and the pairs that it vouches for. X.509, ECDSA on P-256."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from oracle_server.new_files import new_file

__all__ = ["Pair", "client_pair", "new_authority", "server_pair", "write_test_set"]


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def pem(self) -> tuple[bytes, bytes]:
        """The certificate and the key, without a password."""
        plain = serialization.NoEncryption()
        key = self.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
        return self.certificate.public_bytes(serialization.Encoding.PEM), key


def new_authority(days: int) -> Pair:
    """An authority that signs itself, valid for `days` from now on."""
    key = ec.generate_private_key(ec.SECP256R1())
    draft = _draft("authority", key, None, days, None)
    draft = draft.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    draft = draft.add_extension(_usage(signs_certificates=True), critical=True)
    return Pair(draft.sign(key, hashes.SHA256()), key)


def server_pair(authority: Pair, hosts: tuple[str, ...], days: int, begin: datetime.datetime | None = None) -> Pair:
    """For a server that is reached as any of `hosts`, names or addresses. `ValueError` for what is neither."""
    names = x509.SubjectAlternativeName([_name(host) for host in hosts])
    return _signed("server", authority, ExtendedKeyUsageOID.SERVER_AUTH, names, days, begin)


def client_pair(authority: Pair, days: int, begin: datetime.datetime | None = None) -> Pair:
    """For a client that shows who it is."""
    return _signed("client", authority, ExtendedKeyUsageOID.CLIENT_AUTH, None, days, begin)


def write_test_set(folder: Path, hosts: tuple[str, ...], days: int) -> list[Path]:
    """Write an authority, a server's and a client's certificate, each with its key beside it, and return the paths.
    `FileExistsError` when one of them is there; then nothing is written.
    """
    authority = new_authority(days)
    pairs = {"ca": authority, "server": server_pair(authority, hosts, days), "client": client_pair(authority, days)}
    files: dict[Path, tuple[bytes, int]] = {}
    for name, pair in pairs.items():
        certificate, key = pair.pem()
        files |= {folder / f"{name}.pem": (certificate, 0o644), folder / f"{name}-key.pem": (key, 0o600)}
    folder.mkdir(parents=True, exist_ok=True)
    if there := [path for path in files if path.exists()]:
        raise FileExistsError(f"{there[0]} exists and is not overwritten: choose another folder, or remove it")
    for path, (data, mode) in files.items():
        with new_file(path, mode) as file:
            file.write(data)
    return list(files)


def _signed(
    what: str,
    authority: Pair,
    use: x509.ObjectIdentifier,
    names: x509.SubjectAlternativeName | None,
    days: int,
    begin: datetime.datetime | None,
) -> Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    draft = _draft(what, key, authority, days, begin)
    draft = draft.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    draft = draft.add_extension(_usage(signs_certificates=False), critical=True)
    draft = draft.add_extension(x509.ExtendedKeyUsage([use]), critical=False)
    if names is not None:
        draft = draft.add_extension(names, critical=False)
    return Pair(draft.sign(authority.key, hashes.SHA256()), key)


def _draft(
    what: str, key: ec.EllipticCurvePrivateKey, authority: Pair | None, days: int, begin: datetime.datetime | None
) -> x509.CertificateBuilder:
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Mirage, for tests only"),
            x509.NameAttribute(NameOID.COMMON_NAME, what),
        ]
    )
    begin = begin or datetime.datetime.now(datetime.UTC)
    public = key.public_key()
    by = public if authority is None else authority.key.public_key()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if authority is None else authority.certificate.subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin - datetime.timedelta(minutes=5))  # clocks of two machines differ
        .not_valid_after(begin + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by), critical=False)
    )


def _usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host.removeprefix("[").removesuffix("]")))
    except ValueError:
        pass
    if not host or not all(c.isascii() and (c.isalnum() or c in "-.*_") for c in host):
        raise ValueError(f"--host {host!r} is neither an address nor a name of a host")
    return x509.DNSName(host)
