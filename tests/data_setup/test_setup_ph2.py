"""PH2 as its publisher hands it out, in a folder or a zip file."""

import collections
import io
import json

import numpy as np
import pytest
from PIL import Image
from publishers import Ph2, contents

from data_setup.__main__ import main
from derm_hash.data.dataset import LesionDataset
from derm_hash.data.manifest import read_manifest


def run(source, root, *options):
    return main(["ph2", "--archives", str(source), "--root", str(root), *options])


def refused(capsys, source, root):
    assert run(source, root) == 2
    assert not root.exists()
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_images_masks_and_diagnoses_arrive(tmp_path, capsys):
    ph2, root = Ph2(), tmp_path / "data"
    assert run(ph2.folder(tmp_path / "source"), root) == 0
    frame = read_manifest(root)
    assert frame["image"].tolist() == [f"images/{name}.jpg" for name in sorted(ph2.codes)]
    for row in frame.itertuples():
        name = row.image[7:13]
        code = ph2.codes[name]
        assert row.label == {"0": "NV", "1": "NV", "2": "MEL"}[code]
        assert row.diagnosis == ["common nevus", "atypical nevus", "melanoma"][int(code)]
        original = ph2.files[
            f"PH2Dataset/PH2 Dataset images/{name}/{name}_lesion/{name}_lesion.bmp"
        ]
        whole = np.asarray(Image.open(io.BytesIO(original)).convert("L"))
        mask = np.asarray(Image.open(root / row.mask))
        assert mask.shape == (15, 15)
        assert any(np.array_equal(mask, whole[:, k : k + 15]) for k in (2, 3))  # 2.5 aside
    dataset = LesionDataset.from_folder(root, size=15, progress=False)
    assert dataset.classes == ("MEL", "NV")
    assert "for research and benchmarking" in capsys.readouterr().out
    assert "Mendonça" in json.loads((root / "dataset.json").read_text())["citation"]


def test_a_zip_gives_the_same_folder(tmp_path):
    ph2 = Ph2()
    assert run(ph2.folder(tmp_path / "source"), tmp_path / "a") == 0
    assert run(tmp_path / "source" / "PH2Dataset", tmp_path / "inner") == 0
    assert run(ph2.zip(tmp_path / "PH2Dataset.zip"), tmp_path / "b") == 0
    expected = contents(tmp_path / "a")
    for name in ("inner", "b"):
        found = contents(tmp_path / name)
        assert found.keys() == expected.keys()
        for file in found.keys() - {"dataset.json"}:
            assert found[file] == expected[file]


def test_the_published_numbers(tmp_path, capsys):
    counts = collections.Counter(Ph2().codes.values())
    assert run(Ph2().folder(tmp_path / "source"), tmp_path / "data", "--size", "original") == 0
    found = collections.Counter(read_manifest(tmp_path / "data")["diagnosis"])
    assert found == {
        "common nevus": counts["0"],
        "atypical nevus": counts["1"],
        "melanoma": counts["2"],
    }
    assert len(list((tmp_path / "data" / "masks").glob("*.bmp"))) == 40


ROW = Ph2.ROW


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        ([ROW.format("IMD003", "", 3)], "gives IMD003 the class '3', which is none of 0, 1, 2"),
        ([ROW.format("IMD003", "", "")], "gives IMD003 the class ''"),
        (["|| IMD003 ||"], "gives IMD003 the class ''"),
        ([ROW.format("IMD003", "", 0)] * 2, "lists IMD003 twice"),
        ([ROW.format("IMD999", "", 0)], "1 images of"),
        ([], "no rows"),
    ],
)
def test_bad_tables_are_reported_never_guessed(tmp_path, capsys, rows, named):
    ph2 = Ph2()
    ph2.write_table(rows)
    error = refused(capsys, ph2.folder(tmp_path / "source"), tmp_path / "data")
    assert named in error
    assert "PH2_dataset.txt" in error


def test_a_table_of_another_kind_is_named(tmp_path, capsys):
    ph2 = Ph2()
    ph2.files["PH2Dataset/PH2_dataset.txt"] = b"IMD003,0\n"
    error = refused(capsys, ph2.zip(tmp_path / "a.zip"), tmp_path / "data")
    assert "Name and Clinical Diagnosis" in error
    assert f"PH2_dataset.txt in the archive {tmp_path / 'a.zip'}" in error


def test_images_without_diagnosis_and_without_mask_are_reported(tmp_path, capsys):
    ph2 = Ph2()
    ph2.write_table([Ph2.ROW.format(name, "", c) for name, c in ph2.codes.items()][1:])
    ph2.files = {name: c for name, c in ph2.files.items() if "IMD004_lesion.bmp" not in name}
    assert run(ph2.folder(tmp_path / "source"), tmp_path / "data") == 0
    out = capsys.readouterr().out
    assert f"no label for them: {next(iter(ph2.codes))}\n" in out
    assert "Without a lesion mask: IMD004\n" in out
    frame = read_manifest(tmp_path / "data").set_index("image")
    assert len(frame) == 39
    assert frame.loc["images/IMD004.jpg", "mask"] == ""


@pytest.mark.parametrize(
    ("name", "named"),
    [("nowhere", "does not exist"), ("PH2.rar", "unpack it"), (".", "0 files PH2_dataset.txt")],
)
def test_a_wrong_place_is_named(tmp_path, capsys, name, named):
    (tmp_path / "empty").mkdir()
    assert named in refused(capsys, tmp_path / "empty" / name, tmp_path / "data")
