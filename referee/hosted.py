"""The models of a campaign: which can be made on this machine, and how each is trained and hosted."""

from __future__ import annotations

from functools import partial
from typing import Any

from attacker.decoder import Decoder
from oracle_server.models.repository import Repository
from oracle_server.victims.data import DATA, data_available
from oracle_server.victims.feature_network import train_and_host_features
from oracle_server.victims.hosting import train_and_host
from oracle_server.victims.images import ImagesUnavailableError
from oracle_server.victims.joint import train_and_host_joint
from oracle_server.victims.splits import load, split_named
from referee.campaign import Victim

__all__ = ["absent", "host_victim"]


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
        settings: dict[str, Any] = dict(victim.joint)
        decoder: Any = Decoder
        if (width := settings.pop("width", None)) is not None:
            decoder = partial(Decoder, width=int(width))
            settings["decoder_name"] = f"attacker.decoder:Decoder of width {int(width)}"
        train_and_host_joint(victim.architecture, victim.split, repository, decoder=decoder, **settings, **known)
    else:
        train_and_host(victim.architecture, victim.split, repository, **known)
