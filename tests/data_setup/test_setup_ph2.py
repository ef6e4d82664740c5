"""PH2 as its publisher hands it out, in a folder or a zip file."""

import collections
import io

import numpy as np
import pytest
from PIL import Image
from publishers import Ph2, contents

from derm_hash.data.dataset import LesionDataset

ROW = Ph2.ROW
DIAGNOSES = {"0": "common nevus", "1": "atypical nevus", "2": "melanoma"}


@pytest.fixture
def source(tmp_path):
    return tmp_path / "source"


def test_images_masks_and_diagnoses_arrive(source, root, prepare, record, capsys):
    ph2 = Ph2()
    frame = prepare("ph2", "--archives", ph2.folder(source))
    assert frame["image"].tolist() == [f"images/{name}.jpg" for name in sorted(ph2.codes)]
    for row in frame.itertuples():
        name = row.image[7:13]
        code = ph2.codes[name]
        assert row.label == {"0": "NV", "1": "NV", "2": "MEL"}[code]
        assert row.diagnosis == DIAGNOSES[code]
        original = ph2.files[f"{ph2.IMAGES}/{name}/{name}_lesion/{name}_lesion.bmp"]
        whole = np.asarray(Image.open(io.BytesIO(original)).convert("L"))
        mask = np.asarray(Image.open(root / row.mask))
        assert mask.shape == (15, 15)
        assert any(np.array_equal(mask, whole[:, k : k + 15]) for k in (2, 3))  # 2.5 aside
    dataset = LesionDataset.from_folder(root, size=15, progress=False)
    assert dataset.classes == ("MEL", "NV")
    assert "for research and benchmarking" in capsys.readouterr().out
    assert "Mendonça" in record()["citation"]


def test_a_zip_gives_the_same_folder(source, root, prepare, tmp_path):
    ph2 = Ph2()
    prepare("ph2", "--archives", ph2.folder(source))
    expected = contents(root)
    for place in (source / "PH2Dataset", ph2.zip(tmp_path / "PH2Dataset.zip")):
        prepare("ph2", "--archives", place, root=tmp_path / place.name[::-1])
        found = contents(tmp_path / place.name[::-1])
        assert found | {"dataset.json": b""} == expected | {"dataset.json": b""}


def test_files_can_be_kept_as_they_are(source, root, prepare):
    ph2 = Ph2()
    frame = prepare("ph2", "--archives", ph2.folder(source), "--size", "original")
    expected = collections.Counter(DIAGNOSES[code] for code in ph2.codes.values())
    assert collections.Counter(frame["diagnosis"]) == expected
    assert len(list((root / "masks").glob("*.bmp"))) == 40


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        ([ROW.format("IMD003", "", 3)], "gives IMD003 the class '3', which is none of 0, 1, 2"),
        ([ROW.format("IMD003", "", "")], "gives IMD003 the class ''"),
        ([ROW.format("IMD003", "", 0)] * 2, "lists IMD003 twice"),
        ([ROW.format("IMD999", "", 0)], "lists 1 image that"),
    ],
)
def test_bad_tables_are_reported_never_guessed(source, refused, rows, named):
    ph2 = Ph2()
    ph2.write_table(rows)
    error = refused("ph2", "--archives", ph2.folder(source))
    assert named in error
    assert "PH2_dataset.txt" in error


def test_a_table_of_another_kind_is_named(tmp_path, refused):
    ph2 = Ph2()
    ph2.files["PH2Dataset/PH2_dataset.txt"] = b"IMD003,0\n"
    error = refused("ph2", "--archives", ph2.zip(tmp_path / "a.zip"))
    assert "columns Name (IMD003) and Clinical Diagnosis" in error
    assert f"PH2_dataset.txt in the archive {tmp_path / 'a.zip'}" in error


def test_images_without_diagnosis_and_without_mask_are_reported(source, prepare, capsys):
    ph2 = Ph2()
    ph2.write_table([ROW.format(name, "", c) for name, c in ph2.codes.items()][1:])
    ph2.files = {name: c for name, c in ph2.files.items() if "IMD004_lesion.bmp" not in name}
    frame = prepare("ph2", "--archives", ph2.folder(source)).set_index("image")
    out = capsys.readouterr().out
    assert f"no label for them: {next(iter(ph2.codes))}\n" in out
    assert "Without a lesion mask: IMD004\n" in out
    assert len(frame) == 39
    assert frame.loc["images/IMD004.jpg", "mask"] == ""


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("nowhere", "does not exist"),
        ("PH2.rar", "unpack an archive of another"),
        (".", "none of PH2_dataset.txt"),
    ],
)
def test_a_wrong_place_is_named(source, refused, name, named):
    source.mkdir()
    if name == "PH2.rar":
        (source / name).write_bytes(b"Rar!\x1a\x07")
    assert named in refused("ph2", "--archives", source / name)
