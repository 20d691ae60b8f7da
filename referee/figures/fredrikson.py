"""Figures of the campaign on Fredrikson, Jha and Ristenpart, CCS 2015: three face recognisers, trees and regressions."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from oracle_server.threat_model import release
from oracle_server.victims.split_models import target_error, train_target
from oracle_server.victims.splits import class_of, load, split_named
from referee.cell import Cell
from referee.figures.common import counts_equal, rate
from referee.metrics.calibration import calibration_error
from referee.report import Figure
from referee.training import Training

if TYPE_CHECKING:
    from referee.run import Results

__all__ = ["figures", "trainings"]

_SPLITS = range(5)  # random 7/3 splits for the test error
_ARCHITECTURES = {"softmax": "softmax_regression", "mlp": "mlp", "dae": "autoencoder"}
_PAPER_ERROR = {"softmax": 0.075, "mlp": 0.042, "dae": 0.033}  # Figure 6
_MOST_ERROR = {"softmax": 0.055, "mlp": 0.06, "dae": 0.06}
_PAPER_SECONDS = {"softmax": 1.4, "mlp": 1298.7, "dae": 692.5}  # Figure 8
_PAPER_EPOCHS = {"softmax": 5.6, "mlp": 3096.3, "dae": 4728.5}
