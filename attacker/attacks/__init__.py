"""The methods, each in the file named after it. `METHODS` is what `attacker list` prints and `attacker run` takes."""

from __future__ import annotations

from typing import Any

from attacker.attacks.adversarial import Adversarial
from attacker.attacks.brep_mi import BrepMI
from attacker.attacks.deblur import Deblur
from attacker.attacks.equation_solving import EquationSolving
from attacker.attacks.estimated_gradient import EstimatedGradient
from attacker.attacks.gmi import GMI
from attacker.attacks.ideal_model import IdealModel
from attacker.attacks.inversion_network import InversionNetwork
from attacker.attacks.ked_mi import KEDMI
from attacker.attacks.latent_gradient import LatentGradient
from attacker.attacks.map_inversion import MapInversion
from attacker.attacks.marginal_mode import MarginalMode
from attacker.attacks.mi_face import MIFace
from attacker.attacks.mi_face_code import MIFaceCode
from attacker.attacks.numeric import Numeric
from attacker.attacks.random_draws import RandomDraws
from attacker.attacks.random_guess import RandomGuess
from attacker.attacks.vmi import VMI
from attacker.attacks.white_box_counts import WhiteBoxCounts
from attacker.attacks.yoshimura import Yoshimura
from attacker.attacks.yoshimura_white import YoshimuraWhite

__all__ = [
    "GMI",
    "KEDMI",
    "METHODS",
    "VMI",
    "Adversarial",
    "BrepMI",
    "Deblur",
    "EquationSolving",
    "EstimatedGradient",
    "IdealModel",
    "InversionNetwork",
    "LatentGradient",
    "MIFace",
    "MIFaceCode",
    "MapInversion",
    "MarginalMode",
    "Numeric",
    "RandomDraws",
    "RandomGuess",
    "WhiteBoxCounts",
    "Yoshimura",
    "YoshimuraWhite",
]

METHODS: dict[str, type[Any]] = {
    "mi_face": MIFace,
    "mi_face_code": MIFaceCode,
    "numeric": Numeric,
    "estimated_gradient": EstimatedGradient,
    "deblur": Deblur,
    "yoshimura": Yoshimura,
    "yoshimura_white": YoshimuraWhite,
    "brep_mi": BrepMI,
    "gmi": GMI,
    "ked_mi": KEDMI,
    "vmi": VMI,
    "latent_gradient": LatentGradient,
    "inversion_network": InversionNetwork,
    "equation_solving": EquationSolving,
    "random_draws": RandomDraws,
    "adversarial": Adversarial,
    "map_inversion": MapInversion,
    "white_box_counts": WhiteBoxCounts,
    "random_guess": RandomGuess,
    "marginal_mode": MarginalMode,
    "ideal_model": IdealModel,
}
