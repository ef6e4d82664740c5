"""Reads tables as spreadsheets and people write them, for all other modules."""

from __future__ import annotations

import csv
import io
import re
import warnings
import zipfile
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Protocol

import pandas as pd

from derm_hash.errors import InputError, one_line, shown

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
EXCEL, OLD_EXCEL = b"PK\x03\x04", b"\xd0\xcf\x11\xe0"  # how the files of .xlsx and .xls begin
MAX_BYTES = 256 * 1024**2  # of an unpacked workbook; one of a million lines has about as many
TOP = 20  # the header is one of the first 20 lines

Rows = dict[int, list[str]]
"""The cells of each line that has any, by its number in the file, from 1."""


class Readable(Protocol):
    """A path, or a file in an archive; ``str()`` is its name in messages."""

    def read_bytes(self) -> bytes:
        """The contents of the file."""


def read_table(
    file: str | Readable,
    columns: Sequence[str] = (),
    remedy: str = "",
    optional: Sequence[str] = (),
) -> pd.DataFrame:
    """Read a table; every value is a string without outer blanks.

    The table is text in UTF-8, UTF-16 or Windows-1252, with commas, semicolons, tabs or bars
    between its values, or an Excel workbook (.xlsx), of which the first sheet with the columns is
    read. Titles, or a line such as ``sep=;``, may stand above the header. Lines without any value
    are skipped.

    Parameters
    ----------
    file : path or Readable
    columns : sequence of str
        Columns that the table must have. If any are named, it must have rows, too.
    remedy : str
        What the user can do about a missing column or a table without rows.
    optional : sequence of str
        Columns that it may have. These and `columns` are found in any case, and with blanks or
        hyphens in the place of underscores, and get the names given here.

    Returns
    -------
    DataFrame
        A row's index is the number of its line in the file minus 2, so that it is 0..N-1 where the
        header is the first line and no line is empty.

    Raises
    ------
    InputError
        If the file is missing or empty, is no such table, has a row with more values than
        columns, two columns of one name, or lacks a column or rows that it must have.
    """
    file = Path(file) if isinstance(file, str) else file
    rows, kind = _rows(file, columns)
    if not rows:
        raise InputError(f"{file} is empty: replace it, or prepare the folder again")
    header = _header(rows, columns) or min(rows)
    names = [name or f"Unnamed: {i}" for i, name in enumerate(rows[header])]
    for column in (*columns, *optional):
        same = [i for i, name in enumerate(names) if _plain(name) == _plain(column)]
        if column not in names and len(same) == 1:
            names[same[0]] = column
    below = {number: cells for number, cells in rows.items() if number > header}
    for number, cells in below.items():
        if any(cells[len(names) :]):
            problem = f"line {number} has more values than the header"
            raise _no_table(file, kind, problem)
    cells = [line[: len(names)] + [""] * (len(names) - len(line)) for line in below.values()]
    index = pd.Index([number - 2 for number in below], dtype="int64")
    table = pd.DataFrame(cells, index=index, columns=names, dtype=str)
    if not table.columns.is_unique:
        again = shown(table.columns[table.columns.duplicated()][0])
        raise InputError(f"{file} has two columns '{again}': rename or remove one of them")
    for column in columns:
        if column not in table:
            found = shown(", ".join(table.columns))
            raise InputError(f"{file} has no column {column!r} (its columns: {found}): {remedy}")
    if columns and table.empty:
        raise InputError(f"{file} has no rows: {remedy}")
    return table


