"""Tables as spreadsheets write them: the same values whatever the file looks like."""

import pandas as pd
import pytest
from helpers import one_sentence

from derm_hash.data import tables
from derm_hash.data.tables import read_table
from derm_hash.errors import InputError

TEXT = "image,label,share\nnaïf_1.png,NV,0.5\nb.png,MEL,1.0\n"
ROWS = [["naïf_1.png", "NV", "0.5"], ["b.png", "MEL", "1.0"]]
NAMES = ["image", "label"]

SPELLINGS = {
    "commas": TEXT.encode(),
    "byte order mark": TEXT.encode("utf-8-sig"),
    "semicolons": TEXT.replace(",", ";").encode(),
    "tabs": TEXT.replace(",", "\t").encode(),
    "separator stated": ("sep=;\r\n" + TEXT.replace(",", ";").replace("\n", "\r\n")).encode(),
    "utf-16 with mark": TEXT.replace(",", "\t").encode("utf-16"),
    "utf-16 big end first": b"\xfe\xff" + TEXT.encode("utf-16-be"),
    "utf-16 without mark": TEXT.encode("utf-16-le"),
    "quoted": ('"' + TEXT.strip().replace(",", '","').replace("\n", '"\r\n"') + '"').encode(),
    "empty lines below": (TEXT + ",,\n,,\n").encode(),
    "blanks": TEXT.replace(",", " , ").encode(),
    "title above": ("Export, 2023\n\n" + TEXT.replace(",", ";")).encode(),
    "separators at the ends": TEXT.replace("\n", ",,\n").replace("share,,", "share").encode(),
    "old Macintosh": TEXT.replace("\n", "\r").encode(),
    "names of columns in capitals": TEXT.replace("image,label", "IMAGE,Label").encode(),
}


@pytest.mark.parametrize("kind", SPELLINGS)
def test_every_spelling_gives_the_same_table(kind, tmp_path):
    (path := tmp_path / "table.csv").write_bytes(SPELLINGS[kind])
    table = read_table(path, NAMES)
    assert table.columns.tolist() == ["image", "label", "share"]
    assert table.to_numpy().tolist() == ROWS


def test_windows_1252_is_read_and_said(tmp_path):
    (path := tmp_path / "table.csv").write_bytes(TEXT.encode("cp1252"))
    with pytest.warns(UserWarning, match="was read as Windows-1252"):
        assert read_table(path, NAMES).to_numpy().tolist() == ROWS


def test_decimal_commas_stay_with_their_values(tmp_path):
    (path := tmp_path / "table.csv").write_text("image;label;share\na.png;NV;0,5\n")
    assert read_table(path, NAMES)["share"].tolist() == ["0,5"]


@pytest.mark.parametrize("above", [0, 3])
def test_a_workbook_is_read(tmp_path, above):
    """Titles above the table, notes beside it and sheets without it are not in its way."""
    frame = pd.DataFrame({"image": [0, "b.png"], "label": [0.0, 1.0], "lesion_id": ["", "x"]})
    with pd.ExcelWriter(path := tmp_path / "table.xlsx") as book:
        pd.DataFrame({"by": ["Ada"]}).to_excel(book, sheet_name="about", index=False)
        frame.to_excel(book, sheet_name="data", index=False, startrow=above)
        if above:
            book.sheets["data"].merge_cells("A1:C1")
            book.sheets["data"]["A1"] = "Photographs"
            book.sheets["data"]["E2"] = "a note"
    table = read_table(path, NAMES)
    assert table[frame.columns].to_numpy().tolist() == [["0", "0", ""], ["b.png", "1", "x"]]
    assert table.index.tolist() == [above, above + 1]


def test_several_sheets_with_the_columns_are_said(tmp_path):
    with pd.ExcelWriter(path := tmp_path / "table.xlsx") as book:
        for sheet in ("train", "test"):
            frame = pd.DataFrame({"image": [sheet], "label": ["NV"]})
            frame.to_excel(book, sheet_name=sheet, index=False)
    with pytest.warns(UserWarning, match="and only 'train' is read"):
        assert read_table(path, NAMES)["image"].tolist() == ["train"]


def test_a_row_knows_its_line(tmp_path):
    (path := tmp_path / "table.csv").write_text('sep=,\nimage,label\n\na,"N\nV"\nb,MEL\n')
    assert (read_table(path, NAMES).index + 2).tolist() == [4, 6]


def test_a_workbook_that_fills_the_memory_is_refused(tmp_path, monkeypatch):
    pd.DataFrame({"image": ["a"] * 99, "label": "NV"}).to_excel(path := tmp_path / "t.xlsx")
    monkeypatch.setattr(tables, "MAX_BYTES", path.stat().st_size)
    with pytest.raises(InputError, match=r"unpacks to 0 MB\): save it as CSV"):
        read_table(path, NAMES)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"PK\x03\x04 and no more", "cannot be read as an Excel workbook"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "old Excel workbook or one with a password"),
        (b"image;label\na;NV\nb;NV;MEL\n", "separated by semicolons (line 3 has more values"),
        (b'image,label\na,"NV\nb,MEL\n', "(line 2: unexpected end of data)"),
        (b"\x89PNG\r\n\x1a\n\0\x01\x02", "cannot be read as a table"),
        (b"image label\na.png NV\n", "has no column 'image' (its columns: image label)"),
        (b"", "is empty"),
    ],
)
def test_what_is_no_table_is_named(tmp_path, content, named):
    (path := tmp_path / "table.csv").write_bytes(content)
    with one_sentence(named):
        read_table(path, NAMES, "name the columns")
