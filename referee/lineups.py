"""Line-ups put to an onlooker: to an evaluation network, or to people as a folder of pictures and a sheet to fill in.

    question_001.png ...   the query on the left, the numbered photos on the right
    answers.csv            question, answer; the answers are empty
    README.txt             what to do, and the credit line of the photos
    key.csv                question, answer, person, control; keep it from whoever answers

Answers are counted from 1 in these files, 6 is "not present"; persons are counted from 0, as everywhere.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import nn

from referee.atomic import write_atomically
from referee.metrics.lineup import CHOICES, NOT_PRESENT, LineUps, Rates, rates

__all__ = ["score_answers", "view_of", "write_lineups"]

_GAP, _CAPTION = 12, 20
_ANSWERS = {str(number + 1): number for number in range(CHOICES + 1)}

_README = """Line-ups: {questions} questions

Each question_NNN.png shows a picture on the left and {choices} numbered photos. Which photo shows the same person as
the picture? Write its number, 1 to {choices}, into answers.csv behind the question, or {absent} when none of them does.
Answer all questions, and do not look into key.csv, which holds the right answers.

This folder holds photos of people and pictures made from a model of them: private. Do not pass it on.
{credit}
"""


def view_of(network: nn.Module, *, device: str = "cpu", batch: int = 256) -> Callable[[np.ndarray], np.ndarray]:
    """How a network sees pictures: (N, C, H, W) in [0, 1] -> (N, K), whom of the K people it knows each one shows.

    Softmax of the mean of the logits of a picture and of its mirror image. On line-ups of real held-out photos these
    answered better than logits and penultimate features did: of those that show the person 99.8 to 100% over three
    networks, against 98 to 99% and 92 to 95%. The network must be in evaluation mode.
    """
    if network.training:
        raise ValueError("the evaluation network is in training mode; call eval() on it first")

    def view(images: np.ndarray) -> np.ndarray:
        parts = torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32)).split(batch)
        with torch.no_grad():
            logits = [(network(part.to(device)) + network(part.flip(-1).to(device))) / 2 for part in parts]
        scores: np.ndarray = torch.cat(logits).double().softmax(dim=1).cpu().numpy()
        return scores

    return view


def write_lineups(folder: Path, lineups: LineUps, credit: str) -> None:
    """Write the questions for people to answer. `credit` is the data set's credit line and terms.

    Grey pictures only. Contrast of reconstructions is stretched for the eye; photos are shown as they are.

    Raises:
        ValueError: pictures that aren't grey, or a folder that already holds a sheet of answers.
    """
    if lineups.photos.shape[1] != 1:
        raise ValueError(f"line-ups are drawn in grey: photos must be (N, 1, H, W), not {lineups.photos.shape}")
    if (folder / "answers.csv").exists():
        raise ValueError(f"{folder} already holds answers.csv, perhaps filled in: name another folder")
    names = [f"{number:03d}" for number in range(1, len(lineups.rows) + 1)]
    for name, query, choices, real in zip(names, lineups.queries, lineups.choices, lineups.is_control, strict=True):
        write_atomically(folder / f"question_{name}.png", _page(query[0], choices[:, 0], stretch=not real))
    control = lineups.is_control.astype(int).tolist()
    key = zip(names, (lineups.answer + 1).tolist(), lineups.target.tolist(), control, strict=True)
    _write_table(folder / "key.csv", ("question", "answer", "person", "control"), key)
    text = _README.format(questions=len(names), absent=NOT_PRESENT + 1, choices=CHOICES, credit=credit)
    write_atomically(folder / "README.txt", text.encode())
    _write_table(folder / "answers.csv", ("question", "answer"), ((name, "") for name in names))


def score_answers(folder: Path) -> Rates:
    """Rates of a filled answers.csv against key.csv, both in `folder`.

    Raises:
        ValueError: a file is missing or has other columns, or a question has no answer, two, or an unknown one.
    """
    sheet, last = folder / "answers.csv", len(_ANSWERS)
    key = _read_table(folder / "key.csv", ("question", "answer", "person", "control"))
    filled = _read_table(sheet, ("question", "answer"))
    # A spreadsheet drops the zeros in front.
    given = {row["question"].strip().zfill(3): row["answer"].strip() for row in filled}
    if len(given) != len(filled):
        raise ValueError(f"{sheet} names a question twice: leave one line for each question")
    if strange := sorted(given.keys() - {row["question"] for row in key}):
        raise ValueError(f"{sheet} answers questions that are not in key.csv: {', '.join(strange)}")
    if missing := [row["question"] for row in key if not given.get(row["question"])]:
        raise ValueError(
            f"{sheet} has no answer to {', '.join(missing)}: give a number 1 to {last}, {last} = not present"
        )
    if unknown := [name for name, answer in given.items() if answer not in _ANSWERS]:
        raise ValueError(
            f"{sheet}: the answer to {', '.join(unknown)} must be a number 1 to {last}, {last} = not present"
        )
    try:
        truth = np.array([_ANSWERS[row["answer"]] for row in key])
        person, control = (np.array([int(row[name]) for row in key]) for name in ("person", "control"))
    except (KeyError, ValueError) as error:
        raise ValueError(f"{folder / 'key.csv'} was changed: restore the file that was written here") from error
    answers = np.array([_ANSWERS[given[row["question"]]] for row in key])
    return rates(answers == truth, truth, person, control.astype(bool))


def _page(query: np.ndarray, choices: np.ndarray, *, stretch: bool) -> bytes:
    """PNG of one question: query (H, W), a rule, choices (5, H, W) numbered from 1, each at twice its size."""
    height, width = (2 * side for side in query.shape)
    left = 3 * _GAP + width  # where the photos begin
    page = Image.new("L", (left + CHOICES * (width + _GAP) + _GAP, height + 2 * _GAP + _CAPTION), 255)
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(size=_CAPTION - 6)
    page.paste(_picture(query, stretch=stretch), (_GAP, _GAP))
    draw.text((_GAP, height + _GAP), f"Who is this?   {NOT_PRESENT + 1} = not present", fill=0, font=font)
    draw.line((left - _GAP, _GAP, left - _GAP, height + _GAP), fill=0, width=2)
    for place, choice in enumerate(choices):
        x = left + place * (width + _GAP)
        page.paste(_picture(choice, stretch=False), (x, _GAP))
        draw.text((x + width / 2, height + _GAP), str(place + 1), fill=0, font=font, anchor="ma")
    buffer = io.BytesIO()
    page.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _picture(image: np.ndarray, *, stretch: bool) -> Image.Image:
    """(H, W) in [0, 1] at twice its size; `stretch` spreads its 1st to 99th percentile over black to white."""
    shown = image.clip(0, 1)
    low, high = np.percentile(shown, (1, 99)) if stretch else (0.0, 1.0)
    if high > low:
        shown = ((shown - low) / (high - low)).clip(0, 1)
    grey = Image.fromarray(np.rint(shown * 255).astype(np.uint8))
    return grey.resize((2 * grey.width, 2 * grey.height), Image.Resampling.BICUBIC)


def _write_table(path: Path, columns: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    write_atomically(path, text.getvalue().encode())


def _read_table(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """Rows by column, a cell that is missing as ""; a spreadsheet's byte order mark is no part of a name."""
    try:
        lines = list(csv.reader(path.read_text(encoding="utf-8-sig").splitlines()))
    except FileNotFoundError as error:
        raise ValueError(
            f"{path} is missing: line-ups are a folder that was written with its key and answers"
        ) from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"cannot read {path} as a table of comma separated values: save it as CSV, UTF-8") from error
    if not lines or tuple(lines[0]) != columns:
        raise ValueError(f"{path} must begin with the line {','.join(columns)}")
    return [dict(zip_longest(columns, line[: len(columns)], fillvalue="")) for line in lines[1:] if any(line)]
