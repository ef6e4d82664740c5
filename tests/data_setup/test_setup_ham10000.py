"""HAM10000 from its archives, in the publisher's layouts."""

import collections
import csv
import shutil

import numpy as np
import pandas as pd
import pytest

from data_setup.__main__ import main
from derm_hash.data.dataset import LesionDataset

ISIC_NAMES = {"mel": "MEL", "nv": "NV", "bcc": "BCC", "bkl": "BKL"}
ALL_NAMES = ISIC_NAMES | {"akiec": "AKIEC", "df": "DF", "vasc": "VASC"}
REDUCED = "HAM10000_images_200x150.zip"


@pytest.fixture
def command(ham):
    return ["ham10000", "--archives", ham.folder]


@pytest.mark.parametrize(("classes", "names"), [("4", ISIC_NAMES), ("7", ALL_NAMES)])
def test_images_masks_and_labels_arrive(
    ham, command, prepare, root, record, capsys, classes, names
):
    frame = prepare(*command, "--classes", classes, "--size", "original")
    wanted = [record for record in ham.records if record["dx"] in names]
    assert frame["image"].tolist() == [f"images/{r['image_id']}.jpg" for r in wanted]
    assert frame["label"].tolist() == [names[r["dx"]] for r in wanted]
    assert frame["lesion_id"].tolist() == [r["lesion_id"] for r in wanted]
    assert set(frame["source"]) == {"HAM10000"}
    assert set(frame["localization"]) == {"scalp"}
    for one, row in zip(wanted, frame.itertuples(), strict=True):
        assert (root / row.image).read_bytes() == ham.image(one["image_id"])
        assert (root / row.mask).read_bytes() == ham.mask(one["image_id"])
    assert (frame.groupby("lesion_id")["split"].nunique() == 1).all()
    out = capsys.readouterr().out
    assert f"derm-hash train --data {root}" in out
    assert "CC BY-NC" in out
    assert record()["command"] == "ham10000"
    assert record()["options"]["classes"] == int(classes)
    assert record()["counts"]["images"] == record()["counts"]["masks"] == len(wanted)
    assert record()["tool"].startswith("derm-hash ")


def test_full_size_archives_win_over_reduced_ones(ham, command, prepare, record):
    ham.write_images("HAM10000_images_part_1.zip", prefix="big/")
    prepare(*command)
    assert "HAM10000_images_part_1.zip" in record()["sources"]
    assert REDUCED not in record()["sources"]


