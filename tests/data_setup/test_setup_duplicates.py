"""Near-duplicates: copies are found however they were made, other lesions are not.

Those of all of HAM10000 are in test_setup_ham10000.py.
"""

import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from data_setup import duplicates
from data_setup.duplicates import connected_images, duplicate_groups
from derm_hash.atlas.atlas import draw_lesion
from derm_hash.atlas.lesion import CLASSES
from derm_hash.errors import InputError

TURN = Image.Transpose


def lesion(i, view=0, size=160):
    return Image.fromarray(draw_lesion(CLASSES[i % 4], i, view, size=size)[0])


def jpeg(image, quality):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


def cut(image, share):
    """Without `share` of its width or height on every side."""
    dx, dy = round(image.width * share), round(image.height * share)
    return image.crop((dx, dy, image.width - dx, image.height - dy))


CHANGES = {
    "again": lambda image: image,
    "re-encoded": lambda image: jpeg(image, 40),
    "small": lambda image: image.resize((80, 80)),
    "large": lambda image: image.resize((300, 300), Image.Resampling.BICUBIC),
    "cut": lambda image: cut(image, 0.0125),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.75),
    "paler": lambda image: ImageEnhance.Contrast(image).enhance(0.7),
    "grey": lambda image: image.convert("L"),
    **{turn.name.lower(): lambda image, turn=turn: image.transpose(turn) for turn in TURN},
    "everything": lambda image: jpeg(
        ImageEnhance.Brightness(cut(image, 0.01)).enhance(0.85).transpose(TURN.TRANSVERSE), 60
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twelve lesions; of the fifth every kind of copy."""
    root = tmp_path_factory.mktemp("images")
    for i in range(12):
        lesion(i).save(root / f"{i:02}.png")
    for name, change in CHANGES.items():
        change(lesion(4)).save(root / f"copy {name}.png")
    return root


def test_every_kind_of_copy_is_found_and_nothing_else(folder):
    names = sorted(path.name for path in folder.iterdir())
    groups = dict(zip(names, duplicate_groups(folder, names), strict=True))
    copies = {"04.png", *(f"copy {name}.png" for name in CHANGES)}
    assert {name for name in names if groups[name] == "dup-04.png"} == copies
    assert {groups[name] for name in set(names) - copies} == {""}


def test_names_of_groups_depend_neither_on_the_order_nor_on_threads(folder):
    names = sorted(path.name for path in folder.iterdir())[::2]
    groups = dict(zip(names, duplicate_groups(folder, names), strict=True))
    assert set(groups.values()) == {"", "dup-04.png"}
    other = names[::-1]
    assert duplicate_groups(folder, other, workers=1) == [groups[name] for name in other]


def test_two_groups_in_folders_of_their_own_keep_apart(tmp_path):
    for label, i in (("a", 0), ("b", 1)):
        (tmp_path / label).mkdir()
        lesion(i).save(tmp_path / label / "1.png")
        lesion(i).save(tmp_path / label / "2.png")
    names = ["b/2.png", "a/1.png", "b/1.png", "a/2.png"]
    expected = ["dup-b/1.png", "dup-a/1.png", "dup-b/1.png", "dup-a/1.png"]
    assert duplicate_groups(tmp_path, names) == expected


def test_another_photograph_of_a_lesion_is_not_a_copy(tmp_path):
    for view in range(6):
        lesion(0, view).save(tmp_path / f"{view}.png")
    assert set(duplicate_groups(tmp_path, [f"{view}.png" for view in range(6)])) == {""}


def test_bad_images(tmp_path):
    lesion(0).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"bad\.png"):
        duplicate_groups(tmp_path, ["good.png", "bad.png"])


def groups_by_hand(hashes, radius):
    """Connected images, by comparing all views of all pairs."""
    group = list(range(len(hashes)))
    for i in range(len(hashes)):
        for j in range(i):
            bits = np.unpackbits(hashes[i] ^ hashes[j, 0], axis=1).sum(axis=1)
            if bits.min() <= radius:
                group = [group[j] if g == group[i] else g for g in group]
    return {frozenset(np.flatnonzero(np.array(group) == g)) for g in group}


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_groups_are_those_of_all_pairs(monkeypatch, block):
    monkeypatch.setattr(duplicates, "BLOCK", block)
    rng = np.random.default_rng(0)
    # Chains of hashes, each a few bits from the one before, in random order; some are equal.
    codes = rng.integers(0, 256, (40, 4), dtype=np.uint8)
    for i in range(40):
        if i % 5:
            codes[i] = codes[i - 1]
            codes[i, i % 4] ^= rng.choice([0, 1, 3, 7])
    # Two views that swap halves: symmetric as the turned views of images are.
    hashes = np.stack([codes, codes[:, [2, 3, 0, 1]]], axis=1)[rng.permutation(40)]
    for radius in (0, 1, 2, 3):
        found = connected_images(hashes, radius)
        assert len(found) == 40
        groups = {frozenset(np.flatnonzero(found == g)) for g in found}
        assert groups == groups_by_hand(hashes, radius)
        assert 8 <= len(groups) < 40
