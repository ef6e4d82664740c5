"""The built-in atlas as a data folder."""

import json

import numpy as np
from publishers import contents

from data_setup.__main__ import main
from derm_hash.atlas.atlas import make_atlas
from derm_hash.data.dataset import LesionDataset
from derm_hash.data.manifest import read_manifest


def prepare(root, *options):
    return main(["synthetic", "--root", str(root), "--images", "40", "--size", "48", *options])


def test_the_folder_holds_the_atlas_pixel_for_pixel(tmp_path, capsys):
    root = tmp_path / "atlas"
    assert prepare(root, "--seed", "5") == 0
    assert f"derm-hash train --data {root}" in capsys.readouterr().out
    atlas = make_atlas(images=40, size=48, seed=5, progress=False)
    dataset = LesionDataset.from_folder(root, size=48, progress=False)
    assert np.array_equal(dataset.images.permute(0, 2, 3, 1).numpy(), atlas.images)
    assert np.array_equal([dataset.mask(i) for i in range(40)], atlas.masks)
    assert dataset.table["label"].tolist() == atlas.labels.tolist()
    assert dataset.table["lesion_id"].tolist() == [str(lesion) for lesion in atlas.lesion_ids]
    assert json.loads((root / "dataset.json").read_text())["options"] == {
        "images": 40,
        "size": 48,
        "fit": "crop",
        "split": "lesion",
        "seed": 5,
    }


def test_memory_and_disk_give_the_same_table(tmp_path):
    assert prepare(tmp_path / "atlas") == 0
    atlas = make_atlas(images=40, size=48, seed=0, progress=False)
    memory = LesionDataset.from_atlas(atlas, query=0.1, val=0.1)
    table = read_manifest(tmp_path / "atlas").drop(columns="duplicate_group")
    assert table.to_dict("list") == memory.table.to_dict("list")


def test_the_same_command_gives_the_same_folder(tmp_path):
    assert prepare(tmp_path / "a") == prepare(tmp_path / "b") == 0
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert prepare(tmp_path / "c", "--seed", "1") == 0
    assert contents(tmp_path / "a") != contents(tmp_path / "c")


def test_what_cannot_be_drawn_leaves_nothing(tmp_path, capsys):
    root = tmp_path / "atlas"
    for options in (["--size", "2"], ["--images", "1000000000"], ["--size", "original"]):
        assert main(["synthetic", "--root", str(root), *options]) == 2
        assert capsys.readouterr().err.startswith("data_setup: ")
        assert not root.exists()
