"""Images are stored small, square and upright, with their masks; what cannot be read is named."""

import io
from pathlib import Path

import numpy as np
import pytest
from helpers import encoded, noise, png_that_claims
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from publishers import blob, contents

from data_setup import prepare as storing
from data_setup.__main__ import main
from derm_hash.data import images, manifest
from derm_hash.data.dataset import LesionDataset
from derm_hash.data.manifest import read_manifest
from derm_hash.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::ResourceWarning")


class Bytes:
    """A source in memory."""

    def __init__(self, content, name="the file"):
        self.content, self.name = content, name

    @property
    def size(self):
        return len(self.content)

    def read_bytes(self):
        return self.content

    def __str__(self):
        return self.name


def gradient(width, height):
    """Smooth, so that JPEG changes little; red grows to the right, green downwards."""
    x = np.linspace(20, 220, width)[None].repeat(height, 0)
    y = np.linspace(20, 220, height)[:, None].repeat(width, 1)
    return Image.fromarray(np.stack([x, y, np.full_like(x, 90)], axis=2).astype(np.uint8))


def store(root, image, size, fit="crop", mask=None, name="x.png"):
    """Store files, given as bytes; the names that they got."""
    mask_from = None if mask is None else Bytes(mask, "the mask")
    masked = "" if mask is None else "masks/x.bmp"
    return storing.store(root, f"images/{name}", Bytes(image), masked, mask_from, size, fit)


def stored(root, image, size, fit="crop", mask=None, name="x.png"):
    """Store and read back: the image and the mask as arrays."""
    content = image if isinstance(image, bytes) else encoded(image, "PNG")
    masked = None if mask is None else encoded(mask, "PNG")
    names = store(root, content, size, fit, masked, name)
    return [np.asarray(Image.open(root / name)) for name in names if name]


# --- geometry -------------------------------------------------------------------------


def test_crop_takes_the_centre_square_of_image_and_mask(tmp_path):
    mask = Image.fromarray((np.arange(120)[None].repeat(80, 0) > 60).astype(np.uint8) * 255)
    image, stored_mask = stored(tmp_path, gradient(120, 80), 40, mask=mask)
    box = (20, 0, 100, 80)
    expected = gradient(120, 80).resize((40, 40), Image.Resampling.BICUBIC, box)
    assert np.abs(image.astype(int) - np.asarray(expected)).max() <= 6
    expected = mask.resize((40, 40), Image.Resampling.NEAREST, box)
    assert np.array_equal(stored_mask, np.asarray(expected))
    assert sorted(p.name for p in tmp_path.rglob("*.*")) == ["x.jpg", "x.png"]


@pytest.mark.parametrize("turned", [False, True])
def test_pad_keeps_the_whole_image_and_continues_its_edges(tmp_path, turned):
    pixels = np.full((50, 100, 3), (180, 140, 120), np.uint8)
    pixels[20:30, 40:60] = 30
    mask = (pixels[..., 0] == 30).astype(np.uint8) * 255
    if turned:
        pixels, mask = pixels.swapaxes(0, 1), mask.T
    image, stored_mask = stored(tmp_path, Image.fromarray(pixels), 50, "pad", Image.fromarray(mask))
    if turned:
        image, stored_mask = image.swapaxes(0, 1), stored_mask.T
    assert image.shape == (50, 50, 3)
    for band in (image[:10], image[-10:]):
        assert np.abs(band.astype(int) - (180, 140, 120)).max() <= 3
    expected = np.zeros((50, 50), np.uint8)
    expected[12 + 10 : 12 + 15, 20:30] = 255
    assert np.array_equal(stored_mask, expected)
    assert image[23:26, 22:28].max() < 60


