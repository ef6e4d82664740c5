"""HAM10000 from its archives, in the publisher's layouts."""

import collections
import csv
import json
import shutil

import numpy as np
import pytest
from publishers import blob, contents
from real_data import SHARED

from data_setup.__main__ import main
from derm_hash.data.dataset import LesionDataset
from derm_hash.data.manifest import read_manifest

ISIC_NAMES = {"mel": "MEL", "nv": "NV", "bcc": "BCC", "bkl": "BKL"}
ALL = ["--classes", "7"]
ALL_NAMES = ISIC_NAMES | {"akiec": "AKIEC", "df": "DF", "vasc": "VASC"}


def prepare(ham, root, *options):
    return main(["ham10000", "--archives", str(ham.folder), "--root", str(root), *options])


def refused(capsys, ham, root, *options):
    """The one sentence on standard error of a command that must fail."""
    assert prepare(ham, root, *options) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("data_setup: ")
    assert not (root / "manifest.csv").exists()
    return error


@pytest.mark.parametrize(("classes", "names"), [("4", ISIC_NAMES), ("7", ALL_NAMES)])
def test_images_masks_and_labels_arrive(ham, tmp_path, capsys, classes, names):
    root = tmp_path / "data"
    assert prepare(ham, root, "--classes", classes, "--size", "original") == 0
    frame = read_manifest(root)
    wanted = [record for record in ham.records if record["dx"] in names]
    assert frame["image"].tolist() == [f"images/{r['image_id']}.jpg" for r in wanted]
    assert frame["label"].tolist() == [names[r["dx"]] for r in wanted]
    assert frame["lesion_id"].tolist() == [r["lesion_id"] for r in wanted]
    assert set(frame["source"]) == {"HAM10000"}
    assert set(frame["localization"]) == {"scalp"}
    for record, row in zip(wanted, frame.itertuples(), strict=True):
        assert (root / row.image).read_bytes() == ham.image(record["image_id"])
        assert (root / row.mask).read_bytes() == ham.mask(record["image_id"])
    parts = frame.groupby("lesion_id")["split"].nunique()
    assert (parts == 1).all()
    out = capsys.readouterr().out
    assert f"derm-hash train --data {root}" in out
    assert "CC BY-NC" in out
    record = json.loads((root / "dataset.json").read_text())
    assert record["command"] == "ham10000"
    assert record["options"]["classes"] == int(classes)
    assert record["counts"]["images"] == record["counts"]["masks"] == len(wanted)
    assert record["tool"].startswith("derm-hash ")


def test_the_folder_is_a_data_set(ham, tmp_path):
    assert prepare(ham, tmp_path / "data") == 0
    dataset = LesionDataset.from_folder(tmp_path / "data", size=15, progress=False)
    assert dataset.classes == ("MEL", "NV", "BCC", "BKL")
    full = np.asarray(blob(0)) > 0
    box = full[:, 2:17]  # the centre of 20 x 15, half a pixel aside
    assert (dataset.mask(0) != box).mean() < 0.1
    for name in ("database", "val", "query"):
        assert set(dataset.split(name).labels.tolist()) == {0, 1, 2, 3}


def test_the_publishers_own_names_and_folders(ham, tmp_path):
    assert prepare(ham, tmp_path / "expected") == 0
    for path in ham.folder.iterdir():
        path.unlink()
    ham.write_images("HAM10000_images_part_1.zip", ham.ids[:10], prefix="part_1/")
    ham.write_images(
        "HAM10000_images_part_2.zip",
        ham.ids[10:],
        {"__MACOSX/._ISIC_0024306.jpg": b"x", ".DS_Store": b"x", "LICENSE.txt": b"x"},
    )
    ham.write_masks(
        "HAM10000_segmentations_lesion_tschandl.zip",
        "HAM10000_segmentations_lesion_tschandl/",
        {"__MACOSX/HAM10000_segmentations_lesion_tschandl/._ISIC_0024306_segmentation.png": b"x"},
    )
    for name, delimiter in (("HAM10000_metadata", ","), ("HAM10000_metadata.tab", "\t")):
        ham.write_metadata(name, delimiter)
        root = tmp_path / name
        assert prepare(ham, root) == 0
        expected, found = contents(tmp_path / "expected"), contents(root)
        for files in (expected, found):
            files.pop("dataset.json")
        assert found == expected
        (ham.folder / name).unlink()


def test_full_size_archives_win_over_reduced_ones(ham, tmp_path):
    ham.write_images("HAM10000_images_part_1.zip", prefix="big/")
    assert prepare(ham, tmp_path / "data") == 0
    sources = json.loads((tmp_path / "data" / "dataset.json").read_text())["sources"]
    assert "HAM10000_images_part_1.zip" in sources
    assert "HAM10000_images_200x150.zip" not in sources


