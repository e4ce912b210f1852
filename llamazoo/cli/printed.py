"""How commands print: tables, numbers and JSON, with nothing in a name taken for markup."""

import json
from collections.abc import Sequence
from typing import Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

__all__ = ["console", "counted", "print_json", "table"]


def console(*, stderr: bool = False) -> Console:
    """A console that takes text as it is."""
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def print_json(data: Any) -> None:
    """Data for a program to read; plain ASCII."""
    typer.echo(json.dumps(data, indent=2))


def table(*columns: str, right: Sequence[str] = (), whole: Sequence[str] = ()) -> Table:
    """An empty table with these headings; the columns in `right` hold numbers, and neither these nor those in `whole` are broken."""
    made = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for column in columns:
        number = column in right
        made.add_column(column, justify="right" if number else "left", no_wrap=number or column in whole, overflow="fold")
    return made


def counted(count: int) -> str:
    """A large number in short: 6.74 billion."""
    for power, word in ((12, "trillion"), (9, "billion"), (6, "million")):
        if count >= (10**power if power == 6 else 999.5 * 10 ** (power - 3)):  # not a thousand million, which is a billion
            short = count / 10**power
            return f"{short:.{2 if short < 10 else 1 if short < 100 else 0}f} {word}"
    return f"{count:,}"
