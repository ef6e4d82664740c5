"""Class folders as people have them: what is hardly meant is refused, with the likely remedy."""

import pytest
from helpers import encoded, noise

from data_setup.__main__ import main
from derm_hash.data.manifest import read_manifest


@pytest.fixture
def prepare(tmp_path, capsys):
    """Prepare a folder of the files named; exit status, output, and error."""

    def run(names, *options):
        for i, name in enumerate(names):
            path = tmp_path / "own" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(noise(i), "PNG"))
        command = ["folder", "--source", tmp_path / "own", "--root", tmp_path / "data", *options]
        status = main([*map(str, command)])
        return status, *capsys.readouterr()

    return run


def images(*folders, count=4):
    return [
        f"{folder}/{folder.replace('/', '')}{i}.png" for folder in folders for i in range(count)
    ]


@pytest.mark.parametrize(
    ("folders", "named"),
    [
        (["nv"], "single class, 'nv'"),
        (["data/nv", "data/mel"], "own/data"),
        (["train/nv", "train/mel", "test/nv", "test/mel"], "'test', 'train', which are parts"),
        (["Training_set", "val"], "which are parts"),
        (["images", "masks"], "which are parts"),
        (["a/nv", "a/mel", "b/nv", "b/mel"], "same folders ('mel', 'nv')"),
        (["mel", "MEL", "nv"], "'MEL', 'mel', which differ only in case"),
        (["basal cell", "basal_cell", "nv"], "write them alike"),
        (["0", "0.0", "1"], "'0', '0.0', which differ only in case, blanks or number format"),
        (["nan", "nv", "mel"], "'nan', which means that the diagnosis is not known"),
        (["Unknown", "nv", "mel"], "'Unknown', which means"),
    ],
)
def test_folders_that_are_hardly_classes_are_refused(prepare, folders, named):
    status, _, error = prepare(images(*folders))
    assert status == 2
    assert named in error


@pytest.mark.parametrize(
    ("folders", "classes"),
    [(["nv"], "nv"), (["nan", "nv", "mel"], "nv,mel"), (["nv/a", "nv/b", "m/a", "m/b"], "nv,m")],
)
def test_the_classes_can_be_confirmed(prepare, folders, classes, tmp_path):
    assert prepare(images(*folders), "--classes", classes)[0] == 0
    assert set(read_manifest(tmp_path / "data")["label"]) == set(classes.split(","))


def test_numbers_can_be_labels(prepare, tmp_path):
    assert prepare(images("0", "1", "10"))[0] == 0
    assert set(read_manifest(tmp_path / "data")["label"]) == {"0", "1", "10"}


def test_hidden_and_system_files_are_counted_and_left_out(prepare, tmp_path):
    photographs = images("nv", "mel")
    hidden = [
        *("nv/.thumbnails/0.png", "nv/@eaDir/0.png/SYNOFILE_THUMB_M.png"),
        *("__MACOSX/nv/._nv0.png", "nv/._nv1.png", ".DS_Store", "mel/Thumbs.db"),
    ]
    status, out, _ = prepare(photographs + hidden)
    assert status == 0
    assert "left out" in out and out.splitlines()[0].endswith(": 6")
    expected = {f"images/{name.replace('.png', '.jpg')}" for name in photographs}
    assert set(read_manifest(tmp_path / "data")["image"]) == expected


def test_near_duplicates_are_stated_at_the_end(prepare, tmp_path):
    names = images("nv", "mel")
    prepare(names)
    copy = tmp_path / "own" / "nv" / "copy.png"
    copy.write_bytes((tmp_path / "own" / names[0]).read_bytes())
    out = prepare([], "--force")[1]
    assert "2 images in 1 group are near-duplicates." in out