def test_paper_splits_by_image_and_says_what_leaks(ham, tmp_path, capsys):
    for lesion in ham.records:
        lesion["lesion_id"] = f"HAM_{ALL_NAMES[lesion['dx']]}"
    ham.write_metadata()
    assert prepare(ham, tmp_path / "data", "--split", "paper", "--seed", "3") == 0
    split = read_manifest(tmp_path / "data")["split"]
    counts = collections.Counter(r["dx"] for r in ham.records if r["dx"] in ISIC_NAMES)
    assert (split == "query").sum() == sum(n // 10 for n in counts.values()) > 0
    assert "100% of the query images show a lesion" in capsys.readouterr().out


def test_without_masks(ham, tmp_path, capsys):
    (ham.folder / "HAM10000_masks_200x150.zip").unlink()
    assert prepare(ham, tmp_path / "data") == 0
    assert "going on without" in capsys.readouterr().out
    assert set(read_manifest(tmp_path / "data")["mask"]) == {""}


def test_some_images_only(ham, tmp_path, capsys):
    (ham.folder / "HAM10000_images_200x150.zip").unlink()
    ham.write_images("HAM10000_fullres_124.zip", ham.ids[:5])
    error = refused(capsys, ham, tmp_path / "data")
    assert ham.ids[5] in error and "download the missing archive" in error
    assert not (tmp_path / "data").exists()
    assert prepare(ham, tmp_path / "data", "--partial") == 0
    assert len(read_manifest(tmp_path / "data")) == 5


# --- bad input --------------------------------------------------------------------


def test_without_archives_it_says_where_to_get_them(tmp_path, capsys):
    assert main(["ham10000", "--root", str(tmp_path / "data")]) == 2
    assert "https://doi.org/10.7910/DVN/DBW86T" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("removed", "named"),
    [("HAM10000_metadata.csv", "metadata table"), ("HAM10000_images_200x150.zip", "image archive")],
)
def test_a_missing_file_is_named(ham, tmp_path, capsys, removed, named):
    (ham.folder / removed).unlink()
    assert named in refused(capsys, ham, tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_a_missing_folder_is_named(ham, tmp_path, capsys):
    ham.folder = tmp_path / "nowhere"
    assert "nowhere does not exist" in refused(capsys, ham, tmp_path / "data")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda t: t.replace(",mel,", ",melanoma,", 1), "the class 'melanoma'"),
        (lambda t: t.replace("image_id", "picture", 1), "no column 'image_id'"),
        (lambda t: t.replace("ISIC_0024307", "ISIC_0024306"), "lists ISIC_0024306 twice"),
        (
            lambda t: t.replace("HAM_0000008", "HAM_0000000"),
            "HAM_0000000 different classes",
        ),
        (lambda t: "", "is empty"),
        (lambda t: t.replace("ISIC_", "PH2_"), "none of the images"),
    ],
)
def test_bad_metadata_is_reported_never_guessed(ham, tmp_path, capsys, change, named):
    path = ham.folder / "HAM10000_metadata.csv"
    path.write_text(change(path.read_text()))
    options = ["--partial"] if "none" in named else []
    error = refused(capsys, ham, tmp_path / "data", *options)
    assert named in error
    assert "HAM10000_metadata.csv" in error


@pytest.mark.parametrize("content", [b"", b"text", None])
def test_a_bad_image_is_named_and_the_folder_can_be_completed(ham, tmp_path, capsys, content):
    bad = f"{ham.ids[7]}.jpg"
    damage = ham.image(ham.ids[7])[:300] if content is None else content
    ham.write_images(change={bad: damage})
    error = refused(capsys, ham, tmp_path / "data")
    assert f"{bad} in the archive {ham.folder / 'HAM10000_images_200x150.zip'}" in error
    ham.write_images()
    assert prepare(ham, tmp_path / "data") == 0
    assert len(read_manifest(tmp_path / "data")) == sum(r["dx"] in ISIC_NAMES for r in ham.records)


def test_one_image_in_two_archives_is_refused(ham, tmp_path, capsys):
    ham.write_images("HAM10000_images_more.zip", ham.ids[:1])
    assert f"are both {ham.ids[0]}: remove one" in refused(capsys, ham, tmp_path / "data")


def test_a_damaged_archive_is_named(ham, tmp_path, capsys):
    path = ham.folder / "HAM10000_images_200x150.zip"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert f"{path} is damaged or not a zip file" in refused(capsys, ham, tmp_path / "data")
    flipped = bytearray(content)
    flipped[200] ^= 255
    path.write_bytes(flipped)
    assert f"{ham.ids[0]}.jpg in the archive {path} is damaged" in refused(
        capsys, ham, tmp_path / "data"
    )


# --- the real thing -----------------------------------------------------------------


@pytest.fixture(scope="module")
def all_of_it(tmp_path_factory):
    """The folder of all images as the command makes it."""
    archives = SHARED / "ham10000"
    if not archives.is_dir():
        pytest.skip(f"HAM10000 is not in {archives}")
    root = tmp_path_factory.mktemp("ham10000") / "data"
    assert main(["ham10000", "--archives", str(archives), "--root", str(root), *ALL]) == 0
    yield root
    shutil.rmtree(root)  # nearly a gigabyte, which pytest would keep


@pytest.mark.slow
def test_all_of_ham10000(all_of_it, shared_ham10000, capsys):
    root = all_of_it
    with (shared_ham10000 / "HAM10000_metadata.csv").open(newline="") as file:
        records = {row["image_id"]: row for row in csv.DictReader(file)}
    expected = collections.Counter(ALL_NAMES[row["dx"]] for row in records.values())
    frame = read_manifest(root)
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
    assert main(["verify", str(root)]) == 0
    assert "as it was stored" in capsys.readouterr().out


@pytest.mark.slow
def test_the_full_size_images_go_the_same_way(shared_ham10000, tmp_path):
    archives = tmp_path / "archives"
    archives.mkdir()
    for name in ("HAM10000_fullres_124.zip", "HAM10000_masks_200x150.zip", "HAM10000_metadata.csv"):
        (archives / name).symlink_to(shared_ham10000 / name)
    root = tmp_path / "data"
    options = ["--classes", "7", "--partial", "--size", "128"]
    assert main(["ham10000", "--archives", str(archives), "--root", str(root), *options]) == 0
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
