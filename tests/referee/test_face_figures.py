"""Figures and sections on faces, from cells whose numbers are known."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from referee.figures.common import best_white_box, model_of
from referee.figures.deblurring import deblurred, deblurring_figures
from referee.figures.lineups import _write
from referee.given import BlurredPhotos
from referee.metrics.lineup import make_lineups
from referee.report import Figure
from referee.report.faces import deblurring_section, lineup_section, rounding_section, time_section
from tests.referee.lineup_world import OWNERS, TRAINING, VALIDATION, world


def cell(name: str, victim: str, top1: list[bool], **changes: Any) -> Any:
    known = {
        "method": "mi_face",
        "split": "att40",
        "self_reported": True,
        "targets": np.arange(len(top1)),
        "images": np.zeros((1, len(top1), 1, 2, 2), np.float32),
    }
    return SimpleNamespace(name=name, victim=victim, top1=np.array([top1]), **{**known, **changes})


def test_the_best_option_had_the_weights_and_nothing_else() -> None:
    cells = [
        cell("a", "mlp", [True, False]),
        cell("b", "mlp30", [True, True], split="att30"),
        cell("c", "mlp", [True, True], method="deblur"),
        cell("d", "mlp", [True, True], self_reported=False),
        cell("e", "dae", [True, True]),
    ]
    assert [model_of(one) for one in cells] == ["mlp", "mlp", "mlp", "mlp", "dae"]
    assert best_white_box(cells, "mlp").name == "b"
    assert best_white_box(cells, "mlp", "att40").name == "a"
    assert best_white_box(cells, "softmax") is None


class _Brightest(nn.Module):
    """Recognises a picture by its brightest pixel."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x.flatten(1), torch.zeros(len(x), 1)], dim=1)


@pytest.fixture
def blurred(tmp_path: Path) -> tuple[Any, Any]:
    """Four photos: person 0 named rightly, person 1 wrongly, and two of a stranger, one of them given a name."""
    people = np.array([0, 1, 4, 4])
    images = np.zeros((4, 1, 2, 2), np.float32)
    images[[0, 1], 0, [0, 0], [0, 0]] = 1.0  # while blurred, both look like person 0
    given = BlurredPhotos(images, images, people)
    np.savez(tmp_path / "r.npz", extra_label=np.array([0, 3, -1, 2]))
    done = cell("deblur/weights", "softmax30", [True, False, False, False], method="deblur", targets=people)
    split = SimpleNamespace(private=tuple(range(4)))
    results = SimpleNamespace(
        judge=lambda name: SimpleNamespace(split=split, network=_Brightest().eval(), device="cpu"),
        planned=lambda one: one,
        given=lambda one: given,
        attacker_arrays=lambda one: tmp_path / "r.npz",
    )
    return results, done


def test_deblurring_counts_people_inside_and_outside_apart(blurred: tuple[Any, Any]) -> None:
    results, done = blurred
    recognised, nobody = deblurring_figures(results, [done, cell("other", "mlp", [True])])
    assert (recognised.name, recognised.value) == ("fredrikson/deblur/recognised", 0.5)
    assert recognised.extra == {"blurred": 0.5, "label_right": 0.5, "wrongly_nobody": 0.0, "photos": 2}
    assert (nobody.name, nobody.value) == ("fredrikson/deblur/nobody", 0.5)
    assert nobody.extra == {"photos": 2, "people": 1}


def test_deblurred_photos_are_shown_with_the_answer(blurred: tuple[Any, Any]) -> None:
    results, done = blurred
    ((title, _, _, _, words, right),) = deblurred(results, [done])
    assert title == "deblur/weights"
    assert words == ["person 0", "person 3", "nobody", "person 2"]
    assert right == [True, False, True, False]
    (section,) = deblurring_section(deblurring_figures(results, [done]), "fredrikson", deblurred(results, [done]))
    assert section.tables[0].rows[0][0] == "deblur/recognised"
    assert [row.label for row in section.strips[0].rows] == ["given", "deblurred", "real"]


def test_sections_say_what_the_figures_say() -> None:
    rates = {"overall": 0.8, "identified": 0.9, "excluded": 0.5}
    figures = [
        Figure(f"f/lineup/mlp/{name}", value, low=value - 0.1, high=value + 0.1) for name, value in rates.items()
    ]
    figures += [
        Figure("f/mlp/seconds_per_face", 0.5, paper=1298.7, extra={"option": "mlp/mi_face"}),
        Figure("f/mlp/epochs", 60, paper=3096.3),
        Figure("f/rounding/mlp/r=0.1/accuracy", 0.94),
        Figure("f/rounding/mlp/r=0.1/calibration_error", 0.07, extra={"brier": 0.08}),
    ]
    (lineups,) = lineup_section(figures, "f", ["softmax", "mlp"])
    assert [list(row) for row in lineups.tables[0].rows] == [
        ["mlp", "all answers", "0.800 [0.70, 0.90]", "0.900 [0.80, 1.00]", "0.500 [0.40, 0.60]"]
    ]
    (time,) = time_section(figures, "f", ["softmax", "mlp"])
    assert time.tables[0].rows[0][:2] == ["mlp", "mlp/mi_face"]
    (rounding,) = rounding_section(figures, "f", {"mlp": {"r=0.1": "0.250", "r=0.5": "0.000"}})
    assert [list(row) for row in rounding.tables[0].rows] == [["mlp", "r=0.1", "0.940", "0.070", "0.080", "0.250"]]
    assert not time_section(figures, "g", ["mlp"])
    assert not lineup_section(figures, "g", ["mlp"])


def test_a_sheet_that_was_filled_in_stays(tmp_path: Path) -> None:
    """The same questions again leave the folder as it is; others get a folder of their own."""
    photos, faces = world()
    drawn = [
        make_lineups(faces[:10] * gain, np.arange(10), photos, OWNERS, TRAINING, VALIDATION, seed=0, per_target=1)
        for gain in (1.0, 1.0, 0.5)
    ]
    _write(tmp_path, "mlp", drawn[0], "credit")
    (folder,) = tmp_path.iterdir()
    (folder / "answers.csv").write_text("filled in")
    _write(tmp_path, "mlp", drawn[1], "credit")
    assert (folder / "answers.csv").read_text() == "filled in"
    _write(tmp_path, "mlp", drawn[2], "credit")
    assert len(list(tmp_path.iterdir())) == 2
