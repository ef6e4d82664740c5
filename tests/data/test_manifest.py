"""The manifest of a data folder."""

import pandas as pd
import pytest
from helpers import one_sentence

from derm_hash.data.manifest import COLUMNS, read_manifest, write_manifest
from derm_hash.errors import InputError


def rewrite(folder, change):
    """Change the manifest's text."""
    path = folder / "manifest.csv"
    path.write_text(change(path.read_text()))


def test_a_manifest_survives_writing_and_reading(folder):
    frame = read_manifest(folder).assign(age="", lesion_id=["a", "", "c", "ü", "NA", "null"])
    write_manifest(frame, folder)
    again = read_manifest(folder)
    assert list(again.columns) == [*COLUMNS, "age"]
    assert again.to_dict("list") == frame.to_dict("list")


def test_two_columns_from_a_spreadsheet_are_enough(folder):
    lines = ["label , image", *(f"NA, images/{i}.png " for i in range(6))]
    (folder / "manifest.csv").write_text("\n".join(lines), encoding="utf-8-sig")
    frame = read_manifest(folder)
    assert tuple(frame.columns) == COLUMNS
    assert frame["image"].tolist() == [f"images/{i}.png" for i in range(6)]
    assert set(frame["label"]) == {"NA"}
    assert (frame[["lesion_id", "split", "mask", "source"]] == "").all(axis=None)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda text: "", "is empty"),
        (lambda text: text.splitlines()[0], "has no rows"),
        (lambda text: text.replace("label,", "class,", 1), "no column 'label'"),
        (lambda text: text.replace(",query", ",test"), "'test' in line 4"),
        (lambda text: text.replace(",BCC,", ",,"), "the label in line 5"),
        (lambda text: text.replace("images/3.png", ""), "the image in line 5"),
        (lambda text: text.replace("images/3.png", "images/1.png"), "'images/1.png' in line 5"),
        (lambda text: text.replace("images/3.png", "images/9.png"), "images/9.png"),
        (lambda text: text.replace("masks/4.png", "masks/9.png"), "masks/9.png"),
        (lambda text: text.replace("images/3.png", "../3.png"), "'../3.png'"),
        (lambda text: text.replace("images/0.png,NV", "images/0.png,NV,,,,,,,"), "manifest"),
        (lambda text: text.replace("source", "label", 1), "two columns 'label'"),
        (lambda text: text.replace("mask,source", '"a\nb","a\nb "', 1), r"columns 'a\nb'"),
        (lambda text: text.replace("image,", '"a\nb",', 1), r"(its columns: a\nb, label"),
        (lambda text: text.replace("images/3.png", '"images/\n3.png"'), r"'images/\n3.png'"),
        (lambda text: text.replace(",BCC,", ',"B\nCC",'), r"the label 'B\nCC' in line 5"),
        (lambda text: text.replace(",BCC,", f",{'B' * 1001},"), "more than 1000 characters"),
        (lambda text: text.replace(",query", ",\x1b[31m"), r"the split '\x1b[31m' in line 4"),
        (lambda text: text.replace("images/3.png", "./images/./1.png"), "is listed again"),
    ],
)
def test_a_bad_manifest_is_refused_in_one_sentence(folder, change, named):
    rewrite(folder, change)
    with one_sentence("manifest.csv", named) as error:
        read_manifest(folder)
    assert str(error.value).isprintable()


def test_paths_are_read_without_detours(folder):
    rewrite(folder, lambda text: text.replace("images/", "./images//").replace("masks/", "masks//"))
    frame = read_manifest(folder)
    assert frame["image"].tolist() == [f"images/{i}.png" for i in range(6)]
    assert set(frame["mask"]) == {"", "masks/1.png", "masks/4.png"}


def test_columns_without_a_name_are_read(folder):
    rewrite(folder, lambda text: text.replace("\n", ",,x\n").replace(",,x", ", ,", 1))
    assert read_manifest(folder).columns.tolist() == [*COLUMNS, "Unnamed: 6", "Unnamed: 7"]


def test_a_folder_without_manifest_says_how_to_make_one(tmp_path):
    for root in (tmp_path, tmp_path / "absent"):
        with pytest.raises(InputError, match="python -m data_setup"):
            read_manifest(root)


def test_writing_needs_the_required_columns(tmp_path):
    with pytest.raises(InputError, match="'label'"):
        write_manifest(pd.DataFrame({"image": ["a.png"]}), tmp_path)
    assert not list(tmp_path.iterdir())
