"""A campaign's folder: its models, judges, finished cells, and what was handed to attackers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Lock, RLock

from torch import nn

from oracle_server.models.neural import choose_device
from oracle_server.models.repository import Repository
from protos import archive
from referee import cell as cells
from referee.attribute_results import Result
from referee.attributes import find_result
from referee.benign import answers_of
from referee.campaign import Plan, PlannedCell, Victim
from referee.cell import Cell
from referee.given import BlurredPhotos, GivenAnswers, blurred_photos
from referee.hosted import absent
from referee.judge import Judge
from referee.processes import denied_in

__all__ = ["Results"]


class Results:
    """A campaign's folder, its judges and what is finished in it.

    plan      what runs here: victims whose images are not on this machine are left out, with their cells
    absent    those victims' names, each with what to do about it
    denied    folders that no attacker may open
    lock      for what is loaded once and shared by threads; asking is for keys of benign users, which take longer
    """

    def __init__(
        self,
        plan: Plan,
        out: Path,
        device: str,
        *,
        judges: Mapping[str, Judge] | None = None,
        denied: Sequence[Path] = (),
    ) -> None:
        """`judges` are at hand for some splits, by name: those of images that were handed over. `denied` are further
        folders, beside the campaign's own.
        """
        self._judges: dict[str, Judge] = dict(judges or {})
        named = dict.fromkeys(victim.split for victim in plan.victims)
        why = {split: None if split in self._judges else absent(split) for split in named}
        self.absent = {victim.name: said for victim in plan.victims if (said := why[victim.split]) is not None}
        self.plan = replace(
            plan,
            victims=tuple(victim for victim in plan.victims if victim.name not in self.absent),
            cells=tuple(cell for cell in plan.cells if cell.victim.name not in self.absent),
        )
        self.lock, self.asking = RLock(), Lock()
        self.out = out
        self.device = str(choose_device(device))
        self.root = out / "victim"
        self.denied = [*denied_in(out), *denied]
        self.repository = Repository(self.root)
        self._models: dict[tuple[str, str], nn.Module] = {}

    def judge(self, split: str) -> Judge:
        with self.lock:
            if split not in self._judges:
                self._judges[split] = Judge(split, self.device)
            return self._judges[split]

    def target_model(self, victim: str, device: str | None = None) -> nn.Module:
        """The target itself, on the campaign's device or another: no contract stands between it and the referee."""
        path = self.repository.archive(self.repository.card(victim))
        place = (victim, device or self.device)
        with self.lock:
            if place not in self._models:
                self._models[place] = archive.load(path, place[1])
            return self._models[place]

    def true_model(self, victim: Victim) -> nn.Module | None:
        """The target as the judge asks it how sure it is of a class; None for a model that has no classes."""
        return None if victim.kind == "features" else self.target_model(victim.name)

    def public(self, split: str) -> Path:
        with self.lock:
            return self.judge(split).publish(self.out / "public" / split)

    def prior(self, planned: PlannedCell) -> Path | None:
        """The folder of the image prior that a cell's attacker is given, if any."""
        if planned.prior is None:
            return None
        return planned.prior.folder(self.public(planned.victim.split), self.device)

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

    def given(self, planned: PlannedCell) -> BlurredPhotos | GivenAnswers:
        """What is handed to the attacker in this cell, which photos are behind it, and who is on them.

        `LookupError` for answers that nobody has asked for yet.
        """
        if planned.asked:
            return answers_of(self, planned)
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
