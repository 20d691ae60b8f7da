"""What the attacker learns from public data: image priors, one file for each kind. `KINDS` is what
`attacker prior train` takes.
"""

from __future__ import annotations

from typing import Any

from attacker.priors.dcgan import DCGAN
from attacker.priors.pca import PCA
from attacker.priors.style import Style
from attacker.priors.vae import VAE

__all__ = ["KINDS"]

KINDS: dict[str, type[Any]] = {"pca": PCA, "vae": VAE, "dcgan": DCGAN, "style": Style}