def _rows(file: Readable, columns: Sequence[str]) -> tuple[Rows, str]:
    """The lines of a table, and what kind of table it is."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise InputError(
            f"{file} cannot be read as a table ({error.strerror}): check the path"
        ) from error
    if data.startswith(OLD_EXCEL):
        raise InputError(
            f"{file} is an old Excel workbook or one with a password: save it as .xlsx or CSV, "
            "without a password"
        )
    return (_sheet if data.startswith(EXCEL) else _lines)(data, file, columns)


def _header(rows: Rows, columns: Sequence[str]) -> int | None:
    """The first of the top lines that has all the columns; None if there is none."""
    wanted = {_plain(column) for column in columns}
    return next((n for n in islice(rows, TOP) if wanted <= set(map(_plain, rows[n]))), None)


def _plain(name: str) -> str:
    """The name of a column in small letters, with underscores."""
    return re.sub(r"[\s-]", "_", name.casefold())


def _no_table(file: Readable, kind: str, problem: str) -> InputError:
    return InputError(
        f"{file} cannot be read as a table {kind} ({problem}): correct that line, or save it as "
        "CSV again"
    )


def _lines(data: bytes, file: Readable, columns: Sequence[str]) -> tuple[Rows, str]:
    """The lines of a text."""
    text = _decoded(data, file)
    stated = text.partition("\n")[0].strip().strip('"').lower()
    skipped = int(stated.startswith("sep=") and len(stated) <= 5)
    separator = (stated[4:] or "\t") if skipped else _separator(text, columns)
    kind = f"separated by {SEPARATORS.get(separator, repr(separator))}"
    if text.startswith("||"):  # PH2's table has one or two bars between its values
        text = re.sub(r"\|+", "|", text)
    rows, number = {}, 1
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            if any(cells) and number > skipped:
                rows[number] = cells
            number = reader.line_num + 1  # a quoted value may go over several lines
    except csv.Error as error:
        raise _no_table(file, kind, f"line {number}: {one_line(error)}") from error
    return rows, kind


def _decoded(data: bytes, file: Readable) -> str:
    """Text from bytes; `InputError` if they are no text, a warning if the encoding is a guess."""
    encoding = "utf-8-sig"
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    elif b"\0" in data[:200]:
        encoding = "utf-16-le" if data[1:2] == b"\0" else "utf-16-be"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        text = data.decode("cp1252", errors="replace")
    if any(ord(character) < 32 and character not in "\t\r\n" for character in text):
        raise InputError(f"{file} cannot be read as a table in UTF-8 text: save it as CSV again")
    warnings.warn(
        f"{file} is not UTF-8 text and was read as Windows-1252: if letters look wrong, save it "
        "as UTF-8",
        stacklevel=2,
    )
    return text


def _separator(text: str, columns: Sequence[str]) -> str:
    """The separator that finds the most wanted columns; on a tie, most cells in the first line."""
    wanted = {_plain(column) for column in columns}

    def found(separator: str) -> tuple[int, int]:
        top = csv.reader(islice(io.StringIO(text, newline=""), TOP), delimiter=separator)
        try:
            lines = [[_plain(cell.strip()) for cell in cells] for cells in top]
        except csv.Error:
            lines = []
        return max((len(wanted & set(cells)) for cells in lines), default=0), len([*lines, []][0])

    return max(SEPARATORS, key=found)


# --- workbooks ----------------------------------------------------------------------------


def _sheet(data: bytes, file: Readable, columns: Sequence[str]) -> tuple[Rows, str]:
    """The lines of the first sheet with the columns, or else of the first that has any lines."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            size = sum(info.file_size for info in archive.infolist())
        if size > MAX_BYTES:
            raise ValueError(f"it unpacks to {size / 1e6:.0f} MB")
        with warnings.catch_warnings(action="ignore"):  # about features that are not read
            as_text = {"header": None, "dtype": str, "na_filter": False, "engine": "openpyxl"}
            book = pd.read_excel(io.BytesIO(data), sheet_name=None, **as_text)
    except Exception as error:  # openpyxl passes on what damaged archives and XML lead to
        raise InputError(
            f"{file} cannot be read as an Excel workbook ({one_line(error)}): save it as CSV"
        ) from error
    sheets = {title: _sheet_rows(sheet) for title, sheet in book.items()}
    filled = {title: rows for title, rows in sheets.items() if rows}
    fitting = {title: rows for title, rows in filled.items() if _header(rows, columns)} or filled
    if columns and len(fitting) > 1:
        warnings.warn(
            f"{file} has several sheets, and only {next(iter(fitting))!r} is read: save the others "
            "as files of their own if you need them",
            stacklevel=2,
        )
    return next(iter(fitting.values()), {}), "of Excel"


def _sheet_rows(sheet: pd.DataFrame) -> Rows:
    """The lines of a sheet that have any cells, all of one length."""
    lines = enumerate(([cell.strip() for cell in cells] for cells in sheet.to_numpy()), 1)
    return {number: cells for number, cells in lines if any(cells)}
