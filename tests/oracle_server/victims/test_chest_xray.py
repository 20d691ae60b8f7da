"""ChestX-ray14: images of one finding, with label and patient, from every layout; what is wrong is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from oracle_server.victims import chest_xray
from oracle_server.victims.chest_xray import FINDINGS, TABLES
from oracle_server.victims.data import DATA, DATA_ROOT_VARIABLE, data_available
from oracle_server.victims.images import ImagesUnavailableError
from tests.oracle_server.victims.chest_miniature import HEADER, RGBA, Row, miniature, rows, write

SINGLE = [row for row in rows() if row.found in FINDINGS]
SMALL = [
    Row("b.png", "Mass", 7),
    Row("a.png", "Edema", 12),
    Row("c.png", "Mass|Edema", 7),
    Row("d.png", "No Finding", 7),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return miniature(tmp_path_factory.mktemp("data"))


def test_labels_and_patients_are_those_of_the_images(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DATA_ROOT_VARIABLE, str(root))
    assert data_available("chestxray14")
    images = DATA["chestxray14"]()
    assert images.images.shape == (len(SINGLE), 1, 64, 64)
    assert images.images.dtype == np.float32
    assert 0 <= images.images.min() < images.images.max() <= 1
    assert images.labels.tolist() == [FINDINGS.index(row.found) for row in SINGLE]
    # the grey of each image tells its finding, so that no label has moved to another image
    assert (images.images.mean((1, 2, 3)) * 255 // 10).astype(int).tolist() == images.labels.tolist()
    entries = chest_xray.entries(root)
    assert [entry.path.name for entry in entries] == [row.image for row in SINGLE]
    assert [entry.patient for entry in entries] == [row.patient for row in SINGLE]
    assert len({entry.path.parent for entry in entries}) == 2
    assert images.name == "chestxray14"
    for text in (images.credit, images.terms):
        assert "https://nihcc.app.box.com/v/ChestXray-NIHCC" in text
        assert "NIH Clinical Center" in text


def test_several_findings_and_none_are_left_out(root: Path) -> None:
    shown = {entry.path.name for entry in chest_xray.entries(root)}
    others = {row.found for row in rows() if row.image not in shown}
    assert {"No Finding", "Pneumonia|Mass", "Edema|Hernia|Mass"} < others
    assert not others & set(FINDINGS)
    assert len(rows()) - len(SINGLE) == 30


def test_an_image_with_alpha_is_made_grey(root: Path) -> None:
    place = [row.image for row in SINGLE].index(RGBA)
    entry = chest_xray.entries(root)[place]
    with Image.open(entry.path) as image:
        assert image.mode == "RGBA"
        grey = np.asarray(image.getchannel("R").resize((64, 64), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(np.rint(chest_xray.x_rays(root).images[place, 0] * 255), grey)


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("folders", [0, 1, 2])
def test_both_tables_and_every_layout_say_the_same(tmp_path: Path, table: str, folders: int) -> None:
    folder = write(tmp_path, SMALL, table, folders)
    for unread in ("train_val_list.txt", "test_list.txt"):
        (folder / unread).write_text("a.png\n")
    found = [(entry.path.name, FINDINGS[entry.finding], entry.patient) for entry in chest_xray.entries(tmp_path)]
    assert found == [("a.png", "Edema", 12), ("b.png", "Mass", 7)]
    assert chest_xray.x_rays(tmp_path).labels.tolist() == [9, 4]


def test_the_newer_table_counts_when_both_are_there(tmp_path: Path) -> None:
    write(tmp_path, SMALL, TABLES[1])
    write(tmp_path, [row._replace(patient=3) for row in SMALL], TABLES[0])
    assert {entry.patient for entry in chest_xray.entries(tmp_path)} == {3}


def test_a_byte_order_mark_and_files_of_rows_left_out_do_not_matter(tmp_path: Path) -> None:
    folder = write(tmp_path, SMALL, folders=0)
    (folder / "images" / "c.png").unlink()
    (folder / TABLES[1]).write_text((folder / TABLES[1]).read_text(), encoding="utf-8-sig")
    assert len(chest_xray.entries(tmp_path)) == 2


def _table(change: Callable[[str], str]) -> Callable[[Path], object]:
    return lambda folder: (folder / TABLES[1]).write_text(change((folder / TABLES[1]).read_text()))


def _replaced(old: str, new: str) -> Callable[[Path], object]:
    return _table(lambda text: text.replace(old, new, 1))


REFUSALS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no table": (
        lambda folder: (folder / TABLES[1]).unlink(),
        r"is missing: put Data_Entry_2017\.csv and its images into",
    ),
    "a table that is none": (
        lambda folder: (folder / TABLES[1]).write_bytes(b"\xff\xfe\x00"),
        r"cannot read the table .*Data_Entry_2017\.csv: put an undamaged copy there",
    ),
    "no patients": (
        _replaced("Patient ID", "Patient"),
        "has no column 'Patient ID': put the data set's own table there",
    ),
    "no first line": (_replaced(HEADER + "\n", ""), "has no column 'Image Index'.*with its first line"),
    "an empty table": (_table(lambda text: ""), "has no column 'Image Index'"),
    "a row cut short": (
        _replaced("b.png,Mass,0,7,58,M,PA,2682,2749,0.143,0.143,", "b.png,Mass"),
        "line 2 is cut short",
    ),
    "an unknown finding": (
        _replaced("Mass|Edema", "Mass|Flu"),
        r"line 4 has the unknown finding 'Flu': .* joined with \|",
    ),
    "another spelling": (_replaced("Edema", "edema"), "line 3 has the unknown finding 'edema'"),
    "nothing and something": (_replaced("Mass|Edema", "Mass|No Finding"), "unknown finding 'No Finding': .* alone"),
    "an empty cell": (_replaced("Mass", ""), "line 2 has the unknown finding ''"),
    "a nameless patient": (
        _replaced("Mass,0,7", "Mass,0,"),
        "line 2 has the Patient ID '': give each patient a number",
    ),
    "a patient like no other": (_replaced("Mass,0,7", f"Mass,0,{10**20}"), "line 2 has the Patient ID '1000"),
    "an image twice": (_replaced("d.png", "b.png"), r"line 5 names the image 'b\.png' again: remove one of its rows"),
    "no single finding": (_table(lambda text: text.splitlines()[0]), "no row of .* has exactly one finding"),
    "no image of a row": (
        lambda folder: (folder / "images" / "b.png").unlink(),
        r"names, 1 are not there, b\.png the first: unpack all archives into .*, or remove their rows",
    ),
    "no images at all": (
        lambda folder: (folder / "images").rename(folder / "photos"),
        r"names, 2 are not there, a\.png",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_is_not_as_it_should_be_is_refused(tmp_path: Path, name: str) -> None:
    damage, sentence = REFUSALS[name]
    folder = write(tmp_path, SMALL, folders=0)
    assert len(chest_xray.entries(tmp_path)) == 2
    damage(folder)
    with pytest.raises(ImagesUnavailableError, match=sentence) as refused:
        chest_xray.entries(tmp_path)
    assert str(folder) in str(refused.value)
    with pytest.raises(ImagesUnavailableError, match=sentence):
        chest_xray.x_rays(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\x89PNG broken"])
def test_an_unreadable_image_is_named(tmp_path: Path, content: bytes) -> None:
    folder = write(tmp_path, SMALL, folders=0)
    (folder / "images" / "a.png").write_bytes(content)
    with pytest.raises(ImagesUnavailableError, match=r"cannot read the photo .*a\.png: replace or remove it"):
        chest_xray.x_rays(tmp_path)


def test_an_image_cut_short_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path, SMALL, folders=0)
    whole = (folder / "images" / "a.png").read_bytes()
    (folder / "images" / "a.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImagesUnavailableError, match=r"cannot read the photo .*a\.png"):
        chest_xray.x_rays(tmp_path)


def test_without_a_folder_the_sentence_says_where_to_put_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DATA_ROOT_VARIABLE, raising=False)
    with pytest.raises(ImagesUnavailableError, match=r"chestxray14 is read from .* ChestX-ray14/Data_Entry_2017\.csv"):
        DATA["chestxray14"]()
    monkeypatch.setenv(DATA_ROOT_VARIABLE, str(tmp_path))
    assert not data_available("chestxray14")
    with pytest.raises(ImagesUnavailableError, match=str(tmp_path)):
        DATA["chestxray14"]()
