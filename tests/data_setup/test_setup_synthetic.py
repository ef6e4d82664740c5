"""The built-in atlas as a data folder."""

import numpy as np
import pytest
from publishers import contents

from derm_hash.atlas.atlas import make_atlas
from derm_hash.data.dataset import LesionDataset

COMMAND = ("synthetic", "--images", "40", "--size", "48")


def test_the_folder_holds_the_atlas_pixel_for_pixel(root, prepare, record, capsys):
    prepare(*COMMAND, "--seed", "5")
    assert f"derm-hash train --data {root}" in capsys.readouterr().out
    atlas = make_atlas(images=40, size=48, seed=5, progress=False)
    dataset = LesionDataset.from_folder(root, size=48, progress=False)
    assert np.array_equal(dataset.images.permute(0, 2, 3, 1).numpy(), atlas.images)
    assert np.array_equal([dataset.mask(i) for i in range(40)], atlas.masks)
    assert dataset.table["label"].tolist() == atlas.labels.tolist()
    assert dataset.table["lesion_id"].tolist() == [str(lesion) for lesion in atlas.lesion_ids]
    shared = {"size": 48, "fit": "crop", "split": "lesion", "seed": 5}
    assert record()["options"] == {"images": 40} | shared


def test_memory_and_disk_give_the_same_table(prepare):
    table = prepare(*COMMAND).drop(columns="duplicate_group")
    atlas = make_atlas(images=40, size=48, seed=0, progress=False)
    memory = LesionDataset.from_atlas(atlas, query=0.1, val=0.1)
    assert table.to_dict("list") == memory.table.to_dict("list")


def test_the_same_command_gives_the_same_folder(prepare, tmp_path):
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        prepare(*COMMAND, "--seed", seed, root=tmp_path / name)
    assert contents(tmp_path / "a") == contents(tmp_path / "b") != contents(tmp_path / "c")


@pytest.mark.parametrize(
    "options", [["--size", "2"], ["--images", "1000000000"], ["--size", "original"]]
)
def test_what_cannot_be_drawn_leaves_nothing(refused, root, options):
    refused("synthetic", *options)
    assert not root.exists()
