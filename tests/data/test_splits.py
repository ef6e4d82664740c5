"""The splits into train, database, val and query, and databases that compare."""

from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from real_data import SHARED

from derm_hash.data.splits import matched_databases, split_as_given, split_by_image, split_by_lesion
from derm_hash.errors import InputError


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


# --- databases that training has not seen ---------------------------------------------------


def lesions(count: int, images: int = 3, label: str = "NV") -> pd.DataFrame:
    rows = [(f"{label}{i}-{j}", label, f"{label}{i}") for i in range(count) for j in range(images)]
    return pd.DataFrame(rows, columns=["image", "label", "lesion_id"])


def test_an_unseen_database_takes_its_share_of_what_is_left_and_moves_no_other_part():
    frame = pd.concat([lesions(100), lesions(40, 2, "MEL")], ignore_index=True)
    three, four = split_by_lesion(frame), split_by_lesion(frame, unseen=0.25)
    assert set(three["split"]) == {"query", "val", "database"}
    held_out = three["split"] != "database"
    assert (four.loc[held_out, "split"] == three.loc[held_out, "split"]).all()
    rest = four.loc[~held_out, "split"]
    assert (rest == "database").mean() == pytest.approx(0.25, abs=0.02)
    assert set(rest) == {"train", "database"}
    assert four.groupby("lesion_id")["split"].nunique().max() == 1
    by_image = split_by_image(frame, unseen=0.25)["split"].value_counts()
    assert by_image["database"] == pytest.approx(0.25 * 0.81 * len(frame), abs=3)
    with pytest.raises(InputError, match="the unseen share 1 is not possible"):
        split_by_lesion(frame, unseen=1)


@pytest.mark.parametrize(
    ("unseen", "parts"), [(0.3, ("train", "database")), (0, ("database", "val"))]
)
def test_matched_databases_have_equally_many_images_of_each_class(unseen, parts):
    frame = pd.concat([lesions(60), lesions(45, 1, "MEL"), lesions(7, 5, "BCC")])
    frame = split_by_lesion(frame.reset_index(drop=True), val=0.2, unseen=unseen)
    sides = matched_databases(frame)
    counts = {side: frame["label"].iloc[rows].value_counts() for side, rows in sides.items()}
    pd.testing.assert_series_equal(*(c.sort_index() for c in counts.values()))
    available = frame[frame["split"].isin(parts)].groupby("label")["split"].value_counts()
    assert (counts["unseen"].sort_index() == available.groupby("label").min()).all()
    for part, side in zip(parts, ("trained", "unseen"), strict=True):
        assert set(frame["split"].iloc[sides[side]]) == {part}
        taken = frame.iloc[sides[side]].groupby(["label", "lesion_id"]).size()
        whole = frame[frame["split"] == part].groupby(["label", "lesion_id"]).size()
        cut = (taken < whole.loc[taken.index]).groupby("label").sum()
        assert cut.max() <= 1  # the last lesion of a class alone is not whole
    again = matched_databases(frame)
    assert all(np.array_equal(again[side], rows) for side, rows in sides.items())


# --- published splits ---------------------------------------------------------------------------


def published(folder, **parts):
    """A CSV for each part, which lists (image, category)."""
    tables = {}
    for part, rows in parts.items():
        tables[part] = folder / f"{part}.csv"
        lines = [f"{image},{label},0" for image, label in rows]
        tables[part].write_text("\n".join(["image,category,label", *lines]))
    return tables


FRAME = pd.DataFrame(
    {"image": [f"images/{name}.jpg" for name in "abcd"], "label": ["NV", "MEL", "NV", "NV"]}
)


def test_a_published_split_is_used_and_other_images_are_left_out(tmp_path):
    tables = published(tmp_path, database=[("b", "MEL"), ("a.jpg", "NV")], query=[("d", "NV")])
    frame = split_as_given(FRAME, tables)
    assert frame["image"].tolist() == ["images/a.jpg", "images/b.jpg", "images/d.jpg"]
    assert frame["split"].tolist() == ["database", "database", "query"]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ([("z", "NV")], "which is not in the data"),
        ([("a", "NV")], "lists a again"),
        ([("d", "MEL")], "the category MEL and the data the label NV"),
    ],
)
def test_a_published_split_that_does_not_fit_is_refused(tmp_path, query, said):
    tables = published(tmp_path, database=[("a", "NV")], query=query)
    with pytest.raises(InputError, match=said):
        split_as_given(FRAME, tables)


def test_a_third_of_ecls_test_images_show_a_lesion_of_its_training_part():
    files, metadata = SHARED / "ecl_splits", SHARED / "ham10000" / "HAM10000_metadata.csv"
    if not files.is_dir() or not metadata.is_file():
        pytest.skip(f"needs {files} and {metadata}")
    frame = pd.read_csv(metadata).rename(columns={"image_id": "image"})
    frame["label"] = frame["dx"].str.upper()
    parts = {"database": "train", "val": "val", "query": "test"}
    tables = {part: files / f"ISIC2018_{name}.csv" for part, name in parts.items()}
    frame = split_as_given(frame[["image", "label", "lesion_id"]], tables)
    assert frame["split"].value_counts().to_dict() == {"database": 6005, "val": 2005, "query": 2005}
    trained = set(frame.loc[frame["split"] == "database", "lesion_id"])
    queries = frame[frame["split"] == "query"]
    mate = queries["lesion_id"].isin(trained)
    assert mate.mean() == pytest.approx(0.31, abs=0.005)
    assert mate[queries["label"] == "MEL"].mean() == pytest.approx(0.55, abs=0.005)
