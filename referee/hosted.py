"""The models of a campaign: which can be made on this machine, and how each is trained and hosted."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from attacker.decoder import Decoder
from oracle_server.models.repository import Repository
from oracle_server.victims.data import DATA, data_available
from oracle_server.victims.feature_network import train_and_host_features
from oracle_server.victims.hosting import train_and_host
from oracle_server.victims.images import ImagesUnavailableError
from oracle_server.victims.joint import MakeInverse, load_inverse, train_and_host_joint
from oracle_server.victims.splits import load, split_named

if TYPE_CHECKING:
    from referee.campaign import Victim

__all__ = ["absent", "developers_network", "host_victim"]

_WIDTH = 32  # of the network beside a jointly trained classifier, if the campaign names none


def absent(split_name: str) -> str | None:
    """Why the images of a split are not here, if they are not: in words that say what to set."""
    try:
        split = split_named(split_name)
        if not data_available(split.data):
            load(split)  # says why not
        if split.published_data and not data_available(split.published_data):
            DATA[split.published_data]()
    except ImagesUnavailableError as error:
        return str(error)
    return None


def host_victim(victim: Victim, repository: Repository, device: str) -> None:
    """Train the victim, or find it in the cache, and host it under its name.

    A `width` in `joint` is that of the network that is trained beside the classifier.
    """
    known: dict[str, Any] = {"name": victim.name, "seed": victim.seed, "device": device, "deterministic": True}
    if victim.kind == "features":
        train_and_host_features(victim.split, repository, **known)
    elif victim.joint is not None:
        width, decoder = _decoder(victim)
        settings: dict[str, Any] = {name: value for name, value in victim.joint.items() if name != "width"}
        settings |= {"decoder": decoder, "decoder_name": f"attacker.decoder:Decoder of width {width}"}
        train_and_host_joint(victim.architecture, victim.split, repository, **settings, **known)
    else:
        known |= {"max_steps": victim.max_steps, "defence": victim.defence}
        train_and_host(victim.architecture, victim.split, repository, **known)


def developers_network(victim: Victim, repository: Repository) -> Decoder:
    """The network that was trained together with a hosted victim and that its developer keeps."""
    _, decoder = _decoder(victim)
    network = load_inverse(repository, victim.name, decoder)
    assert isinstance(network, Decoder)
    return network


def _decoder(victim: Victim) -> tuple[int, MakeInverse]:
    width = int((victim.joint or {}).get("width", _WIDTH))
    return width, partial(Decoder, width=width)
