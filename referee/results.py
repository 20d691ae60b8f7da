"""A campaign's folder: its models, judges, finished cells, and what was handed to attackers."""

from __future__ import annotations

import json
from pathlib import Path

from torch import nn

from oracle_server.models.neural import choose_device
from oracle_server.models.repository import Repository
from protos import archive
from referee import cell as cells
from referee.attribute_results import Result
from referee.attributes import find_result
from referee.campaign import Plan, PlannedCell
from referee.cell import Cell
from referee.given import BlurredPhotos, blurred_photos
from referee.judge import Judge

__all__ = ["Results"]


class Results:
    """A campaign's folder, its judges and what is finished in it."""

    def __init__(self, plan: Plan, out: Path, device: str) -> None:
        self.plan = plan
        self.out = out
        self.device = str(choose_device(device))
        self.root = out / "victim"
        self.repository = Repository(self.root)
        self._judges: dict[str, Judge] = {}
        self._models: dict[tuple[str, str], nn.Module] = {}

    def judge(self, split: str) -> Judge:
        if split not in self._judges:
            self._judges[split] = Judge(split, self.device)
        return self._judges[split]

    def target_model(self, victim: str, device: str | None = None) -> nn.Module:
        """The target itself, on the campaign's device or another: no contract stands between it and the referee."""
        path = self.repository.archive(self.repository.card(victim))
        place = (victim, device or self.device)
        if place not in self._models:
            self._models[place] = archive.load(path, place[1])
        return self._models[place]

    def public(self, split: str) -> Path:
        return self.judge(split).publish(self.out / "public" / split)

    def attributes(self) -> list[Result]:
        """The results of the experiments on tables that are finished, in the campaign's order."""
        found = [find_result(experiment, self.out) for experiment in self.plan.attributes]
        return [result for result in found if result is not None]

    def cell_folder(self, planned: PlannedCell) -> Path:
        return self.out / "referee" / "cells" / planned.folder

    def attacker_folder(self, planned: PlannedCell) -> Path:
        return self.out / "attacker" / planned.attempt

    def attacker_arrays(self, cell: Cell) -> Path:
        """The reconstructions file of a finished cell, with what the method left beside its images."""
        return self.attacker_folder(self.planned(cell)) / "reconstructions.npz"

    def given(self, planned: PlannedCell) -> BlurredPhotos:
        """The photos that are handed to the attacker in this cell, and who is on them."""
        judge = self.judge(planned.victim.split)
        model = self.target_model(planned.victim.name, "cpu")
        return blurred_photos(judge.split, judge.faces, model, **planned.given)

    def planned(self, cell: Cell) -> PlannedCell:
        """Where a finished cell stands in the plan."""
        return next(p for p in self.plan.cells if (p.name, p.seed) == (cell.name, cell.seed))

    def finished(self, planned: PlannedCell) -> Cell | None:
        """The cell's result, if the one on disk is of just this cell."""
        found = cells.find(self.cell_folder(planned))
        if found is None:
            return None
        same = (
            found.victim == planned.victim.name
            and found.split == planned.victim.split
            and found.method == planned.method
            and found.contract == json.loads(json.dumps(planned.contract.as_dict()))
            and {name: found.parameters.get(name) for name in planned.described} == planned.described
        )
        return found if same else None
