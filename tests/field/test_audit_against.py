"""Two data folders: what both hold, and what of the first is in several parts."""

import pandas as pd
import pytest
from PIL import Image

from data_setup.__main__ import main
from derm_hash.atlas.atlas import draw_lesion
from derm_hash.data.manifest import write_manifest


def mole(seed):
    return Image.fromarray(draw_lesion("NV", seed, seed + 2, size=96)[0])


def folder(root, images, lesions, split="database"):
    root.mkdir()
    for i, image in enumerate(images):
        image.save(root / f"{root.name}{i}.png")
    names = [f"{root.name}{i}.png" for i in range(len(images))]
    write_manifest(
        pd.DataFrame({"image": names, "label": "NV", "lesion_id": lesions, "split": split}), root
    )
    return root


@pytest.fixture
def audit(capsys):
    def run(*arguments):
        status = main(["audit", *map(str, arguments)])
        out, error = capsys.readouterr()
        return " ".join((error if status else out).split())

    return run


def test_copies_and_shared_lesions_are_found(tmp_path, audit):
    a = folder(tmp_path / "a", [mole(1), mole(2), mole(3)], ["x", "y", "z"])
    b = folder(tmp_path / "b", [mole(4), mole(2).rotate(90).resize((60, 60))], ["z", "z"], "query")
    text = audit(a, "--against", b)
    assert "a: 3 images;" in text and "b: 2 images" in text
    assert "Found in both folders: 1 (1 image of the first folder, 1 of the second). Leave" in text
    assert "a1.png = b1.png 1 1 NV" in text
    assert (
        "Found in both folders: 1 (1 image of the first folder, 2 of the second). If both" in text
    )
    assert "a2.png = b0.png 1 2 NV" in text


def test_nothing_shared_is_said(tmp_path, audit):
    a = folder(tmp_path / "a", [mole(1)], ["x"])
    b = folder(tmp_path / "b", [mole(4)], ["y"])
    assert "No group of near-duplicates is in both folders." in audit(a, "--against", b)
    assert "No lesion_id is in both folders." in audit(a, "--against", b)
    c = folder(tmp_path / "c", [mole(5)], [""])
    assert "does not say which images show the same lesion" in audit(a, "--against", c)
    assert "is the same folder" in audit(a, "--against", a)


def test_groups_in_database_and_val_are_counted_apart(tmp_path, audit):
    images = [mole(1), mole(1), mole(2), mole(2), mole(3), mole(3)]
    split = ["database", "val", "val", "query", "database", "database"]
    text = audit(folder(tmp_path / "a", images, [""] * 6, split))
    assert "6 images in 3 groups are near-duplicates." in text
    assert "Groups with queries and images of other parts: 1," in text
    assert "Groups in database and val alone: 1," in text