def test_paper_splits_by_image_and_says_what_leaks(ham, command, prepare, capsys):
    for lesion in ham.records:
        lesion["lesion_id"] = f"HAM_{ALL_NAMES[lesion['dx']]}"
    ham.write_metadata()
    split = prepare(*command, "--split", "paper", "--seed", "3")["split"]
    counts = collections.Counter(r["dx"] for r in ham.records if r["dx"] in ISIC_NAMES)
    assert (split == "query").sum() == sum(n // 10 for n in counts.values()) > 0
    assert "100.0% of the queries show a lesion that is in the database" in capsys.readouterr().out


def test_a_published_split_decides_which_images_are_stored_and_where(
    command, prepare, root, tmp_path
):
    frame = prepare(*command)
    names = frame["image"].str.removeprefix("images/").str.removesuffix(".jpg")
    tables = []
    for part, chosen in (("train", slice(0, 9)), ("val", slice(9, 12)), ("test", slice(12, 15))):
        rows = pd.DataFrame({"image": names[chosen], "category": frame["label"][chosen]})
        rows.to_csv(tmp_path / f"{part}.csv", index=False)
        tables.append(f"{part}={tmp_path / part}.csv")
    split = prepare(*command, "--split-csv", *tables, "--force")
    assert split["split"].tolist() == ["database"] * 9 + ["val"] * 3 + ["query"] * 3
    assert split["image"].tolist() == frame["image"][:15].tolist()
    given = {"database": tmp_path / "train.csv", "query": tmp_path / "test.csv"}
    data = LesionDataset.from_folder(root, 32, progress=False, split=given)
    assert len(data.split("database")) == 9 and len(data) == 12


def test_without_masks(ham, command, prepare, capsys):
    (ham.folder / "HAM10000_masks_200x150.zip").unlink()
    assert set(prepare(*command)["mask"]) == {""}
    assert "going on without" in capsys.readouterr().out


def test_some_images_only(ham, command, prepare, refused, root):
    (ham.folder / REDUCED).unlink()
    ham.write_images("HAM10000_fullres_124.zip", ham.ids[:5])
    error = refused(*command)
    assert ham.ids[5] in error and "download the missing archive" in error
    assert not root.exists()
    assert len(prepare(*command, "--partial")) == 5


# --- bad input --------------------------------------------------------------------


def test_without_archives_it_says_where_to_get_them(refused, root, tmp_path):
    assert "https://doi.org/10.7910/DVN/DBW86T" in refused("ham10000")
    assert not root.exists()
    assert "nowhere does not exist" in refused("ham10000", "--archives", tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("removed", "named"),
    [("HAM10000_metadata.csv", "metadata table"), (REDUCED, "image archive")],
)
def test_a_missing_file_is_named(ham, command, refused, root, removed, named):
    (ham.folder / removed).unlink()
    assert named in refused(*command)
    assert not root.exists()


@pytest.mark.parametrize(
    ("before", "after", "named"),
    [
        (",mel,", ",melanoma,", "the class 'melanoma'"),
        ("ISIC_0024307", "ISIC_0024306", "lists ISIC_0024306 twice"),
        ("HAM_0000008", "HAM_0000000", "HAM_0000000 different classes"),
        ("ISIC_", "PH2_", "none of the images"),
    ],
)
def test_bad_metadata_is_reported_never_guessed(ham, command, refused, before, after, named):
    path = ham.folder / "HAM10000_metadata.csv"
    path.write_text(path.read_text().replace(before, after))
    error = refused(*command, *(["--partial"] if "none" in named else []))
    assert named in error
    assert "HAM10000_metadata.csv" in error


def test_a_damaged_archive_is_named(ham, command, refused):
    path = ham.folder / REDUCED
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert f"{path} is damaged or not a zip file" in refused(*command)
    flipped = bytearray(content)
    flipped[200] ^= 255
    path.write_bytes(flipped)
    assert f"{ham.ids[0]}.jpg in the archive {path} is damaged" in refused(*command)


# --- the real thing -----------------------------------------------------------------


@pytest.mark.slow
def test_all_of_ham10000(shared_ham10000, prepare, root, capsys):
    frame = prepare("ham10000", "--archives", shared_ham10000, "--classes", "7", "--size", "64")
    with (shared_ham10000 / "HAM10000_metadata.csv").open(newline="") as file:
        records = {row["image_id"]: row for row in csv.DictReader(file)}
    expected = collections.Counter(ALL_NAMES[row["dx"]] for row in records.values())
    assert collections.Counter(frame["label"]) == expected
    assert len(frame) == 10015 == expected.total()
    assert frame["label"].isin(ISIC_NAMES.values()).sum() == 9431
    assert len(list((root / "images").iterdir())) == len(list((root / "masks").iterdir())) == 10015
    lesions = collections.defaultdict(set)
    for row in frame.itertuples():
        image_id = row.image.removeprefix("images/").removesuffix(".jpg")
        assert row.lesion_id == records[image_id]["lesion_id"]
        lesions[row.split].add(row.lesion_id)
    assert not lesions["query"] & (lesions["database"] | lesions["val"])
    assert not lesions["val"] & lesions["database"]
    for label, n in expected.items():
        queries = ((frame["split"] == "query") & (frame["label"] == label)).sum()
        assert abs(queries - n / 10) <= 3 + n / 100, label
    groups = frame[frame["duplicate_group"] != ""].groupby("duplicate_group")["lesion_id"]
    assert groups.ngroups > 50 and groups.size().max() <= 3, "near-duplicates chain"
    # One photograph that the archive gives as two lesions.
    assert groups.nunique().loc[lambda n: n > 1].index.tolist() == ["dup-images/ISIC_0025226.jpg"]
    assert main(["verify", str(root)]) == 0
    assert "as it was stored" in capsys.readouterr().out
    shutil.rmtree(root)  # which pytest would keep


@pytest.mark.slow
def test_the_full_size_images_go_the_same_way(shared_ham10000, archives, prepare, root):
    for name in ("HAM10000_fullres_124.zip", "HAM10000_masks_200x150.zip", "HAM10000_metadata.csv"):
        (archives / name).symlink_to(shared_ham10000 / name)
    options = ["--classes", "7", "--partial", "--size", "128"]
    prepare("ham10000", "--archives", archives, *options)
    dataset = LesionDataset.from_folder(root, size=128, progress=False)
    assert len(dataset) == 124
    assert all(0 < dataset.mask(i).mean() < 1 for i in range(124))
    assert main(["verify", str(root)]) == 0
    # The lesion is darker than the skin around it in nearly all of them, so a mask that
    # was turned, shifted or swapped would show.
    darker = [
        dataset.picture(i)[dataset.mask(i)].mean() < dataset.picture(i)[~dataset.mask(i)].mean()
        for i in range(124)
    ]
    assert np.mean(darker) > 0.9
