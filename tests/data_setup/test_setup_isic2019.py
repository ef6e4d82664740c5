"""ISIC 2019: the official tables, and miniature archives in their layout."""

import pytest
from publishers import Isic2019

from data_setup.__main__ import main
from data_setup.audit import leakage
from data_setup.info import INFO, PAPER_CLASSES
from data_setup.isic2019 import read_labels
from derm_hash.data.splits import split_by_image, split_by_lesion

QUERIES = {"MEL": 452, "NV": 1287, "BCC": 332, "BKL": 262}
CLASSES = {4: PAPER_CLASSES, 8: tuple(INFO["isic2019"].labels)}
INPUT = "ISIC_2019_Training_Input"


@pytest.fixture
def rows(isic, root, prepare):
    """Prepare the files as they are; the manifest, with the contents of each image."""

    def run(*options):
        command = ["isic2019", "--archives", isic.folder, "--size", "original", "--force"]
        frame = prepare(*command, *(options or ["--classes", "8"]))
        return frame.assign(content=[(root / name).read_bytes() for name in frame["image"]])

    return run


@pytest.fixture
def error(isic, refused):
    return lambda: refused("isic2019", "--archives", isic.folder, "--classes", "8")


# --- the official tables -----------------------------------------------------------------


def test_the_official_tables(shared_isic2019):
    table = read_labels(*(shared_isic2019 / name for name in (Isic2019.TRUTH, Isic2019.METADATA)))
    assert len(table) == 25331
    assert table["image_id"].is_monotonic_increasing
    expected = {c.label: c.images for c in INFO["isic2019"].classes}
    assert table["label"].value_counts().to_dict() == expected
    assert (table["lesion_id"] == "").sum() == 2084
    assert table.set_index("image_id").loc["ISIC_0000000"].to_dict() == {
        "label": "NV", "lesion_id": "", "age_approx": "55",
        "anatom_site_general": "anterior torso", "sex": "female",
    }  # fmt: skip


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("classes", [4, 8])
def test_the_papers_numbers_of_queries_and_what_leaks(shared_isic2019, classes, seed):
    table = read_labels(*(shared_isic2019 / name for name in (Isic2019.TRUTH, Isic2019.METADATA)))
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
        expected = [len(mine), sum(mine), sum(mine) / len(mine)]
        assert found.loc[label].tolist() == pytest.approx(expected)
    by_lesion = split_by_lesion(parts, seed=seed)
    assert leakage(by_lesion).loc["all", "with_mate"] == 0
    for label, images in by_lesion.groupby("label"):
        off = (images["split"] == "query").sum() - len(images) / 10
        largest = images.loc[images["lesion_id"] != "", "lesion_id"].value_counts().max()
        assert abs(off) <= largest / 2, label
    if classes == 4:
        assert 0.57 < found.loc["all", "share"] < 0.66
        assert found.loc["MEL", "share"] > 0.75


def test_the_dry_run_prints_both_splits(shared_isic2019, capsys):
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


def test_without_root_only_the_dry_run(isic, capsys):
    assert main(["isic2019", "--archives", str(isic.folder)]) == 2
    assert "--root FOLDER" in capsys.readouterr().err
    assert main(["isic2019", "--archives", str(isic.folder), "--dry-run", "--classes", "8"]) == 0
    assert "SCC" in capsys.readouterr().out


# --- the data folder -----------------------------------------------------------------------


@pytest.mark.parametrize("classes", [4, 8])
def test_images_and_labels_arrive(isic, rows, record, capsys, classes):
    frame = rows("--classes", str(classes), "--split", "paper")
    wanted = [r for r in isic.records if r["label"] in CLASSES[classes]]
    assert frame["image"].tolist() == [f"images/{r['image']}.jpg" for r in wanted]
    for name in ("label", "lesion_id", "sex", "age_approx", "anatom_site_general"):
        assert frame[name].tolist() == [r[name] for r in wanted]
    assert frame["content"].tolist() == [isic.image(r["image"]) for r in wanted]
    assert set(frame["mask"]) == {""}
    assert record()["sources"] == {p.name: p.stat().st_size for p in isic.folder.iterdir()}
    assert (record()["options"]["classes"], record()["licence"]) == (classes, "CC BY-NC 4.0")
    assert "Please cite: BCN20000" in capsys.readouterr().out


def test_a_folder_as_isics_own_tool_makes_it(isic, rows, record):
    expected = rows()["content"].tolist()
    (isic.folder / isic.IMAGES).unlink()
    folder = isic.folder / INPUT
    (folder / "licenses").mkdir(parents=True)
    (folder / "metadata.csv").write_text("x")
    for image in isic.ids:
        path = folder / f"{image.removesuffix('_downsampled')}.JPG"
        path.write_bytes(isic.image(image))
    assert rows()["content"].tolist() == expected
    assert record()["sources"][INPUT].startswith(f"{len(isic.ids) + 1} files, ")


def test_the_old_name_of_a_column(isic, rows):
    expected = rows()
    isic.write_metadata(sex="gender")
    assert rows()["sex"].tolist() == expected["sex"].tolist()


# --- bad input -------------------------------------------------------------------------------


def test_labels_without_images_are_refused(isic, error):
    isic.write_images(isic.ids[:-2])
    text = error()
    assert (
        "lists 2 images that cannot be found" in text
        and isic.TRUTH in text
        and isic.ids[-2] in text
    )
    assert "isic image download" in text


def test_an_image_that_is_there_twice_is_refused(isic, error):
    isic.write_images(change={f"{INPUT}/more/ISIC_0000003.jpg": b"x"})
    assert "are both ISIC_0000003: remove one" in error()


@pytest.mark.parametrize(
    ("name", "named"),
    [
        (Isic2019.IMAGES, f"has neither {INPUT}.zip nor a folder"),
        (Isic2019.TRUTH, f"has no {Isic2019.TRUTH}"),
        (Isic2019.METADATA, f"has no {Isic2019.METADATA}"),
    ],
)
def test_a_missing_file_is_named(isic, error, name, named):
    (isic.folder / name).unlink()
    assert named in error()


TWICE = "lists ISIC_0000000 twice"
ONE_CLASS = "exactly one class to 1 image, such as ISIC_0000000"


@pytest.mark.parametrize(
    ("table", "line", "column", "value", "named"),
    [
        (Isic2019.TRUTH, 0, "BCC", "bbc", "no column 'BCC'"),
        (Isic2019.TRUTH, 1, "MEL", "1.0", ONE_CLASS),
        (Isic2019.TRUTH, 1, "NV", "0.5", ONE_CLASS),
        (Isic2019.TRUTH, 2, "image", "ISIC_0000000_downsampled", "twice, in lines 2 and 3"),
        (Isic2019.TRUTH, 2, "image", "ISIC_0099999", "Metadata.csv lacks 1 image"),
        (Isic2019.METADATA, 0, "lesion_id", "lesion", "no column 'lesion_id'"),
        (Isic2019.METADATA, 1, "lesion_id", "BCN_0000015", "BCN_0000015 different classes"),
        (Isic2019.METADATA, 2, "image", "ISIC_0000000", TWICE),
    ],
)
def test_bad_tables_are_reported_never_guessed(isic, error, table, line, column, value, named):
    isic.change(table, line, column, value)
    assert named in error()


def test_images_of_no_known_class(isic, error):
    isic.change(Isic2019.TRUTH, 1, "NV", "0.0")
    isic.change(Isic2019.TRUTH, 1, "UNK", "1.0")
    assert "the class UNK, unknown, to 1 image, such as ISIC_0000000" in error()
