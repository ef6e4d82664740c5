"""The data set in memory."""

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import noise
from PIL import Image

from derm_hash.atlas.atlas import Atlas
from derm_hash.data.dataset import LesionDataset, atlas_table
from derm_hash.data.images import to_input
from derm_hash.data.manifest import write_manifest
from derm_hash.errors import InputError


def test_a_data_set_holds_the_images_of_its_folder(folder):
    dataset = LesionDataset.from_folder(folder, size=8, progress=False)
    assert dataset.classes == ("MEL", "NV", "BCC")
    assert dataset.labels.tolist() == [1, 0, 1, 2, 0, 1]
    assert dataset.labels.dtype == torch.int64
    assert dataset.images.shape == (6, 3, 8, 8)
    assert (len(dataset), dataset.size) == (6, 8)
    for i in range(6):
        expected = noise(i, 12, 9).resize((8, 8), Image.Resampling.BICUBIC, box=(1.5, 0, 10.5, 9))
        assert np.array_equal(dataset.picture(i), np.asarray(expected))
        x, y = dataset.batch([i])
        assert y == dataset.labels[i]
        scaled = torch.tensor(np.asarray(expected) / 127.5 - 1, dtype=torch.float32)
        assert torch.allclose(x[0], scaled.permute(2, 0, 1), atol=1e-6)
    assert list(dataset.table.index) == list(range(6))
    assert "6 images of 8 px" in repr(dataset)


def test_masks_come_from_their_files(folder):
    dataset = LesionDataset.from_folder(folder, size=9, progress=False)
    assert dataset.mask(0) is None
    mask = dataset.mask(4)
    full = np.asarray(noise(104, 12, 9).convert("1"))
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
    dataset = LesionDataset.from_folder(folder, 8, progress=False)
    dataset = LesionDataset(dataset.images, dataset.table, ["BCC", "NV", "AK", "MEL"])
    assert dataset.classes == ("BCC", "NV", "AK", "MEL")
    assert dataset.labels.tolist() == [1, 3, 1, 0, 3, 1]


def test_size_zero_is_refused(folder):
    with pytest.raises(InputError, match="0 pixels"):
        LesionDataset.from_folder(folder, size=0, progress=False)


def test_bad_splits_are_named(folder):
    dataset = LesionDataset.from_folder(folder, size=8, progress=False)
    with pytest.raises(InputError, match="no split 'test'"):
        dataset.split("test")
    with pytest.raises(InputError, match="'query' has no images"):
        dataset.split("val").split("query")
    write_manifest(dataset.table.assign(split=""), folder)
    with pytest.raises(InputError, match="split_by_lesion"):
        LesionDataset.from_folder(folder, size=8, progress=False).split("query")


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
    assert dataset.table.groupby("lesion_id")["split"].nunique().max() == 1
