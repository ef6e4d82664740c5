"""Class folders as people have them: what is hardly meant is refused, with the likely remedy."""

import pytest
from helpers import encoded, noise
from publishers import write_zip


@pytest.fixture
def prepare(tmp_path, filled):
    """Prepare a folder of the files named; its manifest or its error, and the output."""

    def run(names, *options):
        for i, name in enumerate(names):
            path = tmp_path / "own" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(noise(i), "PNG"))
        return filled("folder", "--source", tmp_path / "own", *options)

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
        ([f"patient {i}" for i in range(21)], "may be patients or lesions and not diagnoses"),
    ],
)
def test_folders_that_are_hardly_classes_are_refused(prepare, folders, named):
    assert named in prepare(images(*folders))[0]


@pytest.mark.parametrize(
    ("folders", "classes"),
    [(["nv"], "nv"), (["nan", "nv", "mel"], "nv,mel"), (["nv/a", "nv/b", "m/a", "m/b"], "nv,m")],
)
def test_the_classes_can_be_confirmed(prepare, folders, classes):
    frame, _ = prepare(images(*folders), "--classes", classes)
    assert set(frame["label"]) == set(classes.split(","))


def test_class_folders_may_be_in_a_zip_file(prepare, tmp_path):
    names = images("nv", "data/mel", "data/nv")
    prepare(names)
    for place, inside in (("own", 0), ("own/data", 1)):
        files = {
            p.relative_to(tmp_path / place).as_posix(): p.read_bytes()
            for p in (tmp_path / "own/data").rglob("*.png")
        }
        write_zip(tmp_path / f"{inside}.zip", files)
        found, _ = prepare([], "--source", tmp_path / f"{inside}.zip")
        assert inside or "unpack it" in found
    assert set(found["label"]) == {"mel", "nv"}


def test_masks_beside_the_images_are_masks(prepare):
    names = images("nv", "mel") + [f"mel/mel{i}_Segmentation.PNG" for i in range(4)]
    frame, out = prepare(names)
    assert "Masks found in the folders of the images: 4 of 8 images" in out
    assert len(frame) == 8 and set(frame.loc[frame["label"] == "nv", "mask"]) == {""}
    assert set(frame.loc[frame["label"] == "mel", "mask"]) == {
        f"masks/mel/mel{i}.png" for i in range(4)
    }


def test_a_class_in_a_format_that_is_not_read_is_named(prepare, tmp_path):
    (tmp_path / "own/bcc").mkdir(parents=True)
    (tmp_path / "own/bcc/photo.heic").write_bytes(b"x")
    assert "no images that are read: save bcc/photo.heic" in prepare(images("nv", "mel"))[0]


def test_numbers_can_be_labels(prepare):
    assert set(prepare(images("0", "1", "10"))[0]["label"]) == {"0", "1", "10"}


def test_hidden_and_system_files_are_counted_and_left_out(prepare):
    photographs = images("nv", "mel")
    hidden = [
        *("nv/.thumbnails/0.png", "nv/@eaDir/0.png/SYNOFILE_THUMB_M.png"),
        *("__MACOSX/nv/._nv0.png", "nv/._nv1.png", ".DS_Store", "mel/Thumbs.db"),
    ]
    frame, out = prepare(photographs + hidden)
    assert "left out" in out and out.splitlines()[0].endswith(": 6")
    expected = {f"images/{name.replace('.png', '.jpg')}" for name in photographs}
    assert set(frame["image"]) == expected


def test_near_duplicates_are_stated_at_the_end(prepare, tmp_path):
    names = images("nv", "mel")
    prepare(names)
    copy = tmp_path / "own" / "nv" / "copy.png"
    copy.write_bytes((tmp_path / "own" / names[0]).read_bytes())
    out = prepare([])[1]
    assert "2 images in 1 group are near-duplicates." in out
