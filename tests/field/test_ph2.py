"""PH2 in the layouts of its copies: the same manifest from each."""

import shutil

import pandas as pd
import pytest
from publishers import Ph2

TABLE = "PH2Dataset/PH2_dataset.txt"


@pytest.fixture
def prepare(tmp_path, filled):
    """Prepare a PH2; its manifest, or the error."""

    def run(ph2):
        shutil.rmtree(tmp_path / "source", ignore_errors=True)
        return filled("ph2", "--archives", ph2.folder(tmp_path / "source"))[0]

    return run


def flat(ph2):
    """Images in one folder and masks in another, with the same names."""
    for path in list(ph2.files):
        name, content = path.rsplit("/")[-1], ph2.files.pop(path)
        if "_lesion." in name:
            ph2.files["masks/" + name.replace("_lesion", "")] = content
        elif "_roi/" not in path:
            ph2.files[f"images/{name}" if name.endswith("bmp") else name] = content


def recoded(encoding):
    def change(ph2):
        ph2.files[TABLE] = ph2.files[TABLE].decode().encode(encoding)

    return change


def workbook(tmp_path):
    """The table as the publisher's workbook has it: a title above, X for the diagnosis."""

    def change(ph2):
        header = [
            "Image Name",
            "Histological Diagnosis",
            "Common Nevus",
            "Atypical Nevus",
            "Melanoma",
        ]
        crosses = [
            [name, "", *("X" if str(i) == code else "" for i in range(3))]
            for name, code in ph2.codes.items()
        ]
        lines = [["PH2 Dataset", *[""] * 4], [""] * 5, header, *crosses]
        pd.DataFrame(lines).to_excel(tmp_path / "t.xlsx", index=False, header=False)
        del ph2.files[TABLE]
        ph2.files["PH2Dataset/PH2_dataset.xlsx"] = (tmp_path / "t.xlsx").read_bytes()

    return change


def comma_table(ph2):
    del ph2.files[TABLE]
    lines = [f"{name};{code}" for name, code in ph2.codes.items()]
    ph2.files["PH2_dataset.csv"] = "\n".join(["Name;Clinical Diagnosis", *lines]).encode()


@pytest.mark.parametrize(
    "change",
    [flat, recoded("utf-8-sig"), recoded("utf-16"), workbook, comma_table],
    ids=["flat folders", "byte order mark", "utf-16", "workbook alone", "CSV alone"],
)
def test_ph2_has_the_same_manifest_from_every_layout(prepare, tmp_path, change):
    expected = prepare(Ph2())
    assert (expected["mask"] != "").all()
    other = Ph2()
    (workbook(tmp_path) if change is workbook else change)(other)
    assert prepare(other).to_csv() == expected.to_csv()


def test_get_it_again_is_said_of_what_is_incomplete_alone(prepare):
    other = Ph2()
    other.files[TABLE] = b"picture,kind\nIMD003,0\n"
    error = prepare(other)
    assert "save a table PH2_dataset.csv" in error and "get the data set again" not in error
    other = Ph2()
    other.files = {name: file for name, file in other.files.items() if "IMD003" not in name}
    assert "IMD003): get the data set again" in prepare(other)
