"""The table of data sets: whole, readable, and in agreement with the data."""

import collections
import csv
import re

import pytest

from data_setup import info
from data_setup.__main__ import COMMANDS, main, parser
from data_setup.info import INFO
from derm_hash.atlas.atlas import make_atlas
from derm_hash.data.classes import ISIC_CLASSES, class_order


def test_every_data_set_is_described():
    assert set(INFO) >= set(COMMANDS) - {"list", "verify", "audit"}
    assert set(INFO) >= {"isic2019", "ham10000", "ph2", "dermamnist", "synthetic", "folder"}
    for name, one in INFO.items():
        assert all((one.title, one.about, one.licence, one.restrictions)), name
        assert len(one.labels) == len(one.classes)
        if name not in ("synthetic", "folder"):
            assert one.citation
            assert one.home.startswith("https://")
            assert one.files or one.elsewhere
    assert tuple(c.label for c in INFO["isic2019"].classes) == ISIC_CLASSES
    assert class_order(info.PAPER_CLASSES) == info.PAPER_CLASSES
    images = {name: sum(c.images for c in one.classes) for name, one in INFO.items()}
    expected = {"isic2019": 25331, "ham10000": 10015, "ph2": 200, "dermamnist": 10015}
    assert images.items() >= expected.items()
    assert {c.label: c.images for c in INFO["ham10000"].classes} == {
        c.label: c.images for c in INFO["dermamnist"].classes
    }


@pytest.mark.parametrize("file", [f for one in INFO.values() for f in one.files])
def test_files_have_links_sizes_and_well_formed_checksums(file):
    assert file.url.startswith("https://")
    assert re.fullmatch(r"[\w.]+", file.name)
    assert file.size > 0
    assert file.checksum is None or re.fullmatch(r"md5:[0-9a-f]{32}", file.checksum)


def test_the_atlas_has_these_classes():
    counts = collections.Counter(make_atlas(images=8, size=32, progress=False).labels.tolist())
    expected = {c.label: c.images for c in INFO["synthetic"].classes}
    assert set(counts) == set(expected)
    assert sum(expected.values()) == parser().parse_args(["synthetic", "--root", "x"]).images


def test_counts_of_ham10000_are_those_of_its_metadata(shared_ham10000):
    with (shared_ham10000 / "HAM10000_metadata.csv").open(newline="") as file:
        counts = collections.Counter(row["dx"] for row in csv.DictReader(file))
    assert {c.code: c.images for c in INFO["ham10000"].classes} == counts


def test_counts_and_sizes_of_isic2019_are_those_of_its_tables(shared_isic2019):
    names = [f.name for f in INFO["isic2019"].files[:2]]
    truth, metadata = ((shared_isic2019 / name).read_bytes() for name in names)
    rows = list(csv.DictReader(truth.decode().splitlines()))
    counts = {c.label: sum(row[c.label] == "1.0" for row in rows) for c in INFO["isic2019"].classes}
    assert counts == {c.label: c.images for c in INFO["isic2019"].classes}
    # Some copies have lost the publisher's line ends and call the column sex gender.
    as_published = [
        len(text.replace(b"\r", b"").replace(b"gender", b"sex", 1).replace(b"\n", b"\r\n"))
        for text in (truth, metadata)
    ]
    assert as_published == [f.size for f in INFO["isic2019"].files[:2]]


def test_list_prints_everything_in_100_columns(capsys):
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    for name, one in INFO.items():
        assert f"{name} - {one.title}" in out
        assert all(f"{c.images:,}" in out and c.name in out for c in one.classes)
        for file in one.files:
            assert {file.name, file.url} <= set(re.split(r"[\s,]+", out))
    assert "md5 4639bfa73ab251610530a97c898e6e46" in out
    assert "dermamnist_224.npz" in out
    assert out.count("no checksum published") == 3
    assert max(map(len, out.splitlines())) <= 100
