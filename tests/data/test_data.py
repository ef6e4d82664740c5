"""The manifest, the splits and the data set in memory."""

import csv
import threading
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from real_data import SHARED

from derm_hash import files as data
from derm_hash.atlas.atlas import Atlas
from derm_hash.data.dataset import LesionDataset, atlas_table
from derm_hash.data.images import to_input
from derm_hash.data.manifest import COLUMNS, class_order, read_manifest, write_manifest
from derm_hash.data.splits import split_by_image, split_by_lesion
from derm_hash.errors import InputError
from derm_hash.files import thread_map

ISIC_2019 = SHARED / "isic2019"
needs_isic_2019 = pytest.mark.skipif(
    not ISIC_2019.is_dir(), reason=f"the ISIC 2019 tables are not in {ISIC_2019}"
)


def noise(seed, width=12, height=9):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def folder(tmp_path):
    """Six images of three classes with masks for two of them, split by hand."""
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    labels = ["NV", "MEL", "NV", "BCC", "MEL", "NV"]
    splits = ["database", "database", "query", "database", "val", "database"]
    for i in range(6):
        noise(i).save(tmp_path / "images" / f"{i}.png")
    for i in (1, 4):
        noise(100 + i).convert("1").save(tmp_path / "masks" / f"{i}.png")
    write_manifest(
        pd.DataFrame(
            {
                "image": [f"images/{i}.png" for i in range(6)],
                "label": labels,
                "split": splits,
                "mask": [f"masks/{i}.png" if i in (1, 4) else "" for i in range(6)],
            }
        ),
        tmp_path,
    )
    return tmp_path


def rewrite(folder, change):
    """Change the manifest's text."""
    path = folder / "manifest.csv"
    path.write_text(change(path.read_text()))


# --- the manifest ---------------------------------------------------------------


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
        (lambda text: text.replace("image,", "picture,", 1), "no column 'image'"),
        (lambda text: text.replace("label,", "class,", 1), "no column 'label'"),
        (lambda text: text.replace(",", ";"), "no column 'image'"),
        (lambda text: text.replace(",query", ",test"), "'test' in line 4"),
        (lambda text: text.replace(",BCC,", ",,"), "the label is empty in line 5"),
        (lambda text: text.replace("images/3.png", ""), "the image is empty in line 5"),
        (lambda text: text.replace("images/3.png", "images/1.png"), "images/1.png is listed again"),
        (lambda text: text.replace("images/3.png", "images/9.png"), "images/9.png"),
        (lambda text: text.replace("masks/4.png", "masks/9.png"), "masks/9.png"),
        (lambda text: text.replace("images/3.png", "../3.png"), "'../3.png'"),
        (lambda text: text.replace("images/3.png", "/etc/passwd"), "'/etc/passwd'"),
        (lambda text: text.replace("images/3.png", r"..\3.png"), "leaves the folder"),
        (lambda text: text.replace("images/3.png", r"C:\3.png"), "leaves the folder"),
        (lambda text: text.replace("masks/4.png", "masks/../../4.png"), "leaves the folder"),
        (lambda text: text.replace("images/3.png,BCC", "images/3.png,BCC,a,b,c,d,e,f"), "manifest"),
        (lambda text: text.replace("images/0.png,NV", "images/0.png,NV,,,,,,,"), "manifest"),
        (lambda text: text.replace("source", "label ", 1), "two columns 'label'"),
        (lambda text: text.replace("source", "label", 1), "two columns 'label'"),
        (lambda text: text.replace("source", "image ", 1), "two columns 'image'"),
        (lambda text: text.replace("mask,source", '"a\nb","a\nb "', 1), r"columns 'a\nb'"),
        (lambda text: text.replace("image,", '"a\nb",', 1), r"(its columns: a\nb, label"),
        (lambda text: text.replace("images/3.png", '"images/\n3.png"'), r"'images/\n3.png'"),
        (lambda text: text.replace("images/3.png", "\x1b[31m3.png"), r"'\x1b[31m3.png' in line 5"),
        (lambda text: text.replace("masks/4.png", '"masks/\n4.png"'), r"'masks/\n4.png'"),
        (lambda text: text.replace(",BCC,", ',"B\nCC",'), r"the label 'B\nCC' in line 5"),
        (lambda text: text.replace(",BCC,", f",{'B' * 1001},"), "more than 1000 characters"),
        (lambda text: text.replace(",query", ",\x1b[31m"), r"the split '\x1b[31m' in line 4"),
        (lambda text: text.replace("images/3.png", "images//1.png"), "1.png is listed again"),
        (lambda text: text.replace("images/3.png", "./images/./1.png"), "1.png is listed again"),
    ],
)
def test_a_bad_manifest_is_refused_in_one_sentence(folder, change, named):
    rewrite(folder, change)
    with pytest.raises(InputError) as error:
        read_manifest(folder)
    assert named in str(error.value)
    assert "manifest.csv" in str(error.value)
    assert str(error.value).isprintable()


