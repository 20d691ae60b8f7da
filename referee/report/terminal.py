"""The same table on a terminal, in as many columns as fit."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from referee.cell import Cell
from referee.report import tables
from referee.report.context import Campaign
from referee.report.headline import headline
from referee.report.sections import Section
from referee.report.sections import Table as PlainTable
from referee.report.tables import Row

__all__ = ["print_report"]

# Columns in the order of their printing, with a short head; wide terminals show all of them.
WIDE = {
    "method": "Method",
    "top1": "Top-1 [95%]",
    "top5": "Top-5",
    "own": "Own\nclass",
    "others": "Others",
    "confidence": "True\nconf.",
    "mse": "MSE",
    "ssim": "SSIM",
    "rows_ledger": "Rows,\nledger",
    "rows_attacker": "Rows,\nattacker",
    "agree": "Agree",
    "bits": "Bits,\n≤",
    "seconds": "Sec.",
}
NARROW = {
    "method": "Method",
    "top1": "Top-1 [95%]",
    "own": "Own",
    "others": "Others",
    "mse": "MSE",
    "rows_ledger": "Rows",
}
WIDE_FROM = 116
STYLES = {"floor": "dim", "ceiling": "dim", "attack": ""}
_NOTE = Text(
    "Own and others: correlation with the own class and, on average, with the other classes. Bits: an upper "
    "bound on what the answers could have told, not a measured leak.",
    style="dim",
)


def print_report(cells: Sequence[Cell], campaign: Campaign, console: Console | None = None) -> None:
    """Print headline, table, the sentences of refusals, and figures; under 116 columns the table is shortened."""
    console = console or Console()
    rows = tables.build(cells, campaign)
    for section in campaign.first:
        _print_section(section, console)
    for split in dict.fromkeys(row.split for row in rows):
        mine = [row for row in rows if row.split == split]
        words = headline(mine, campaign.split(split))
        console.print()
        console.print(Text.assemble((words.lead, "bold"), " ", " ".join(words.rest)))
        console.print()
        console.print(_table(mine, console.width, f"Split {split}"))
        for text in _sentences(mine):
            console.print(text)
    if rows:
        console.print(_NOTE)
    for section in campaign.sections:
        _print_section(section, console)
    if campaign.figures:
        console.print()
        console.print(_figures(campaign, console.width))


def _print_section(section: Section, console: Console) -> None:
    """Title, words and tables; charts and images are the page's."""
    console.print()
    console.print(Text(section.title, style="bold"))
    for text in section.paragraphs:
        console.print(Text(text))
    for table in section.tables:
        console.print()
        console.print(_plain_table(table, console.width))
        if table.note:
            console.print(Text(table.note, style="dim"))


def _plain_table(table: PlainTable, width: int) -> Table:
    columns = table.narrow if table.narrow and width < WIDE_FROM else range(len(table.heads))
    printed = _empty(table.title)
    for column in columns:
        printed.add_column(table.heads[column], justify="left" if column < table.left else "right", overflow="fold")
    for place, row in enumerate(table.rows):
        printed.add_row(*(Text(row[column]) for column in columns), style="dim" if place in table.weak else "")
    return printed


def _table(rows: Sequence[Row], width: int, title: str) -> Table:
    left_out = set(tables.COMPARED) - set(tables.compared(rows))
    columns = {key: head for key, head in (WIDE if width >= WIDE_FROM else NARROW).items() if key not in left_out}
    table = _empty(title)
    for key, head in columns.items():
        left = key in tables.LEFT
        table.add_column(head, justify="left" if left else "right", no_wrap=not left, overflow="fold")
    contract = None
    for row in rows:
        if row.contract != contract:
            if contract is not None:
                table.add_section()
            contract = row.contract
            table.add_row(Text(contract or "floors and ceiling", style="bold"))
        text = tables.texts(row)
        indent = "  " + (f"{row.kind}: " if row.kind != "attack" else "")
        cells = [Text(indent + text["method"], style=STYLES[row.kind])]
        if row.status == "done":
            cells += [Text(text[key], style=STYLES[row.kind]) for key in columns if key != "method"]
        else:
            cells.append(Text(row.status, style="bold red" if row.status in ("void", "failed") else "yellow"))
        table.add_row(*cells)
    return table


def _sentences(rows: Sequence[Row]) -> list[Text]:
    """One line for each refusal, failure and void row; the same sentence for several rows is said once."""
    said: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row.sentence:
            said.setdefault((row.contract, row.sentence), []).append(row.method)
    return [
        Text.assemble((f"{contract}, {' and '.join(methods)}: ", "bold"), sentence)
        for (contract, sentence), methods in said.items()
    ]


def _figures(campaign: Campaign, width: int) -> Table:
    heads = {"name": "Name", "value": "Value", "interval": "Interval", "bound": "Bound", "paper": "Paper"}
    if width < WIDE_FROM:
        del heads["interval"]
    table = _empty("Figures")
    for key, head in heads.items():
        left = key == "name"
        table.add_column(head, justify="left" if left else "right", no_wrap=not left, overflow="fold")
    table.add_column("Result", no_wrap=True)
    styles = {"pass": "green", "miss": "bold red", "measured": "dim"}
    for row in tables.figure_rows(campaign):
        row["value"] = f"{row['value']} {row['unit']}".strip()
        table.add_row(*[row[key] for key in heads], Text(row["result"], style=styles[row["result"]]))
    return table


def _empty(title: str) -> Table:
    return Table(
        box=box.SIMPLE_HEAD,
        title=title,
        title_justify="left",
        title_style="bold",
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