@pytest.mark.parametrize("fit", ["crop", "pad"])
@settings(
    max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(width=st.integers(1, 70), height=st.integers(1, 70), size=st.integers(1, 60))
def test_every_shape_becomes_a_square_that_is_not_enlarged(tmp_path, fit, width, height, size):
    image = noise(0, width, height)
    side = min(size, min(width, height) if fit == "crop" else max(width, height))
    small = storing.squared(image, size, fit)
    mask = storing.squared(blob(0, width, height), size, fit, nearest=True)
    assert small.size == mask.size == (side, side)
    assert set(np.unique(np.asarray(mask))) <= {0, 255}


@pytest.mark.parametrize("fit", ["crop", "pad"])
@pytest.mark.parametrize("scale", [1, 2])
def test_image_and_mask_stay_on_each_other(tmp_path, fit, scale):
    # The image shows its own mask: where they lie apart, they differ.
    lesion = np.zeros((90, 150), np.uint8)
    lesion[20:70, 30:110] = 255
    image = Image.fromarray(np.repeat(lesion[..., None], 3, 2))
    mask = Image.fromarray(lesion[::scale, ::scale])
    picture, stored_mask = stored(tmp_path, image, 60, fit, mask)
    difference = (picture[..., 0] > 127) != (stored_mask > 0)
    assert difference.mean() < 0.02


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_once(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(gradient(60, 60), "JPEG", exif=exif, quality=95)
    (image,) = stored(tmp_path, content, 60, name="x.jpg")
    upright = np.asarray(images.open_image(io.BytesIO(content))).astype(int)
    assert np.abs(image - upright).max() <= 4
    again = np.asarray(images.open_image(tmp_path / "images" / "x.jpg")).astype(int)
    assert np.array_equal(again, image)


# --- files ------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "suffix"), [("PNG", ".png"), ("JPEG", ".jpg")])
def test_a_square_that_is_small_enough_is_kept_byte_for_byte(tmp_path, kind, suffix):
    content = encoded(noise(0, 20, 20), kind)
    names = store(tmp_path, content, 20, name="x.tif")
    assert names == (f"images/x{suffix}", "")
    assert (tmp_path / names[0]).read_bytes() == content
    assert store(tmp_path, content, 19, name="y.tif") == ("images/y.jpg", "")


def test_original_keeps_everything_as_it_is(tmp_path):
    content, mask = encoded(noise(0, 33, 20), "TIFF"), encoded(blob(0, 33, 20), "BMP")
    names = store(tmp_path, content, None, mask=mask, name="x.tif")
    assert names == ("images/x.tif", "masks/x.bmp")
    assert [(tmp_path / name).read_bytes() for name in names] == [content, mask]


@pytest.mark.parametrize("size", [16, None])
def test_what_is_stored_is_not_read_again(tmp_path, size):
    content = encoded(noise(0, 33, 20), "PNG")
    first = store(tmp_path, content, size, mask=content)
    assert store(tmp_path, b"", size, mask=b"") == first


def test_a_prepared_folder_loads_as_the_originals_do(ham, prepare, tmp_path):
    data = [tmp_path / "original", tmp_path / "15"]
    for root in data:
        prepare("ham10000", "--archives", ham.folder, "--size", root.name, root=root)
    one, two = (LesionDataset.from_folder(root, size=15, progress=False) for root in data)
    difference = one.images.float().mean(1) - two.images.float().mean(1)
    assert difference.abs().mean() < 4  # one more compression, of noise
    assert one.table["split"].tolist() == two.table["split"].tolist()
    for i in range(len(one)):
        assert np.array_equal(one.mask(i), two.mask(i))


# --- decoded images -----------------------------------------------------------------------


@pytest.fixture
def prepared(ham, root, prepare):
    """A folder with its decoded images, and the file that they are in."""
    prepare("ham10000", "--archives", ham.folder, "--size", "12")
    (path,) = root.glob("pixels-*.npy")
    return root, path


def loaded(root, size=12):
    return LesionDataset.from_folder(root, size=size, progress=False).images


@pytest.mark.parametrize("size", [12, 8, 20])
def test_decoded_images_load_as_the_files_do(prepared, monkeypatch, size):
    root, path = prepared
    names = read_manifest(root)["image"]
    assert np.load(path).shape == (len(names), 12, 12, 3)
    with monkeypatch.context() as patch:
        patch.setattr(manifest, "open_image", None)  # no file is decoded
        found = loaded(root, size)
    path.unlink()
    assert np.array_equal(found, loaded(root, size))


def test_a_changed_manifest_or_image_is_noticed(prepared):
    root, _ = prepared
    names = read_manifest(root)["image"].tolist()
    assert manifest.stored_pixels(root, names) is not None
    assert manifest.stored_pixels(root, names[::-1]) is None
    assert manifest.stored_pixels(root, names[1:]) is None
    white = encoded(Image.new("RGB", (12, 12), "white"), "PNG")
    (root / names[0]).write_bytes(white)
    assert manifest.stored_pixels(root, names) is None
    assert (loaded(root)[0] == 255).all()


@pytest.mark.parametrize("options", [[], ["--size", "original"]])
def test_images_of_several_sizes_are_not_decoded_ahead(class_folders, prepare, root, options):
    (class_folders / "naevus" / "0.png").write_bytes(encoded(noise(0, 9, 9), "PNG"))
    prepare("folder", "--source", class_folders, *options)
    assert not list(root.glob("*.npy"))
    assert len(loaded(root)) == 20


# --- masks of other images ------------------------------------------------------------


@pytest.mark.parametrize("size", [None, 32])
@pytest.mark.parametrize("shape", [(60, 60), (45, 60), (60, 40), (600, 440), None])
def test_a_mask_that_does_not_fit_is_named(tmp_path, shape, size):
    mask = encoded(blob(0, *shape), "PNG") if shape else b""
    named = "the mask has .* and its image the file 60 x 45" if shape else "the mask is not an im"
    with pytest.raises(InputError, match=named):
        store(tmp_path, encoded(noise(0, 60, 45), "PNG"), size, mask=mask)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("shape", [(1022, 767), (600, 450), (200, 150), (511, 383)])
def test_a_reduced_mask_is_fine(tmp_path, shape):
    image = encoded(Image.new("RGB", (1022, 767)), "PNG")
    assert store(tmp_path, image, 32, mask=encoded(Image.new("L", shape), "PNG"))


# --- bad images ---------------------------------------------------------------------------


def test_bad_images_are_named_and_can_be_left_out(class_folders, prepare, root, record, capsys):
    bad = sorted(class_folders.rglob("[0-7].*"))[:12]
    for i, path in enumerate(bad):
        path.write_bytes(path.read_bytes()[: 40 * (i % 2)])
    command = ["folder", "--source", str(class_folders)]
    assert main([*command, "--root", str(root)]) == 2
    error = capsys.readouterr().err
    assert "data_setup: 12 of 20 images cannot be used; use --skip-bad to leave them out" in error
    assert sum(str(path) in error for path in bad) == 10 and "and 2 more" in error
    assert not (root / "manifest.csv").exists()
    before = contents(root)
    assert len(prepare(*command, "--skip-bad")) == 8
    after = contents(root)  # stopping lost nothing
    assert all(after[name] == before[name] for name in before if name.startswith("images/"))
    assert {Path(name).name for name in record()["bad"]} == {path.name for path in bad}
    assert "Left out: 12 images" in capsys.readouterr().out
    assert main(["verify", str(root)]) == 0
    assert f"  without {min(record()['bad'])}: " in capsys.readouterr().out


def test_a_single_bad_image_is_one_line(ham, refused, prepare, root):
    bad = f"{ham.ids[3]}.jpg"
    ham.write_images(change={bad: b"text"})
    command = ["ham10000", "--archives", ham.folder]
    line = refused(*command)
    assert line.startswith(f"data_setup: {bad} in the archive {ham.folder}")
    assert line.endswith("; use --skip-bad to leave it out")
    frame = prepare(*command, "--skip-bad")
    assert f"images/{bad}" not in set(frame["image"])
    assert len(list((root / "masks").iterdir())) == len(frame)


def test_when_nothing_is_left_it_says_so(tmp_path, refused, root):
    (tmp_path / "source" / "a").mkdir(parents=True)
    (tmp_path / "source" / "a" / "x.jpg").write_bytes(png_that_claims(30_000, 30_000))
    error = refused("folder", "--source", tmp_path / "source", "--classes", "a", "--skip-bad")
    assert "none of the 1 images can be used" in error
    assert not root.exists()
