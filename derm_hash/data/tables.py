"""Reads tables as spreadsheets and people write them; the only place that does."""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import pandas as pd

from derm_hash.errors import InputError, one_line, shown

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
EXCEL, OLD_EXCEL = b"PK\x03\x04", b"\xd0\xcf\x11\xe0"  # how the files of .xlsx and .xls begin


class Readable(Protocol):
    """A path, or a file in an archive; ``str()`` is its name in messages."""

    def read_bytes(self) -> bytes:
        """The contents of the file."""


def read_table(file: str | Readable, columns: Sequence[str] = (), remedy: str = "") -> pd.DataFrame:
    """Read a table with one header line; every value is a string without outer blanks.

    The table is text in UTF-8, UTF-16 or Windows-1252, with commas, semicolons, tabs or bars
    between its values, or the first sheet of an Excel workbook (.xlsx). A first line such as
    ``sep=;`` and lines without any value are skipped.

    Parameters
    ----------
    file : path or Readable
    columns : sequence of str
        Columns that the table must have. Where some are named, it must have rows, too.
    remedy : str
        What the user can do about a missing column or a table without rows.

    Raises
    ------
    InputError
        If the file is missing or empty, is no such table, has a row with more values than
        columns, two columns of one name, or lacks a column or rows that it must have.
    """
    file = Path(file) if isinstance(file, str) else file
    table = read_cells(file, columns)
    header, table = table.iloc[0], table.iloc[1:].reset_index(drop=True)
    table.columns = pd.Index([name or f"Unnamed: {i}" for i, name in enumerate(header)])
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


def read_cells(file: Readable, columns: Sequence[str] = ()) -> pd.DataFrame:
    """All cells of a table as `read_table` reads it, the lines above and the header among them."""
    data = _contents(file)
    table = _workbook(data, file) if data.startswith(EXCEL) else _text_table(data, file, columns)
    table = table.fillna("").apply(lambda column: column.str.strip())
    table = table[(table != "").any(axis=1)]
    if table.empty:
        raise InputError(f"{file} is empty: replace it, or prepare the folder again")
    return table.reset_index(drop=True)


def read_text(file: Readable) -> str:
    """The text of a file in UTF-8, UTF-16 (with or without its mark) or Windows-1252."""
    return _decoded(_contents(file), file)


def _contents(file: Readable) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise InputError(
            f"{file} cannot be read as a table ({one_line(error)}): check the path"
        ) from error


def _decoded(data: bytes, file: Readable) -> str:
    """Text from bytes; `InputError` if they are no text, a warning if the encoding is a guess."""
    encodings = ["utf-8-sig"]
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        encodings = ["utf-16"]
    elif b"\0" in data[:200]:
        encodings = ["utf-16-le" if data[1:2] == b"\0" else "utf-16-be"]
    for encoding in [*encodings, "cp1252"]:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if encoding != "cp1252":
            return text
        if not any(ord(character) < 32 and character not in "\t\r\n" for character in text):
            warnings.warn(
                f"{file} is not UTF-8 text and was read as Windows-1252: if letters look wrong, "
                "save it as UTF-8",
                stacklevel=2,
            )
            return text
    raise InputError(f"{file} cannot be read as a table in UTF-8 text: save it as CSV again")


def _text_table(data: bytes, file: Readable, columns: Sequence[str]) -> pd.DataFrame:
    """All lines of a table, the header among them."""
    if data.startswith(OLD_EXCEL):
        raise InputError(
            f"{file} is an old Excel workbook or one with a password: save it as .xlsx or CSV, "
            "without a password"
        )
    text = _decoded(data, file)
    first, _, rest = text.partition("\n")
    stated = first.strip().strip('"').lower()
    if stated.startswith("sep=") and len(stated) <= 5:
        separator, text = (stated[4:] or "\t"), rest
    else:
        separator = _separator(text, columns)
    try:
        return pd.read_csv(
            io.StringIO(text), sep=separator, header=None, dtype=str, keep_default_na=False
        )
    except pd.errors.EmptyDataError:
        return pd.DataFrame()
    except pd.errors.ParserError as error:
        raise InputError(
            f"{file} cannot be read as a table separated by "
            f"{SEPARATORS.get(separator, repr(separator))} ({one_line(error)}): correct that line, "
            "or save it as CSV again"
        ) from error


def _separator(text: str, columns: Sequence[str]) -> str:
    """The character that splits the header into the wanted columns, or else into most values."""

    def found(separator: str) -> tuple[int, int]:
        try:
            header = next(csv.reader(io.StringIO(text, newline=""), delimiter=separator), [])
        except csv.Error:
            header = []
        names = [name.strip() for name in header]
        return sum(column in names for column in columns), len(names)

    return max(SEPARATORS, key=found)


def _workbook(data: bytes, file: Readable) -> pd.DataFrame:
    """The cells of a workbook's first sheet, the header among them."""
    try:
        return pd.read_excel(
            io.BytesIO(data), header=None, dtype=str, na_filter=False, engine="openpyxl"
        )
    except Exception as error:  # openpyxl passes on what damaged archives and XML lead to
        raise InputError(
            f"{file} cannot be read as an Excel workbook ({one_line(error)}): save it as CSV"
        ) from error
