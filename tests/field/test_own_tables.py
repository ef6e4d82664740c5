"""One's own images with a table: names in any spelling, splits, one-hot labels, masks, renaming."""

import unicodedata

import numpy as np
import pandas as pd
import pytest
from helpers import encoded, noise
from PIL import Image
from publishers import write_zip

from data_setup.record import read_record

LABELS = ["NV", "NV", "MEL", "NV", "MEL", "MEL"]


@pytest.fixture
def source(tmp_path):
    for i in range(6):
        path = tmp_path / "own" / "deep" / f"IMG_{i}.{'JPG' if i % 2 else 'jpg'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(noise(i), "JPEG"))
    return tmp_path / "own"


@pytest.fixture
def prepare(source, tmp_path, filled):
    """Prepare the images as a table says; the manifest or the error, and the output."""

    def run(table, *options):
        if table is not None:
            pd.DataFrame(table).to_csv(tmp_path / "table.csv", index=False)
            options = ["--csv", tmp_path / "table.csv", *options]
        return filled("folder", "--source", source, *options)

    return run


def table(names="deep/IMG_{}", **columns):
    return {"image": [names.format(i) for i in range(6)], "label": LABELS, **columns}


@pytest.mark.parametrize(
    ("names", "way"),
    [
        ("deep/IMG_{}.jpg", "path in another spelling 3"),
        ("deep\\IMG_{}.JPG", "path in another spelling 6"),
        ("deep/IMG_{}", "path in another spelling 6"),
        ("IMG_{}.Jpg", "file name 6"),
        ("other/IMG_{}", "file name 6"),
        ("IMG_{}.png", "file name 6"),
        (r"C:\Users\Ada\IMG_{}.JPG", "file name 6"),
        (r"..\deep\img_{}", "file name 6"),
    ],
)
def test_images_are_found_by_any_spelling_of_their_names(prepare, names, way):
    frame, out = prepare(table(names))
    assert frame["image"].tolist() == [f"images/deep/IMG_{i}.jpg" for i in range(6)]
    assert frame["label"].tolist() == LABELS
    assert way in out


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_may_be_composed_or_not(prepare, source, forms):
    file, name = (unicodedata.normalize(form, "nævus é {}") for form in forms)
    for i in range(6):
        (source / "deep" / f"IMG_{i}.{'JPG' if i % 2 else 'jpg'}").rename(
            source / (file.format(i) + ".jpg")
        )
    assert prepare(table(name))[0]["label"].tolist() == LABELS


@pytest.mark.parametrize("name", ["{}", "{}.0", "0{}"])
def test_numbers_may_have_lost_their_zeros(prepare, source, name):
    for i, path in enumerate(sorted((source / "deep").iterdir())):
        path.rename(source / f"{i:07d}.jpg")
    frame, out = prepare(table(name))
    assert frame["image"].tolist() == [f"images/{i:07d}.jpg" for i in range(6)]
    assert frame["label"].tolist() == LABELS and "number 6" in out


def test_images_and_masks_may_be_in_zip_files(prepare, source, tmp_path):
    expected, _ = prepare(table("IMG_{}"))
    archives = tmp_path / "own.zip", tmp_path / "masks.zip"
    images = {p.relative_to(source).as_posix(): p.read_bytes() for p in source.rglob("*.*")}
    write_zip(archives[0], images | {"__MACOSX/deep/._IMG_0.jpg": b"x"})
    write_zip(archives[1], {f"m/IMG_{i}_mask.png": encoded(mask(i), "PNG") for i in range(6)})
    options = "--source", archives[0], "--masks", archives[1]
    frame, _ = prepare(table("IMG_{}"), *options)
    assert_own_masks(frame, tmp_path / "data")
    assert frame.drop(columns="mask").equals(expected.drop(columns="mask"))


def test_a_file_name_in_two_folders_needs_its_folder(prepare, source):
    (source / "other").mkdir()
    (source / "other" / "IMG_0.jpg").write_bytes(encoded(noise(9), "JPEG"))
    error, _ = prepare(table("IMG_{}"))
    assert "deep/IMG_0.jpg or other/IMG_0.jpg: write the path" in error


def test_missing_images_can_be_left_out(prepare, source):
    (source / "deep" / "IMG_2.jpg").unlink()
    assert "lists 1 image that cannot be found" in prepare(table())[0]
    frame, out = prepare(table(), "--partial")
    assert len(frame) == 5 and "1 image that cannot be found (deep/IMG_2)" in out


def test_the_split_of_the_table_is_kept_and_recorded(prepare, tmp_path):
    split = ["train", "Training set", "database", "validation", "TEST", "query"]
    frame, out = prepare(table(split=split))
    assert frame["split"].tolist() == ["database"] * 3 + ["val"] + ["query"] * 2
    assert "Split as the table says: database 3, query 2, val 1" in out
    assert read_record(tmp_path / "data")["options"]["split"] == "table"
    prepare(table(split=split), "--split", "lesion")
    assert read_record(tmp_path / "data")["options"]["split"] == "lesion"


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        ({"image": "IMG_0", "label": "NV", "split": "train"}, "repeat another one: 1"),
        ({"image": "IMG_0", "label": "MEL", "split": "train"}, "'IMG_0' in line 8"),
        ({"image": "IMG_0", "label": "NV", "split": "test"}, "'IMG_0' in line 8"),
    ],
)
def test_lines_may_repeat_but_not_contradict_each_other(prepare, rows, named):
    lines = pd.DataFrame(table("IMG_{}", split=["train"] * 5 + ["test"]))
    frame, out = prepare(pd.concat([lines, pd.DataFrame([rows])]))
    assert named in (frame if isinstance(frame, str) else out)


