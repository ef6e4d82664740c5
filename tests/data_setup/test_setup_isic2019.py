"""ISIC 2019: the official tables, and miniature archives in their layout."""

import csv
import json
from contextlib import ExitStack

import pytest
from publishers import Isic2019, contents

from data_setup import isic2019
from data_setup.__main__ import main
from data_setup.archives import Member
from data_setup.audit import leakage
from data_setup.isic2019 import CLASSES, find_images, read_labels
from derm_hash.data.manifest import read_manifest
from derm_hash.data.splits import split_by_image
from derm_hash.errors import InputError

QUERIES = {"MEL": 452, "NV": 1287, "BCC": 332, "BKL": 262}


@pytest.fixture
def isic(tmp_path):
    folder = tmp_path / "archives"
    folder.mkdir()
    data = Isic2019(folder)
    data.write()
    return data


def rows(isic, classes=8):
    with ExitStack() as stack:
        images = find_images(isic.folder, stack)
        frame = isic2019.rows(read_labels(isic.folder), CLASSES[classes], images, isic.folder)
        frame["content"] = [place.read_bytes() for place in frame["image_from"]]
    return frame


def refused(isic):
    with pytest.raises(InputError) as raised:
        rows(isic)
    assert "\n" not in str(raised.value)
    return str(raised.value)


# --- the official tables -----------------------------------------------------------------


def test_the_official_tables(shared_isic2019):
    table = read_labels(shared_isic2019)
    assert len(table) == 25331
    assert table["image_id"].is_monotonic_increasing
    assert table["label"].value_counts().to_dict() == {
        "MEL": 4522, "NV": 12875, "BCC": 3323, "AK": 867, "BKL": 2624, "DF": 239, "VASC": 253,
        "SCC": 628,
    }  # fmt: skip
    assert (table["lesion_id"] == "").sum() == 2084
    row = table.set_index("image_id").loc["ISIC_0000000"]
    assert row.to_dict() == {
        "label": "NV", "lesion_id": "", "age_approx": "55",
        "anatom_site_general": "anterior torso", "sex": "female",
    }  # fmt: skip


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("classes", [4, 8])
def test_the_papers_numbers_of_queries(shared_isic2019, classes, seed):
    table = read_labels(shared_isic2019)
    table = table[table["label"].isin(CLASSES[classes])]
    parts = split_by_image(table.assign(image=table["image_id"]), seed=seed)
    queries = parts.loc[parts["split"] == "query", "label"].value_counts().to_dict()
    assert {label: queries[label] for label in QUERIES} == QUERIES
    # Leakage, counted in another way: with a dictionary.
    held = {r.lesion_id for r in parts.itertuples() if r.split != "query" and r.lesion_id}
    asked = [r for r in parts.itertuples() if r.split == "query"]
    found = leakage(parts)
    for label in (*CLASSES[classes], "all"):
        mine = [r.lesion_id in held for r in asked if label in (r.label, "all")]
        assert found.loc[label, "queries"] == len(mine)
        assert found.loc[label, "with_mate"] == sum(mine)
        assert found.loc[label, "share"] == pytest.approx(sum(mine) / len(mine))
    if classes == 4:
        assert 0.57 < found.loc["all", "share"] < 0.66
        assert found.loc["MEL", "share"] > 0.75


def test_the_dry_run_prints_both_splits(shared_isic2019, tmp_path, capsys):
    assert main(["isic2019", "--dry-run", "--archives", str(shared_isic2019)]) == 0
    out = capsys.readouterr().out
    assert "ISIC 2019, 4 classes: 23,344 images" in out
    paper = out[out.index("Split 'paper'") :]
    numbers = [line.split() for line in paper.splitlines()]
    for label, queries in QUERIES.items():
        first = next(line for line in numbers if line[:1] == [label])
        assert first[3] == str(queries)
    assert "62.7%" in paper
    assert "Split 'lesion'" in out
    assert max(map(len, out.splitlines())) <= 100


# --- the manifest's rows --------------------------------------------------------------------


@pytest.mark.parametrize("classes", [4, 8])
def test_images_and_labels_arrive(isic, classes):
    frame = rows(isic, classes)
    wanted = [r for r in isic.records if r["label"] in CLASSES[classes]]
    assert frame["image"].tolist() == [f"images/{r['image']}.jpg" for r in wanted]
    for name in ("label", "lesion_id", "sex", "age_approx", "anatom_site_general"):
        assert frame[name].tolist() == [r[name] for r in wanted]
    assert frame["content"].tolist() == [isic.image(r["image"]) for r in wanted]
    assert isinstance(frame["image_from"][0], Member)
    assert str(frame["image_from"][0]) == (
        f"ISIC_2019_Training_Input/ISIC_0000000.jpg in the archive {isic.folder / isic.IMAGES}"
    )
    assert set(frame["mask"]) == {""}
    assert frame["mask_from"].isna().all()


def test_a_folder_as_isics_own_tool_makes_it(isic):
    expected = rows(isic)["content"].tolist()
    (isic.folder / isic.IMAGES).unlink()
    folder = isic.folder / "ISIC_2019_Training_Input"
    (folder / "licenses").mkdir(parents=True)
    (folder / "metadata.csv").write_text("x")
    for image in isic.ids:
        path = folder / f"{image.removesuffix('_downsampled')}.JPG"
        path.write_bytes(isic.image(image))
    assert rows(isic)["content"].tolist() == expected


