"""`python -m benchmarks.peers [NAME ...]`: the environments of the peers, in `.peers`."""

from __future__ import annotations

import subprocess
import venv
from importlib.metadata import version
from pathlib import Path

import click

from benchmarks.peers.measure import PEERS
from benchmarks.peers.peer import ENVIRONMENTS, Peer

__all__ = ["main"]

_LIKE_OURS = ("torch", "torchvision")
_PEERS = {peer.environment: peer for peer in PEERS}


@click.command(epilog="Example: python -m benchmarks.peers torchserve triton")
@click.argument("names", nargs=-1, type=click.Choice(list(_PEERS)))
def main(names: tuple[str, ...]) -> None:
    """Install the servers that the benchmark compares with, all of them when no NAME is given: about 8 GB.

    Each has an environment of its own. All see one torch, of the version that this project runs on; TorchServe also
    needs Java 17.
    """
    torch = _made("torch", *(f"{package}=={version(package).partition('+')[0]}" for package in _LIKE_OURS))
    for name in names or _PEERS:
        _install(_PEERS[name], torch)


def _install(peer: Peer, torch: Path) -> None:
    """What the peer pins comes before what torch brought, since its own packages come first."""
    packages = _made(peer.environment)
    (packages / "torch.pth").write_text(f"{torch}\n")
    _made(peer.environment, *peer.requirements)


def _made(name: str, *requirements: str) -> Path:
    """Where the packages of the environment `name` lie, with these among them."""
    folder = ENVIRONMENTS / name
    if not (folder / "bin" / "python").exists():
        venv.create(folder, with_pip=True, symlinks=True)  # what is next to its Python is found from there
    if requirements:
        click.echo(f"{folder}: {' '.join(requirements)}")
        pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *requirements], check=True)
    return next(folder.glob("lib/python*/site-packages"))


if __name__ == "__main__":
    main()
