"""Tables as spreadsheets write them: the same values whatever the file looks like."""

import pandas as pd
import pytest

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


def test_a_workbook_is_read(tmp_path):
    frame = pd.DataFrame({"image": ["a.png", "b.png"], "label": [0, 1], "lesion_id": ["", "x"]})
    frame.to_excel(path := tmp_path / "table.xlsx", index=False)
    assert read_table(path, NAMES).to_numpy().tolist() == [["a.png", "0", ""], ["b.png", "1", "x"]]


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"PK\x03\x04 and no more", "cannot be read as an Excel workbook"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "old Excel workbook or one with a password"),
        (b"image;label\na;NV\nb;NV;MEL\n", "separated by semicolons"),
        (b"\x89PNG\r\n\x1a\n\0\x01\x02", "cannot be read as a table"),
        (b"image label\na.png NV\n", "has no column 'image' (its columns: image label)"),
        (b"", "is empty"),
    ],
)
def test_what_is_no_table_is_named(tmp_path, content, named):
    (path := tmp_path / "table.csv").write_bytes(content)
    with pytest.raises(InputError) as error:
        read_table(path, NAMES, "name the columns")
    assert named in str(error.value)