def test_lesions_that_are_not_known_are_lesions_of_their_own(prepare):
    frame, out = prepare(table(**{"Lesion ID": ["nan", "x", "N/A", "", "x ", "unknown"]}))
    assert frame["lesion_id"].tolist() == ["", "x", "", "", "x", ""]
    assert "Lesions not known, since their lesion_id is N/A, nan, unknown: 3" in out


def test_what_is_not_used_or_in_no_part_is_said(prepare):
    _, out = prepare(table(lesion_id=["x"] * 6, age=range(6), fold=range(6)))
    assert "that are not used: age, fold" in out
    assert "No image is in val or query" in out


def test_images_in_formats_that_are_not_read_are_named(prepare, source):
    (source / "deep" / "IMG_0.jpg").rename(source / "IMG_0.dcm")
    assert "not read (IMG_0.dcm): save them as PNG" in prepare(table(r"D:\deep\IMG_{}.dcm"))[0]


def test_heatmaps_need_no_labels(prepare, source, tmp_path):
    names = {"image": [f"IMG_{i}" for i in range(6)]}
    for i in range(6):
        mask(i).save(source / "deep" / f"IMG_{i}_segmentation.png")
    assert "or use --no-labels" in prepare(names)[0]
    assert "or use --no-labels" in prepare(None, "--source", source / "deep")[0]
    for given in (names, None):
        frame, out = prepare(given, "--no-labels")
        assert_own_masks(frame, tmp_path / "data")
        assert set(frame["split"]) == {"query"}
        assert "Next: derm-hash heatmaps --run RUN --data" in out


@pytest.mark.parametrize("wrong", ["", "holdout"])
def test_a_split_that_is_not_clear_is_refused(prepare, wrong):
    error, _ = prepare(table(split=["train"] * 4 + ["test", wrong]))
    assert "deep/IMG_5.JPG" in error and "--split lesion" in error


def test_all_images_can_be_queries(prepare):
    frame, out = prepare(table() | {"label": ["NV"] * 6}, "--split", "query")
    assert "Next: derm-hash evaluate --run RUN --data DATABASE --queries" in out
    assert set(frame["split"]) == {"query"}
    assert "single class" in prepare(table() | {"label": ["NV"] * 6})[0]


@pytest.mark.parametrize(
    ("one", "zero", "third"),
    [
        ("1", "0", "BCC"),
        ("1.0", "0.0", "BCC"),
        ("1,0", "0,0", "other"),
        ("True", "False", "BCC"),
        ("x", "", "other"),
    ],
)
def test_a_column_for_each_class_gives_the_labels(prepare, one, zero, third):
    wanted = ["MEL", "NV", third, "NV", "MEL", third]
    truth = {name: [one if w == name else zero for w in wanted] for name in ("MEL", "NV", third)}
    names = {"image": [f"IMG_{i}" for i in range(6)]}
    frame, out = prepare(names | truth)
    assert frame["label"].tolist() == wanted
    assert f"the column with 1 among MEL, NV, {third}" in out
    error, _ = prepare(names | truth, "--label-column", "MEL")
    assert "leave out --label-column" in error
    assert (
        "exactly one class to 1 image, such as IMG_0"
        in prepare(names | truth | {"NV": [one, *truth["NV"][1:]]})[0]
    )


def test_labels_can_be_renamed(prepare):
    long = [{"NV": "Common Nevus", "MEL": "Melanoma"}[label] for label in LABELS]
    options = ["--map", "Common Nevus=NV", "Melanoma=MEL"]
    assert prepare(table() | {"label": long}, *options)[0]["label"].tolist() == LABELS
    assert "the label 'x' of --map" in prepare(table(), "--map", "x=y")[0]


def mask(i):
    pixels = np.zeros((15, 20), np.uint8)
    pixels[: i + 2] = 255
    return Image.fromarray(pixels)


def assert_own_masks(frame, root):
    for i, name in enumerate(frame["mask"]):
        assert np.asarray(Image.open(root / name))[:, 0].astype(bool).sum() == i + 2


@pytest.mark.parametrize("ending", ["", "_segmentation", "_mask"])
def test_masks_come_from_a_folder(prepare, source, tmp_path, ending):
    (folder := source / "the masks").mkdir()
    for i in range(6):
        mask(i).save(folder / f"IMG_{i}{ending}.png")
    frame, out = prepare(table(), "--masks", folder)
    assert_own_masks(frame, tmp_path / "data")
    assert "6 of 6 images" in out


@pytest.mark.parametrize("apart", [False, True])
def test_masks_come_from_a_column(prepare, source, tmp_path, apart):
    (folder := tmp_path / "theirs" if apart else source / "masks").mkdir()
    for i in range(6):
        mask(i).save(folder / f"m{i}.png")
    options = ["--mask-column", "lesion", *(["--masks", folder] if apart else [])]
    frame, _ = prepare(table(lesion=[f"m{i}.png" for i in range(6)]), *options)
    assert_own_masks(frame, tmp_path / "data")
    assert len(frame) == 6