def test_the_old_name_of_a_column(isic):
    expected = rows(isic)
    isic.write_metadata(sex="gender")
    assert rows(isic)["sex"].tolist() == expected["sex"].tolist()


def test_images_without_labels_are_reported(isic, capsys):
    isic.write_images(change={"ISIC_2019_Training_Input/ISIC_0099999.jpg": b"x"})
    assert len(rows(isic)) == len(isic.records)
    assert "no label for them: ISIC_0099999" in capsys.readouterr().out


def test_labels_without_images_are_refused(isic):
    isic.write_images(isic.ids[:-2])
    text = refused(isic)
    assert f"2 images of {Isic2019.TRUTH} are not in" in text and isic.ids[-2][:12] in text
    assert "isic image download" in text


def test_an_image_that_is_there_twice_is_refused(isic):
    isic.write_images(change={"ISIC_2019_Training_Input/more/ISIC_0000003.jpg": b"x"})
    assert "are both ISIC_0000003: remove one" in refused(isic)


def test_without_images(isic):
    (isic.folder / isic.IMAGES).unlink()
    assert "has neither ISIC_2019_Training_Input.zip nor a folder" in refused(isic)


@pytest.mark.parametrize("name", [Isic2019.TRUTH, Isic2019.METADATA])
def test_a_missing_table_is_named(isic, name):
    (isic.folder / name).unlink()
    assert f"{name} does not exist" in refused(isic)


def change(isic, table, line, column, value):
    path = isic.folder / table
    with path.open(newline="") as file:
        lines = list(csv.reader(file))
    lines[line][lines[0].index(column)] = value
    isic.table(table, lines)


@pytest.mark.parametrize(
    ("table", "line", "column", "value", "named"),
    [
        (Isic2019.TRUTH, 0, "BCC", "bcc", "no column 'BCC'"),
        (Isic2019.TRUTH, 0, "image", "picture", "no column 'image'"),
        (Isic2019.TRUTH, 1, "MEL", "1.0", "exactly one class to 1 images, such as ISIC_0000000"),
        (Isic2019.TRUTH, 1, "NV", "0.0", "exactly one class to 1 images, such as ISIC_0000000"),
        (Isic2019.TRUTH, 1, "NV", "0.5", "exactly one class"),
        (Isic2019.TRUTH, 1, "NV", "yes", "exactly one class"),
        (Isic2019.TRUTH, 1, "NV", "", "exactly one class"),
        (Isic2019.TRUTH, 2, "image", "ISIC_0000000", "lists ISIC_0000000 twice"),
        (
            Isic2019.TRUTH,
            2,
            "image",
            "ISIC_0000000_downsampled",
            "twice, in lines 2 and 3",
        ),
        (Isic2019.TRUTH, 2, "image", "ISIC_0099999", "Metadata.csv lacks 1 images"),
        (Isic2019.METADATA, 0, "lesion_id", "lesion", "no column 'lesion_id'"),
        (
            Isic2019.METADATA,
            1,
            "lesion_id",
            "BCN_0000015",
            "BCN_0000015 different classes",
        ),
        (Isic2019.METADATA, 2, "image", "ISIC_0000000", "lists ISIC_0000000 twice"),
    ],
)
def test_bad_tables_are_reported_never_guessed(isic, table, line, column, value, named):
    change(isic, table, line, column, value)
    assert named in refused(isic)


def test_images_of_no_known_class(isic):
    change(isic, Isic2019.TRUTH, 1, "NV", "0.0")
    change(isic, Isic2019.TRUTH, 1, "UNK", "1.0")
    assert "the class UNK, unknown, to 1 images, such as ISIC_0000000" in refused(isic)


def test_without_root_only_the_dry_run(isic, capsys):
    assert main(["isic2019", "--archives", str(isic.folder)]) == 2
    assert "--root FOLDER" in capsys.readouterr().err
    assert main(["isic2019", "--archives", str(isic.folder), "--dry-run", "--classes", "8"]) == 0
    assert "SCC" in capsys.readouterr().out


# --- the data folder --------------------------------------------------------------------------


def test_the_data_folder(isic, tmp_path, capsys):
    root = tmp_path / "data"
    options = ["--archives", str(isic.folder), "--root", str(root), "--split", "paper"]
    assert main(["isic2019", *options, "--size", "original"]) == 0
    frame = read_manifest(root)
    wanted = [r for r in isic.records if r["label"] in QUERIES]
    assert frame["image"].tolist() == [f"images/{r['image']}.jpg" for r in wanted]
    record = json.loads((root / "dataset.json").read_text())
    assert record["sources"] == {p.name: p.stat().st_size for p in isic.folder.iterdir()}
    assert (record["options"]["classes"], record["licence"]) == (4, "CC BY-NC 4.0")
    assert "Please cite: BCN20000" in capsys.readouterr().out
    files = contents(root)
    assert [files[name] for name in frame["image"]] == [isic.image(r["image"]) for r in wanted]
