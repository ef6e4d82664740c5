"""The audit: its tables against counts by hand, its sentences, and the command."""

import numpy as np
import pandas as pd
import pytest
from helpers import noise
from PIL import Image

from data_setup.__main__ import main
from data_setup.audit import WIDTH, as_text, duplicates, gaps, leakage, split_table
from derm_hash.atlas.atlas import draw_lesion
from derm_hash.data.manifest import write_manifest
from derm_hash.data.splits import split_by_lesion

COLUMNS = ["image", "label", "lesion_id", "split", "mask", "duplicate_group"]
ROWS = [
    ("0.png", "NV", "a", "query", "m", ""),
    ("1.png", "NV", "a", "database", "m", ""),
    ("2.png", "NV", "b", "query", "m", "dup-2.png"),
    ("3.png", "NV", "c", "query", "", "dup-2.png"),
    ("4.png", "NV", "c", "val", "m", ""),
    ("5.png", "MEL", "d", "query", "m", "dup-5.png"),
    ("6.png", "MEL", "e", "database", "m", "dup-5.png"),
    ("7.png", "MEL", "", "query", "m", ""),
    ("8.png", "BCC", "", "database", "", "dup-8.png"),
    ("9.png", "MEL", "", "database", "", "dup-8.png"),
]


@pytest.fixture
def frame():
    return pd.DataFrame(ROWS, columns=COLUMNS)


def test_leakage_counts_queries_with_a_mate_outside(frame):
    table = leakage(frame[["label", "lesion_id", "split"]])
    assert table.index.tolist() == ["MEL", "NV", "BCC", "all"]
    assert table["queries"].tolist() == [2, 3, 0, 5]
    # Two images without lesion_id are no mates; a mate in val counts.
    assert table["with_mate"].tolist() == [0, 2, 0, 2]
    np.testing.assert_allclose(table["share"], [0, 2 / 3, np.nan, 0.4])
    assert leakage(frame.assign(lesion_id=""))["share"].isna().all()
    assert leakage(frame.assign(split=""))["queries"].tolist() == [0, 0, 0, 0]


def test_near_duplicates_say_how_many_lesions_labels_and_parts(frame):
    table = duplicates(frame)
    assert table.index.tolist() == ["dup-2.png", "dup-5.png", "dup-8.png"]
    assert table["images"].tolist() == [2, 2, 2]
    assert table["lesions"].tolist() == [2, 2, 2]
    assert table["labels"].tolist() == ["NV", "MEL", "BCC + MEL"]
    assert table["parts"].tolist() == ["query", "database + query", "database"]
    assert duplicates(frame.assign(duplicate_group="")).empty


def test_balance_gaps_and_sizes_count_images(frame):
    table = split_table(frame)
    assert table.loc["NV"].tolist() == [1, 1, 3, 5]
    assert table.loc["all"].tolist() == [4, 1, 5, 10]
    table = gaps(frame)
    assert table.loc["MEL"].tolist() == [4, 1, 2]
    assert table.loc["all"].tolist() == [10, 3, 3]
    lines = as_text(frame, [(200, 150)] * 7 + [(150, 200)] * 3).splitlines()
    at = [line.split() for line in lines].index(["width", "height", "images"])
    assert [line.split() for line in lines[at + 1 : at + 3]] == [
        ["200", "150", "7"],
        ["150", "200", "3"],
    ]


def report(frame):
    return as_text(frame, [(200, 150)] * len(frame))


def test_the_text_says_what_each_table_means(frame):
    text = " ".join(report(frame).split())
    for part in (
        "40.0% of the queries show a lesion that is in the database or val too",
        "6 images in 3 groups are near-duplicates.",
        "Groups with queries and images of other parts: 1,",
        "dup-5.png 2 2 MEL database + query",
        "Groups with several labels: 1;",
        "Some classes have no images (MEL in val, BCC in val, BCC in query)",
        "The short sides have 150 pixels",
        "3 images have no mask",
        "3 images have no lesion_id",
    ):
        assert part in text
    assert "dup-8.png" not in text


def test_a_good_split_is_told_so():
    frame = pd.DataFrame({"image": [f"{i:03}.png" for i in range(200)]}).assign(mask="m")
    frame = frame.assign(label=["MEL", "NV"] * 100, lesion_id=[f"L{i // 4}" for i in range(200)])
    frame["lesion_id"] += frame["label"]
    frame["duplicate_group"] = ""
    text = " ".join(report(split_by_lesion(frame)).split())
    for part in (
        "No query shows a lesion that is in the database",
        "No near-duplicate images are known",
        "about the same size",
        "Every image has a mask and a lesion_id.",
    ):
        assert part in text
    assert "not known" in report(split_by_lesion(frame.assign(lesion_id=""))).lower()
    assert "no queries" in report(frame.assign(split="")).lower()


def test_long_names_and_many_groups_fit_the_page(frame):
    many = pd.concat([frame] * 30, ignore_index=True)
    number = np.arange(len(many)) // 10
    many["image"] = [f"images/{'very' * 20}/{i}.png" for i in range(len(many))]
    many["label"] += " or something with a name of many words that goes on and on and on"
    many["duplicate_group"] = [
        f"dup-{'x' * 60}{group}-{n}"
        for group, n in zip(many["duplicate_group"], number, strict=True)
    ]
    text = as_text(many, [(i, 10**6) for i in range(len(many))])
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "... and 40 more" in text


def prepared(root, images, rows):
    """A data folder of drawings and a manifest."""
    (root / "images").mkdir()
    for name, image in images.items():
        image.save(root / "images" / name)
    table = pd.DataFrame(rows, columns=["image", "label", "lesion_id", "split"])
    table["image"] = "images/" + table["image"]
    write_manifest(table, root)


def test_the_command_finds_near_duplicates_itself(tmp_path, capsys):
    mole = Image.fromarray(draw_lesion("NV", 3, 5, size=96)[0])
    images = {"a.png": mole, "b.png": mole.rotate(90), "c.png": noise(1, 40, 30)}
    rows = [("a.png", "NV", "1", "query"), ("b.png", "NV", "2", "database")]
    prepared(tmp_path, images, [*rows, ("c.png", "NV", "3", "val")])
    before = (tmp_path / "manifest.csv").read_bytes()
    assert main(["audit", str(tmp_path)]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert f"{tmp_path}: 3 images" in text
    assert "dup-images/a.png 2 2 NV database + query" in text
    assert "short sides have 30 to 96 pixels" in text
    assert (tmp_path / "manifest.csv").read_bytes() == before


def test_the_command_takes_near_duplicates_from_the_manifest(frame, tmp_path, capsys):
    (tmp_path / "m").write_bytes(b"")
    for i, name in enumerate(frame["image"]):
        noise(i).save(tmp_path / name)
    write_manifest(frame, tmp_path)
    assert main(["audit", str(tmp_path)]) == 0
    captured = capsys.readouterr()
    assert "dup-5.png" in captured.out and "near-duplicates" not in captured.err


def test_the_command_says_what_it_cannot_read(tmp_path, capsys):
    assert main(["audit", str(tmp_path)]) == 2
    assert "no manifest.csv" in capsys.readouterr().err
    prepared(tmp_path, {"a.png": noise(0)}, [("a.png", "NV", "", "")])
    (tmp_path / "images" / "a.png").write_bytes(b"no image")
    manifest = tmp_path / "manifest.csv"
    for text in (manifest.read_text(), "image,label,duplicate_group\nimages/a.png,NV,\n"):
        manifest.write_text(text)
        assert main(["audit", str(tmp_path)]) == 2
        assert "a.png is not an image that can be read" in capsys.readouterr().err
