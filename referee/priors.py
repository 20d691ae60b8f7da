"""The image priors of a campaign: learned once by a process of the attacker, and kept by the hash of what made them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from attacker.priors import KINDS
from attacker.public import sha256_of_public
from attacker.settings import parse_settings
from oracle_server.victims import cache
from referee.processes import ProcessError, run_attacker

if TYPE_CHECKING:
    from referee.results import Results

__all__ = ["PlannedPrior", "learn_priors"]


@dataclass(frozen=True)
class PlannedPrior:
    """A prior by name; `ValueError` for a kind or a parameter that there is not."""

    name: str
    kind: str
    seed: int = 0
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"prior {self.name}: no kind {self.kind!r}; there is {', '.join(KINDS)}")
        try:
            parse_settings(KINDS[self.kind], self.kind, self.settings())
        except ValueError as error:
            raise ValueError(f"prior {self.name}: {error}") from None

    def settings(self) -> list[str]:
        """The parameters as the attacker's command takes them."""
        return [f"{name}={value}" for name, value in self.parameters.items()]

    @property
    def described(self) -> dict[str, Any]:
        """What a finished cell says of it."""
        return {"kind": self.kind, "seed": self.seed, **self.parameters}

    def folder(self, public: Path, device: str) -> Path:
        """Where it is kept, when it is learned from these images."""
        device = torch.device(device).type
        made = {**self.described, "public": sha256_of_public(public), "torch": torch.__version__, "device": device}
        digest = hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()
        return cache.root().resolve() / "priors" / digest[:32]


def learn_priors(results: Results, say: Callable[[str], None], *, quiet: bool = True) -> None:
    """Have processes of the attacker learn what the campaign's cells search; a finished prior is left as it is."""
    wanted = {(cell.victim.split, cell.prior.name): cell.prior for cell in results.plan.cells if cell.prior is not None}
    for (split, _), prior in wanted.items():
        public = results.public(split)
        folder = prior.folder(public, results.device)
        if (folder / "card.json").exists():
            continue
        say(f"learning the prior {prior.name} from the public images of {split}")
        words = ["train", prior.kind, "--public", str(public), "--out", str(folder), "--seed", str(prior.seed)]
        words += [word for setting in prior.settings() for word in ("--set", setting)]
        words += ["--device", results.device]
        status, said = run_attacker(
            None, None, words, folder=folder, denied=results.denied, quiet=quiet, command="prior"
        )
        if status != 0:
            last = said.strip().splitlines()[-1] if said.strip() else f"status {status}"
            raise ProcessError(f"the prior {prior.name} was not learned ({last}): see {folder / 'attacker.log'}")