def test_paths_are_read_without_detours(folder):
    rewrite(folder, lambda text: text.replace("images/", "./images//").replace("masks/", "masks//"))
    frame = read_manifest(folder)
    assert frame["image"].tolist() == [f"images/{i}.png" for i in range(6)]
    assert set(frame["mask"]) == {"", "masks/1.png", "masks/4.png"}


def test_columns_without_a_name_are_no_obstacle(folder):
    rewrite(folder, lambda text: text.replace("\n", ",,x\n").replace(",,x", ", ,", 1))
    assert read_manifest(folder).columns.tolist() == [*COLUMNS, "Unnamed: 6", "Unnamed: 7"]


def test_a_folder_without_manifest_says_how_to_make_one(tmp_path):
    for root in (tmp_path, tmp_path / "absent"):
        with pytest.raises(InputError, match="python -m data_setup"):
            read_manifest(root)


def test_a_manifest_in_another_encoding_is_refused(folder):
    (folder / "manifest.csv").write_bytes("image,label\nimages/0.png,Nävus".encode("utf-16"))
    with pytest.raises(InputError, match="UTF-8"):
        read_manifest(folder)


def test_a_label_outside_the_classes_is_named(folder):
    assert len(read_manifest(folder, classes=["MEL", "NV", "BCC"])) == 6
    with pytest.raises(InputError, match=r"'BCC' in line 5 .* none of the classes MEL, NV"):
        read_manifest(folder, classes=["MEL", "NV"])


def test_writing_needs_the_required_columns(tmp_path):
    with pytest.raises(InputError, match="'label'"):
        write_manifest(pd.DataFrame({"image": ["a.png"]}), tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def write(part):
        part.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        data.write_atomically(path, write)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


# --- splits -----------------------------------------------------------------------


@st.composite
def manifests(draw):
    """Lesions of 1-4 images in up to four classes; some images without lesion_id."""
    rows = []
    for label in draw(st.sets(st.sampled_from(["MEL", "NV", "BCC", "ä b"]), min_size=1)):
        for lesion in range(draw(st.integers(1, 40))):
            for view in range(draw(st.integers(1, 4))):
                known = draw(st.booleans()) or view > 0
                rows.append((f"{label}-{lesion}-{view}.png", label, f"{lesion}{label}" * known))
    return pd.DataFrame(rows, columns=["image", "label", "lesion_id"])


def lesions_of(frame, part):
    """The lesions of a part: brute force, independent of the package."""
    return {
        row.lesion_id or ("image", row.image) for row in frame.itertuples() if row.split == part
    }


@settings(max_examples=60, deadline=None)
@given(manifests(), st.integers(0, 9), st.sampled_from([0.0, 0.1, 0.25]), st.sampled_from([0, 0.2]))
def test_no_lesion_is_in_two_parts(frame, seed, query, val):
    split = split_by_lesion(frame, query, val, seed)
    assert split["image"].tolist() == frame["image"].tolist()
    parts = {part: lesions_of(split, part) for part in ("database", "val", "query")}
    assert set(split["split"]) <= set(parts)
    assert not parts["database"] & parts["val"]
    assert not parts["database"] & parts["query"]
    assert not parts["val"] & parts["query"]
    assert bool(parts["query"]) <= (query > 0)
    assert bool(parts["val"]) <= (val > 0)
    for label in set(frame["label"]):
        one = split[split["label"] == label]
        keys = [row.lesion_id or ("image", row.image) for row in one.itertuples()]
        largest = max(keys.count(key) for key in keys)
        # The nearest end of a lesion is at most half a lesion away, unless the part
        # would have been empty, or the others would: then a whole lesion or two.
        off = abs((one["split"] == "query").sum() - query * len(one))
        assert off <= largest / 2 or len(set(keys)) <= 2 / max(query, 0.1) * largest
        if len(set(keys)) >= 3:
            present = set(one["split"])
            assert "database" in present
            assert ("query" in present) == (query > 0)
            assert ("val" in present) == (val > 0)


@settings(max_examples=30, deadline=None)
@given(manifests(), st.integers(0, 9))
def test_splits_depend_on_the_seed_alone(frame, seed):
    for splitter in (split_by_lesion, split_by_image):
        split = splitter(frame, 0.2, 0.2, seed)
        shuffled = splitter(frame.sample(frac=1, random_state=1), 0.2, 0.2, seed)
        assert dict(zip(split["image"], split["split"], strict=True)) == dict(
            zip(shuffled["image"], shuffled["split"], strict=True)
        )
        one_class = frame["label"] == frame["label"].iloc[0]
        alone = splitter(frame[one_class], 0.2, 0.2, seed)
        assert alone["split"].tolist() == split.loc[one_class.to_numpy(), "split"].tolist()


@st.composite
def manifests_with_duplicates(draw):
    """Manifests of which some images are near-duplicates of others, within and across classes."""
    frame = draw(manifests())
    groups = st.lists(st.sampled_from(["", "", "", "a", "b", "c", "d"]), min_size=1)
    chosen = draw(groups)
    return frame.assign(duplicate_group=[chosen[i % len(chosen)] for i in range(len(frame))])


def connected_by_hand(frame):
    """Sets of positions that share a lesion or a near-duplicate, merged until nothing changes."""
    parts = []
    for i, row in enumerate(frame.itertuples()):
        marks = {("image", row.image), ("lesion", row.lesion_id), ("group", row.duplicate_group)}
        joined = ({i}, marks - {("lesion", ""), ("group", "")})
        for part in [part for part in parts if part[1] & joined[1]]:
            parts.remove(part)
            joined = (joined[0] | part[0], joined[1] | part[1])
        parts.append(joined)
    return [rows for rows, _ in parts]


@settings(max_examples=60, deadline=None)
@given(manifests_with_duplicates(), st.integers(0, 9))
def test_no_near_duplicate_is_in_two_parts(frame, seed):
    split = split_by_lesion(frame, 0.2, 0.1, seed)
    components = connected_by_hand(frame)
    assert all(split["split"].iloc[list(rows)].nunique() == 1 for rows in components)
    # Half a component at most for each of three borders: query, val and the end of the class,
    # or whole ones where a part would be empty.
    largest = max(map(len, components))
    classes = frame["label"].nunique()
    off = (split["split"] == "query").sum() - 0.2 * len(frame)
    assert abs(off) <= 2 * classes * largest
    shuffled = split_by_lesion(frame.sample(frac=1, random_state=1), 0.2, 0.1, seed)
    assert dict(zip(split["image"], split["split"], strict=True)) == dict(
        zip(shuffled["image"], shuffled["split"], strict=True)
    )


def many_lesions(**columns):
    """100 naevi and 100 melanomas of two images each, no near-duplicates."""
    frame = pd.DataFrame({"image": [f"{i:03}.png" for i in range(400)]})
    frame["label"] = ["NV", "MEL"] * 200
    frame["lesion_id"] = [f"L{i // 4}{'NM'[i % 2]}" for i in range(400)]
    return frame.assign(duplicate_group="", **columns)


def test_few_near_duplicates_change_the_split_little_and_the_shares_not():
    frame = many_lesions()
    before = split_by_lesion(frame)["split"]
    assert split_by_lesion(frame.drop(columns="duplicate_group"))["split"].equals(before)
    frame.loc[[0, 40, 80, 1, 41], "duplicate_group"] = ["a", "a", "a", "b", "b"]
    after = split_by_lesion(frame)["split"]
    assert (before != after).sum() <= 16
    for label in ("NV", "MEL"):
        assert (after[frame["label"] == label] == "query").sum() == 20
        # Duplicates within a class leave the other classes alone.
        alone = split_by_lesion(frame[frame["label"] == label])["split"]
        assert alone.tolist() == after[frame["label"] == label].tolist()


def test_near_duplicates_of_two_classes_follow_the_largest_lesion():
    frame = many_lesions()
    before = split_by_lesion(frame)["split"]
    query = frame.loc[(before == "query") & (frame["label"] == "NV"), "lesion_id"].iloc[0]
    other = frame.loc[(before == "database") & (frame["label"] == "MEL"), "lesion_id"].iloc[0]
    three = pd.DataFrame([{"image": "x.png", "label": "NV", "lesion_id": query}])
    frame = pd.concat([frame, three], ignore_index=True)  # the naevus has three images now
    for lesion in (query, other):
        frame.loc[frame.index[frame["lesion_id"] == lesion][0], "duplicate_group"] = "same"
    after = split_by_lesion(frame)
    assert set(after.loc[after["lesion_id"].isin([query, other]), "split"]) == {"query"}


def test_another_seed_is_another_split():
    frame = pd.DataFrame({"image": [f"{i}.png" for i in range(200)], "label": "NV"})
    for splitter in (split_by_lesion, split_by_image):
        queries = [
            frozenset(np.flatnonzero(splitter(frame, seed=seed)["split"] == "query"))
            for seed in range(5)
        ]
        assert len(set(queries)) == 5


@pytest.mark.parametrize("percent", [0, 7, 10, 29, 57, 58, 99])  # 0.29 * 100 < 29 in binary
def test_image_splits_round_down_exactly(percent):
    for n in (1, 2, 9, 10, 100, 333):
        frame = pd.DataFrame({"image": [f"{i}.png" for i in range(n)], "label": "NV"})
        parts = split_by_image(frame, percent / 100, percent / 100)["split"].value_counts()
        queries = int(Fraction(percent, 100) * n)
        assert parts.get("query", 0) == queries
        assert parts.get("val", 0) == int(Fraction(percent, 100) * (n - queries))
        assert parts.sum() == n


def test_a_lesion_with_two_labels_stays_together():
    frame = pd.DataFrame(
        {
            "image": [f"{i}.png" for i in range(60)],
            "label": ["NV", "MEL", "NV"] * 20,
            "lesion_id": [str(i // 3) for i in range(60)],
        }
    )
    split = split_by_lesion(frame, 0.3, 0.3)
    assert (split.groupby("lesion_id")["split"].nunique() == 1).all()
    assert set(split["split"]) == {"database", "val", "query"}


@pytest.mark.parametrize("share", [-0.1, 1.0, 2, float("nan")])
def test_an_impossible_share_is_refused(share):
    frame = pd.DataFrame({"image": ["a.png"], "label": ["NV"]})
    for splitter in (split_by_lesion, split_by_image):
        with pytest.raises(InputError, match="query share"):
            splitter(frame, query=share)
        with pytest.raises(InputError, match="val share"):
            splitter(frame, val=share)


@pytest.fixture(scope="module")
def isic_2019():
    """The four classes of the paper from the official tables, read without pandas."""
    with (ISIC_2019 / "ISIC_2019_Training_Metadata.csv").open(newline="") as file:
        lesion_of = {row["image"]: row["lesion_id"] for row in csv.DictReader(file)}
    rows = []
    with (ISIC_2019 / "ISIC_2019_Training_GroundTruth.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            label = next(name for name in row if name != "image" and float(row[name]) == 1)
            if label in ("MEL", "NV", "BCC", "BKL"):
                rows.append((f"{row['image']}.jpg", label, lesion_of[row["image"]]))
    return pd.DataFrame(rows, columns=["image", "label", "lesion_id"])


@needs_isic_2019
def test_the_papers_query_counts(isic_2019):
    split = split_by_image(isic_2019)
    queries = split.loc[split["split"] == "query", "label"].value_counts().to_dict()
    assert queries == {"MEL": 452, "NV": 1287, "BCC": 332, "BKL": 262}


@needs_isic_2019
@pytest.mark.parametrize("seed", range(3))
def test_isic_2019_leaks_by_image_and_not_by_lesion(isic_2019, seed):
    def leak(split):
        elsewhere = set(split.loc[split["split"] != "query", "lesion_id"]) - {""}
        return split.loc[split["split"] == "query", "lesion_id"].isin(elsewhere).mean()

    assert 0.55 < leak(split_by_image(isic_2019, seed=seed)) < 0.7
    split = split_by_lesion(isic_2019, seed=seed)
    assert leak(split) == 0
    for label, images in split.groupby("label"):
        off = (images["split"] == "query").sum() - len(images) / 10
        largest = images.loc[images["lesion_id"] != "", "lesion_id"].value_counts().max()
        assert abs(off) <= largest / 2, label


# --- the data set ------------------------------------------------------------------


def test_a_data_set_holds_the_images_of_its_folder(folder):
    dataset = LesionDataset.from_folder(folder, size=8, progress=False)
    assert dataset.classes == ("MEL", "NV", "BCC")
    assert dataset.labels.tolist() == [1, 0, 1, 2, 0, 1]
    assert dataset.labels.dtype == torch.int64
    assert dataset.images.shape == (6, 3, 8, 8)
    assert (len(dataset), dataset.size) == (6, 8)
    for i in range(6):
        expected = noise(i).resize((8, 8), Image.Resampling.BICUBIC, box=(1.5, 0, 10.5, 9))
        assert np.array_equal(dataset.picture(i), np.asarray(expected))
        x, y = dataset[i]
        assert y == dataset.labels[i]
        scaled = torch.tensor(np.asarray(expected) / 127.5 - 1, dtype=torch.float32)
        assert torch.allclose(x, scaled.permute(2, 0, 1), atol=1e-6)
    assert list(dataset.table.index) == list(range(6))
    assert "6 images of 8 px" in repr(dataset)


def test_masks_come_from_their_files(folder):
    dataset = LesionDataset.from_folder(folder, size=9, progress=False)
    assert dataset.mask(0) is None
    mask = dataset.mask(4)
    full = np.asarray(noise(104).convert("1"))
    box = (1.5, 0, 10.5, 9)
    expected = Image.fromarray(full).resize((9, 9), Image.Resampling.NEAREST, box=box)
    assert mask.dtype == bool
    assert np.array_equal(mask, np.asarray(expected))
    assert np.array_equal(dataset.split("val").mask(0), mask)


def test_splits_and_selections_keep_rows_and_images_together(folder):
    dataset = LesionDataset.from_folder(folder, size=8, progress=False)
    sizes = {name: len(dataset.split(name)) for name in ("database", "val", "query")}
    assert sizes == {"database": 4, "val": 1, "query": 1}
    part = dataset.split("database").select([2, 0])
    assert part.table["image"].tolist() == ["images/3.png", "images/0.png"]
    assert part.classes == dataset.classes
    assert torch.equal(part.images, dataset.images[[3, 0]])
    x, y = part.batch(torch.tensor([1, 0, 1]))
    assert torch.equal(x, to_input(dataset.images[[0, 3, 0]]))
    assert y.tolist() == [1, 2, 1]
    chosen = dataset.select(dataset.labels.numpy() == 1)
    assert chosen.table["image"].tolist() == ["images/0.png", "images/2.png", "images/5.png"]
    assert len(dataset.select([])) == 0


def test_classes_can_be_given_in_another_order(folder):
    dataset = LesionDataset.from_folder(
        folder, 8, classes=["BCC", "NV", "AK", "MEL"], progress=False
    )
    assert dataset.classes == ("BCC", "NV", "AK", "MEL")
    assert dataset.labels.tolist() == [1, 3, 1, 0, 3, 1]


def test_class_order():
    assert class_order(["BKL", "NV", "MEL", "NV"]) == ("MEL", "NV", "BKL")
    assert class_order(["NV", "AKIEC", "MEL"]) == ("AKIEC", "MEL", "NV")


def test_size_zero_is_refused(folder):
    with pytest.raises(InputError, match="0 pixels"):
        LesionDataset.from_folder(folder, size=0, progress=False)


def test_bad_splits_are_named(folder):
    dataset = LesionDataset.from_folder(folder, size=8, progress=False)
    with pytest.raises(InputError, match="no split 'test'"):
        dataset.split("test")
    with pytest.raises(InputError, match="'query' has no images"):
        dataset.split("val").split("query")
    rewrite(
        folder, lambda text: text.replace("query", "").replace("val", "").replace("database", "")
    )
    with pytest.raises(InputError, match="split_by_lesion"):
        LesionDataset.from_folder(folder, size=8, progress=False).split("query")


@pytest.mark.parametrize("damage", [b"", b"not an image", None])
def test_a_bad_image_is_named(folder, damage):
    path = folder / "images" / "3.png"
    path.write_bytes(path.read_bytes()[:150] if damage is None else damage)
    with pytest.raises(InputError, match=r"images/3\.png"):
        LesionDataset.from_folder(folder, size=8, progress=False)


def test_parts_that_do_not_fit_together_are_refused():
    table = pd.DataFrame({"image": ["a.png", "b.png"], "label": ["MEL", "NV"]})
    good = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    assert len(LesionDataset(good, table)) == 2
    for bad in (good.float(), good[:1], good[:, :1], good[:, :, :4], good[0]):
        with pytest.raises(InputError, match="uint8 tensor"):
            LesionDataset(bad, table)
    with pytest.raises(InputError, match="'NV' is none of the classes MEL"):
        LesionDataset(good, table, classes=["MEL"])


def test_images_that_do_not_fit_in_memory_are_refused_before(folder):
    with pytest.raises(InputError, match=r"6 images of 10000000 px take 1800000\.0 GB"):
        LesionDataset.from_folder(folder, size=10**7, progress=False)


def test_an_atlas_becomes_a_data_set():
    rng = np.random.default_rng(0)
    atlas = Atlas(
        images=rng.integers(0, 256, (80, 16, 16, 3), dtype=np.uint8),
        masks=rng.random((80, 16, 16)) < 0.5,
        labels=np.repeat(["MEL", "NV", "BCC", "BKL"], 20),
        lesion_ids=np.array([f"L{i // 2}" for i in range(80)]),
        seed=7,
    )
    dataset = LesionDataset.from_atlas(atlas)
    assert dataset.classes == ("MEL", "NV", "BCC", "BKL")
    assert dataset.table["lesion_id"].tolist() == atlas.lesion_ids.tolist()
    assert dataset.table["image"].tolist() == atlas_table(atlas)["image"].tolist()
    query = dataset.split("query")
    assert len(query) == 4 * 2  # 3 of 20 would halve a lesion
    for i, name in enumerate(query.table["image"]):
        origin = dataset.table.index[dataset.table["image"] == name][0]
        assert np.array_equal(query.picture(i), atlas.images[origin])
        assert np.array_equal(query.mask(i), atlas.masks[origin])
    assert not lesions_of(dataset.table, "query") & lesions_of(dataset.table, "database")


def test_threads_stop_at_the_first_error():
    started, gate = [], threading.Event()

    def work(i):
        started.append(i)
        if i == 0:
            raise InputError("broken")
        gate.wait(0.05)

    with pytest.raises(InputError, match="broken"):
        list(thread_map(work, range(500), "test", progress=False, workers=2))
    assert len(started) < 100


def test_threads_stop_at_ctrl_c_in_the_progress_bar(monkeypatch):
    started = []

    def work(i):
        started.append(i)
        threading.Event().wait(0.01)

    def bar(results, **options):
        next(results)
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(data, "tqdm", bar)
    with pytest.raises(KeyboardInterrupt):
        list(thread_map(work, range(500), "test", progress=False, workers=2))
    assert len(started) < 100
